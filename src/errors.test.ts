// What programs may rely on in an error: the class, the stable code, the sign of errno, and a message that names what was
// wrong and what came instead.

import { describe, expect, test } from "bun:test"
import {
  errnoName,
  integerOption,
  invalidType,
  type OwnCode,
  outOfRange,
  systemError,
  UringloopError,
} from "./errors.ts"

type Coded = Error & { code?: string }

function thrown(call: () => unknown): Coded {
  try {
    call()
  } catch (error) {
    return error as Coded
  }
  throw new Error("nothing was thrown")
}

/** The part of a message that tells what came instead. */
function received(value: unknown): string {
  return invalidType("it", "another", value).message.replace("it must be another, received ", "")
}

describe("UringloopError", () => {
  test("carries a code and a message; errno and syscall only where there are some", () => {
    const code: OwnCode = "REACTOR_CLOSED"
    const error = new UringloopError(code, "the reactor is closed")
    expect(error).toBeInstanceOf(Error)
    expect(error.name).toBe("UringloopError")
    expect(error.code).toBe("REACTOR_CLOSED")
    expect(error.message).toBe("the reactor is closed")
    expect(error.errno).toBeUndefined()
    expect(error.syscall).toBeUndefined()
    expect(error.cause).toBeUndefined()
    expect(String(error)).toBe("UringloopError: the reactor is closed")
  })

  test("errno is given positive and kept negated, as in node's system errors", () => {
    const cause = new Error("below")
    const error = new UringloopError("EPERM", "no", { errno: 1, syscall: "io_uring_setup", cause })
    expect(error.errno).toBe(-1)
    expect(error.syscall).toBe("io_uring_setup")
    expect(error.cause).toBe(cause)
  })
})

describe("errors of the operating system", () => {
  test("errnoName knows what sockets answer", () => {
    const names = {
      1: "EPERM",
      9: "EBADF",
      11: "EAGAIN",
      16: "EBUSY",
      24: "EMFILE",
      32: "EPIPE",
      98: "EADDRINUSE",
      104: "ECONNRESET",
      105: "ENOBUFS",
      107: "ENOTCONN",
      110: "ETIMEDOUT",
      111: "ECONNREFUSED",
      125: "ECANCELED",
    }
    for (const [errno, name] of Object.entries(names)) expect(errnoName(Number(errno))).toBe(name)
  })

  test("systemError takes what an operation answered: a negated errno", () => {
    const error = systemError(-111, "connect", "127.0.0.1:80")
    expect(error).toBeInstanceOf(UringloopError)
    expect(error.code).toBe("ECONNREFUSED")
    expect(error.errno).toBe(-111)
    expect(error.syscall).toBe("connect")
    expect(error.message).toBe("connect ECONNREFUSED 127.0.0.1:80")
  })

  test("systemError without a detail ends with the code", () => {
    expect(systemError(-32, "write").message).toBe("write EPIPE")
  })

  test("the fields are those of node's own error for the same failure", async () => {
    const { promise, resolve } = Promise.withResolvers<NodeJS.ErrnoException>()
    // Port 1 of the loopback: nobody listens there.
    const { connect } = await import("node:net")
    connect({ host: "127.0.0.1", port: 1 }).on("error", resolve)
    const node = await promise
    const own = systemError(-111, "connect", "127.0.0.1:1")
    expect(own.code).toBe(node.code ?? "")
    expect(own.syscall).toBe(node.syscall)
    expect(own.errno).toBe(node.errno)
  })
})

describe("errors of options", () => {
  test("a wrong type is a TypeError with node's code", () => {
    const error = invalidType("port", "a number", true) as Coded
    expect(error).toBeInstanceOf(TypeError)
    expect(error.code).toBe("ERR_INVALID_ARG_TYPE")
    expect(error.message).toBe("port must be a number, received true")
  })

  test("a value outside of what is allowed is a RangeError with node's code", () => {
    const error = outOfRange("port", "an integer from 0 to 65535", 70000) as Coded
    expect(error).toBeInstanceOf(RangeError)
    expect(error.code).toBe("ERR_OUT_OF_RANGE")
    expect(error.message).toBe("port must be an integer from 0 to 65535, received 70000")
  })

  test("what was received is told so that it can be recognised", () => {
    expect(received("80")).toBe('"80"')
    expect(received("")).toBe('""')
    expect(received("a\0b\n")).toBe('"a\\u0000b\\n"')
    expect(received(80)).toBe("80")
    expect(received(Number.NaN)).toBe("NaN")
    expect(received(-0.5)).toBe("-0.5")
    expect(received(80n)).toBe("80")
    expect(received(undefined)).toBe("undefined")
    expect(received(null)).toBe("null")
    expect(received(false)).toBe("false")
    expect(received(Symbol("s"))).toBe("Symbol(s)")
    expect(received(function open() {})).toBe("function open")
    expect(received(class Listener {})).toBe("function Listener")
  })

  test("an object is told by its class, never by what is in it", () => {
    expect(received({ password: "secret" })).toBe("an instance of Object")
    expect(received([1, 2])).toBe("an instance of Array")
    expect(received(new Uint8Array(4))).toBe("an instance of Uint8Array")
    expect(received(new Date(0))).toBe("an instance of Date")
    expect(received(Object.create(null))).toBe("an instance of Object")
  })

  test("a long string is cut", () => {
    expect(received("x".repeat(100))).toBe(`"${"x".repeat(100)}"`)
    expect(received("x".repeat(101))).toBe(`"${"x".repeat(100)}…"`)
    expect(received("x".repeat(100_000)).length).toBeLessThan(120)
  })
})

describe("integerOption", () => {
  test("returns what is allowed, the limits among it", () => {
    for (const value of [1, 2, 9, 10]) expect(integerOption("n", value, 1, 10)).toBe(value)
    expect(integerOption("n", -3, -3, -3)).toBe(-3)
    expect(integerOption("n", 2 ** 32 - 1, 0, 2 ** 32 - 1)).toBe(2 ** 32 - 1)
  })

  test("refuses numbers that are not, each with the limits in the message", () => {
    for (const value of [0, 11, 1.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const error = thrown(() => integerOption("n", value, 1, 10))
      expect(error).toBeInstanceOf(RangeError)
      expect(error.message).toBe(`n must be an integer from 1 to 10, received ${value}`)
    }
  })

  test("refuses what is no number at all", () => {
    for (const value of ["5", undefined, null, true, 5n, {}, [5]]) {
      const error = thrown(() => integerOption("n", value, 1, 10))
      expect(error).toBeInstanceOf(TypeError)
      expect(error.message).toStartWith("n must be a number, received ")
    }
  })
})
