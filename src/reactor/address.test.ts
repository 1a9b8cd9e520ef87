// Addresses there and back: what the kernel would be given, byte by byte, and how it reads again; forms that people write,
// limits of unix paths, and what is refused with which words. The platform's own parser (URL) is the judge of IPv6.

import { describe, expect, test } from "bun:test"
import * as abi from "../../ffi/abi.ts"
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  decode,
  describeAddress,
  encodeIp,
  encodeUnix,
  familyOf,
  portOption,
} from "./address.ts"

type Coded = Error & { code?: string }

function thrown(call: () => unknown): Coded {
  try {
    call()
  } catch (error) {
    return error as Coded
  }
  throw new Error("nothing was thrown")
}

function ipBytes(address: string): number[] {
  return [...encodeIp(address, 0).subarray(abi.ADDRESS_IP, abi.ADDRESS_IP + 16)]
}

/** Groups of an IPv6 address, as bytes in network order. */
function groups(...values: number[]): number[] {
  return values.flatMap((value) => [value >> 8, value & 0xff])
}

describe("IPv4", () => {
  test("the record: family, port in host byte order, the address in network byte order, zeros", () => {
    const record = encodeIp("192.0.2.33", 0x1234)
    const expected = new Uint8Array(abi.ADDRESS_SIZE)
    expected.set([AF_INET, 0], abi.ADDRESS_FAMILY)
    expected.set([0x34, 0x12], abi.ADDRESS_PORT)
    expected.set([192, 0, 2, 33], abi.ADDRESS_IP)
    expect(record).toEqual(expected)
    expect(familyOf(record)).toBe(AF_INET)
  })

  test("there and back", () => {
    for (const address of ["0.0.0.0", "127.0.0.1", "255.255.255.255", "1.20.200.3"]) {
      for (const port of [0, 1, 80, 255, 256, 65535]) {
        expect(decode(encodeIp(address, port))).toEqual({ family: "IPv4", address, port })
      }
    }
  })

  test("forms that only look like it are refused", () => {
    for (const text of [
      "1.2.3",
      "1.2.3.4.5",
      "256.1.1.1",
      "01.2.3.4",
      "1.2.3.4 ",
      "0x7f.0.0.1",
      "",
      "a.b.c.d",
    ]) {
      const error = thrown(() => encodeIp(text, 80))
      expect(error).toBeInstanceOf(RangeError)
      expect(error.code).toBe("ERR_OUT_OF_RANGE")
      expect(error.message).toBe(`address must be an IPv4 or IPv6 address, received ${JSON.stringify(text)}`)
    }
  })
})

describe("IPv6", () => {
  test("the record", () => {
    const record = encodeIp("2001:db8::ff01:a", 443)
    const expected = new Uint8Array(abi.ADDRESS_SIZE)
    expected.set([AF_INET6, 0], abi.ADDRESS_FAMILY)
    expected.set([443 & 0xff, 443 >> 8], abi.ADDRESS_PORT)
    expected.set(groups(0x2001, 0xdb8, 0, 0, 0, 0, 0xff01, 0xa), abi.ADDRESS_IP)
    expect(record).toEqual(expected)
    expect(familyOf(record)).toBe(AF_INET6)
  })

  test("compressed at the start, in the middle, at the end, for one group and for all", () => {
    expect(ipBytes("::")).toEqual(groups(0, 0, 0, 0, 0, 0, 0, 0))
    expect(ipBytes("::1")).toEqual(groups(0, 0, 0, 0, 0, 0, 0, 1))
    expect(ipBytes("1::")).toEqual(groups(1, 0, 0, 0, 0, 0, 0, 0))
    expect(ipBytes("1::8")).toEqual(groups(1, 0, 0, 0, 0, 0, 0, 8))
    expect(ipBytes("1:2:3::6:7:8")).toEqual(groups(1, 2, 3, 0, 0, 6, 7, 8))
    expect(ipBytes("::2:3:4:5:6:7:8")).toEqual(groups(0, 2, 3, 4, 5, 6, 7, 8))
    expect(ipBytes("1:2:3:4:5:6:7::")).toEqual(groups(1, 2, 3, 4, 5, 6, 7, 0))
    expect(ipBytes("1:2:3:4:5:6:7:8")).toEqual(groups(1, 2, 3, 4, 5, 6, 7, 8))
    expect(ipBytes("FFFF:ffff:0:00ab::")).toEqual(groups(0xffff, 0xffff, 0, 0xab, 0, 0, 0, 0))
  })

  test("a dotted tail is two groups", () => {
    expect(ipBytes("::ffff:192.0.2.33")).toEqual(groups(0, 0, 0, 0, 0, 0xffff, 0xc000, 0x221))
    expect(ipBytes("64:ff9b::255.254.1.0")).toEqual(groups(0x64, 0xff9b, 0, 0, 0, 0, 0xfffe, 0x100))
    expect(ipBytes("1:2:3:4:5:6:1.2.3.4")).toEqual(groups(1, 2, 3, 4, 5, 6, 0x102, 0x304))
    expect(ipBytes("::0.0.0.1")).toEqual(groups(0, 0, 0, 0, 0, 0, 0, 1))
  })

  test("is read again in the canonical form (RFC 5952), mapped IPv4 as dotted", () => {
    const canonical = {
      "0:0:0:0:0:0:0:0": "::",
      "0:0:0:0:0:0:0:1": "::1",
      "2001:DB8::000A": "2001:db8::a",
      "2001:db8:0:0:1:0:0:1": "2001:db8::1:0:0:1",
      "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
      "::ffff:c000:221": "::ffff:192.0.2.33",
      "::FFFF:0.0.0.0": "::ffff:0.0.0.0",
      "::ffff:255.255.255.255": "::ffff:255.255.255.255",
      // Not mapped, however similar.
      "::fffe:1.2.3.4": "::fffe:102:304",
      "1::ffff:1.2.3.4": "1::ffff:102:304",
      "::1.2.3.4": "::102:304",
    }
    for (const [text, address] of Object.entries(canonical)) {
      expect(decode(encodeIp(text, 8080))).toEqual({ family: "IPv6", address, port: 8080 })
    }
  })

  test("any groups, against the platform's parser", () => {
    let seed = 20240607
    const random = (below: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff
      return (seed >> 8) % below
    }
    for (let i = 0; i < 500; i++) {
      // Many zeros, so that the compressed part moves about; the first group keeps it from being mapped.
      const values = Array.from({ length: 8 }, () => (random(2) ? 0 : random(0x10000)))
      values[0] = 1 + random(0xffff)
      const text = values.map((value) => value.toString(16)).join(":")
      const short = new URL(`http://[${text}]`).hostname.slice(1, -1)
      expect(ipBytes(text)).toEqual(groups(...values))
      expect(ipBytes(short)).toEqual(groups(...values))
      expect(decode(encodeIp(text, i))).toEqual({ family: "IPv6", address: short, port: i })
    }
  })

  test("a scope travels beside the address", () => {
    const record = encodeIp("fe80::1%4294967295", 80)
    expect(new DataView(record.buffer).getUint32(abi.ADDRESS_SCOPE, true)).toBe(4294967295)
    expect([...record.subarray(abi.ADDRESS_IP, abi.ADDRESS_IP + 16)]).toEqual(ipBytes("fe80::1"))
    for (const address of ["fe80::1%2", "fe80::abcd%300"]) {
      expect(decode(encodeIp(address, 80))).toEqual({ family: "IPv6", address, port: 80 })
    }
    // Scope 0 is none.
    expect(decode(encodeIp("fe80::1%0", 80))).toEqual({ family: "IPv6", address: "fe80::1", port: 80 })
  })

  test("a scope must be a number", () => {
    for (const [scope, received] of [
      ["eth0", "NaN"],
      ["-1", "-1"],
      ["4294967296", "4294967296"],
      ["1.5", "1.5"],
    ]) {
      const error = thrown(() => encodeIp(`fe80::1%${scope}`, 80))
      expect(error).toBeInstanceOf(RangeError)
      expect(error.message).toBe(`scope must be an integer from 0 to 4294967295, received ${received}`)
    }
  })

  test("forms that only look like it are refused", () => {
    for (const text of [
      "[::1]",
      "::1 ",
      "1::2::3",
      "1:2:3:4:5:6:7",
      ":1",
      "12345::",
      "g::",
      "fe80::1%",
      "::1.2.3",
    ]) {
      expect(thrown(() => encodeIp(text, 80)).message).toBe(
        `address must be an IPv4 or IPv6 address, received ${JSON.stringify(text)}`,
      )
    }
  })
})

describe("unix", () => {
  /** Bytes of the record's path, all of them. */
  const pathBytes = (record: Uint8Array) =>
    record.subarray(abi.ADDRESS_PATH, abi.ADDRESS_PATH + abi.PATH_BYTES)
  const pathLength = (record: Uint8Array) =>
    new DataView(record.buffer).getUint32(abi.ADDRESS_PATH_LENGTH, true)

  test("the record", () => {
    const record = encodeUnix("/run/a.sock")
    expect(familyOf(record)).toBe(AF_UNIX)
    expect(pathLength(record)).toBe(11)
    expect([...pathBytes(record).subarray(0, 12)]).toEqual([...Buffer.from("/run/a.sock\0")])
    expect(decode(record)).toEqual({ family: "unix", path: "/run/a.sock" })
  })

  test("a path has 107 bytes at most, because the kernel wants a NUL behind it", () => {
    const longest = "p".repeat(107)
    const record = encodeUnix(longest)
    expect(pathLength(record)).toBe(107)
    expect(pathBytes(record)[107]).toBe(0)
    expect(decode(record)).toEqual({ family: "unix", path: longest })
    const error = thrown(() => encodeUnix("p".repeat(108)))
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toStartWith('unix must be a path of 1 to 107 bytes, received "ppp')
  })

  test("an abstract name may fill all 108 bytes, NULs among them", () => {
    const longest = `\0${"n".repeat(107)}`
    expect(decode(encodeUnix(longest))).toEqual({ family: "unix", path: longest })
    expect(decode(encodeUnix("\0a\0b"))).toEqual({ family: "unix", path: "\0a\0b" })
    expect(thrown(() => encodeUnix(`\0${"n".repeat(108)}`)).message).toStartWith(
      "unix must be a path of 1 to 108 bytes",
    )
  })

  test("bytes count, not characters", () => {
    const path = "é".repeat(53)
    expect(pathLength(encodeUnix(path))).toBe(106)
    expect(decode(encodeUnix(path))).toEqual({ family: "unix", path })
    expect(thrown(() => encodeUnix("é".repeat(54)))).toBeInstanceOf(RangeError)
  })

  test("refused: nothing, a NUL inside of a path, what is no string", () => {
    expect(thrown(() => encodeUnix("")).message).toBe('unix must be a path of 1 to 107 bytes, received ""')
    expect(thrown(() => encodeUnix("/run/a\0b")).message).toBe(
      'unix must be a path without NUL bytes, received "/run/a\\u0000b"',
    )
    const error = thrown(() => encodeUnix(7 as unknown as string))
    expect(error).toBeInstanceOf(TypeError)
    expect(error.message).toBe("unix must be a string, received 7")
  })

  test("a socket without a name has an empty path", () => {
    const record = new Uint8Array(abi.ADDRESS_SIZE)
    record[abi.ADDRESS_FAMILY] = AF_UNIX
    expect(decode(record)).toEqual({ family: "unix", path: "" })
  })
})

describe("decode", () => {
  test("reads a record that is part of a larger array", () => {
    const records = new Uint8Array(3 * abi.ADDRESS_SIZE).fill(0xee)
    records.set(encodeIp("fe80::7%9", 4242), abi.ADDRESS_SIZE)
    const record = records.subarray(abi.ADDRESS_SIZE, 2 * abi.ADDRESS_SIZE)
    expect(familyOf(record)).toBe(AF_INET6)
    expect(decode(record)).toEqual({ family: "IPv6", address: "fe80::7%9", port: 4242 })
    records.set(encodeUnix("/tmp/x"), 0)
    expect(decode(records.subarray(0, abi.ADDRESS_SIZE))).toEqual({ family: "unix", path: "/tmp/x" })
  })
})

describe("describeAddress", () => {
  test("is how people write it", () => {
    expect(describeAddress({ family: "IPv4", address: "127.0.0.1", port: 80 })).toBe("127.0.0.1:80")
    expect(describeAddress({ family: "IPv6", address: "::1", port: 80 })).toBe("[::1]:80")
    expect(describeAddress({ family: "unix", path: "/run/a.sock" })).toBe("/run/a.sock")
    expect(describeAddress({ family: "unix", path: "\0name" })).toBe("@name")
  })
})

describe("portOption", () => {
  test("takes numbers and, as Bun does, their text", () => {
    for (const port of [0, 1, 80, 65535]) {
      expect(portOption("port", port)).toBe(port)
      expect(portOption("port", String(port))).toBe(port)
    }
  })

  test("refuses the rest, by name", () => {
    for (const port of [-1, 65536, 80.5, Number.NaN, "http", "-1", "65536"]) {
      const error = thrown(() => portOption("remotePort", port))
      expect(error).toBeInstanceOf(RangeError)
      expect(error.message).toBe(`remotePort must be an integer from 0 to 65535, received ${Number(port)}`)
    }
    for (const port of ["", "  ", null, undefined, true, 80n, [80]]) {
      const error = thrown(() => portOption("port", port))
      expect(error).toBeInstanceOf(TypeError)
      expect(error.message).toStartWith("port must be a number, received ")
    }
  })
})
