/**
 * Connecting: name to addresses by the runtime's resolver, then one CONNECT after the other until one succeeds.
 */
import { lookup } from "node:dns/promises"
import { isIP } from "node:net"
import * as abi from "../../ffi/abi.ts"
import { systemError, UringloopError } from "../errors.ts"
import { decode, describeAddress, encodeIp, encodeUnix, familyOf } from "../reactor/address.ts"
import type { OperationOwner, ReactorCore } from "../reactor/core.ts"
import { Deadline, type DeadlineOwner } from "../reactor/deadlines.ts"
import type { DescriptorOwner } from "../reactor/descriptors.ts"
import type { ConnectAddressOptions, Target } from "./options.ts"

const KIND_CONNECT = 1
const ETIMEDOUT = -110

/**
 * Connects, and makes the connection with `make` in the moment the descriptor is connected.
 * @throws UringloopError with the last address's error, ETIMEDOUT, REACTOR_CLOSED; the signal's reason
 */
export async function dial<T>(
  core: ReactorCore,
  target: Target,
  options: ConnectAddressOptions,
  make: (fd: number) => T,
): Promise<T> {
  core.assertOpen()
  const { signal, timeoutMs } = options
  signal?.throwIfAborted()
  core.hold() // resolving keeps the process alive, too
  try {
    const endsMs = timeoutMs === undefined ? Number.POSITIVE_INFINITY : core.clock() + timeoutMs
    const records = await addressesOf(target)
    let failure: unknown
    for (const record of records) {
      core.assertOpen()
      signal?.throwIfAborted()
      const leftMs = endsMs - core.clock()
      if (leftMs <= 0) throw systemError(ETIMEDOUT, "connect", describeAddress(decode(record)))
      try {
        return await new Attempt(core, record, signal, leftMs, make).promise
      } catch (error) {
        failure = error
        core.counters.connectsFailed++
        if (signal?.aborted) throw error
      }
    }
    throw failure
  } finally {
    core.release()
  }
}

async function addressesOf(target: Target): Promise<Uint8Array[]> {
  if ("unix" in target) return [encodeUnix(target.unix)]
  const { hostname, port } = target
  const literal = hostname.replace(/^\[(.*)\]$/, "$1")
  if (isIP(literal.split("%")[0]) !== 0) return [encodeIp(literal, port)]
  try {
    const found = await lookup(hostname, { all: true })
    return found.map(({ address }) => encodeIp(address, port))
  } catch (cause) {
    const code = (cause as { code?: string }).code ?? "ENOTFOUND"
    throw new UringloopError(code, `connect ${code} ${hostname}`, { syscall: "getaddrinfo", cause })
  }
}

/** One CONNECT. */
class Attempt<T> implements OperationOwner, DescriptorOwner, DeadlineOwner {
  readonly promise: Promise<T>
  private readonly core: ReactorCore
  private readonly make: (fd: number) => T
  private readonly record: Uint8Array
  private readonly signal: AbortSignal | undefined
  private readonly fd: number
  private readonly block: number
  private readonly deadline: Deadline
  private slot = -1
  /** Why it was given up; undefined while it was not. */
  private stopped: { reason: unknown } | undefined
  private resolve!: (connection: T) => void
  private reject!: (error: unknown) => void
  private readonly abort = () => this.stop(this.signal?.reason)

  constructor(
    core: ReactorCore,
    record: Uint8Array,
    signal: AbortSignal | undefined,
    timeoutMs: number,
    make: (fd: number) => T,
  ) {
    this.core = core
    this.make = make
    this.record = record
    this.signal = signal
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
    this.deadline = new Deadline(this, 0)
    if (core.isFull) throw new UringloopError("LIMIT_OPERATIONS", "too many operations are in flight")
    this.block = core.arena.alloc(record.length)
    if (this.block < 0) {
      core.counters.sendMemoryRefused++
      throw new UringloopError("LIMIT_SEND_MEMORY", "the send arena is full")
    }
    core.memory.pieceOf(this.block).set(record, core.memory.startOf(this.block))
    this.fd = core.native.socket(core.ring, familyOf(record))
    if (this.fd < 0) {
      core.arena.free(this.block)
      throw systemError(this.fd, "socket")
    }
    core.native.setOption(core.ring, this.fd, abi.O_NO_DELAY, 1)
    core.descriptors.add(this.fd, this)
    this.slot = core.submit(abi.OP_CONNECT, 0, this.fd, KIND_CONNECT, this, this.block, 0)
    if (timeoutMs !== Number.POSITIVE_INFINITY) core.arm(this.deadline, timeoutMs)
    signal?.addEventListener("abort", this.abort, { once: true })
  }

  onCompletion(_kind: number, _slot: number, result: number): void {
    const core = this.core
    this.slot = -1
    core.arena.free(this.block)
    core.deadlines.clear(this.deadline)
    this.signal?.removeEventListener("abort", this.abort)
    core.deliveries++
    if (result >= 0 && this.stopped === undefined) {
      core.descriptors.remove(this.fd)
      this.resolve(this.make(this.fd))
      return
    }
    core.discard(this.fd)
    if (this.stopped !== undefined) this.reject(this.stopped.reason)
    else this.reject(systemError(result, "connect", describeAddress(decode(this.record))))
  }

  onDeadline(): void {
    this.stop(systemError(ETIMEDOUT, "connect", describeAddress(decode(this.record))))
  }

  abandon(): void {
    this.stop(new UringloopError("REACTOR_CLOSED", "the reactor is closed"))
  }

  private stop(reason: unknown): void {
    if (this.stopped !== undefined || this.slot < 0) return
    this.stopped = { reason }
    this.core.cancelSlot(this.slot)
  }
}
