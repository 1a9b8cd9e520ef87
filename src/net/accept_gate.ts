/**
 * The gate of a listener with limits: how many connections are open, how many are accepted a second, and what the reactor as
 * a whole can bear (reactor/overload.ts). A listener without limits has none.
 *
 *   accepted -> admitted                      there is room and a token
 *            -> parked, accepting stops       there is not; the rest waits in the kernel's backlog
 *            -> reset                         the reactor refuses (overload)
 *
 * The kernel may have accepted more by the time that accepting stops, up to a backlog full: these are parked, oldest first,
 * without the program hearing of them, and are the first to be admitted.
 */
import * as abi from "../../ffi/abi.ts"
import { integerOption, outOfRange } from "../errors.ts"
import type { Flushable, ReactorCore } from "../reactor/core.ts"
import { Deadline, type DeadlineOwner } from "../reactor/deadlines.ts"
import { type AcceptLimiter, lowMark, type Overload, STAGE_REFUSING } from "../reactor/overload.ts"
import { limitOption } from "../reactor/overload_options.ts"

export interface AcceptLimits {
  /** Connections of this listener open at once. At the limit others wait in the backlog, until 5 % are closed. Default: none. */
  maxConnections?: number
  /** Connections accepted a second, on average; others wait in the backlog. Default: no limit. */
  acceptsPerSecond?: number
  /** Connections accepted at once after a rest. Default: `acceptsPerSecond`. */
  acceptBurst?: number
}

/** The listener behind the gate. */
export interface Gated {
  serve(fd: number): void
  /** Leaves connections in the backlog, or takes them again. May be told twice. */
  setAccepting(isAccepting: boolean): void
}

/** Shortest wait for a token: more are taken at once instead. */
const TOKEN_WAIT_MS = 4

export class AcceptGate implements AcceptLimiter, DeadlineOwner, Flushable {
  private readonly core: ReactorCore
  private readonly overload: Overload
  private readonly listener: Gated
  private readonly most: number
  private readonly tokensPerMs: number
  private readonly burst: number
  private tokens: number
  private filledMs: number
  private readonly refill = new Deadline(this, 0)
  private open = 0
  /** `most` were open, and it has not come down to the low mark. */
  private isFull = false
  private isAccepting = true
  private readonly parked: number[] = []
  private isDirty = false
  private isStopped = false

  /** A gate, if anything limits this listener. @throws TypeError, RangeError */
  static of(core: ReactorCore, limits: AcceptLimits, listener: Gated): AcceptGate | undefined {
    const { maxConnections, acceptsPerSecond } = limits
    const isLimited =
      maxConnections !== undefined || acceptsPerSecond !== undefined || core.overload.isLimited
    return isLimited ? new AcceptGate(core, limits, listener) : undefined
  }

  private constructor(core: ReactorCore, limits: AcceptLimits, listener: Gated) {
    this.core = core
    this.overload = core.overload
    this.listener = listener
    this.most = limits.maxConnections ?? Number.POSITIVE_INFINITY
    this.burst = limits.acceptBurst ?? limits.acceptsPerSecond ?? Number.POSITIVE_INFINITY
    this.tokensPerMs = (limits.acceptsPerSecond ?? 0) / 1000
    this.tokens = this.burst
    this.filledMs = core.clock()
    this.overload.add(this)
  }

  /** Connections accepted that the program has not heard of. */
  get waiting(): number {
    return this.parked.length
  }

  accepted(fd: number): void {
    if (this.isStopped || this.overload.stage === STAGE_REFUSING) this.refuse(fd)
    else if (this.parked.length === 0 && this.mayAdmit()) this.admit(fd)
    else this.parked.push(fd)
    this.settle()
  }

  private mayAdmit(): boolean {
    return !this.isFull && this.overload.mayAccept() && this.hasToken()
  }

  private hasToken(): boolean {
    if (this.tokensPerMs === 0) return true
    const nowMs = this.core.now
    // Not more often than the clock moves: a burst within one round is told apart by the tokens alone.
    if (nowMs > this.filledMs) {
      this.tokens = Math.min(this.burst, this.tokens + (nowMs - this.filledMs) * this.tokensPerMs)
      this.filledMs = nowMs
    }
    return this.tokens >= 1
  }

  private admit(fd: number): void {
    this.tokens--
    this.open++
    if (this.open >= this.most) this.isFull = true
    this.overload.opened(fd, this)
    this.listener.serve(fd)
  }

  /** Resets a connection that is not to be served. */
  private refuse(fd: number): void {
    this.core.counters.connectionsRefused++
    this.core.native.setOption(this.core.ring, fd, abi.O_LINGER, 0)
    this.core.discard(fd)
  }

  /** Accepting goes on exactly while the next connection would be taken, or refused. */
  private settle(): void {
    if (this.isStopped) return
    const isRefusing = this.overload.stage === STAGE_REFUSING
    const accepts = isRefusing || (this.parked.length === 0 && this.mayAdmit())
    if (!accepts && this.isAccepting) this.core.counters.acceptLimitPauses++
    if (accepts !== this.isAccepting) {
      this.isAccepting = accepts
      this.listener.setAccepting(accepts)
    }
    const waitsForToken = this.tokensPerMs > 0 && this.tokens < 1 && !isRefusing
    if (waitsForToken && !this.refill.isArmed)
      this.core.arm(this.refill, Math.max(TOKEN_WAIT_MS, (1 - this.tokens) / this.tokensPerMs))
  }

  /** Before the next tick: who waits is taken, as far as that goes. */
  flushCommands(): void {
    this.isDirty = false
    if (this.isStopped) return
    if (this.overload.stage === STAGE_REFUSING) for (const fd of this.parked.splice(0)) this.refuse(fd)
    while (this.parked.length > 0 && this.mayAdmit()) this.admit(this.parked.shift() as number)
    this.settle()
  }

  // Called from the middle of anything: programs hear of connections before the next tick, not inside.
  private markDirty(): void {
    if (this.isDirty || this.isStopped) return
    this.isDirty = true
    this.core.markDirty(this)
  }

  connectionClosed(): void {
    this.open--
    if (this.isFull && this.open <= lowMark(this.most)) {
      this.isFull = false
      this.markDirty()
    }
  }

  stageChanged(): void {
    this.markDirty()
  }

  onDeadline(): void {
    this.markDirty()
  }

  /** The listener has stopped: who was not admitted is reset, as are those in the kernel's backlog. */
  stop(): void {
    this.isStopped = true
    this.core.deadlines.clear(this.refill)
    for (const fd of this.parked.splice(0)) this.refuse(fd)
    this.overload.remove(this)
  }
}

/** @throws TypeError, RangeError that names the option */
export function checkAcceptLimits({ maxConnections, acceptsPerSecond, acceptBurst }: AcceptLimits): void {
  limitOption("maxConnections", maxConnections)
  limitOption("acceptsPerSecond", acceptsPerSecond)
  if (acceptBurst === undefined) return
  integerOption("acceptBurst", acceptBurst, 1, 2 ** 31 - 1)
  if (acceptsPerSecond === undefined)
    throw outOfRange("acceptBurst", "given with acceptsPerSecond", acceptBurst)
}
