/**
 * Socket addresses between people's text and `struct ul_address` (ffi/abi.ts, ADDRESS_*). Only numeric addresses here;
 * names are resolved in net.
 */
import { isIPv4, isIPv6 } from "node:net"
import * as abi from "../../ffi/abi.ts"
import { integerOption, invalidType, outOfRange } from "../errors.ts"

export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10

export interface IpAddress {
  family: "IPv4" | "IPv6"
  address: string
  port: number
}

export interface UnixAddress {
  family: "unix"
  /** A leading NUL is the abstract namespace. Empty for an unnamed socket. */
  path: string
}

export type SocketAddress = IpAddress | UnixAddress

const MAX_PORT = 65535

/** @throws TypeError, RangeError */
export function portOption(name: string, value: unknown): number {
  const port = typeof value === "string" && value.trim() !== "" ? Number(value) : value
  return integerOption(name, port, 0, MAX_PORT)
}

/** Encodes a numeric IP address. `address` may carry a scope: "fe80::1%2". @throws RangeError */
export function encodeIp(address: string, port: number): Uint8Array {
  const record = new Uint8Array(abi.ADDRESS_SIZE)
  const view = new DataView(record.buffer)
  view.setUint16(abi.ADDRESS_PORT, port, true)
  if (isIPv4(address)) {
    view.setUint16(abi.ADDRESS_FAMILY, AF_INET, true)
    record.set(address.split(".").map(Number), abi.ADDRESS_IP)
  } else if (isIPv6(address)) {
    const [ip, scope] = address.split("%")
    view.setUint16(abi.ADDRESS_FAMILY, AF_INET6, true)
    if (scope !== undefined)
      view.setUint32(abi.ADDRESS_SCOPE, integerOption("scope", Number(scope), 0, 2 ** 32 - 1), true)
    record.set(ipv6Bytes(ip), abi.ADDRESS_IP)
  } else {
    throw outOfRange("address", "an IPv4 or IPv6 address", address)
  }
  return record
}

/** Encodes the path of a unix socket. @throws TypeError, RangeError */
export function encodeUnix(path: string): Uint8Array {
  if (typeof path !== "string") throw invalidType("unix", "a string", path)
  const bytes = new TextEncoder().encode(path)
  const isAbstract = bytes[0] === 0
  // The kernel wants a path to end with a NUL, an abstract name not.
  const most = isAbstract ? abi.PATH_BYTES : abi.PATH_BYTES - 1
  if (bytes.length === 0 || bytes.length > most) {
    throw outOfRange("unix", `a path of 1 to ${most} bytes`, path)
  }
  if (!isAbstract && bytes.includes(0)) throw outOfRange("unix", "a path without NUL bytes", path)
  const record = new Uint8Array(abi.ADDRESS_SIZE)
  const view = new DataView(record.buffer)
  view.setUint16(abi.ADDRESS_FAMILY, AF_UNIX, true)
  view.setUint32(abi.ADDRESS_PATH_LENGTH, bytes.length, true)
  record.set(bytes, abi.ADDRESS_PATH)
  return record
}

export function familyOf(record: Uint8Array): number {
  return record[abi.ADDRESS_FAMILY] | (record[abi.ADDRESS_FAMILY + 1] << 8)
}

export function decode(record: Uint8Array): SocketAddress {
  const view = new DataView(record.buffer, record.byteOffset)
  const port = view.getUint16(abi.ADDRESS_PORT, true)
  const family = familyOf(record)
  if (family === AF_INET) {
    return { family: "IPv4", address: record.subarray(abi.ADDRESS_IP, abi.ADDRESS_IP + 4).join("."), port }
  }
  if (family === AF_INET6) {
    const scope = view.getUint32(abi.ADDRESS_SCOPE, true)
    const text = ipv6Text(view)
    return { family: "IPv6", address: scope === 0 ? text : `${text}%${scope}`, port }
  }
  const length = view.getUint32(abi.ADDRESS_PATH_LENGTH, true)
  const path = new TextDecoder().decode(record.subarray(abi.ADDRESS_PATH, abi.ADDRESS_PATH + length))
  return { family: "unix", path }
}

/** How people read an address: "127.0.0.1:80", "[::1]:80", "/run/a.sock". */
export function describeAddress(address: SocketAddress): string {
  if (address.family === "unix") return address.path.replace(/^\0/, "@")
  return address.family === "IPv6"
    ? `[${address.address}]:${address.port}`
    : `${address.address}:${address.port}`
}

function ipv6Bytes(text: string): number[] {
  // "::ffff:1.2.3.4": the dotted tail is two groups.
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text)
  const plain = dotted
    ? `${dotted[1]}${((+dotted[2] << 8) | +dotted[3]).toString(16)}:${((+dotted[4] << 8) | +dotted[5]).toString(16)}`
    : text
  const [head, tail] = plain.split("::")
  const groups = (part: string | undefined) => (part ? part.split(":") : [])
  const before = groups(head)
  const after = groups(tail)
  const middle = new Array(tail === undefined ? 0 : 8 - before.length - after.length).fill("0")
  return [...before, ...middle, ...after].flatMap((group) => {
    const value = Number.parseInt(group, 16)
    return [value >> 8, value & 0xff]
  })
}

function ipv6Text(view: DataView): string {
  const groups: number[] = []
  for (let i = 0; i < 8; i++) groups.push(view.getUint16(abi.ADDRESS_IP + 2 * i, false))
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    const [a, b] = groups.slice(6)
    return `::ffff:${a >> 8}.${a & 0xff}.${b >> 8}.${b & 0xff}`
  }
  // The runtime's URL parser writes the canonical form (RFC 5952).
  return new URL(`http://[${groups.map((group) => group.toString(16)).join(":")}]`).hostname.slice(1, -1)
}
