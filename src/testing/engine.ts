/**
 * The shim, once more, over the simulated ring: validation of commands, the slot and descriptor tables, deferred results,
 * sends that go out at once, and the tick. The same semantics as liburing-shim/shim.c and engine_uring.c, in the same order
 * of steps, so that the two can be read side by side; none of their code.
 */
import * as abi from "../../ffi/abi.ts"
import type { FaultPlan } from "./faults.ts"
import type { Mapping } from "./mapping.ts"
import type { Random } from "./random.ts"
import type { ReceiveBuffers } from "./receive_buffers.ts"
import { type CompletionEntry, Request } from "./request.ts"
import type { Ring } from "./ring.ts"
import type { ShimTables } from "./shim_tables.ts"
import { refusalOf } from "./validation.ts"

const EINVAL = 22
const EBUSY = 16
const EAGAIN = 11
const EPIPE = 32
const ENOENT = 2
const ENOBUFS = 105
const ECANCELED = 125

const COMMAND_WORDS = abi.COMMAND_SIZE / 4
/** A wait that is longer needs no timer, nanoseconds. */
const FOREVER_NS = 1e15
/** Longest that the thread may not run, nanoseconds. */
const STALL_NS = 300e6

/** How a send is under way. */
const SEND_AT_ONCE = 1
const SEND_BLOCKED = 2

export interface EngineParts {
  mapping: Mapping
  ring: Ring
  buffers: ReceiveBuffers
  faults: FaultPlan
  random: Random
  tables: ShimTables
  /** Closes a descriptor outside of the ring. */
  closeFile: (fd: number) => number
  /** shutdown(2). */
  shutdownFile: (fd: number, how: number) => number
  /** Makes the ring's eventfd readable. */
  signal: () => void
  /** The runtime's own loop has something to do. */
  isHostReady: () => boolean
  /** The test has seen enough: waits end. */
  isOver: () => boolean
}

export class Engine {
  private readonly tables: ShimTables
  readonly parts: EngineParts
  /** The host sleeps, and relies on the eventfd. */
  isSleeping = false
  /** The runtime's own loop is to end waits when it has something to do. */
  isHostWatched = false
  /** A poll on it is in the ring. */
  private isHostArmed = false
  /** That poll has completed. */
  private hasHostEvent = false
  /** Slots whose operation found no submission entry, in order. */
  private kept: number[] = []
  /** Sends staged without a completion entry, and not accounted for yet. */
  private atOnce: number[] = []
  private urgent = 0
  private isUnsettled = false
  /** The timer that bounds a wait; Infinity while it is not armed. */
  private timerDueNs = Number.POSITIVE_INFINITY

  constructor(parts: EngineParts) {
    this.parts = parts
    this.tables = parts.tables
    parts.ring.onWork = () => {
      if (this.isSleeping) parts.signal()
    }
  }

  // ---- the tick ----

  tick(count: number, waitNs: number): number {
    const { mapping, ring, faults, random } = this.parts
    if (count > mapping.get(abi.HEADER_COMMAND_CAPACITY) || Number.isNaN(waitNs)) return -EINVAL
    const deferredCapacity = 2 * (this.tables.slotCapacity + mapping.get(abi.HEADER_COMMAND_CAPACITY))
    if (this.tables.deferred.length + count + mapping.get(abi.HEADER_IN_FLIGHT) > deferredCapacity)
      return -EBUSY
    mapping.count(abi.HEADER_TICKS)
    const { clock } = ring.parts
    if (faults.happens("threadStalled")) clock.moveTo(clock.nowNs + random.next() ** 3 * STALL_NS)
    const isHarvest = waitNs >= 0
    if (isHarvest) {
      this.tables.completionCount = 0
      this.parts.buffers.recycle()
      mapping.set(abi.HEADER_BUFFERS_LENT, 0)
      mapping.set(abi.HEADER_WAIT_EXPIRED, 0)
      mapping.set(abi.HEADER_HOST_READY, 0)
    }
    for (let i = 0; i < count; i++) this.take(i * COMMAND_WORDS)
    if (!isHarvest) {
      this.enter()
      this.leave()
      if (this.isSleeping && this.tables.deferred.length > 0) this.parts.signal()
      return 0
    }
    this.tables.emitDeferred()
    if (waitNs > 0) mapping.count(abi.HEADER_WAITS)
    this.harvest(this.tables.completionCount > 0 ? 0 : waitNs)
    this.tables.emitDeferred()
    if (this.isSleeping && !this.tables.hasRoom) this.parts.signal()
    mapping.setNow(clock.nowMs)
    return this.tables.completionCount
  }

  /** What the host wants before it sleeps. The eventfd speaks of what comes up from now on, not of what is there. */
  notify(on: boolean): number {
    if (on) {
      if (this.parts.faults.happens("enterBusy")) return -EAGAIN
      // The runtime's loop watches the eventfd: watched from here too, each would set off the other for ever.
      this.isHostArmed = false
      this.enter()
    }
    this.isSleeping = on
    return 0
  }

  /** Something waits for the next tick. */
  get hasNews(): boolean {
    const { ring } = this.parts
    return (
      ring.hasWork ||
      !ring.isSubmitted ||
      this.kept.length > 0 ||
      this.isUnsettled ||
      this.tables.deferred.length > 0
    )
  }

  /** The runtime's own loop has come to have something to do. */
  hostWoke(): void {
    if (this.isHostArmed) this.hasHostEvent = true
  }

  // ---- commands ----

  private take(at: number): void {
    const { mapping } = this.parts
    mapping.count(abi.HEADER_COMMANDS)
    const words = mapping.commandWords
    const op = words[at] & 0xff
    const index = words[at + 2]
    const generation = words[at + 3]
    const error = refusalOf(this.tables, mapping, at)
    if (error !== 0) {
      mapping.count(abi.HEADER_REJECTED)
      this.tables.deferred.push({ slot: index, generation, result: -error, op, isHeld: false })
      return
    }
    const slot = this.tables.slotAt(index)
    slot.generation = generation
    slot.fd = mapping.commands[at + 1]
    slot.offset = words[at + 4]
    slot.length = words[at + 5]
    slot.timeoutNs = words[at + 6] + words[at + 7] * 0x1_0000_0000
    slot.done = 0
    slot.op = op
    slot.flags = (words[at] >>> 8) & 0xff
    slot.isCancelled = false
    mapping.set(abi.HEADER_IN_FLIGHT, mapping.get(abi.HEADER_IN_FLIGHT) + 1)
    if (op === abi.OP_CLOSE) this.tables.disown(slot.fd)
    else if (slot.fd >= 0) this.tables.descriptors[slot.fd].ops++
    if (op === abi.OP_CANCEL) {
      const target = slot.offset === index ? undefined : this.tables.slots[slot.offset]
      if (target === undefined || target.op === 0 || target.generation !== slot.length) {
        this.tables.completeLater(index, -ENOENT)
        return
      }
      target.isCancelled = true
    } else if (op === abi.OP_SHUTDOWN) {
      mapping.count(abi.HEADER_SYSTEM_CALLS)
      this.tables.completeLater(index, this.parts.shutdownFile(slot.fd, slot.length))
      return
    } else if (op === abi.OP_SEND) {
      const isQuiet = (slot.flags & abi.C_QUIET) !== 0
      slot.sendState = this.isSleeping && !isQuiet ? SEND_BLOCKED : SEND_AT_ONCE
      if (!isQuiet) this.urgent++
    }
    this.arm(index)
  }

  /** Stages the operation in a slot, for the first time or again, unless a cancellation has named it. */
  private arm(index: number): void {
    const slot = this.tables.slots[index]
    if (slot.isCancelled) this.tables.completeLater(index, -ECANCELED)
    else if (this.kept.length > 0 || !this.stage(index)) this.keep(index)
  }

  /** Returns false when there is no submission entry to be had. */
  private stage(index: number): boolean {
    const { ring } = this.parts
    if (ring.isSubmissionFull) this.enter()
    if (ring.isSubmissionFull) return false
    const slot = this.tables.slots[index]
    const isAtOnce = slot.op === abi.OP_SEND && slot.sendState === SEND_AT_ONCE
    if (isAtOnce) this.atOnce.push(index)
    ring.stage(
      new Request(
        index,
        slot.generation,
        slot.op,
        slot.fd,
        (slot.flags & abi.C_MULTISHOT) !== 0,
        isAtOnce,
        slot.op === abi.OP_SEND ? slot.offset + slot.done : slot.offset,
        slot.op === abi.OP_SEND ? slot.length - slot.done : slot.length,
        slot.timeoutNs,
      ),
    )
    return true
  }

  private keep(index: number): void {
    const { fd, op } = this.tables.slots[index]
    this.parts.faults.count("submissionFull")
    // Needs no entry, and gives memory back.
    if (op === abi.OP_CLOSE) this.tables.completeLater(index, this.parts.closeFile(fd))
    else this.kept.push(index)
  }

  // ---- harvest ----

  private harvest(waitNs: number): void {
    const { ring, mapping, buffers } = this.parts
    const mayReport = this.urgent > 0 || this.isUnsettled || this.kept.length > 0 || this.hasEntries
    const isSleep = waitNs > 0 && !mayReport
    if (isSleep) this.boundWait(waitNs)
    const kept = this.kept
    this.kept = []
    for (const index of kept) this.arm(index)
    const isTaken = this.enter()
    if (isSleep && isTaken) {
      mapping.count(abi.HEADER_SYSTEM_CALLS)
      ring.wait(this.timerDueNs, () => this.hasHostEvent || this.parts.isOver())
    }
    this.urgent = 0
    const isWhole = ring.isSubmitted
    if (this.drain() && isWhole) this.settleSends()
    this.isUnsettled = this.atOnce.length > 0
    if (ring.parts.clock.nowNs >= this.timerDueNs) {
      mapping.set(abi.HEADER_WAIT_EXPIRED, 1)
      this.timerDueNs = Number.POSITIVE_INFINITY
    }
    if (this.hasHostEvent) mapping.set(abi.HEADER_HOST_READY, 1)
    this.hasHostEvent = false
    mapping.set(abi.HEADER_BUFFERS_LENT, buffers.finishedCount)
    this.leave()
    // A send that went out in leaving posts nothing, so the eventfd would stay silent.
    if (this.isSleeping && this.isUnsettled) this.parts.signal()
  }

  private get hasEntries(): boolean {
    const { ring } = this.parts
    return ring.hasCompletions || ring.parts.clock.nowNs >= this.timerDueNs || this.hasHostEvent
  }

  /** One timer serves many waits: it is armed anew only when it has fired, or would fire too late. */
  private boundWait(waitNs: number): void {
    if (this.isHostWatched && !this.isHostArmed) {
      this.isHostArmed = true
      this.hasHostEvent = this.parts.isHostReady()
    }
    const { nowNs } = this.parts.ring.parts.clock
    if (waitNs > FOREVER_NS || this.timerDueNs <= nowNs + waitNs + 1e6) return
    this.timerDueNs = nowNs + waitNs
  }

  private enter(): boolean {
    const { ring, mapping } = this.parts
    if (ring.hasOverflowed) mapping.count(abi.HEADER_OVERFLOWS)
    mapping.count(abi.HEADER_SYSTEM_CALLS)
    return ring.enter()
  }

  /** Asleep, nobody enters for us. */
  private leave(): void {
    const { ring, signal } = this.parts
    if (!this.isSleeping || (ring.isSubmitted && this.kept.length === 0)) return
    this.enter()
    if (!ring.isSubmitted || this.kept.length > 0) signal()
  }

  /** Returns true when the completion queue is empty. */
  private drain(): boolean {
    const { ring, faults } = this.parts
    while (this.tables.hasRoom) {
      const entry = ring.next()
      if (entry === undefined) break
      this.complete(entry)
      if (this.tables.lastEnded !== undefined && faults.happens("staleEntry"))
        this.completeStale(this.tables.lastEnded)
      if (this.tables.lastEnded !== undefined && this.tables.hasRoom && faults.happens("staleRecord")) {
        this.tables.write(
          this.tables.lastEnded.slot,
          this.tables.lastEnded.generation,
          1,
          0,
          0,
          this.tables.lastEnded.op,
        )
      }
    }
    if (ring.hasCompletions) faults.count("completionArrayFull")
    return !ring.hasCompletions
  }

  private completeStale(ended: { slot: number; generation: number; op: number }): void {
    this.complete({ ...ended, result: 1, hasMore: false, bufferOffset: -1, bufferHasMore: false })
  }

  private complete(entry: CompletionEntry): void {
    const { mapping, buffers } = this.parts
    const slot = this.tables.slots[entry.slot]
    if (entry.bufferOffset >= 0) buffers.lend(entry.bufferOffset, entry.result, entry.bufferHasMore)
    if (slot.op === 0 || slot.generation !== entry.generation) {
      mapping.count(abi.HEADER_STALE)
      return
    }
    let { result } = entry
    if (slot.op === abi.OP_SEND) {
      this.completeSend(entry.slot, result)
      return
    }
    if (slot.op === abi.OP_RECV) {
      if (result === -ENOBUFS) mapping.count(abi.HEADER_NO_BUFFERS)
      if (result > 0) mapping.count(abi.HEADER_BYTES_RECEIVED, result)
    } else if (slot.op === abi.OP_ACCEPT && result >= 0) result = this.tables.own(result)
    const hasBuffer = slot.op === abi.OP_RECV && result > 0
    const flags = (entry.hasMore ? abi.F_MORE : 0) | (hasBuffer ? abi.F_BUFFER : 0)
    this.tables.emit(entry.slot, result, flags, hasBuffer ? entry.bufferOffset : 0)
  }

  private completeSend(index: number, result: number): void {
    const { mapping } = this.parts
    const slot = this.tables.slots[index]
    const isFirst = slot.sendState === SEND_AT_ONCE
    slot.sendState = SEND_BLOCKED
    if (result > 0) {
      slot.done += result
      mapping.count(abi.HEADER_BYTES_SENT, result)
    }
    if (slot.done === slot.length) this.tables.emit(index, slot.length, 0, 0)
    else if (result > 0 || (isFirst && result === -EAGAIN)) {
      mapping.count(abi.HEADER_SENDS_BLOCKED)
      this.arm(index)
    } else this.tables.emit(index, result === 0 ? -EPIPE : result, 0, 0)
  }

  /** All failures are known: the sends that went out at once and have not failed have succeeded. */
  private settleSends(): void {
    const left: number[] = []
    for (const index of this.atOnce) {
      const slot = this.tables.slots[index]
      if (slot.op !== abi.OP_SEND || slot.sendState !== SEND_AT_ONCE) continue
      if (!this.tables.hasRoom) {
        left.push(index)
        continue
      }
      this.parts.mapping.count(abi.HEADER_BYTES_SENT, slot.length)
      this.tables.emit(index, slot.length, 0, 0)
    }
    this.atOnce = left
  }
}
