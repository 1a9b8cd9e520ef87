/**
 * Single operations as promises, for readers and experiments: what the ring does, without a connection around it. Each
 * costs a promise and an object; connections do not use them.
 *
 * A descriptor may be one that the reactor opened (`socket`, `accept`, a listener's or a connection's `fd`) or any other
 * of this process; only the reactor's own can be closed here. While an operation waits, the process stays alive.
 */
import * as abi from "../../ffi/abi.ts"
import { integerOption, invalidType, outOfRange, systemError, UringloopError } from "../errors.ts"
import { AF_INET, AF_INET6, AF_UNIX, encodeIp, encodeUnix, portOption } from "./address.ts"
import { MAX_BLOCK_BYTES } from "./arena.ts"
import { KIND_FIRST_FREE, type OperationOwner, ReactorCore } from "./core.ts"
import type { DescriptorOwner } from "./descriptors.ts"
import { listPending, type PendingItem } from "./pending.ts"

/** What `pollAdd` waits for, as in poll(2). */
export const POLLIN = 1
export const POLLPRI = 2
export const POLLOUT = 4
export const POLLRDHUP = 0x2000

const MAX_FD = 2 ** 31 - 1
const MAX_TIMEOUT_NS = Number.MAX_SAFE_INTEGER
const KIND_RAW = KIND_FIRST_FREE
const FAMILIES = { IPv4: AF_INET, IPv6: AF_INET6, unix: AF_UNIX } as const

export interface OperationOptions {
  /** Cancels the operation; the promise then rejects with the signal's reason. */
  signal?: AbortSignal
}

/** Where a raw `connect` goes: a numeric address, or the path of a unix socket. */
export type RawAddress = { hostname: string; port: number } | { unix: string }

type Outcome = number | Uint8Array | undefined

class RawOperation implements OperationOwner {
  readonly promise: Promise<Outcome>
  slot = -1
  private readonly core: ReactorCore
  private readonly op: number
  private readonly name: string
  private readonly fd: number
  private readonly signal: AbortSignal | undefined
  /** Block of the send arena that the kernel reads from, or -1. */
  private readonly block: number
  private resolve!: (value: Outcome) => void
  private reject!: (error: unknown) => void
  private readonly abort = () => {
    if (this.slot >= 0) this.core.cancelSlot(this.slot)
  }

  constructor(
    core: ReactorCore,
    op: number,
    name: string,
    fd: number,
    block: number,
    signal: AbortSignal | undefined,
  ) {
    this.core = core
    this.op = op
    this.name = name
    this.fd = fd
    this.block = block
    this.signal = signal
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }

  started(slot: number): void {
    this.slot = slot
    this.core.hold()
    this.signal?.addEventListener("abort", this.abort, { once: true })
  }

  onCompletion(_kind: number, _slot: number, result: number, flags: number, bufferOffset: number): void {
    const core = this.core
    this.slot = -1
    core.release()
    this.signal?.removeEventListener("abort", this.abort)
    if (this.block >= 0) core.arena.free(this.block)
    if (this.op === abi.OP_TIMEOUT && result === -ETIME) this.resolve(undefined)
    else if (this.op === abi.OP_CANCEL) this.resolve(result)
    else if (result === -ECANCELED && this.signal?.aborted) this.reject(this.signal.reason)
    else if (result < 0) this.reject(systemError(result, this.name))
    else this.resolve(this.outcome(result, flags, bufferOffset))
  }

  private outcome(result: number, flags: number, bufferOffset: number): Outcome {
    switch (this.op) {
      case abi.OP_ACCEPT:
        if (this.core.isOpen) new RawDescriptor(this.core, result)
        return result
      case abi.OP_RECV:
        return flags & abi.F_BUFFER
          ? this.core.bufferBytes.slice(bufferOffset, bufferOffset + result)
          : new Uint8Array(0)
      case abi.OP_CLOSE:
        this.core.descriptors.remove(this.fd)
        return undefined
      case abi.OP_POLL:
      case abi.OP_SEND:
        return result
      default:
        return undefined
    }
  }
}

const ETIME = 62
const ECANCELED = 125

/** A descriptor that was opened or accepted by a raw operation. */
class RawDescriptor implements DescriptorOwner, OperationOwner {
  private readonly core: ReactorCore
  private readonly fd: number

  constructor(core: ReactorCore, fd: number) {
    this.core = core
    this.fd = fd
    core.descriptors.add(fd, this)
  }

  /** Refused as busy while operations end; the reactor then closes it when the ring is released. */
  abandon(): void {
    this.core.descriptors.remove(this.fd)
  }

  onCompletion(): void {}
}

/** A reactor with its operations as promises. */
export class ReactorOperations extends ReactorCore {
  private readonly running = new WeakMap<Promise<unknown>, RawOperation>()

  /** What is under way: operations, deadlines, open sockets; in debug mode with ages and stacks. */
  pending(): PendingItem[] {
    return listPending(this)
  }

  /** Completes with the events of poll(2) that are ready, of `mask` (POLLIN, POLLOUT, ...) and POLLERR, POLLHUP. */
  pollAdd(fd: number, mask: number, options: OperationOptions = {}): Promise<number> {
    integerOption("mask", mask, 1, 0xffff)
    if (mask & ~(POLLIN | POLLPRI | POLLOUT | POLLRDHUP)) {
      throw outOfRange("mask", "made of POLLIN (1), POLLPRI (2), POLLOUT (4) and POLLRDHUP (8192)", mask)
    }
    return this.start(abi.OP_POLL, "poll", fd, 0, mask, options) as Promise<number>
  }

  /** Receives what is there, at most a receive buffer. Empty at the end of the stream. */
  recv(fd: number, options: OperationOptions = {}): Promise<Uint8Array> {
    return this.start(abi.OP_RECV, "recv", fd, 0, 0, options) as Promise<Uint8Array>
  }

  /** Sends all of `data`, which is copied. Completes with its length. At most 1 MiB. */
  send(fd: number, data: string | Uint8Array, options: OperationOptions = {}): Promise<number> {
    const bytes = typeof data === "string" ? Buffer.from(data) : data
    if (!(bytes instanceof Uint8Array)) throw invalidType("data", "a string or Uint8Array", data)
    if (bytes.length < 1 || bytes.length > MAX_BLOCK_BYTES) {
      throw outOfRange("data.length", `from 1 to ${MAX_BLOCK_BYTES}`, bytes.length)
    }
    return this.startWithBlock(abi.OP_SEND, "send", fd, bytes, options) as Promise<number>
  }

  /** Accepts one connection of a listening descriptor. Completes with the new descriptor, owned by the reactor. */
  accept(fd: number, options: OperationOptions = {}): Promise<number> {
    return this.start(abi.OP_ACCEPT, "accept", fd, 0, 0, options) as Promise<number>
  }

  /** Connects a descriptor of `socket()`. */
  connectDescriptor(fd: number, address: RawAddress, options: OperationOptions = {}): Promise<void> {
    if (typeof address !== "object" || address === null) throw invalidType("address", "an object", address)
    const record =
      "unix" in address
        ? encodeUnix(address.unix)
        : encodeIp(address.hostname, portOption("port", address.port))
    return this.startWithBlock(abi.OP_CONNECT, "connect", fd, record, options) as Promise<void>
  }

  /** Completes after `ms` milliseconds, by the ring's own timer (not the deadline wheel). */
  timeout(ms: number, options: OperationOptions = {}): Promise<void> {
    if (typeof ms !== "number") throw invalidType("ms", "a number", ms)
    const ns = Math.round(ms * 1e6)
    if (!(ns >= 0 && ns <= MAX_TIMEOUT_NS)) throw outOfRange("ms", `from 0 to ${MAX_TIMEOUT_NS / 1e6}`, ms)
    return this.start(abi.OP_TIMEOUT, "timeout", -1, 0, ns, options) as Promise<void>
  }

  /** Completes in the next round. */
  nop(): Promise<void> {
    return this.start(abi.OP_NOP, "nop", -1, 0, 0, {}) as Promise<void>
  }

  /** Half-closes: `how` is SHUT_RD 0, SHUT_WR 1 or SHUT_RDWR 2. */
  shutdown(fd: number, how: 0 | 1 | 2): Promise<void> {
    return this.start(
      abi.OP_SHUTDOWN,
      "shutdown",
      fd,
      0,
      integerOption("how", how, 0, 2),
      {},
    ) as Promise<void>
  }

  /** Opens a stream socket, owned by the reactor. */
  socket(family: "IPv4" | "IPv6" | "unix"): number {
    this.assertOpen()
    if (!Object.hasOwn(FAMILIES, family)) throw outOfRange("family", "one of IPv4, IPv6, unix", family)
    const fd = this.native.socket(this.ring, FAMILIES[family])
    if (fd < 0) throw systemError(fd, "socket")
    new RawDescriptor(this, fd)
    return fd
  }

  /** Closes a descriptor of `socket` or `accept`. Rejects with EBUSY while operations on it are in flight. */
  closeDescriptor(fd: number): Promise<void> {
    integerOption("fd", fd, 0, MAX_FD)
    if (!(this.descriptors.ownerOf(fd) instanceof RawDescriptor)) {
      throw outOfRange("fd", "a descriptor of socket() or accept()", fd)
    }
    return this.start(abi.OP_CLOSE, "close", fd, 0, 0, {}) as Promise<void>
  }

  /**
   * Cancels an operation that one of these methods started, by its promise. Completes with true when it was stopped (its
   * promise rejects with ECANCELED), with false when it had ended or could not be stopped any more.
   */
  async cancel(operation: Promise<unknown>): Promise<boolean> {
    const target = this.running.get(operation)
    if (target === undefined || target.slot < 0) return false
    const owner = new RawOperation(this, abi.OP_CANCEL, "cancel", -1, -1, undefined)
    const slot = this.cancelSlot(target.slot, KIND_RAW, owner)
    if (slot < 0) throw limitOperations(this)
    owner.started(slot)
    return (await owner.promise) === 0
  }

  private startWithBlock(
    op: number,
    name: string,
    fd: number,
    bytes: Uint8Array,
    options: OperationOptions,
  ): Promise<Outcome> {
    // Before the arena is touched: a closed reactor's memory may belong to another by now.
    const refusal = this.refusal(op, fd, options)
    if (refusal !== undefined) return Promise.reject(refusal)
    const block = this.arena.alloc(bytes.length)
    if (block < 0) {
      this.counters.sendMemoryRefused++
      return Promise.reject(new UringloopError("LIMIT_SEND_MEMORY", "the send arena is full"))
    }
    this.memory.pieceOf(block).set(bytes, this.memory.startOf(block))
    return this.start(op, name, fd, block, op === abi.OP_SEND ? bytes.length : 0, options, block)
  }

  private start(
    op: number,
    name: string,
    fd: number,
    offset: number,
    length: number,
    options: OperationOptions,
    block = -1,
  ): Promise<Outcome> {
    const refusal = this.refusal(op, fd, options)
    if (refusal !== undefined) {
      if (block >= 0) this.arena.free(block)
      return Promise.reject(refusal)
    }
    const operation = new RawOperation(this, op, name, fd, block, options.signal)
    const slot =
      op === abi.OP_TIMEOUT
        ? this.submitTimeout(length, KIND_RAW, operation)
        : this.submit(op, 0, fd, KIND_RAW, operation, offset, length)
    if (slot < 0) {
      if (block >= 0) this.arena.free(block)
      return Promise.reject(limitOperations(this))
    }
    operation.started(slot)
    this.running.set(operation.promise, operation)
    return operation.promise
  }

  private refusal(op: number, fd: number, options: OperationOptions): unknown {
    if (typeof options !== "object" || options === null) return invalidType("options", "an object", options)
    if (options.signal !== undefined && !(options.signal instanceof AbortSignal)) {
      return invalidType("signal", "an AbortSignal", options.signal)
    }
    if (!this.isOpen) return new UringloopError("REACTOR_CLOSED", "the reactor is closed")
    const hasFd = op !== abi.OP_TIMEOUT && op !== abi.OP_NOP
    if (hasFd && !(Number.isInteger(fd) && fd >= 0 && fd <= MAX_FD)) {
      return outOfRange("fd", `an integer from 0 to ${MAX_FD}`, fd)
    }
    return options.signal?.aborted ? options.signal.reason : undefined
  }
}

function limitOperations(core: ReactorCore): UringloopError {
  return new UringloopError(
    "LIMIT_OPERATIONS",
    `${core.maxOperations} operations are in flight (maxOperations)`,
  )
}
