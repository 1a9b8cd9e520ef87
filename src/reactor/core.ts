/**
 * The reactor: command and completion queues on the shared memory, and the round that moves them.
 *
 * One round: owners with something to send write their commands (flush), one call hands all commands to the engine and
 * harvests completions (tick), each completion is given to the owner of its slot (dispatch), then waiting promises run.
 * Nothing is dispatched during the tick and nothing ticks during dispatch, so an owner may do anything at any time: what
 * it asks for is a record for the next round.
 *
 * When rounds happen is the host's business (hosted.ts, owned.ts). What a connection is, is net's.
 */
import * as abi from "../../ffi/abi.ts"
import type { Native, Platform, RuntimeLoop } from "../../ffi/native.ts"
import { systemError, UringloopError } from "../errors.ts"
import { Arena } from "./arena.ts"
import { Counters } from "./counters.ts"
import { type Deadline, DeadlineWheel } from "./deadlines.ts"
import { DebugTracker } from "./debug.ts"
import { DescriptorTable, isDescriptorOwner } from "./descriptors.ts"
import { openEngine, runtimePlatform } from "./engine.ts"
import { HostedHost } from "./hosted.ts"
import { SharedMemory } from "./memory.ts"
import {
  type EngineName,
  featureNames,
  type HostName,
  type ReactorOptions,
  type Settings,
  settle,
} from "./options.ts"
import { Overload } from "./overload.ts"
import { OwnedHost } from "./owned.ts"
import { Scarcity } from "./scarcity.ts"
import { SlotTable } from "./slots.ts"
import { type ReactorStats, readStats } from "./stats.ts"
import { Unclosed } from "./unclosed.ts"

/** Whoever has operations in flight. */
export interface OperationOwner {
  /**
   * One completion. `slot` has been released already when `flags` has no F_MORE. Bytes at `bufferOffset` of
   * `core.bufferBytes` are there until the next round. Must not throw.
   */
  onCompletion(kind: number, slot: number, result: number, flags: number, bufferOffset: number): void
}

/** Whoever gathers what it has to send, to make one command of it before the next tick. */
export interface Flushable {
  /** Must not throw. */
  flushCommands(): void
}

const COMMAND_WORDS = abi.COMMAND_SIZE / 4
const COMPLETION_WORDS = abi.COMPLETION_SIZE / 4
const WORD_NOW_MS = abi.HEADER_NOW_MS / 8
const WORD_WAIT_EXPIRED = abi.HEADER_WAIT_EXPIRED / 4
const WORD_HOST_READY = abi.HEADER_HOST_READY / 4

/** Kinds of operation below this belong to the core; net and the raw operations count from here. */
export const KIND_CANCEL = 0
export const KIND_FIRST_FREE = 1

export class ReactorCore {
  readonly native: Native
  readonly loop: RuntimeLoop
  /** Kernel interface in use. */
  readonly engine: EngineName
  readonly hostName: HostName
  /** Why `engine: "auto"` did not choose uring; undefined when it did, or was not asked. */
  readonly fallbackReason: string | undefined
  /** The shim's handle of this ring. */
  readonly ring: number
  readonly memory: SharedMemory
  /** Send memory: which blocks are free. Their bytes are in `memory`. */
  readonly arena: Arena
  /** Receive memory. Engine's, but for the bytes that the completions of the current round point at. */
  readonly bufferBytes: Uint8Array
  readonly deadlines: DeadlineWheel
  readonly slots: SlotTable<OperationOwner>
  readonly descriptors = new DescriptorTable()
  readonly settings: Settings
  readonly overload: Overload
  readonly debug: DebugTracker | undefined

  /** Bytes delivered to owners and sends asked for in this round; the hosted host weighs one against the other. */
  deliveries = 0
  answers = 0
  readonly counters = new Counters()

  private readonly header: Uint32Array
  private readonly headerF64: Float64Array
  private readonly commands: Int32Array
  private readonly completions: Int32Array
  private readonly commandCapacity: number
  /** Operations in flight at most, but for those that end others. */
  readonly maxOperations: number
  /** Bytes that a connection queues at most. */
  readonly maxQueuedBytes: number
  private readonly tick: Native["tick"]
  private readonly platformClock: () => number
  /** CLOCK_MONOTONIC minus the platform's clock, milliseconds. */
  private readonly clockOffsetMs: number
  private readonly host: HostedHost | OwnedHost
  /** Commands written since the last tick. */
  private commandCount = 0
  /** Owners to flush before the next tick. Two arrays that swap, so that one can grow while the other is walked. */
  private dirty: Flushable[] = []
  private spareDirty: Flushable[] = []
  private readonly unclosed = new Unclosed(
    (fd) => this.submit(abi.OP_CLOSE, 0, fd, KIND_CANCEL, ignored, 0, 0) >= 0,
    (owner) => this.waitForOperation(owner),
  )
  /** Owners that found no send memory, or no free operation. */
  private readonly scarcity: Scarcity
  /** What keeps the process (or `run`) alive: referenced sockets and raw operations. */
  private holds = 0
  private inRound = false
  private state: "open" | "closing" | "closed" = "open"
  private lastStats: ReactorStats | undefined
  private closed: Promise<void> | undefined
  private resolveClosed: (() => void) | undefined

  /** @param platform what it stands on, when that is not the runtime itself */
  constructor(options: ReactorOptions = {}, platform?: Platform) {
    this.settings = settle(options)
    this.hostName = this.settings.host
    const { native, loop, clock } = platform ?? runtimePlatform()
    this.native = native
    this.loop = loop
    this.platformClock = clock
    const opened = openEngine(this.native, this.settings)
    this.engine = opened.engine
    this.ring = opened.ring
    this.fallbackReason = opened.fallbackReason
    this.tick = this.native.tick

    this.memory = new SharedMemory(this.native, this.ring)
    this.header = this.memory.header
    this.headerF64 = this.memory.headerF64
    this.commands = this.memory.commands
    this.completions = this.memory.completions
    this.bufferBytes = this.memory.bufferBytes
    this.commandCapacity = this.memory.at(abi.HEADER_COMMAND_CAPACITY)
    this.maxOperations = this.settings.maxOperations
    this.maxQueuedBytes = this.settings.maxQueuedBytes
    this.arena = new Arena(this.memory.at(abi.HEADER_ARENA_BYTES))
    this.scarcity = new Scarcity(this.arena)
    this.slots = new SlotTable(this.memory.at(abi.HEADER_SLOT_CAPACITY))
    this.deadlines = new DeadlineWheel(this.now)
    this.clockOffsetMs = this.now - clock()
    this.overload = new Overload(this, this.settings.overload)
    this.host = this.hostName === "hosted" ? new HostedHost(this) : new OwnedHost(this)
    if (this.settings.debug !== undefined) this.debug = new DebugTracker(this, this.settings.debug)
  }

  /** Monotonic time at the end of the last tick, milliseconds. */
  get now(): number {
    return this.headerF64[WORD_NOW_MS]
  }
  /** Monotonic time now, milliseconds: for callers outside of a round. */
  clock(): number {
    return this.platformClock() + this.clockOffsetMs
  }
  get isOpen(): boolean {
    return this.state === "open"
  }
  get isClosed(): boolean {
    return this.state === "closed"
  }
  /** The bounded wait of the last round ran out. */
  get waitExpired(): boolean {
    return this.header[WORD_WAIT_EXPIRED] !== 0
  }
  /** The runtime's own loop has something to do. */
  get hostReady(): boolean {
    return this.header[WORD_HOST_READY] !== 0
  }
  get hasHolds(): boolean {
    return this.holds > 0
  }
  /** Something waits for the next round. */
  get hasWork(): boolean {
    return this.commandCount > 0 || this.dirty.length > 0
  }
  /** Something may complete without anybody asking for more. */
  get hasPending(): boolean {
    return this.slots.inFlight > 0 || this.deadlines.armed > 0
  }

  /** `maxOperations` are in flight: `submit` would refuse. */
  get isFull(): boolean {
    return this.slots.inFlight >= this.maxOperations
  }

  /** The kernel features in use. */
  features(): string[] {
    return featureNames(this.header[abi.HEADER_FEATURES / 4])
  }

  stats(): ReactorStats {
    return this.lastStats ?? readStats(this, this.header, this.memory.counters, this.descriptors.open)
  }

  /** @throws UringloopError REACTOR_CLOSED */
  assertOpen(): void {
    if (this.state !== "open") throw new UringloopError("REACTOR_CLOSED", "the reactor is closed")
  }

  // ---- commands ----

  /**
   * Asks for one operation. Offset and length are as in `struct ul_command` (ffi/abi.ts, OP_*).
   * @returns the slot, or -1 when `maxOperations` are in flight; those that end something (CANCEL, SHUTDOWN, CLOSE) have as
   * many slots again, so that a full table can always be emptied
   */
  submit(
    op: number,
    flags: number,
    fd: number,
    kind: number,
    owner: OperationOwner,
    offset: number,
    length: number,
  ): number {
    const slot = op < abi.OP_CANCEL && this.isFull ? -1 : this.slots.acquire(kind, owner)
    if (slot < 0) {
      this.counters.operationsRefused++
      return -1
    }
    if (this.commandCount === this.commandCapacity) this.flushFull()
    const at = this.commandCount++ * COMMAND_WORDS
    const commands = this.commands
    commands[at] = op | (flags << 8)
    commands[at + 1] = fd
    commands[at + 2] = slot
    commands[at + 3] = this.slots.generationOf(slot)
    commands[at + 4] = offset
    commands[at + 5] = length
    commands[at + 6] = 0
    commands[at + 7] = 0
    if (!this.inRound) this.host.schedule()
    return slot
  }

  /** Asks for a TIMEOUT that completes `ns` nanoseconds from now. Returns the slot, or -1. */
  submitTimeout(ns: number, kind: number, owner: OperationOwner): number {
    const slot = this.submit(abi.OP_TIMEOUT, 0, -1, kind, owner, 0, 0)
    if (slot < 0) return -1
    const at = (this.commandCount - 1) * COMMAND_WORDS
    this.commands[at + 6] = ns % 0x1_0000_0000
    this.commands[at + 7] = Math.floor(ns / 0x1_0000_0000)
    return slot
  }

  /** Asks the engine to end the operation in `slot`. It still completes, once; there may be nothing to cancel any more. */
  cancelSlot(slot: number, kind = KIND_CANCEL, owner: OperationOwner = ignored): number {
    return this.submit(abi.OP_CANCEL, 0, -1, kind, owner, slot, this.slots.generationOf(slot))
  }

  /** `owner` wants to write commands before the next tick. Call once per round and owner. */
  markDirty(owner: Flushable): void {
    this.dirty.push(owner)
    if (!this.inRound) this.host.schedule()
  }

  /** The command array is full in the middle of a round: the engine takes what there is, nothing is harvested. */
  private flushFull(): void {
    const count = this.commandCount
    this.commandCount = 0
    const result = this.tick(this.ring, count, abi.WAIT_FLUSH)
    if (result < 0) throw systemError(result, "io_uring_enter")
  }

  // ---- the round ----

  /**
   * One round; sleeps up to `waitNs` (Infinity allowed) unless there is something to do.
   * @returns completions dispatched
   */
  round(waitNs: number): number {
    // A turn or a timer that was queued before the end: the handle may be another ring's by now.
    if (this.state === "closed") return 0
    this.inRound = true
    this.deliveries = 0
    this.answers = 0
    if (this.dirty.length > 0) this.flushDirty()
    // Flushing may tell user code something (there is room, a held chunk, the end). What that writes, or arms, and what has
    // been left for the next round, must not wait behind a sleep that was measured before.
    const isNews = this.deliveries > 0 || this.dirty.length > 0
    if (isNews) this.loop.drainMicrotasks()
    const count = this.commandCount
    this.commandCount = 0
    const n = this.tick(this.ring, count, isNews ? 0 : waitNs)
    if (n < 0) {
      this.inRound = false
      throw systemError(n, "io_uring_enter")
    }
    if (n > 0) {
      this.dispatch(n)
      this.loop.drainMicrotasks()
    }
    if (this.deadlines.armed > 0 && this.fireDeadlines()) this.loop.drainMicrotasks()
    this.answers = this.dirty.length
    if (!this.scarcity.isEmpty) this.scarcity.release(this.dirty, this.isFull)
    this.inRound = false
    const isIdle = this.descriptors.open === 0 && this.slots.inFlight === 0 && this.unclosed.isEmpty
    if (isIdle && this.state === "closing") this.finish()
    return n
  }

  private flushDirty(): void {
    const owners = this.dirty
    this.dirty = this.spareDirty
    for (let i = 0; i < owners.length; i++) owners[i].flushCommands()
    owners.length = 0
    this.spareDirty = owners
  }

  /** Hands over what has been written so far, at once. */
  flushNow(): void {
    if (this.state === "closed") return
    if (this.dirty.length > 0) this.flushDirty()
    if (this.commandCount > 0) this.flushFull()
  }

  /** `owner` found no send memory: it is flushed in the first round in which some has been given back. */
  waitForMemory(owner: Flushable): void {
    this.counters.sendMemoryRefused++
    this.scarcity.addStarved(owner)
    this.overload.memoryRefused()
  }

  /** `owner` was refused by `submit`: it is flushed in the first round after an operation has ended. */
  waitForOperation(owner: Flushable): void {
    this.scarcity.addCrowded(owner)
  }

  private dispatch(count: number): void {
    const completions = this.completions
    const slots = this.slots
    for (let i = 0, at = 0; i < count; i++, at += COMPLETION_WORDS) {
      const slot = completions[at]
      if (!slots.admit(slot, completions[at + 1] >>> 0)) continue
      const owner = slots.ownerOf(slot) as OperationOwner
      const kind = slots.kindOf(slot)
      const flags = completions[at + 3]
      if ((flags & abi.F_MORE) === 0) slots.release(slot)
      try {
        owner.onCompletion(kind, slot, completions[at + 2], flags, completions[at + 4])
      } catch (error) {
        this.reportUncaught(error) // an owner's own bug: the completions behind it must not be lost
      }
    }
  }

  private fireDeadlines(): boolean {
    try {
      return this.deadlines.advance(this.now) > 0
    } catch (error) {
      this.reportUncaught(error)
      return true
    }
  }

  // ---- what lives here ----

  /** Arms a deadline `afterMs` from now. */
  arm(deadline: Deadline, afterMs: number): void {
    // Between rounds the time of the last tick may be old: the process may have slept.
    this.deadlines.arm(deadline, this.inRound ? this.now : this.clock(), afterMs)
    if (!this.inRound) this.host.schedule()
  }

  /** Closes a descriptor that nobody is to hear of again. No operation on it may be in flight. */
  discard(fd: number): void {
    this.descriptors.remove(fd)
    this.unclosed.add(fd)
  }

  /** Keeps the process (or `run`) alive until as many `release`s. */
  hold(): void {
    if (this.holds++ === 0) this.host.holdsChanged()
  }

  release(): void {
    if (--this.holds === 0) this.host.holdsChanged()
  }

  /** An error that no handler took: it goes where the runtime's uncaught errors go, and the round goes on. */
  reportUncaught(error: unknown): void {
    this.counters.uncaught++
    this.loop.nextTurn(() => {
      throw error
    }, true)
  }

  /** Owned host only: see `OwnedHost.run`. */
  run(until?: Promise<unknown>): void {
    if (!(this.host instanceof OwnedHost)) {
      throw new UringloopError("ERR_INVALID_STATE", 'run() needs a reactor opened with host: "owned"')
    }
    this.host.run(until)
  }

  // ---- the end ----

  /**
   * Closes every descriptor, cancels every operation, and resolves when none is in flight. Memory is released then and
   * not before. May be called again.
   */
  close(): Promise<void> {
    if (this.closed !== undefined) return this.closed
    this.closed = new Promise((resolve) => {
      this.resolveClosed = resolve
    })
    this.state = "closing"
    this.hold()
    for (const owner of this.descriptors.all()) owner.abandon()
    this.slots.forEachInFlight((slot, kind, owner) => {
      if (kind !== KIND_CANCEL && !isDescriptorOwner(owner)) this.cancelSlot(slot)
    })
    this.host.schedule()
    return this.closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  private finish(): void {
    const stats = this.stats()
    if (this.native.close(this.ring) < 0) return // something came up in this round: the next one tries again
    this.lastStats = stats // from now on the shared memory may be another ring's
    this.state = "closed"
    this.release()
    this.host.dispose()
    this.resolveClosed?.()
  }
}

/** Takes the completion of a cancellation that nobody waits for. ENOENT and EALREADY are normal: see the man page. */
const ignored: OperationOwner = { onCompletion() {} }
