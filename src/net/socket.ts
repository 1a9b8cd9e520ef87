/**
 * A connection with handlers, in Bun's shape: the same members, the same return values.
 */
import * as abi from "../../ffi/abi.ts"
import { integerOption, invalidType, outOfRange } from "../errors.ts"
import type { ReactorCore } from "../reactor/core.ts"
import { Deadline } from "../reactor/deadlines.ts"
import { ConnectionCore, DEADLINE_FIRST_FREE } from "./connection_core.ts"
import { DETACHED, DISCARDS } from "./connection_state.ts"
import { Handlers, type SocketHandlers } from "./handlers.ts"
import type { SocketListener } from "./listener.ts"

const DEADLINE_IDLE = DEADLINE_FIRST_FREE
const MAX_TIMEOUT_SECONDS = 2 ** 31 / 1000

/** What `write` and `end` take, as in Bun. */
export type Writable = string | ArrayBuffer | SharedArrayBuffer | ArrayBufferView

type Call = (socket: Socket<unknown>, argument?: unknown) => unknown

export class Socket<Data = undefined> extends ConnectionCore {
  /** The program's own. */
  data: Data
  /** The listener that accepted it; undefined when it was dialled. */
  readonly listener: SocketListener<Data> | undefined
  private handlers: Handlers
  private idle: Deadline | undefined
  private idleMs = 0

  constructor(
    core: ReactorCore,
    fd: number,
    handlers: Handlers,
    data: Data,
    listener: SocketListener<Data> | undefined,
    halfOpen: boolean,
  ) {
    super(core, fd, halfOpen)
    this.handlers = handlers
    this.data = data
    this.listener = listener
  }

  /** The program hears of it, and receiving starts: in this order, as it may fail, and `close` comes after `open`. */
  opened(): void {
    if (this.handlers.open !== undefined && !this.call(this.handlers.open, undefined)) {
      // As in Bun: a connection whose open has thrown is not served. Closing it with bytes unread would be a reset.
      this.state |= DISCARDS
      this.endSending()
    }
    this.startReceiving()
  }

  /** What `connectError` gets: a closed socket with the program's data. */
  static neverOpen<Data>(core: ReactorCore, handlers: Handlers, data: Data): Socket<Data> {
    const socket = Object.create(Socket.prototype) as Socket<Data>
    return Object.assign(socket, { core, handlers, data, descriptor: -1, state: DETACHED })
  }

  /** 1 open, -1 closed, as in Bun. */
  get readyState(): 1 | -1 {
    return this.state & DETACHED ? -1 : 1
  }

  /**
   * Queues a copy of `data` for the next tick. Returns the bytes taken: fewer than all, or 0, when the queue's limit
   * (`maxQueuedBytes`) is reached; `drain` then says when to go on. -1 after `end` or close.
   * @param offset first byte of `data` to write; @param length bytes from there
   * @throws TypeError, RangeError
   */
  write(data: Writable, offset?: number, length?: number): number {
    if (data instanceof Uint8Array && offset === undefined) {
      return this.canWrite ? this.take(data) : -1
    }
    if (typeof data === "string" && offset === undefined) {
      if (!this.canWrite) return -1
      if (data.length === 0) return 0
      const queued = this.queueText(data)
      if (queued >= 0) return this.touch(queued)
    }
    const bytes = bytesOf(data, offset, length)
    return this.canWrite ? this.take(bytes) : -1
  }

  /** Writes what fits and ends our side; without `allowHalfOpen` the socket is closed. Returns as `write`. */
  end(data?: Writable, offset?: number, length?: number): number {
    const count = data === undefined ? (this.canWrite ? 0 : -1) : this.write(data, offset, length)
    if (this.isHalfOpen) this.endSending()
    else this.detach(undefined)
    return count
  }

  /** Hands what has been written to the kernel now, instead of at the end of the tick. */
  flush(): void {
    if ((this.state & DETACHED) === 0 && this.pendingBytes > 0) this.core.flushNow()
  }

  /** Ends our side once all is sent, and reading goes on; with `true` ends reading instead, and writing goes on, as in Bun. */
  shutdown(endReading?: boolean): void {
    if (this.state & DETACHED) return
    if (endReading === true) this.endReceiving()
    else this.endSending()
  }

  /** Closes at once: nothing more is sent, and the peer sees a reset. */
  terminate(): void {
    this.setOption(abi.O_LINGER, 0)
    this.abandon()
  }

  /** Closes once all that was written is sent. */
  close(): void {
    this.detach(undefined)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  /** Stops receiving: the peer is slowed down by TCP itself. */
  pause(): void {
    this.pauseReceiving()
  }

  resume(): void {
    this.resumeReceiving()
  }

  /** Calls the `timeout` handler when nothing was received or sent for `seconds`. 0 turns it off. */
  timeout(seconds: number): void {
    if (typeof seconds !== "number") throw invalidType("seconds", "a number", seconds)
    if (!(seconds >= 0 && seconds <= MAX_TIMEOUT_SECONDS)) {
      throw outOfRange("seconds", `from 0 to ${MAX_TIMEOUT_SECONDS}`, seconds)
    }
    if (this.state & DETACHED) return
    this.idleMs = seconds * 1000
    if (this.idleMs > 0) this.armIdle()
    else if (this.idle !== undefined) this.core.deadlines.clear(this.idle)
  }

  /** Replaces the handlers, as in Bun: `reload({ socket: { data() {} } })` or the handlers themselves. */
  reload(options: SocketHandlers<Data> | { socket: SocketHandlers<Data> }): void {
    const isWrapped = typeof options === "object" && options !== null && "socket" in options
    const given = isWrapped ? options.socket : options
    this.handlers = new Handlers(given, this.handlers.borrow)
  }

  // ---- what happens to it ----

  protected override onBytes(offset: number, length: number): void {
    if (this.idleMs > 0) this.armIdle()
    const handlers = this.handlers
    if (handlers.data === undefined) return
    const memory = this.core.memory
    this.deliver(handlers.borrow ? memory.viewOf(offset, length) : memory.copyOf(offset, length))
  }

  protected override onHeld(chunk: Buffer): void {
    if (this.handlers.data !== undefined) this.deliver(chunk)
  }

  private deliver(chunk: Buffer): void {
    const handlers = this.handlers
    const form = handlers.binaryType
    let data: unknown = chunk
    if (form === "uint8array") data = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length)
    else if (form === "arraybuffer")
      data = chunk.buffer.slice(chunk.byteOffset, chunk.byteOffset + chunk.length)
    try {
      ;(handlers.data as Call)(this as Socket<unknown>, data)
    } catch (error) {
      this.handlerThrew(error)
    }
  }

  protected override onPeerEnd(): void {
    if (this.handlers.end !== undefined) this.call(this.handlers.end, undefined)
  }

  protected override onFlushed(): void {
    if (this.handlers.drain !== undefined) this.call(this.handlers.drain, undefined)
  }

  protected override onDetached(error: Error | undefined, held: Buffer[] | undefined): void {
    if (held !== undefined) for (const chunk of held) this.core.counters.bytesDiscarded += chunk.length
    if (this.idle !== undefined) this.core.deadlines.clear(this.idle)
    if (this.handlers.close !== undefined) this.call(this.handlers.close, error)
  }

  protected override onReleased(): void {}

  override onDeadline(kind: number): void {
    if (kind !== DEADLINE_IDLE) this.onCoreDeadline()
    else if (this.handlers.timeout !== undefined) this.call(this.handlers.timeout, undefined)
  }

  /** Returns false when the handler has thrown. */
  private call(handler: unknown, argument: unknown): boolean {
    try {
      ;(handler as Call)(this as Socket<unknown>, argument)
      return true
    } catch (error) {
      this.handlerThrew(error)
      return false
    }
  }

  /** An exception of a handler goes to `error`; without one, or from it, to the runtime's uncaught errors. */
  private handlerThrew(error: unknown): void {
    if (this.handlers.error === undefined) {
      this.core.reportUncaught(error)
      return
    }
    try {
      ;(this.handlers.error as Call)(this as Socket<unknown>, error)
    } catch (second) {
      this.core.reportUncaught(second)
    }
  }

  private take(bytes: Uint8Array): number {
    return bytes.length === 0 ? 0 : this.touch(this.queueBytes(bytes, 0, bytes.length))
  }

  private touch(count: number): number {
    if (this.idleMs > 0) this.armIdle()
    return count
  }

  private armIdle(): void {
    this.idle ??= new Deadline(this, DEADLINE_IDLE)
    this.core.arm(this.idle, this.idleMs)
  }
}

/** The bytes of what `write` was given, without copying where that can be. @throws TypeError, RangeError */
export function bytesOf(data: unknown, offset?: number, length?: number): Uint8Array {
  let bytes: Uint8Array
  if (typeof data === "string") bytes = Buffer.from(data)
  else if (data instanceof Uint8Array) bytes = data
  else if (ArrayBuffer.isView(data)) bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  else if (data instanceof ArrayBuffer || data instanceof SharedArrayBuffer) bytes = new Uint8Array(data)
  else if (data === undefined) bytes = new Uint8Array(0)
  else throw invalidType("data", "a string, ArrayBuffer, TypedArray or DataView", data)
  if (offset === undefined) return bytes
  const start = integerOption("byteOffset", offset, 0, bytes.length)
  const count =
    length === undefined ? bytes.length - start : integerOption("byteLength", length, 0, bytes.length - start)
  return bytes.subarray(start, start + count)
}
