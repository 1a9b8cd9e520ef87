// Every option of a reactor: what it takes, what it refuses and with which words, what the environment says when the
// program does not, and each byte of the configuration record that the shim is given.

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import * as abi from "../../ffi/abi.ts"
import {
  type FeatureName,
  featureNames,
  type ReactorOptions,
  reasonOf,
  setEngine,
  settle,
} from "./options.ts"

type Coded = Error & { code?: string }

function thrown(call: () => unknown): Coded {
  try {
    call()
  } catch (error) {
    return error as Coded
  }
  throw new Error("nothing was thrown")
}

/** Options that the types would not let through. */
function wrong(options: object): ReactorOptions {
  return options as ReactorOptions
}

const VARIABLES = ["URINGLOOP_ENGINE", "URINGLOOP_HOST"]
const outside: (string | undefined)[] = []

beforeEach(() => {
  for (const name of VARIABLES) {
    outside.push(process.env[name])
    delete process.env[name]
  }
})

afterEach(() => {
  for (const name of VARIABLES) {
    const value = outside.shift()
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  }
})

const MIB = 1024 * 1024

/** The options that become one number of the record. */
const SIZES = [
  { name: "sendArenaBytes", offset: abi.CONFIG_ARENA_BYTES, least: MIB, most: 1024 * MIB, step: "mib" },
  { name: "receiveBuffers", offset: abi.CONFIG_BUFFER_COUNT, least: 1, most: 32768, step: "power" },
  { name: "receiveBufferBytes", offset: abi.CONFIG_BUFFER_BYTES, least: 64, most: MIB, step: "power" },
  { name: "submissionEntries", offset: abi.CONFIG_SUBMISSION_ENTRIES, least: 8, most: 32768, step: "power" },
  { name: "completionEntries", offset: abi.CONFIG_COMPLETION_ENTRIES, least: 16, most: 65536, step: "power" },
] as const

/** The record as words that are not zero, by byte offset. */
function wordsOf(config: Uint8Array): Record<number, number> {
  const view = new DataView(config.buffer)
  const words: Record<number, number> = {}
  for (let at = 0; at < config.length; at += 4) {
    if (view.getUint32(at, true) !== 0) words[at] = view.getUint32(at, true)
  }
  return words
}

describe("without options", () => {
  test("engine auto, hosted, a stay of 1 ms, 1,048,576 operations", () => {
    const settings = settle({})
    expect(settings.engine).toBe("auto")
    expect(settings.host).toBe("hosted")
    expect(settings.stayNs).toBe(1_000_000)
    expect(settings.maxOperations).toBe(1_048_576)
  })

  test("the record names the slots alone, twice as many as operations; the shim chooses the rest", () => {
    const { config } = settle({})
    expect(config.length).toBe(abi.CONFIG_SIZE)
    expect(wordsOf(config)).toEqual({ [abi.CONFIG_SLOT_CAPACITY]: 2_097_152 })
  })

  test("undefined is as good as absent", () => {
    const options = Object.fromEntries(SIZES.map(({ name }) => [name, undefined]))
    const { config } = settle(wrong({ ...options, engine: undefined, host: undefined, disable: undefined }))
    expect(wordsOf(config)).toEqual({ [abi.CONFIG_SLOT_CAPACITY]: 2_097_152 })
  })

  test("each record is a new one", () => {
    expect(settle({}).config.buffer).not.toBe(settle({}).config.buffer)
  })
})

describe.each(SIZES)("$name", ({ name, offset, least, most, step }) => {
  const refusal = (value: unknown) => thrown(() => settle(wrong({ [name]: value })))

  test("goes into its place of the record and nowhere else", () => {
    for (const value of [least, 2 * least, most / 2, most]) {
      const { config } = settle(wrong({ [name]: value }))
      expect(wordsOf(config)).toEqual({ [abi.CONFIG_SLOT_CAPACITY]: 2_097_152, [offset]: value })
    }
  })

  test("is refused beyond its limits", () => {
    for (const value of [0, -1, least - 1, most + 1, 2 * most, Number.NaN, Number.POSITIVE_INFINITY, 64.5]) {
      const error = refusal(value)
      expect(error).toBeInstanceOf(RangeError)
      expect(error.code).toBe("ERR_OUT_OF_RANGE")
      expect(error.message).toBe(`${name} must be an integer from ${least} to ${most}, received ${value}`)
    }
  })

  test("is refused between its steps", () => {
    const value = step === "mib" ? 2 * MIB + 1 : most - 1
    const steps = step === "mib" ? "a multiple of 1048576 (1 MiB)" : "a power of two"
    const error = refusal(value)
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toBe(`${name} must be ${steps}, received ${value}`)
  })

  test("is refused when it is no number", () => {
    for (const value of [String(least), null, true, [least], BigInt(least)]) {
      const error = refusal(value)
      expect(error).toBeInstanceOf(TypeError)
      expect(error.code).toBe("ERR_INVALID_ARG_TYPE")
      expect(error.message).toStartWith(`${name} must be a number, received `)
    }
  })
})

test("sendArenaBytes need be no power of two", () => {
  const { config } = settle({ sendArenaBytes: 3 * MIB })
  expect(wordsOf(config)[abi.CONFIG_ARENA_BYTES]).toBe(3 * MIB)
})

describe("maxOperations", () => {
  test("takes any integer from 16 to half of the slots that the shim can have", () => {
    for (const value of [16, 17, 1000, abi.MAX_SLOTS / 2]) {
      const settings = settle({ maxOperations: value })
      expect(settings.maxOperations).toBe(value)
      expect(wordsOf(settings.config)).toEqual({ [abi.CONFIG_SLOT_CAPACITY]: 2 * value })
    }
  })

  test("is refused otherwise", () => {
    for (const value of [15, 0, -16, abi.MAX_SLOTS / 2 + 1, 16.5, Number.NaN]) {
      const error = thrown(() => settle({ maxOperations: value }))
      expect(error).toBeInstanceOf(RangeError)
      expect(error.message).toBe(`maxOperations must be an integer from 16 to 8388608, received ${value}`)
    }
    const error = thrown(() => settle(wrong({ maxOperations: "16" })))
    expect(error).toBeInstanceOf(TypeError)
    expect(error.message).toBe('maxOperations must be a number, received "16"')
  })
})

describe("stayMicroseconds", () => {
  test("takes 0 to 1000, and counts in nanoseconds from there on", () => {
    for (const [microseconds, nanoseconds] of [
      [0, 0],
      [1, 1000],
      [250, 250_000],
      [1000, 1_000_000],
    ]) {
      expect(settle({ stayMicroseconds: microseconds }).stayNs).toBe(nanoseconds)
    }
  })

  test("is refused otherwise", () => {
    for (const value of [-1, 1001, 0.5, Number.NaN]) {
      expect(thrown(() => settle({ stayMicroseconds: value })).message).toBe(
        `stayMicroseconds must be an integer from 0 to 1000, received ${value}`,
      )
    }
    expect(thrown(() => settle(wrong({ stayMicroseconds: "1" })))).toBeInstanceOf(TypeError)
  })
})

const CHOICES = [
  { name: "engine", variable: "URINGLOOP_ENGINE", allowed: ["auto", "uring", "poll", "epoll"] },
  { name: "host", variable: "URINGLOOP_HOST", allowed: ["hosted", "owned"] },
] as const

describe.each(CHOICES)("$name", ({ name, variable, allowed }) => {
  const standard = allowed[0]
  const list = allowed.join(", ")

  test("takes its names", () => {
    for (const choice of allowed) expect(settle(wrong({ [name]: choice }))[name]).toBe(choice)
  })

  test("refuses others, and what is no string", () => {
    for (const choice of ["", "URING", "toString", " hosted"]) {
      const error = thrown(() => settle(wrong({ [name]: choice })))
      expect(error).toBeInstanceOf(RangeError)
      expect(error.message).toBe(`${name} must be one of ${list}, received ${JSON.stringify(choice)}`)
    }
    process.env[variable] = standard
    for (const choice of [1, null, true]) {
      const error = thrown(() => settle(wrong({ [name]: choice })))
      expect(error).toBeInstanceOf(TypeError)
      expect(error.message).toBe(`${name} must be a string, received ${choice}`)
    }
  })

  test("comes from the environment when the program does not say; the program wins", () => {
    for (const choice of allowed) {
      process.env[variable] = choice
      expect(settle({})[name]).toBe(choice)
      expect(settle(wrong({ [name]: standard }))[name]).toBe(standard)
    }
  })

  test("an empty variable is none", () => {
    process.env[variable] = ""
    expect(settle({})[name]).toBe(standard)
  })

  test("a wrong variable is refused by the variable's name, and does not matter when the program says", () => {
    process.env[variable] = "libev"
    const error = thrown(() => settle({}))
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toBe(`${variable} must be one of ${list}, received "libev"`)
    expect(settle(wrong({ [name]: standard }))[name]).toBe(standard)
  })
})

const FEATURES: Record<FeatureName, number> = {
  defer_taskrun: abi.FEATURE_DEFER_TASKRUN,
  single_issuer: abi.FEATURE_SINGLE_ISSUER,
  coop_taskrun: abi.FEATURE_COOP_TASKRUN,
  buffer_ring: abi.FEATURE_BUFFER_RING,
  incremental_buffers: abi.FEATURE_INCREMENTAL,
  multishot_recv: abi.FEATURE_MULTISHOT_RECV,
  multishot_accept: abi.FEATURE_MULTISHOT_ACCEPT,
  skip_success: abi.FEATURE_SKIP_SUCCESS,
  registered_ring: abi.FEATURE_REGISTERED_RING,
  no_iowait: abi.FEATURE_NO_IOWAIT,
  min_wait: abi.FEATURE_MIN_WAIT,
  restrictions: abi.FEATURE_RESTRICTIONS,
}

describe("disable", () => {
  const bitsOf = (disable: FeatureName[]) => wordsOf(settle({ disable }).config)[abi.CONFIG_DISABLE] ?? 0

  test("sets the bit of each name", () => {
    for (const [name, bit] of Object.entries(FEATURES)) expect(bitsOf([name as FeatureName])).toBe(bit)
    expect(bitsOf([])).toBe(0)
    expect(bitsOf(["multishot_recv", "buffer_ring", "multishot_recv"])).toBe(
      abi.FEATURE_MULTISHOT_RECV | abi.FEATURE_BUFFER_RING,
    )
  })

  test("knows every feature of the shim", () => {
    const known = Object.entries(abi).filter(([name]) => name.startsWith("FEATURE_"))
    expect(bitsOf(Object.keys(FEATURES) as FeatureName[])).toBe(
      known.reduce((bits, [, bit]) => bits | (bit as number), 0),
    )
  })

  test("refuses what is no list", () => {
    for (const disable of ["multishot_recv", 5, null, { length: 0 }]) {
      const error = thrown(() => settle(wrong({ disable })))
      expect(error).toBeInstanceOf(TypeError)
      expect(error.code).toBe("ERR_INVALID_ARG_TYPE")
      expect(error.message).toStartWith("disable must be an array, received ")
    }
  })

  test("refuses other names, also those that every object has", () => {
    for (const name of ["toString", "__proto__", "", 1]) {
      expect(thrown(() => settle(wrong({ disable: [name] })))).toBeInstanceOf(RangeError)
    }
    const error = thrown(() => settle(wrong({ disable: ["multishot_recv", "sqpoll"] })))
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toBe(`disable must be of ${Object.keys(FEATURES).join(", ")}, received "sqpoll"`)
  })
})

describe("options that do not exist", () => {
  test("are refused by name, with those that do", () => {
    const error = thrown(() => settle(wrong({ sqpoll: true })))
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toBe(
      'option "sqpoll" must be one of engine, host, maxOperations, sendArenaBytes, maxQueuedBytes, maxConnections, ' +
        "overload, receiveBuffers, receiveBufferBytes, submissionEntries, completionEntries, stayMicroseconds, debug, disable, " +
        'received "sqpoll"',
    )
  })

  test.each([
    [{ maxQueuedBytes: 1023 }, "maxQueuedBytes must be an integer from 1024 to 1048576"],
    [{ maxConnections: 0 }, "maxConnections must be an integer from 1"],
    [{ overload: 5 }, "overload must be an object"],
    [{ overload: { resetMs: 1 } }, 'option "overload.resetMs" must be one of memoryShare, refuseAfterMs'],
    [{ overload: { memoryShare: 1.5 } }, "overload.memoryShare must be above 0, at most 1"],
    [{ overload: { refuseAfterMs: -1 } }, "overload.refuseAfterMs must be an integer from 0"],
    [{ overload: { resetAfterMs: 0 } }, "overload.resetAfterMs must be an integer from 1"],
    [{ debug: 1 }, "debug must be a boolean or an object"],
    [{ debug: { scan: 1 } }, 'option "debug.scan" must be one of scanMs, boundMs, report'],
    [{ debug: { scanMs: 0 } }, "debug.scanMs must be an integer from 1"],
    [{ debug: { boundMs: "5" } }, "debug.boundMs must be a number"],
    [{ debug: { report: 5 } }, "debug.report must be a function"],
  ])("limits and debug mode: %j", (options, message) => {
    expect(thrown(() => settle(wrong(options))).message).toStartWith(message)
  })

  test("nor is what is no object at all", () => {
    for (const options of [null, 5, "uring", true]) {
      const error = thrown(() => settle(options as unknown as ReactorOptions))
      expect(error).toBeInstanceOf(TypeError)
      expect(error.message).toStartWith("options must be an object, received ")
    }
  })

  test("a wrong case is another name", () => {
    expect(thrown(() => settle(wrong({ Engine: "uring" })))).toBeInstanceOf(RangeError)
  })
})

describe("the record beyond the options", () => {
  test("all options at once", () => {
    const { config } = settle({
      maxOperations: 100,
      sendArenaBytes: 5 * MIB,
      receiveBuffers: 32,
      receiveBufferBytes: 4096,
      submissionEntries: 64,
      completionEntries: 128,
      disable: ["skip_success"],
    })
    setEngine(config, "poll")
    expect(wordsOf(config)).toEqual({
      [abi.CONFIG_ENGINE]: abi.ENGINE_POLL,
      [abi.CONFIG_DISABLE]: abi.FEATURE_SKIP_SUCCESS,
      [abi.CONFIG_SUBMISSION_ENTRIES]: 64,
      [abi.CONFIG_COMPLETION_ENTRIES]: 128,
      [abi.CONFIG_SLOT_CAPACITY]: 200,
      [abi.CONFIG_ARENA_BYTES]: 5 * MIB,
      [abi.CONFIG_BUFFER_COUNT]: 32,
      [abi.CONFIG_BUFFER_BYTES]: 4096,
    })
  })

  test("setEngine writes each engine's number", () => {
    const { config } = settle({})
    for (const [engine, id] of [
      ["uring", abi.ENGINE_URING],
      ["poll", abi.ENGINE_POLL],
      ["epoll", abi.ENGINE_EPOLL],
    ] as const) {
      setEngine(config, engine)
      expect(wordsOf(config)[abi.CONFIG_ENGINE]).toBe(id)
    }
  })

  test("reasonOf reads up to the NUL, or all there is", () => {
    const { config } = settle({})
    expect(reasonOf(config)).toBe("")
    config.set(Buffer.from("io_uring_setup: EPERM\0left over"), abi.CONFIG_REASON)
    expect(reasonOf(config)).toBe("io_uring_setup: EPERM")
    config.fill(120, abi.CONFIG_REASON, abi.CONFIG_REASON + abi.REASON_BYTES)
    expect(reasonOf(config)).toBe("x".repeat(abi.REASON_BYTES))
  })
})

describe("featureNames", () => {
  test("is the way back", () => {
    expect(featureNames(0)).toEqual([])
    expect(featureNames(abi.FEATURE_NO_IOWAIT | abi.FEATURE_DEFER_TASKRUN)).toEqual([
      "defer_taskrun",
      "no_iowait",
    ])
    expect(featureNames(-1)).toEqual(Object.keys(FEATURES) as FeatureName[])
  })
})
