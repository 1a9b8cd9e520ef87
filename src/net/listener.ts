/**
 * Listeners: one multishot ACCEPT, and what becomes of the connections. `ListenerCore` is common; `SocketListener` gives
 * each connection to handlers (Bun's shape), `Listener` queues them for `accept()` and `for await`.
 *
 * When no descriptor or no memory is left, the kernel ends the ACCEPT. It is then armed again after a pause, not at once,
 * because nothing would have changed; connections wait in the backlog meanwhile.
 */
import { unlinkSync } from "node:fs"
import * as abi from "../../ffi/abi.ts"
import { invalidType, systemError, UringloopError } from "../errors.ts"
import { decode, describeAddress, encodeUnix, type SocketAddress } from "../reactor/address.ts"
import type { OperationOwner, ReactorCore } from "../reactor/core.ts"
import { Deadline, type DeadlineOwner } from "../reactor/deadlines.ts"
import type { DescriptorOwner } from "../reactor/descriptors.ts"
import { AcceptGate } from "./accept_gate.ts"
import { Connection } from "./connection.ts"
import { Handlers, type SocketHandlers } from "./handlers.ts"
import {
  checkListen,
  DEFAULT_BACKLOG,
  type ListenAddressOptions,
  type SocketOptions,
  type Target,
} from "./options.ts"
import { Socket } from "./socket.ts"

/** Pause after an ACCEPT that found no descriptor or memory. */
export const ACCEPT_PAUSE_MS = 100
/** Connections that wait for `accept()`; more stay in the kernel's backlog. */
export const ACCEPT_QUEUE_LIMIT = 1024

const PAUSE_QUEUE = 1
const PAUSE_LIMIT = 2

const KIND_ACCEPT = 1
const KIND_CLOSE = 2
const ECANCELED = 125
/** ENFILE, EMFILE, ENOBUFS, ENOMEM: accepting again at once would fail again. */
const EXHAUSTED = new Set([-23, -24, -105, -12])
/** The listener itself is broken: EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP. */
const BROKEN = new Set([-9, -22, -88, -95])

export abstract class ListenerCore implements OperationOwner, DescriptorOwner, DeadlineOwner {
  readonly core: ReactorCore
  readonly allowHalfOpen: boolean
  protected descriptor: number
  protected stopped = false
  private readonly address: SocketAddress
  private readonly target: Target
  private acceptSlot = -1
  private cancelling = false
  /** Why it does not accept: bits of PAUSE_*. */
  private pauses = 0
  private gate: AcceptGate | undefined
  private referenced = true
  private pause: Deadline | undefined

  constructor(core: ReactorCore, options: ListenAddressOptions) {
    core.assertOpen()
    this.target = checkListen(options)
    this.core = core
    this.allowHalfOpen = options.allowHalfOpen === true
    this.descriptor = openListener(core, this.target, options)
    this.gate = AcceptGate.of(core, options, {
      serve: (fd) => this.onAccepted(fd),
      setAccepting: (accepts) =>
        accepts ? this.resumeAccepting(PAUSE_LIMIT) : this.pauseAccepting(PAUSE_LIMIT),
    })
    const record = new Uint8Array(abi.ADDRESS_SIZE)
    core.native.name(core.ring, this.descriptor, 0, record)
    this.address = decode(record)
    core.descriptors.add(this.descriptor, this)
    core.hold()
  }

  /** A connection has been accepted. Must not throw. */
  protected abstract onAccepted(fd: number): void
  /** No more connections come, with the error if there was one. */
  protected abstract onStopped(error: Error | undefined): void

  /** The port listened on; undefined for a unix socket. */
  get port(): number | undefined {
    return this.address.family === "unix" ? undefined : this.address.port
  }
  /** The name or address that was asked for; undefined for a unix socket. */
  get hostname(): string | undefined {
    return "unix" in this.target ? undefined : this.target.hostname
  }
  /** The path of a unix socket. */
  get unix(): string | undefined {
    return "unix" in this.target ? this.target.unix : undefined
  }
  /** The descriptor, or -1 when stopped. */
  get fd(): number {
    return this.descriptor
  }
  /** Where this listens, numerically. */
  getsockname(): SocketAddress {
    return this.address
  }

  protected startAccepting(): void {
    if (this.acceptSlot >= 0 || this.stopped || this.pauses !== 0) return
    this.acceptSlot = this.core.submit(
      abi.OP_ACCEPT,
      abi.C_MULTISHOT,
      this.descriptor,
      KIND_ACCEPT,
      this,
      0,
      0,
    )
    if (this.acceptSlot < 0) this.acceptLater()
  }

  /** Leaves new connections in the kernel's backlog, until no reason is left to do so. */
  protected pauseAccepting(reason = PAUSE_QUEUE): void {
    this.pauses |= reason
    this.cancelAccept()
  }

  protected resumeAccepting(reason = PAUSE_QUEUE): void {
    if ((this.pauses & reason) === 0) return
    this.pauses &= ~reason
    this.startAccepting()
  }

  private cancelAccept(): void {
    if (this.acceptSlot < 0 || this.cancelling) return
    if (this.core.cancelSlot(this.acceptSlot) >= 0) this.cancelling = true
  }

  private acceptLater(): void {
    this.core.counters.acceptPauses++
    this.pause ??= new Deadline(this, 0)
    this.core.arm(this.pause, ACCEPT_PAUSE_MS)
  }

  onDeadline(): void {
    this.startAccepting()
  }

  onCompletion(kind: number, _slot: number, result: number, flags: number): void {
    if (kind === KIND_CLOSE) {
      this.unhold()
      return
    }
    if ((flags & abi.F_MORE) === 0) {
      this.acceptSlot = -1
      this.cancelling = false
    }
    // Accepted before a stop took effect: the peer has been promised a connection, so it is served.
    if (result >= 0) {
      if (this.gate === undefined) this.onAccepted(result)
      else this.gate.accepted(result)
    } else if (BROKEN.has(result)) this.stopWith(systemError(result, "accept"))
    if (this.acceptSlot >= 0) return
    if (this.stopped) this.closeDescriptor()
    else if (EXHAUSTED.has(result)) this.acceptLater()
    else {
      if (result !== -ECANCELED) this.core.counters.rearms++
      if (result < 0 && result !== -ECANCELED) this.core.counters.acceptsFailed++
      this.startAccepting()
    }
  }

  /** Accepts no more. Connections go on. */
  protected stopWith(error: Error | undefined): void {
    if (this.stopped) return
    this.stopped = true
    this.gate?.stop()
    if (this.pause !== undefined) this.core.deadlines.clear(this.pause)
    if (this.acceptSlot >= 0) this.cancelAccept()
    else this.closeDescriptor()
    this.onStopped(error)
  }

  private closeDescriptor(): void {
    if (this.descriptor < 0) return
    if (this.core.submit(abi.OP_CLOSE, 0, this.descriptor, KIND_CLOSE, this, 0, 0) < 0) {
      this.core.markDirty(this)
      return
    }
    this.core.descriptors.remove(this.descriptor)
    this.descriptor = -1
    if ("unix" in this.target && !this.target.unix.startsWith("\0")) removePath(this.target.unix)
  }

  /** No slot was free to close: again. */
  flushCommands(): void {
    this.closeDescriptor()
  }

  abandon(): void {
    this.stopWith(undefined)
  }

  /** Keeps the process alive while it listens (the initial state). */
  ref(): void {
    if (this.referenced || this.stopped) return
    this.referenced = true
    this.core.hold()
  }
  /** Lets the process exit although it listens. */
  unref(): void {
    this.unhold()
  }
  private unhold(): void {
    if (!this.referenced) return
    this.referenced = false
    this.core.release()
  }
}

/** A listener whose connections go to handlers. */
export class SocketListener<Data = undefined> extends ListenerCore {
  /** Given to each new socket as its `data`. */
  data: Data
  private readonly handlers: Handlers

  constructor(core: ReactorCore, options: ListenAddressOptions & SocketOptions<Data>) {
    // Before the descriptor exists.
    const handlers = new Handlers(options?.socket, borrowOption(options))
    super(core, options)
    this.handlers = handlers
    this.data = options.data as Data
    this.startAccepting()
  }

  protected override onAccepted(fd: number): void {
    // The reactor is being closed: a program that never heard of the connection must not hear of its end.
    if (!this.core.isOpen) {
      this.core.counters.connectionsUnasked++
      this.core.discard(fd)
    } else new Socket<Data>(this.core, fd, this.handlers, this.data, this, this.allowHalfOpen).opened()
  }

  protected override onStopped(): void {}

  /** Stops listening; with `true`, closes the connections too. */
  stop(closeActiveConnections = false): void {
    this.stopWith(undefined)
    if (!closeActiveConnections) return
    for (const owner of this.core.descriptors.all()) {
      if (owner instanceof Socket && owner.listener === this) owner.abandon()
    }
  }

  /** Replaces the handlers, of the connections that are open as well. */
  reload(options: { socket: SocketHandlers<Data> }): void {
    Object.assign(this.handlers, new Handlers(options?.socket, this.handlers.borrow))
  }

  [Symbol.dispose](): void {
    this.stop(true)
  }
}

export function borrowOption(options: { borrow?: boolean } | undefined): boolean {
  const borrow = options?.borrow
  if (borrow !== undefined && typeof borrow !== "boolean") throw invalidType("borrow", "a boolean", borrow)
  return borrow === true
}

/** An `accept()` that waits: settled once. */
interface AcceptWaiter {
  settle(connection: Connection | undefined, error: Error | undefined): void
}

/** A listener whose connections are asked for. */
export class Listener extends ListenerCore implements AsyncIterable<Connection> {
  private readonly queue: Connection[] = []
  private readonly waiters: AcceptWaiter[] = []
  private failure: Error | undefined

  constructor(core: ReactorCore, options: ListenAddressOptions) {
    super(core, options)
    this.startAccepting()
  }

  /**
   * The next connection; undefined once the listener is closed.
   * @throws the signal's reason
   */
  accept(options: { signal?: AbortSignal } = {}): Promise<Connection | undefined> {
    const { signal } = options
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw invalidType("signal", "an AbortSignal", signal)
    if (signal?.aborted) return Promise.reject(signal.reason)
    const ready = this.queue.shift()
    if (ready !== undefined) {
      if (this.queue.length < ACCEPT_QUEUE_LIMIT / 2) this.resumeAccepting()
      return Promise.resolve(ready)
    }
    if (this.failure !== undefined) return Promise.reject(this.failure)
    if (this.stopped) return Promise.resolve(undefined)
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.waiters.splice(this.waiters.indexOf(waiter), 1)
        reject(signal?.reason)
      }
      const waiter: AcceptWaiter = {
        settle(connection, error) {
          signal?.removeEventListener("abort", abort)
          if (error === undefined) resolve(connection)
          else reject(error)
        },
      }
      this.waiters.push(waiter)
      signal?.addEventListener("abort", abort, { once: true })
    })
  }

  protected override onAccepted(fd: number): void {
    const connection = new Connection(this.core, fd, this.allowHalfOpen)
    if (!this.core.isOpen || this.stopped) {
      this.core.counters.connectionsUnasked++
      connection.abandon()
      return
    }
    this.core.deliveries++
    const waiter = this.waiters.shift()
    if (waiter !== undefined) waiter.settle(connection, undefined)
    else if (this.queue.push(connection) === ACCEPT_QUEUE_LIMIT) {
      this.core.counters.acceptQueuePauses++
      this.pauseAccepting()
    }
  }

  protected override onStopped(error: Error | undefined): void {
    this.failure = error
    for (const waiter of this.waiters.splice(0)) waiter.settle(undefined, error)
    this.core.counters.connectionsUnasked += this.queue.length
    for (const connection of this.queue.splice(0)) connection.abandon()
  }

  /** Stops listening. Connections that were accepted and not asked for are closed; the others go on. */
  close(): void {
    this.stopWith(undefined)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Connection> {
    for (;;) {
      const connection = await this.accept()
      if (connection === undefined) return
      yield connection
    }
  }

  [Symbol.dispose](): void {
    this.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }
}

function openListener(core: ReactorCore, target: Target, options: ListenAddressOptions): number {
  const flags =
    abi.L_NO_DELAY |
    (options.reusePort ? abi.L_REUSE_PORT : 0) |
    (options.ipv6Only ? abi.L_IPV6_ONLY : 0) |
    (options.exclusive ? abi.L_EXCLUSIVE : 0)
  const records = "unix" in target ? [encodeUnix(target.unix)] : resolve(core, target.hostname, target.port)
  let result = 0
  for (const record of records) {
    result = core.native.listen(core.ring, record, options.backlog ?? DEFAULT_BACKLOG, flags)
    if (result >= 0) return result
  }
  throw systemError(result, "listen", "unix" in target ? target.unix : describeAddress(decode(records[0])))
}

/** Most addresses of a name that are tried. */
const MAX_ADDRESSES = 16

/** Numeric addresses as they are, names by the system's resolver (blocking, as Bun.listen does). */
function resolve(core: ReactorCore, hostname: string, port: number): Uint8Array[] {
  const out = new Uint8Array(MAX_ADDRESSES * abi.ADDRESS_SIZE)
  const count = core.native.resolve(hostname, out, MAX_ADDRESSES)
  if (count <= 0) {
    throw new UringloopError("ENOTFOUND", `listen ENOTFOUND ${hostname}`, { syscall: "getaddrinfo" })
  }
  const records: Uint8Array[] = []
  for (let i = 0; i < count; i++) {
    const record = out.slice(i * abi.ADDRESS_SIZE, (i + 1) * abi.ADDRESS_SIZE)
    new DataView(record.buffer).setUint16(abi.ADDRESS_PORT, port, true)
    records.push(record)
  }
  return records
}

function removePath(path: string): void {
  try {
    unlinkSync(path)
  } catch {
    // Somebody else removed it: it is gone, which is what was wanted.
  }
}
