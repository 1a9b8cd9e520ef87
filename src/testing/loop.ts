/**
 * A runtime's event loop in virtual time, for the hosted host: timers, I/O, immediates, in this order, with microtasks after
 * each callback. Time passes while the reactor sleeps in its ring, and when nothing else is left to do.
 *
 * It also knows what a real loop does when nothing keeps it alive: the process ends. `run` fails instead, when somebody
 * still holds the reactor.
 */
import { bunLoop } from "../../ffi/bun.ts"
import type { EventWatch, RuntimeLoop } from "../../ffi/native.ts"
import type { VirtualClock } from "./clock.ts"
import type { Random } from "./random.ts"
import { SimulationStuck } from "./ring.ts"

/** A turn of the loop takes this, nanoseconds at most. */
const TURN_NS = 50_000
/** The descriptor of the loop's own epoll instance. */
const LOOP_FD = 7

interface Turn {
  callback: () => void
  keepAlive: boolean
}

interface Timer extends Turn {
  dueNs: number
  isSet: boolean
}

/** An eventfd: readable until somebody has read it. */
class EventFlag implements EventWatch {
  isReadable = false
  isOpen = false
  private readonly onReadable: () => void

  constructor(onReadable: () => void) {
    this.onReadable = onReadable
  }
  open(): void {
    this.isOpen = true
  }
  close(): void {
    this.isOpen = false
  }
  /** Reads it. */
  take(): void {
    this.isReadable = false
    this.onReadable()
  }
}

export class SimulatedLoop implements RuntimeLoop {
  readonly drainMicrotasks = bunLoop.drainMicrotasks
  /** What callbacks of `nextTurn` threw: a runtime's uncaught exceptions. */
  readonly uncaught: unknown[] = []
  /** Called when the loop has nothing to do, before it waits. */
  onIdle: (isHeld: boolean) => void = () => {}
  /** Called when the loop comes to have I/O to do. */
  onIo: () => void = () => {}
  private readonly clock: VirtualClock
  private readonly random: Random
  /** Whether the descriptor of the loop can be found. */
  private readonly isFindable: boolean
  private turns: Turn[] = []
  private readonly timers: Timer[] = []
  private readonly io: (() => void)[] = []
  private readonly flags = new Map<number, EventFlag>()
  /** Eventfds that were signalled before anybody watched them. */
  private readonly signalled = new Set<number>()

  constructor(clock: VirtualClock, random: Random) {
    this.clock = clock
    this.random = random
    this.isFindable = random.chance(0.7)
  }

  nextTurn(callback: () => void, keepAlive: boolean): void {
    this.turns.push({ callback, keepAlive })
  }

  setTimer(callback: () => void, afterMs: number, keepAlive: boolean): Timer {
    const timer = { callback, keepAlive, dueNs: this.clock.nowNs + Math.max(afterMs, 1) * 1e6, isSet: true }
    this.timers.push(timer)
    return timer
  }

  clearTimer(timer: unknown): void {
    const index = this.timers.indexOf(timer as Timer)
    if (index >= 0) this.timers.splice(index, 1)
    ;(timer as Timer).isSet = false
  }

  watchEvent(eventFd: number, onReadable: () => void): EventWatch {
    const flag = new EventFlag(onReadable)
    flag.isReadable = this.signalled.delete(eventFd)
    this.flags.set(eventFd, flag)
    return flag
  }

  loopDescriptor(eventFd: number): number {
    return this.isFindable && this.flags.get(eventFd)?.isOpen === true ? LOOP_FD : -1
  }

  /** Makes an eventfd readable. */
  signal(eventFd: number): void {
    const flag = this.flags.get(eventFd)
    if (flag === undefined) this.signalled.add(eventFd)
    else flag.isReadable = true
    if (flag?.isOpen) this.onIo()
  }

  /** An eventfd that has been made readable and will be read. */
  isSignalled(eventFd: number): boolean {
    const flag = this.flags.get(eventFd)
    return flag?.isOpen === true && flag.isReadable
  }

  /** Work of the runtime's own that comes in by its epoll: a fetch, a file. */
  receiveIo(callback: () => void): void {
    this.io.push(callback)
    this.onIo()
  }

  get hasIo(): boolean {
    if (this.io.length > 0) return true
    for (const flag of this.flags.values()) if (flag.isOpen && flag.isReadable) return true
    return false
  }

  /**
   * Runs turns until `isDone`.
   * @param isHeld something holds the reactor: the process must not end
   * @throws SimulationStuck when nothing can happen any more, or the process would end
   */
  run(isDone: () => boolean, isHeld: () => boolean = () => true): void {
    this.drainMicrotasks()
    while (!isDone()) {
      if (isHeld() && !this.isAlive)
        throw new SimulationStuck("the runtime would exit while the reactor is held")
      this.clock.moveTo(this.clock.nowNs + this.random.integer(1000, TURN_NS))
      const hasRun = this.runTimers() || this.runIo() || this.runTurns()
      if (hasRun || isDone()) continue
      this.onIdle(isHeld())
      const nextNs = Math.min(this.clock.nextNs, ...this.timers.map((timer) => timer.dueNs))
      if (nextNs === Number.POSITIVE_INFINITY) throw new SimulationStuck("the runtime's loop waits for ever")
      if (nextNs === this.clock.nextNs) this.clock.runNext()
      else this.clock.moveTo(nextNs)
    }
  }

  /** Runs what `nextTurn` was given, for the owned host, which has no turns of its own. */
  flushTurns(): void {
    while (this.turns.length > 0) this.runTurns()
  }

  private get isAlive(): boolean {
    for (const flag of this.flags.values()) if (flag.isOpen) return true
    return (
      this.io.length > 0 ||
      this.turns.some((turn) => turn.keepAlive) ||
      this.timers.some((timer) => timer.keepAlive)
    )
  }

  private runTimers(): boolean {
    const due = this.timers.filter((timer) => timer.dueNs <= this.clock.nowNs)
    due.sort((a, b) => a.dueNs - b.dueNs)
    for (const timer of due) {
      if (!timer.isSet) continue // cleared by one before it
      this.clearTimer(timer)
      this.call(timer.callback)
    }
    return due.length > 0
  }

  private runIo(): boolean {
    const callbacks = this.io.splice(0)
    for (const flag of this.flags.values())
      if (flag.isOpen && flag.isReadable) callbacks.push(() => flag.take())
    this.random.shuffle(callbacks)
    for (const callback of callbacks) this.call(callback)
    return callbacks.length > 0
  }

  private runTurns(): boolean {
    const turns = this.turns
    this.turns = []
    for (const { callback } of turns) this.call(callback)
    return turns.length > 0
  }

  private call(callback: () => void): void {
    try {
      callback()
    } catch (error) {
      // A simulation that has come to its end, or found something, is no error of the program.
      if (error instanceof SimulationStuck || (error as Error)?.name === "Violation") throw error
      this.uncaught.push(error)
    }
    this.drainMicrotasks()
  }
}
