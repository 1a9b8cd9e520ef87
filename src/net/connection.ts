/**
 * A connection with promises: `read`, `write`, `for await`, deadlines, AbortSignal, web streams. One read may wait at a
 * time. What arrives before it is asked for waits in a queue; when that is full, receiving pauses and TCP slows the peer.
 */
import { invalidType, systemError, UringloopError } from "../errors.ts"
import type { ReactorCore } from "../reactor/core.ts"
import { Deadline, type DeadlineOwner } from "../reactor/deadlines.ts"
import { ConnectionCore, DEADLINE_FIRST_FREE } from "./connection_core.ts"
import { DETACHED, FLUSH_AWAITED, PEER_ENDED, RELEASED } from "./connection_state.ts"
import { timeoutOption } from "./options.ts"
import { bytesOf, type Writable } from "./socket.ts"

/** Unread bytes at which receiving pauses, and to which they must fall before it goes on. */
export const READ_QUEUE_HIGH = 256 * 1024
const READ_QUEUE_LOW = 64 * 1024

const DEADLINE_READ = DEADLINE_FIRST_FREE
const ETIMEDOUT = -110

export interface WaitOptions {
  /** Gives up waiting: the promise rejects with the signal's reason. The connection stays usable. */
  signal?: AbortSignal
  /** Gives up waiting after this long, milliseconds: the promise rejects with ETIMEDOUT. The connection stays usable. */
  timeoutMs?: number
}

interface ReadWaiter {
  resolve(chunk: Uint8Array | undefined): void
  reject(error: unknown): void
  signal: AbortSignal | undefined
}

/** A write that has not been taken whole yet, or a flush (no bytes). */
class WriteWaiter implements DeadlineOwner {
  bytes: Uint8Array
  private readonly connection: Connection
  private readonly resolve: () => void
  private readonly reject: (error: unknown) => void
  private readonly signal: AbortSignal | undefined
  private readonly deadline: Deadline | undefined
  private readonly abort = () => {
    this.settle(this.signal?.reason)
    this.connection.giveUpWrite(this)
  }

  constructor(
    connection: Connection,
    bytes: Uint8Array,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    resolve: () => void,
    reject: (error: unknown) => void,
  ) {
    this.connection = connection
    this.bytes = bytes
    this.signal = signal
    this.resolve = resolve
    this.reject = reject
    if (timeoutMs !== undefined) {
      this.deadline = new Deadline(this, 0)
      connection.core.arm(this.deadline, timeoutMs)
    }
    signal?.addEventListener("abort", this.abort, { once: true })
  }

  onDeadline(): void {
    this.settle(systemError(ETIMEDOUT, "write"))
    this.connection.giveUpWrite(this)
  }

  /** Takes part in nothing any more; resolves, or rejects when there is an error. */
  settle(error: unknown): void {
    if (this.deadline !== undefined) this.connection.core.deadlines.clear(this.deadline)
    this.signal?.removeEventListener("abort", this.abort)
    if (error === undefined) this.resolve()
    else this.reject(error)
  }
}

export class Connection extends ConnectionCore implements AsyncIterable<Uint8Array> {
  /** Chunks that nobody has asked for yet, from `head` on. */
  private chunks: Uint8Array[] = []
  private head = 0
  private unreadBytes = 0
  private reader: ReadWaiter | undefined
  private readDeadline: Deadline | undefined
  /** Writes that wait for room, first in first out. */
  private readonly writers: WriteWaiter[] = []
  private failure: Error | undefined
  private closedResolvers: (() => void)[] | undefined

  constructor(core: ReactorCore, fd: number, halfOpen: boolean) {
    super(core, fd, halfOpen)
    this.startReceiving()
  }

  /** True until `close`, an error, or the end of both sides. */
  get isOpen(): boolean {
    return (this.state & DETACHED) === 0
  }

  // ---- reading ----

  /**
   * The next bytes, as they arrive; undefined at the end of the peer's stream, or after `close`. The array is the caller's.
   * A read that was given up has taken nothing: the next one gets the bytes.
   * @throws UringloopError READ_PENDING, ETIMEDOUT, or what ended the connection; the signal's reason
   */
  read(options?: WaitOptions): Promise<Uint8Array | undefined> {
    if (this.reader !== undefined) {
      return Promise.reject(new UringloopError("READ_PENDING", "another read of this connection is waiting"))
    }
    const signal = options === undefined ? undefined : checkedSignal(options)
    const timeoutMs = options === undefined ? undefined : timeoutOption("timeoutMs", options.timeoutMs)
    if (signal?.aborted) return Promise.reject(signal.reason)
    if (this.head < this.chunks.length) return Promise.resolve(this.shiftChunk())
    if (this.failure !== undefined) return Promise.reject(this.failure)
    if (this.state & (PEER_ENDED | DETACHED)) return Promise.resolve(undefined)
    return new Promise((resolve, reject) => {
      this.reader = { resolve, reject, signal }
      if (timeoutMs !== undefined) {
        this.readDeadline ??= new Deadline(this, DEADLINE_READ)
        this.core.arm(this.readDeadline, timeoutMs)
      }
      signal?.addEventListener("abort", this.abortRead, { once: true })
    })
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = await this.read()
      if (chunk === undefined) return
      yield chunk
    }
  }

  private readonly abortRead = (): void => {
    const reader = this.settleRead()
    reader?.reject(reader.signal?.reason)
  }

  /** Takes the waiting read out, with its deadline and signal. */
  private settleRead(): ReadWaiter | undefined {
    const reader = this.reader
    if (reader === undefined) return undefined
    this.reader = undefined
    if (this.readDeadline !== undefined) this.core.deadlines.clear(this.readDeadline)
    reader.signal?.removeEventListener("abort", this.abortRead)
    return reader
  }

  private shiftChunk(): Uint8Array {
    const chunk = this.chunks[this.head++]
    if (this.head === this.chunks.length) {
      this.chunks = []
      this.head = 0
    }
    this.unreadBytes -= chunk.length
    if (this.unreadBytes <= READ_QUEUE_LOW) this.resumeReceiving()
    return chunk
  }

  private push(chunk: Uint8Array): void {
    const reader = this.settleRead()
    if (reader !== undefined) {
      reader.resolve(chunk)
      return
    }
    this.chunks.push(chunk)
    this.unreadBytes += chunk.length
    if (this.unreadBytes < READ_QUEUE_HIGH) return
    this.core.counters.readPauses++
    this.pauseReceiving()
  }

  // ---- writing ----

  /**
   * Queues a copy of `data` and completes when all of it has been queued; with the queue full, when the peer has taken
   * enough. The caller may reuse `data` once the promise has settled. Writes go out in the order of the calls.
   * A write that is given up may have been queued in part: the connection is then closed, because the stream has a hole.
   * @throws UringloopError CONNECTION_CLOSED, ETIMEDOUT, or what ended the connection; the signal's reason
   */
  write(data: Writable, options?: WaitOptions): Promise<void> {
    const signal = options === undefined ? undefined : checkedSignal(options)
    const timeoutMs = options === undefined ? undefined : timeoutOption("timeoutMs", options.timeoutMs)
    if (!this.canWrite) return Promise.reject(this.failure ?? closedError())
    if (signal?.aborted) return Promise.reject(signal.reason)
    if (this.writers.length === 0) {
      if (typeof data === "string" && data.length > 0 && this.queueText(data) >= 0) return done
      const bytes = bytesOf(data)
      const count = this.queueBytes(bytes, 0, bytes.length)
      if (count === bytes.length) return done
      return this.waitToWrite(bytes.subarray(count), signal, timeoutMs)
    }
    return this.waitToWrite(bytesOf(data), signal, timeoutMs)
  }

  private waitToWrite(
    bytes: Uint8Array,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      this.writers.push(new WriteWaiter(this, bytes, signal, timeoutMs, resolve, reject))
      this.state |= FLUSH_AWAITED
    })
  }

  /** A write has been given up. What it has queued already leaves a hole: the connection ends. */
  giveUpWrite(waiter: WriteWaiter): void {
    const index = this.writers.indexOf(waiter)
    if (index >= 0) this.writers.splice(index, 1)
    this.fail(new UringloopError("CONNECTION_CLOSED", "a write was given up in the middle"))
  }

  /** Completes when everything written so far has been taken by the kernel. */
  async flush(): Promise<void> {
    if (this.state & DETACHED) throw this.failure ?? closedError()
    if (this.pendingBytes === 0 && this.writers.length === 0) return
    await this.waitToWrite(new Uint8Array(0), undefined, undefined)
  }

  /** Ends our side once everything written has been sent; reading goes on. */
  async shutdown(): Promise<void> {
    if (this.state & DETACHED) return
    await this.flush()
    this.endSending()
  }

  /** Closes once everything written has been sent. Completes when the descriptor is closed. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.closedResolvers ??= []
      this.closedResolvers.push(resolve)
      if (this.state & RELEASED) this.onReleased()
      else this.detach(undefined)
    })
  }

  /** Closes at once: what is queued is not sent. */
  destroy(): void {
    this.abandon()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  // ---- web streams ----

  /** The peer's bytes as a stream of byte chunks. Do not mix with `read`. */
  get readable(): ReadableStream<Uint8Array> {
    return new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        const chunk = await this.read()
        if (chunk === undefined) controller.close()
        else controller.enqueue(chunk)
      },
      cancel: () => this.destroy(),
    })
  }

  /** A stream whose chunks are written; closing it ends our side. */
  get writable(): WritableStream<Writable> {
    return new WritableStream<Writable>({
      write: (chunk) => this.write(chunk),
      close: () => this.shutdown(),
      abort: () => this.destroy(),
    })
  }

  // ---- what happens to it ----

  protected override onBytes(offset: number, length: number): void {
    this.push(this.core.bufferBytes.slice(offset, offset + length))
  }

  protected override onHeld(chunk: Buffer): void {
    this.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length))
  }

  protected override onPeerEnd(): void {
    this.settleRead()?.resolve(undefined)
  }

  protected override onFlushed(): void {
    while (this.writers.length > 0) {
      const waiter = this.writers[0]
      if (waiter.bytes.length > 0) {
        const count = this.queueBytes(waiter.bytes, 0, waiter.bytes.length)
        waiter.bytes = waiter.bytes.subarray(count)
        if (waiter.bytes.length > 0) break
      } else if (this.pendingBytes > 0) break
      this.writers.shift()
      waiter.settle(undefined)
    }
    if (this.writers.length > 0) this.state |= FLUSH_AWAITED
  }

  protected override onDetached(error: Error | undefined, held: Buffer[] | undefined): void {
    this.failure = error
    // What arrived before the end is still there to be read.
    if (held !== undefined) for (const chunk of held) this.onHeld(chunk)
    const reader = this.settleRead()
    if (error === undefined) reader?.resolve(undefined)
    else reader?.reject(error)
    for (const waiter of this.writers.splice(0)) waiter.settle(error ?? closedError())
  }

  protected override onReleased(): void {
    const resolvers = this.closedResolvers
    this.closedResolvers = undefined
    if (resolvers !== undefined) for (const resolve of resolvers) resolve()
  }

  override onDeadline(kind: number): void {
    if (kind === DEADLINE_READ) this.settleRead()?.reject(systemError(ETIMEDOUT, "read"))
    else this.onCoreDeadline()
  }
}

const done = Promise.resolve()

function closedError(): UringloopError {
  return new UringloopError("CONNECTION_CLOSED", "the connection is closed, or its sending side has ended")
}

function checkedSignal(options: WaitOptions): AbortSignal | undefined {
  const { signal } = options
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw invalidType("signal", "an AbortSignal", signal)
  return signal
}
