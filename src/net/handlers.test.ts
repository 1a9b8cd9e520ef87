// The handlers of the callback form: which names are taken, which values are refused and with which words (Bun's, where Bun
// has some), and that all handlers objects have one shape.

import { describe, expect, test } from "bun:test"
import { type BinaryType, Handlers } from "./handlers.ts"

type Coded = Error & { code?: string }

function refusal(handlers: unknown): Coded {
  try {
    new Handlers(handlers, false)
  } catch (error) {
    return error as Coded
  }
  throw new Error("nothing was thrown")
}

const NAMES = ["open", "data", "drain", "close", "error", "end", "timeout", "connectError"] as const

function data(): void {}

describe("what is taken", () => {
  test("every handler ends up under its own name", () => {
    const given = Object.fromEntries(NAMES.map((name) => [name, () => name]))
    const handlers = new Handlers(given, false)
    for (const name of NAMES) expect(handlers[name] as unknown).toBe(given[name])
  })

  test("data alone, or drain alone", () => {
    const reader = new Handlers({ data }, false)
    expect(reader.data as unknown).toBe(data)
    for (const name of NAMES) if (name !== "data") expect(reader[name]).toBeUndefined()
    expect(new Handlers({ drain: data }, false).data).toBeUndefined()
  })

  test("handlers that are undefined are absent", () => {
    const absent = Object.fromEntries(NAMES.map((name) => [name, undefined]))
    expect(new Handlers({ ...absent, data }, false).open).toBeUndefined()
  })

  test("methods of a class instance", () => {
    class Echo {
      data() {}
      close() {}
    }
    const echo = new Echo()
    const handlers = new Handlers(echo, false)
    expect(handlers.data as unknown).toBe(echo.data)
    expect(handlers.close as unknown).toBe(echo.close)
  })

  test("what is there when it is made, not what is put there later", () => {
    const given: Record<string, unknown> = { data }
    const handlers = new Handlers(given, false)
    given.data = undefined
    given.open = data
    expect(handlers.data as unknown).toBe(data)
    expect(handlers.open).toBeUndefined()
  })

  test("names that are not handlers are left alone, as in Bun", () => {
    expect(new Handlers({ data, note: 1 }, false)).not.toHaveProperty("note")
  })

  test("borrow is kept", () => {
    expect(new Handlers({ data }, true).borrow).toBe(true)
    expect(new Handlers({ data }, false).borrow).toBe(false)
  })

  test("all have one shape: the same members in the same order", () => {
    const least = Object.keys(new Handlers({ data }, false))
    const all = Object.fromEntries([...NAMES].reverse().map((name) => [name, data]))
    expect(Object.keys(new Handlers({ binaryType: "arraybuffer", ...all }, true))).toEqual(least)
    expect(least.toSorted()).toEqual([...NAMES, "binaryType", "borrow"].toSorted())
  })
})

describe("what is refused", () => {
  test("what is no object", () => {
    for (const handlers of [undefined, null, 1, "data", true, data]) {
      const error = refusal(handlers)
      expect(error).toBeInstanceOf(TypeError)
      expect(error.code).toBe("ERR_INVALID_ARG_TYPE")
      expect(error.message).toBe("SocketOptions.socket is required")
    }
  })

  test.each([...NAMES])("%s that is no function", (name) => {
    for (const value of [null, 0, "handler", {}, true]) {
      const error = refusal({ data, [name]: value })
      expect(error).toBeInstanceOf(TypeError)
      expect(error.code).toBe("ERR_INVALID_ARG_TYPE")
      expect(error.message).toStartWith(`socket.${name} must be a function, received `)
    }
  })

  test("handlers without data and drain: nothing could ever come of them", () => {
    const others = Object.fromEntries(
      NAMES.filter((name) => name !== "data" && name !== "drain").map((name) => [name, data]),
    )
    for (const handlers of [{}, others, []]) {
      const error = refusal(handlers)
      expect(error).toBeInstanceOf(TypeError)
      expect(error.code).toBe("ERR_INVALID_ARG_TYPE")
      expect(error.message).toBe('Expected at least "data" or "drain" callback')
    }
  })

  test("handshake: whoever gives one expects TLS", () => {
    const error = refusal({ data, handshake: data })
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toBe(
      "socket.handshake must be absent: TLS is not offered here, received function data",
    )
    expect(new Handlers({ data, handshake: undefined }, false).data as unknown).toBe(data)
  })
})

describe("binaryType", () => {
  test("is buffer unless said otherwise", () => {
    expect(new Handlers({ data }, false).binaryType).toBe("buffer")
    expect(new Handlers({ data, binaryType: undefined }, false).binaryType).toBe("buffer")
    for (const binaryType of ["buffer", "uint8array", "arraybuffer"] satisfies BinaryType[]) {
      expect(new Handlers({ data, binaryType }, false).binaryType).toBe(binaryType)
    }
  })

  test("others are refused", () => {
    for (const binaryType of ["", "Buffer", "blob", "toString"]) {
      const error = refusal({ data, binaryType })
      expect(error).toBeInstanceOf(RangeError)
      expect(error.code).toBe("ERR_OUT_OF_RANGE")
      expect(error.message).toStartWith(
        "socket.binaryType must be one of buffer, uint8array, arraybuffer, received ",
      )
    }
    for (const binaryType of [1, {}, true]) {
      const error = refusal({ data, binaryType })
      expect(error).toBeInstanceOf(TypeError)
      expect(error.code).toBe("ERR_INVALID_ARG_TYPE")
      expect(error.message).toStartWith("socket.binaryType must be a string, received ")
    }
  })
})
