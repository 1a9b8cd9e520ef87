/**
 * A simulated io_uring: submission and completion queue, requests in flight, deferred work, cancellation, and the wait that
 * moves virtual time. Work that has come up is run when the thread enters, as with DEFER_TASKRUN. What the single
 * operations do is in socket_requests.ts.
 */
import * as abi from "../../ffi/abi.ts"
import type { VirtualClock } from "./clock.ts"
import type { FaultPlan } from "./faults.ts"
import type { OpenFiles } from "./open_files.ts"
import type { Random } from "./random.ts"
import type { ReceiveBuffers } from "./receive_buffers.ts"
import {
  CANCELLED,
  type CompletionEntry,
  ENDED,
  HELD,
  READY,
  type Request,
  STAGED,
  WAITING,
} from "./request.ts"
import { SocketRequests } from "./socket_requests.ts"

const EBADF = 9
const ENOENT = 2
const ETIME = 62
const EALREADY = 114
const ECANCELED = 125

/** An operation that is held back goes on within this, nanoseconds. */
const HELD_NS = 3e6
/** What entering the kernel takes, nanoseconds at most. */
const ENTER_NS = 20_000

/** Virtual time has come to its end while somebody waits for ever: nothing can happen any more. */
export class SimulationStuck extends Error {
  override name = "SimulationStuck"
}

export interface RingSizes {
  submissions: number
  completions: number
}

/** What a ring stands on. */
export interface RingParts {
  clock: VirtualClock
  random: Random
  faults: FaultPlan
  files: OpenFiles
  buffers: ReceiveBuffers
  /** Bytes of the send arena. */
  arena: (offset: number, length: number) => Uint8Array
  /** Begins to connect; `connected` is told how it went. */
  connect: (request: Request, connected: (result: number) => void) => void
}

export class Ring {
  readonly parts: RingParts
  private readonly sizes: RingSizes
  private readonly socketRequests: SocketRequests
  /** Submission queue. */
  private readonly staged: Request[] = []
  /** Completion queue, and behind it what has overflowed. */
  private readonly entries: CompletionEntry[] = []
  private entriesHead = 0
  /** In flight, by slot. */
  private readonly requests = new Map<number, Request>()
  /** Deferred work. */
  private ready: Request[] = []
  /** Called when there is deferred work or a completion entry: what an eventfd would tell. */
  onWork: () => void = () => {}

  constructor(parts: RingParts, sizes: RingSizes) {
    this.parts = parts
    this.sizes = sizes
    this.socketRequests = new SocketRequests(this)
  }

  get inFlight(): number {
    return this.requests.size
  }
  get hasCompletions(): boolean {
    return this.entriesHead < this.entries.length
  }
  /** Completion entries, or deferred work. */
  get hasWork(): boolean {
    return this.hasCompletions || this.ready.some((request) => request.state === READY)
  }
  get hasOverflowed(): boolean {
    return this.entries.length - this.entriesHead > this.sizes.completions
  }
  /** Everything staged has been taken. */
  get isSubmitted(): boolean {
    return this.staged.length === 0
  }
  get isSubmissionFull(): boolean {
    return this.staged.length >= this.sizes.submissions
  }

  /** Buffers and descriptors that are with the kernel: in entries that nobody has taken, and closes not begun. */
  underWay(): { buffers: number; descriptors: number } {
    let buffers = 0
    let descriptors = 0
    for (const { op } of this.staged) if (op === abi.OP_CLOSE) descriptors++
    for (let i = this.entriesHead; i < this.entries.length; i++) {
      const { op, result, bufferOffset, bufferHasMore } = this.entries[i]
      if (bufferOffset >= 0 && !bufferHasMore) buffers++
      if (op === abi.OP_ACCEPT && result >= 0) descriptors++
    }
    return { buffers, descriptors }
  }

  stage(request: Request): void {
    this.staged.push(request)
  }

  /** The next completion entry. */
  next(): CompletionEntry | undefined {
    if (!this.hasCompletions) return undefined
    const entry = this.entries[this.entriesHead++]
    if (this.entriesHead === this.entries.length) {
      this.entries.length = 0
      this.entriesHead = 0
    }
    return entry
  }

  /** io_uring_enter without a wait: takes what is staged, and runs deferred work. Returns false when it did not go well. */
  enter(): boolean {
    const { clock, random, faults } = this.parts
    clock.moveTo(clock.nowNs + random.integer(200, ENTER_NS))
    let count = this.staged.length
    // Without entries to take there is nothing that could fail: deferred work always runs.
    if (count > 0 && faults.happens("enterBusy")) return false
    if (count > 1 && faults.happens("enterPartial")) count = random.integer(1, count - 1)
    const isWhole = count === this.staged.length
    for (const request of this.staged.splice(0, count)) this.issue(request)
    this.runDeferred()
    return isWhole
  }

  /**
   * Sleeps until there is a completion entry, `isDisturbed`, or `untilNs`.
   * @throws SimulationStuck when none of it can ever be
   */
  wait(untilNs: number, isDisturbed: () => boolean): void {
    const { clock, random, faults } = this.parts
    const isInterrupted = faults.happens("enterInterrupted")
    for (;;) {
      this.runDeferred()
      if (this.hasCompletions || isDisturbed() || clock.nowNs >= untilNs) return
      const nextNs = clock.nextNs
      if (nextNs === Number.POSITIVE_INFINITY && untilNs === Number.POSITIVE_INFINITY) {
        throw new SimulationStuck(`nothing can happen any more, and ${this.inFlight} operations wait`)
      }
      if (isInterrupted) {
        clock.moveTo(clock.nowNs + random.next() * Math.min(nextNs - clock.nowNs, untilNs - clock.nowNs, 1e6))
        return
      }
      if (nextNs <= untilNs) clock.runNext()
      else clock.moveTo(untilNs)
    }
  }

  // ---- for the operations ----

  /** Posts a completion entry; without `hasMore` it is the request's last. */
  post(request: Request, result: number, hasMore = false, bufferOffset = -1, bufferHasMore = false): void {
    let more = hasMore
    if (this.entries.length - this.entriesHead >= this.sizes.completions) {
      this.parts.faults.count("completionOverflow")
      more = false // a multishot request does not go on into an overflowing queue
    }
    this.entries.push({
      slot: request.slot,
      generation: request.generation,
      op: request.op,
      result,
      hasMore: more,
      bufferOffset,
      bufferHasMore,
    })
    if (!more) this.end(request)
    this.onWork()
  }

  /** The request is over. */
  end(request: Request): void {
    request.state = ENDED
    const waiters = request.file?.waiters
    if (waiters !== undefined && request.waitsFor !== 0) {
      const index = waiters.indexOf(request)
      if (index >= 0) waiters.splice(index, 1)
    }
    if (this.requests.get(request.slot) === request) this.requests.delete(request.slot)
  }

  /** The request waits for events of its file. */
  await(request: Request, events: number): void {
    request.state = WAITING
    if (request.waitsFor !== 0) return
    request.waitsFor = events
    request.file?.waiters.push(request)
  }

  /** A waiting request can go on: it is run when the thread enters, or a while later. */
  wake(request: Request): void {
    if (request.state !== WAITING) return
    const { clock, random, faults } = this.parts
    if (faults.happens("lateCompletion")) {
      request.state = HELD
      clock.after(random.next() ** 3 * HELD_NS, () => {
        if (request.state === HELD) this.makeReady(request)
      })
    } else this.makeReady(request)
  }

  makeReady(request: Request): void {
    request.state = READY
    this.ready.push(request)
    this.onWork()
  }

  // ---- inside ----

  private runDeferred(): void {
    if (this.ready.length === 0) return
    const work = this.ready
    this.ready = []
    if (work.length > 1 && this.parts.faults.happens("reordered")) this.parts.random.shuffle(work)
    for (const request of work) if (request.state === READY) this.attempt(request)
  }

  private attempt(request: Request): void {
    if (request.op === abi.OP_TIMEOUT) this.post(request, -ETIME)
    else this.socketRequests.attempt(request)
  }

  private issue(request: Request): void {
    this.requests.set(request.slot, request)
    switch (request.op) {
      case abi.OP_NOP:
        this.post(request, 0)
        return
      case abi.OP_TIMEOUT:
        request.state = WAITING
        this.parts.clock.after(request.timeoutNs, () => this.wake(request))
        return
      case abi.OP_CANCEL:
        this.cancel(request)
        return
      case abi.OP_CLOSE:
        this.post(request, this.parts.files.close(request.fd) ? 0 : -EBADF)
        return
      default:
        request.file = this.parts.files.get(request.fd)
        if (request.file === undefined) this.post(request, -EBADF)
        else this.socketRequests.start(request)
    }
  }

  private cancel(request: Request): void {
    const { clock, random, faults } = this.parts
    let target = this.requests.get(request.offset)
    if (target?.generation !== request.length || target.state === STAGED) target = undefined
    if (
      target !== undefined &&
      (target.state === READY || target.state === HELD) &&
      target.op !== abi.OP_TIMEOUT
    ) {
      if (faults.happens("cancelLostRace")) this.socketRequests.attempt(target)
    }
    if (target === undefined || target.state === ENDED || target.state === CANCELLED) {
      faults.count("cancelNotFound")
      this.post(request, -ENOENT)
      return
    }
    const victim = target
    if (victim.op !== abi.OP_TIMEOUT && faults.happens("cancelAlready")) {
      this.post(request, -EALREADY)
      clock.after(random.next() * HELD_NS, () => {
        if (victim.state !== ENDED) this.endCancelled(victim)
      })
    } else if (faults.happens("cancelAnswersFirst")) {
      this.post(request, 0)
      victim.state = CANCELLED
      if (random.chance(0.5)) this.endCancelled(victim)
      else clock.after(random.next() * HELD_NS, () => this.endCancelled(victim))
    } else {
      this.endCancelled(victim)
      this.post(request, 0)
    }
  }

  private endCancelled(victim: Request): void {
    if (victim.state === ENDED) return
    // A send that has taken something says how much: the bytes are gone.
    this.post(victim, victim.sentBytes > 0 ? victim.sentBytes : -ECANCELED)
  }
}
