/**
 * Options of `listen` and `connect`, checked before any descriptor exists. Names and meanings are Bun's; what this library
 * adds stands behind them.
 */
import { integerOption, invalidType, outOfRange } from "../errors.ts"
import { encodeUnix, portOption } from "../reactor/address.ts"
import { type AcceptLimits, checkAcceptLimits } from "./accept_gate.ts"
import type { SocketHandlers } from "./handlers.ts"

/** Accept queue of a listener. Bun's is 512 whatever is asked for: bursts then wait for SYN retries. */
export const DEFAULT_BACKLOG = 4096
const MAX_BACKLOG = 2 ** 31 - 1
const MAX_TIMEOUT_MS = 2 ** 31 - 1

export interface ListenAddressOptions extends AcceptLimits {
  /** Address or name to listen on. */
  hostname?: string
  /** 0 picks a free one. */
  port?: number
  /** Path of a unix socket instead; a leading NUL is the abstract namespace. */
  unix?: string
  /** Connections that the kernel completes ahead of `accept`, at most (the kernel's somaxconn caps it). Default 4096. */
  backlog?: number
  /** Several listeners on one port share the connections (SO_REUSEPORT). */
  reusePort?: boolean
  /** Listen on IPv6 alone, not on IPv4 through it. */
  ipv6Only?: boolean
  /** Without SO_REUSEADDR: not even a port in TIME_WAIT is shared. */
  exclusive?: boolean
  /** The end of the peer's side does not end ours. */
  allowHalfOpen?: boolean
}

export interface SocketOptions<Data> {
  socket: SocketHandlers<Data>
  /** Initial `socket.data`. */
  data?: Data
  /** Handlers get views of the receive buffers, valid until they return, instead of copies. See docs/limits.md. */
  borrow?: boolean
}

export interface ConnectAddressOptions {
  /** Address or name to connect to. */
  hostname?: string
  port?: number
  /** Path of a unix socket instead. */
  unix?: string
  allowHalfOpen?: boolean
  /** Gives up connecting. */
  signal?: AbortSignal
  /** Gives up connecting after this long, milliseconds. Default: the system's, about two minutes. */
  timeoutMs?: number
}

const LISTEN_NAMES = new Set([
  "hostname",
  "port",
  "unix",
  "backlog",
  "reusePort",
  "ipv6Only",
  "exclusive",
  "allowHalfOpen",
  "maxConnections",
  "acceptsPerSecond",
  "acceptBurst",
  "socket",
  "data",
  "borrow",
])
const CONNECT_NAMES = new Set([
  "hostname",
  "port",
  "unix",
  "allowHalfOpen",
  "signal",
  "timeoutMs",
  "socket",
  "data",
  "borrow",
])

/** Where to listen or to connect to. */
export type Target = { hostname: string; port: number } | { unix: string }

export function checkListen(options: ListenAddressOptions): Target {
  const target = targetOf(options, LISTEN_NAMES, 0)
  for (const name of ["reusePort", "ipv6Only", "exclusive", "allowHalfOpen"] as const)
    booleanOption(name, options[name])
  checkAcceptLimits(options)
  integerOption("backlog", options.backlog ?? DEFAULT_BACKLOG, 1, MAX_BACKLOG)
  return target
}

export function checkConnect(options: ConnectAddressOptions): Target {
  const target = targetOf(options, CONNECT_NAMES, undefined)
  booleanOption("allowHalfOpen", options.allowHalfOpen)
  timeoutOption("timeoutMs", options.timeoutMs)
  if (options.signal !== undefined && !(options.signal instanceof AbortSignal)) {
    throw invalidType("signal", "an AbortSignal", options.signal)
  }
  return target
}

/** Checks a deadline; undefined is none. */
export function timeoutOption(name: string, value: unknown): number | undefined {
  return value === undefined ? undefined : integerOption(name, value, 1, MAX_TIMEOUT_MS)
}

function targetOf(
  options: ListenAddressOptions,
  names: Set<string>,
  standardPort: number | undefined,
): Target {
  if (typeof options !== "object" || options === null) throw invalidType("options", "an object", options)
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || names.has(name)) continue
    throw outOfRange(`option "${name}"`, `one of ${[...names].join(", ")}`, value)
  }
  const { hostname, port, unix } = options
  if (unix !== undefined) {
    if (typeof unix !== "string") throw invalidType("unix", "a string", unix)
    if (hostname !== undefined || port !== undefined) {
      throw outOfRange("unix", "given without hostname and port", unix)
    }
    encodeUnix(unix)
    return { unix }
  }
  if (hostname === undefined) {
    throw Object.assign(new TypeError('Expected either "hostname" or "unix"'), {
      code: "ERR_INVALID_ARG_TYPE",
    })
  }
  if (typeof hostname !== "string") throw invalidType("hostname", "a string", hostname)
  if (hostname === "") throw outOfRange("hostname", "an address or a name", hostname)
  if (port === undefined && standardPort === undefined) throw invalidType("port", "a number", port)
  return { hostname, port: portOption("port", port ?? standardPort) }
}

function booleanOption(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== "boolean") throw invalidType(name, "a boolean", value)
}
