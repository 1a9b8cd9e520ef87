/**
 * Every error that this library makes: one class, stable codes (the table is docs/errors.md). Codes of the operating
 * system are node's ("ECONNRESET"); the library's own are listed in `OwnCode`.
 */
import { getSystemErrorName } from "node:util"

/** Codes that do not come from the operating system. */
export type OwnCode =
  /** The engine asked for cannot run here; `message` and `cause` say why. */
  | "ENGINE_UNAVAILABLE"
  /** The native library is missing or does not fit. */
  | "SHIM_UNAVAILABLE"
  /** The reactor is closed, or being closed. */
  | "REACTOR_CLOSED"
  /** `maxOperations` operations are in flight. */
  | "LIMIT_OPERATIONS"
  /** The send arena is full of data that peers have not taken. */
  | "LIMIT_SEND_MEMORY"
  /** The reactor was overloaded, and nothing moved on the connection: it was reset. */
  | "LIMIT_OVERLOAD"
  /** The connection is closed, or its sending side has been ended. */
  | "CONNECTION_CLOSED"
  /** The call does not fit the reactor's host or state. */
  | "ERR_INVALID_STATE"
  /** `expectNoLeaks` of uringloop/testing found something left over. */
  | "ERR_LEAKS"
  /** A second read was started while one waits. */
  | "READ_PENDING"

export interface UringloopErrorOptions extends ErrorOptions {
  /** Positive errno of the operating system. */
  errno?: number
  /** System call or operation that failed, as node names it: "connect", "read", "listen". */
  syscall?: string
}

export class UringloopError extends Error {
  override name = "UringloopError"
  /** Stable: an errno's name, or an `OwnCode`. */
  readonly code: string
  /** Negated errno as in node's system errors; undefined when the error is the library's own. */
  readonly errno: number | undefined
  readonly syscall: string | undefined

  constructor(code: string, message: string, options: UringloopErrorOptions = {}) {
    super(message, options)
    this.code = code
    this.errno = options.errno === undefined ? undefined : -options.errno
    this.syscall = options.syscall
  }
}

/** Name of a positive errno: 111 is "ECONNREFUSED". */
export function errnoName(errno: number): string {
  return getSystemErrorName(-errno)
}

/**
 * The error for a negated errno that an operation answered.
 * @param detail what it was about, for the message: "127.0.0.1:80"
 */
export function systemError(result: number, syscall: string, detail = ""): UringloopError {
  const code = errnoName(-result)
  const where = detail === "" ? "" : ` ${detail}`
  return new UringloopError(code, `${syscall} ${code}${where}`, { errno: -result, syscall })
}

/** TypeError for an option of the wrong type, with node's code. */
export function invalidType(name: string, allowed: string, value: unknown): TypeError {
  const error = new TypeError(`${name} must be ${allowed}, received ${describe(value)}`)
  return Object.assign(error, { code: "ERR_INVALID_ARG_TYPE" })
}

/** RangeError for an option outside of what is allowed, with node's code. */
export function outOfRange(name: string, allowed: string, value: unknown): RangeError {
  const error = new RangeError(`${name} must be ${allowed}, received ${describe(value)}`)
  return Object.assign(error, { code: "ERR_OUT_OF_RANGE" })
}

/** Checks an integer option; returns it. */
export function integerOption(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== "number") throw invalidType(name, "a number", value)
  if (!Number.isInteger(value) || value < least || value > most) {
    throw outOfRange(name, `an integer from ${least} to ${most}`, value)
  }
  return value
}

function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 100 ? `${value.slice(0, 100)}…` : value)
  if (typeof value === "function") return `function ${value.name}`
  if (typeof value === "object" && value !== null)
    return `an instance of ${value.constructor?.name ?? "Object"}`
  return String(value)
}
