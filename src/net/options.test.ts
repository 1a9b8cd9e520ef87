// Options of `listen` and `connect`: where they lead to, and what is refused with which words before any descriptor exists.

import { describe, expect, test } from "bun:test"
import {
  type ConnectAddressOptions,
  checkConnect,
  checkListen,
  type ListenAddressOptions,
  timeoutOption,
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

/** The two checks, for options that the types would not let through. */
const listenTo = (options: unknown) => checkListen(options as ListenAddressOptions)
const connectTo = (options: unknown) => checkConnect(options as ConnectAddressOptions)

function expectType(error: Coded, message: string): void {
  expect(error).toBeInstanceOf(TypeError)
  expect(error.code).toBe("ERR_INVALID_ARG_TYPE")
  expect(error.message).toBe(message)
}

function expectRange(error: Coded, message: string): void {
  expect(error).toBeInstanceOf(RangeError)
  expect(error.code).toBe("ERR_OUT_OF_RANGE")
  expect(error.message).toBe(message)
}

describe.each([
  ["listen", listenTo],
  ["connect", connectTo],
] as const)("where to %s", (_name, check) => {
  test("a host name and a port, the port as a number or its text", () => {
    expect(check({ hostname: "example.com", port: 80 })).toEqual({ hostname: "example.com", port: 80 })
    expect(check({ hostname: "::1", port: "65535" })).toEqual({ hostname: "::1", port: 65535 })
    expect(check({ hostname: "127.0.0.1", port: 0 })).toEqual({ hostname: "127.0.0.1", port: 0 })
  })

  test("a unix path, an abstract name", () => {
    expect(check({ unix: "/run/a.sock" })).toEqual({ unix: "/run/a.sock" })
    expect(check({ unix: "\0name" })).toEqual({ unix: "\0name" })
    expect(check({ unix: "a", hostname: undefined, port: undefined })).toEqual({ unix: "a" })
  })

  test("the target has nothing else in it", () => {
    expect(check({ hostname: "h", port: 1, socket: {}, data: 2, borrow: true, allowHalfOpen: true })).toEqual(
      {
        hostname: "h",
        port: 1,
      },
    )
  })

  test("refused: neither or both of hostname and unix", () => {
    for (const options of [{}, { port: 80 }, { hostname: undefined, port: 80 }]) {
      expectType(
        thrown(() => check(options)),
        'Expected either "hostname" or "unix"',
      )
    }
    for (const options of [{ hostname: "h" }, { port: 80 }, { hostname: "h", port: 80 }]) {
      expectRange(
        thrown(() => check({ unix: "/a", ...options })),
        'unix must be given without hostname and port, received "/a"',
      )
    }
  })

  test("refused: wrong types", () => {
    expectType(
      thrown(() => check({ hostname: 1, port: 80 })),
      "hostname must be a string, received 1",
    )
    expectType(
      thrown(() => check({ hostname: null, port: 80 })),
      "hostname must be a string, received null",
    )
    expectType(
      thrown(() => check({ unix: 1 })),
      "unix must be a string, received 1",
    )
    expectType(
      thrown(() => check({ hostname: "h", port: true })),
      "port must be a number, received true",
    )
    for (const options of [null, 80, "127.0.0.1", true]) {
      expect(thrown(() => check(options))).toBeInstanceOf(TypeError)
      expect(thrown(() => check(options)).message).toStartWith("options must be an object, received ")
    }
  })

  test("refused: values out of range", () => {
    expectRange(
      thrown(() => check({ hostname: "", port: 80 })),
      'hostname must be an address or a name, received ""',
    )
    for (const port of [-1, 65536, 80.5, Number.NaN]) {
      expectRange(
        thrown(() => check({ hostname: "h", port })),
        `port must be an integer from 0 to 65535, received ${port}`,
      )
    }
    expectRange(
      thrown(() => check({ hostname: "h", port: "http" })),
      "port must be an integer from 0 to 65535, received NaN",
    )
  })

  test("refused: a unix path that the kernel could not take", () => {
    expectRange(
      thrown(() => check({ unix: "" })),
      'unix must be a path of 1 to 107 bytes, received ""',
    )
    expect(check({ unix: "p".repeat(107) })).toEqual({ unix: "p".repeat(107) })
    expect(thrown(() => check({ unix: "p".repeat(108) }))).toBeInstanceOf(RangeError)
    expect(thrown(() => check({ unix: "a\0b" }))).toBeInstanceOf(RangeError)
  })

  test("refused: allowHalfOpen that is no boolean", () => {
    for (const [value, received] of [
      [1, "1"],
      ["true", '"true"'],
      [null, "null"],
    ]) {
      expectType(
        thrown(() => check({ hostname: "h", port: 1, allowHalfOpen: value })),
        `allowHalfOpen must be a boolean, received ${received}`,
      )
    }
  })

  test("refused: options that do not exist, unless they are undefined", () => {
    const error = thrown(() => check({ hostname: "h", port: 1, tls: true }))
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toMatch(/^option "tls" must be one of hostname, port, unix, .*, received true$/)
    expect(check({ hostname: "h", port: 1, tls: undefined })).toEqual({ hostname: "h", port: 1 })
  })
})

describe("listen", () => {
  const base = { hostname: "h", port: 1 }

  test("picks a free port when none is given", () => {
    expect(listenTo({ hostname: "localhost" })).toEqual({ hostname: "localhost", port: 0 })
  })

  test.each(["reusePort", "ipv6Only", "exclusive", "allowHalfOpen"])("%s is a boolean", (name) => {
    for (const value of [true, false, undefined]) expect(listenTo({ ...base, [name]: value })).toEqual(base)
    for (const value of [0, "yes", null, {}]) {
      const error = thrown(() => listenTo({ ...base, [name]: value }))
      expect(error).toBeInstanceOf(TypeError)
      expect(error.message).toStartWith(`${name} must be a boolean, received `)
    }
  })

  test("backlog is a positive integer", () => {
    for (const backlog of [1, 512, 2 ** 31 - 1, undefined])
      expect(listenTo({ ...base, backlog })).toEqual(base)
    for (const backlog of [0, -1, 2 ** 31, 1.5, Number.NaN]) {
      expectRange(
        thrown(() => listenTo({ ...base, backlog })),
        `backlog must be an integer from 1 to 2147483647, received ${backlog}`,
      )
    }
    expectType(
      thrown(() => listenTo({ ...base, backlog: "512" })),
      'backlog must be a number, received "512"',
    )
  })

  test("options of connect are refused", () => {
    for (const name of ["signal", "timeoutMs"]) {
      expect(thrown(() => listenTo({ ...base, [name]: 1 })).message).toStartWith(
        `option "${name}" must be one of `,
      )
    }
  })
})

describe("connect", () => {
  const base = { hostname: "h", port: 1 }

  test("needs a port", () => {
    expectType(
      thrown(() => connectTo({ hostname: "h" })),
      "port must be a number, received undefined",
    )
  })

  test("signal is an AbortSignal; whether it is aborted is looked at later", () => {
    for (const signal of [new AbortController().signal, AbortSignal.abort(), undefined]) {
      expect(connectTo({ ...base, signal })).toEqual(base)
    }
    for (const signal of [new AbortController(), {}, null, 1, new EventTarget()]) {
      const error = thrown(() => connectTo({ ...base, signal }))
      expect(error).toBeInstanceOf(TypeError)
      expect(error.message).toStartWith("signal must be an AbortSignal, received ")
    }
  })

  test("timeoutMs is a positive integer that a timer can hold", () => {
    for (const timeoutMs of [1, 1000, 2 ** 31 - 1, undefined]) {
      expect(connectTo({ ...base, timeoutMs })).toEqual(base)
    }
    for (const timeoutMs of [0, -1, 2 ** 31, 0.5, Number.POSITIVE_INFINITY, Number.NaN]) {
      expectRange(
        thrown(() => connectTo({ ...base, timeoutMs })),
        `timeoutMs must be an integer from 1 to 2147483647, received ${timeoutMs}`,
      )
    }
    expectType(
      thrown(() => connectTo({ ...base, timeoutMs: "1s" })),
      'timeoutMs must be a number, received "1s"',
    )
  })

  test("options of listen are refused", () => {
    for (const name of ["backlog", "reusePort", "ipv6Only", "exclusive"]) {
      expect(thrown(() => connectTo({ ...base, [name]: true })).message).toStartWith(
        `option "${name}" must be one of `,
      )
    }
  })
})

describe("timeoutOption", () => {
  test("returns what it was given; undefined is no deadline", () => {
    expect(timeoutOption("waitMs", undefined)).toBeUndefined()
    expect(timeoutOption("waitMs", 5)).toBe(5)
  })

  test("refuses by the name it was given", () => {
    expectRange(
      thrown(() => timeoutOption("waitMs", 0)),
      "waitMs must be an integer from 1 to 2147483647, received 0",
    )
    expectType(
      thrown(() => timeoutOption("waitMs", null)),
      "waitMs must be a number, received null",
    )
  })
})
