/**
 * The hosted host: the reactor lives beside the runtime's loop, which keeps its timers, fetch, files and signals.
 *
 *   asleep --- eventfd readable, or somebody asks for something ---> busy
 *   busy   --- SLEEP_AFTER stays in the ring without news ---------> asleep
 *
 * Asleep, the runtime's loop watches the ring's eventfd; nothing of ours runs. Busy, the eventfd is silent and each turn
 * (an immediate of the runtime) runs rounds that may sleep inside the ring, for at most `stayNs` in all, cut short when the
 * runtime's own epoll becomes readable. So a request costs no turn of the runtime's loop, and that loop waits at most
 * `stayNs` for its turn.
 *
 * What we cannot see is work that user code left with the runtime and that does not show in its epoll: an immediate, a
 * message to a port of this thread. So a turn ends without sleeping when something was delivered to user code and not
 * every delivery was answered with a write, and the runtime's loop gets a few turns before we sleep again; a handler that
 * answers at once has left nothing behind.
 * docs/decisions/hosted-loop.md has the measurements.
 */
import type { EventWatch } from "../../ffi/native.ts"
import type { ReactorCore } from "./core.ts"
import type { Host } from "./host.ts"

/** Stays without any news before going to sleep. */
const SLEEP_AFTER = 4
/**
 * A turn with this many completions is a busy one: news came within an eighth of a stay. The next wait's timer is then set
 * eight stays ahead, because news will end the wait long before, and in a virtual machine a timer that fires costs as much as
 * several requests. When the news stops all at once, the runtime's timers are late by that much, once.
 */
const BUSY_COMPLETIONS = 16
const BUSY_WAIT_STAYS = 8
/** Turns of the runtime's loop after a delivery that was not answered at once: an immediate may queue another. */
const UNANSWERED_TURNS = 2
/** Rounds in a turn at most, whatever the clock says. */
const ROUNDS_PER_TURN = 64
/** Asleep with nothing but unreferenced sockets: looks this often. A watch would keep the process alive. */
const UNREFERENCED_LOOK_MS = 2
/** Looks for the descriptor of the runtime's loop before giving up. */
const DISCOVERY_ATTEMPTS = 16

export class HostedHost implements Host {
  private readonly core: ReactorCore
  private readonly stayNs: number
  private readonly watch: EventWatch
  private asleep = true
  /** A turn is queued or running. */
  private scheduled = false
  /** Turns that the runtime's loop is to have before a round may sleep. */
  private owedTurns = 1
  /** Stays in a row that brought nothing. */
  private emptyStays = 0
  /** The last turn was a busy one. */
  private isBusy = false
  private discoveryAttempts = 0
  /** Asleep: wakes for the next deadline, or to look after unreferenced sockets. */
  private timer: unknown
  private readonly turnCallback: () => void
  private readonly wakeCallback: () => void

  constructor(core: ReactorCore) {
    this.core = core
    this.stayNs = core.settings.stayNs
    this.turnCallback = () => this.turn()
    this.wakeCallback = () => this.schedule()
    this.watch = core.loop.watchEvent(core.native.eventFd(core.ring), this.wakeCallback)
  }

  schedule(): void {
    if (this.scheduled || this.core.isClosed) return
    if (this.asleep) this.wake()
    this.scheduled = true
    this.core.loop.nextTurn(this.turnCallback, this.core.hasHolds)
  }

  holdsChanged(): void {
    if (this.core.isClosed) return
    if (this.asleep) this.settleSleep()
    // The turn that is queued may have been queued without keeping the process alive.
    else if (this.core.hasHolds) this.core.loop.nextTurn(nothing, true)
  }

  dispose(): void {
    this.watch.close()
    this.clearTimer()
  }

  private turn(): void {
    const core = this.core
    if (core.isClosed) return
    const stayNs = this.stayNs
    const sleepNs = this.isBusy ? stayNs * BUSY_WAIT_STAYS : stayNs
    let waitNs = this.owedTurns === 0 ? sleepNs : 0
    if (this.owedTurns > 0) this.owedTurns--
    let turnEndsMs = Number.POSITIVE_INFINITY
    let rounds = 0
    let completions = 0
    for (;;) {
      const count = core.round(waitNs)
      if (core.isClosed) return
      rounds++
      completions += count
      if (turnEndsMs === Number.POSITIVE_INFINITY) turnEndsMs = core.now + stayNs / 1e6
      if (count > 0) this.emptyStays = 0
      else if (core.waitExpired || stayNs === 0) this.emptyStays += this.isBusy ? BUSY_WAIT_STAYS : 1
      if (core.hostReady) {
        // The runtime's loop runs user code next, which may leave immediates behind the turn that we queue now.
        this.owedTurns = Math.max(this.owedTurns, 1)
        break
      }
      if (core.deliveries > core.answers) {
        this.owedTurns = UNANSWERED_TURNS
        break
      }
      if (core.waitExpired) break
      if ((count === 0 && !core.hasWork) || rounds === ROUNDS_PER_TURN || core.now >= turnEndsMs) break
      waitNs = sleepNs
    }
    if (completions >= BUSY_COMPLETIONS) this.isBusy = true
    else if (waitNs > 0) this.isBusy = false // a turn that was not to wait says nothing
    this.scheduled = false
    if (this.emptyStays >= SLEEP_AFTER && !core.hasWork && this.fallAsleep()) return
    if (!core.isClosed) this.schedule()
  }

  /** Returns false when there was something after all. */
  private fallAsleep(): boolean {
    const core = this.core
    this.emptyStays = 0
    if (core.native.notify(core.ring, 1) < 0) return false
    // What completed before the eventfd could speak: this look is the one that makes sleeping safe.
    this.scheduled = true // nothing that it sets off may queue a turn: the caller does
    const count = core.round(0)
    this.scheduled = false
    if (core.isClosed) return true
    if (count > 0 || core.hasWork) {
      core.native.notify(core.ring, 0)
      return false
    }
    this.asleep = true
    this.settleSleep()
    return true
  }

  private wake(): void {
    this.asleep = false
    this.owedTurns = 1
    this.core.native.notify(this.core.ring, 0)
    this.clearTimer()
    this.discover()
  }

  /** Asleep: what wakes us, and whether it keeps the process alive. */
  private settleSleep(): void {
    const core = this.core
    this.clearTimer()
    if (core.hasHolds) this.watch.open()
    else this.watch.close()
    this.discover()
    const dueMs =
      core.deadlines.armed > 0 ? core.deadlines.nextDueInMs(core.clock()) : Number.POSITIVE_INFINITY
    const lookMs = !core.hasHolds && core.hasPending ? UNREFERENCED_LOOK_MS : Number.POSITIVE_INFINITY
    const afterMs = Math.min(dueMs, lookMs, MAX_TIMER_MS)
    if (afterMs === MAX_TIMER_MS && dueMs === Number.POSITIVE_INFINITY) return
    this.timer = core.loop.setTimer(() => this.look(), Math.ceil(afterMs), core.hasHolds)
  }

  /** A timer of the sleeping reactor: a round without waiting, and back to sleep unless there is more. */
  private look(): void {
    const core = this.core
    this.timer = undefined
    if (!this.asleep || core.isClosed) return
    if (core.round(0) > 0 || core.hasWork) this.schedule()
    else if (this.asleep && !core.isClosed) this.settleSleep()
  }

  private clearTimer(): void {
    if (this.timer === undefined) return
    this.core.loop.clearTimer(this.timer)
    this.timer = undefined
  }

  /** Finds the descriptor of the runtime's loop by its watching our eventfd, so that stays end when it has work. */
  private discover(): void {
    if (this.discoveryAttempts >= DISCOVERY_ATTEMPTS || !this.watch.isOpen || this.stayNs === 0) return
    this.discoveryAttempts++
    const fd = this.core.loop.loopDescriptor(this.core.native.eventFd(this.core.ring))
    if (fd < 0) return
    this.core.native.watch(this.core.ring, fd)
    this.discoveryAttempts = DISCOVERY_ATTEMPTS
  }
}

const MAX_TIMER_MS = 2 ** 31 - 1

function nothing(): void {}
