/**
 * The handlers of the callback form, checked once and kept in one shape, so that every socket calls them alike.
 */
import { invalidType, outOfRange } from "../errors.ts"
import type { Socket } from "./socket.ts"

export type BinaryType = "buffer" | "uint8array" | "arraybuffer"

/** As in Bun: each is called with the socket; an exception goes to `error`, or to the runtime's uncaught errors. */
export interface SocketHandlers<Data = undefined> {
  open?(socket: Socket<Data>): void | Promise<void>
  /** Bytes have arrived. `data` is the handler's own, unless `borrow` was asked for. */
  data?(socket: Socket<Data>, data: Buffer): void | Promise<void>
  /** What had been refused by `write` may be written now. */
  drain?(socket: Socket<Data>): void | Promise<void>
  /** The connection is over, with the error that ended it if there was one. */
  close?(socket: Socket<Data>, error?: Error): void | Promise<void>
  /** A handler threw. */
  error?(socket: Socket<Data>, error: Error): void | Promise<void>
  /** The peer has ended its side. */
  end?(socket: Socket<Data>): void | Promise<void>
  /** Nothing was received or sent for the time set by `socket.timeout`. */
  timeout?(socket: Socket<Data>): void | Promise<void>
  /** `connect` failed; the promise rejects as well. */
  connectError?(socket: Socket<Data>, error: Error): void | Promise<void>
  /** What `data` gets. Default "buffer". */
  binaryType?: BinaryType
}

const NAMES = ["open", "data", "drain", "close", "error", "end", "timeout", "connectError"] as const
const BINARY_TYPES: BinaryType[] = ["buffer", "uint8array", "arraybuffer"]

type Handler = ((socket: never, argument?: never) => unknown) | undefined

/** The handlers of a listener or of one dialled socket. */
export class Handlers {
  open: Handler
  data: Handler
  drain: Handler
  close: Handler
  error: Handler
  end: Handler
  timeout: Handler
  connectError: Handler
  binaryType: BinaryType
  /** Hand out views of the receive buffers instead of copies. */
  borrow: boolean

  /** @throws TypeError, RangeError as Bun does */
  constructor(handlers: unknown, borrow: boolean) {
    if (typeof handlers !== "object" || handlers === null) {
      throw Object.assign(new TypeError("SocketOptions.socket is required"), { code: "ERR_INVALID_ARG_TYPE" })
    }
    const given = handlers as Record<string, unknown>
    for (const name of NAMES) {
      if (given[name] !== undefined && typeof given[name] !== "function") {
        throw invalidType(`socket.${name}`, "a function", given[name])
      }
    }
    if (given.data === undefined && given.drain === undefined) {
      throw Object.assign(new TypeError('Expected at least "data" or "drain" callback'), {
        code: "ERR_INVALID_ARG_TYPE",
      })
    }
    for (const name of ["handshake"]) {
      if (given[name] !== undefined)
        throw outOfRange(`socket.${name}`, "absent: TLS is not offered here", given[name])
    }
    const binaryType = given.binaryType ?? "buffer"
    if (typeof binaryType !== "string") throw invalidType("socket.binaryType", "a string", binaryType)
    if (!BINARY_TYPES.includes(binaryType as BinaryType)) {
      throw outOfRange("socket.binaryType", `one of ${BINARY_TYPES.join(", ")}`, binaryType)
    }
    this.open = given.open as Handler
    this.data = given.data as Handler
    this.drain = given.drain as Handler
    this.close = given.close as Handler
    this.error = given.error as Handler
    this.end = given.end as Handler
    this.timeout = given.timeout as Handler
    this.connectError = given.connectError as Handler
    this.binaryType = binaryType as BinaryType
    this.borrow = borrow
  }
}
