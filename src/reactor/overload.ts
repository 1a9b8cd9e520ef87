/**
 * Overload of a reactor: `maxConnections` are open, or (with `overload`) nearly all send memory is in use.
 *
 *   0 none     -- a limit is reached ------------------> 1 waiting     listeners stop accepting: who comes waits in the backlog
 *   1 waiting  -- it has lasted `refuseAfterMs` -------> 2 refusing    listeners accept and reset: who comes knows at once
 *   any        -- it has lasted `resetAfterMs` --------> and resetting connections that do not move are reset, some at a time
 *   any        -- 5 % below the limit, and memory below LOW_MEMORY of its own --> 0
 *
 * Without limits nothing of this runs: the table of descriptors is watched from the first limited listener on, and completions
 * only while the reactor is overloaded and `resetAfterMs` is set, by methods that stand in front of the usual ones.
 */
import type { ReactorCore } from "./core.ts"
import { Deadline, type DeadlineOwner } from "./deadlines.ts"
import type { OverloadSettings } from "./overload_options.ts"

/** A listener, as far as limits are concerned. */
export interface AcceptLimiter {
  /** One of its connections is being closed. */
  connectionClosed(): void
  /** The stage has changed. */
  stageChanged(): void
}

/** Stages of `reactor.stats().overloadStage`. */
export const STAGE_NONE = 0
export const STAGE_WAITING = 1
export const STAGE_REFUSING = 2

/** Accepting goes on below this share of a limit. */
const LOW_SHARE = 0.95
/** Of the share of send memory that is overload, the part to which it must fall. */
const LOW_MEMORY = 0.8
/** Time between looks while overloaded. */
const CHECK_MS = 50
/** Connections reset in one look, of those open. */
const RESET_SHARE = 0.05

/** Open connections at which accepting goes on again after `most` were open. */
export function lowMark(most: number): number {
  return Math.min(most - 1, Math.floor(most * LOW_SHARE))
}

export class Overload implements DeadlineOwner {
  stage = STAGE_NONE
  /** Connections of limited listeners that are open. */
  connections = 0
  private readonly core: ReactorCore
  private readonly settings: OverloadSettings
  private readonly limiters = new Set<AcceptLimiter>()
  /** Listener of each accepted connection, by descriptor. */
  private readonly limiterOf = new Map<number, AcceptLimiter>()
  private readonly check = new Deadline(this, 0)
  private sinceMs = 0
  private isWatching = false
  /** While it matters: when each connection's last operation completed. */
  private moved: WeakMap<object, number> | undefined
  private unwatchMoves = nothing

  constructor(core: ReactorCore, settings: OverloadSettings) {
    this.core = core
    this.settings = settings
  }

  /** Every listener has to ask before it takes a connection. */
  get isLimited(): boolean {
    return this.settings.maxConnections !== Number.POSITIVE_INFINITY || this.settings.hasStages
  }

  add(limiter: AcceptLimiter): void {
    this.limiters.add(limiter)
    if (this.isWatching) return
    this.isWatching = true
    const { descriptors } = this.core
    const remove = descriptors.remove.bind(descriptors)
    descriptors.remove = (fd) => {
      remove(fd)
      this.closed(fd)
    }
  }

  /** The listener has stopped. Its connections go on, and count. */
  remove(limiter: AcceptLimiter): void {
    this.limiters.delete(limiter)
    if (this.limiters.size === 0) this.leave()
  }

  /** A connection of a limited listener has been accepted, and is served. */
  opened(fd: number, limiter: AcceptLimiter): void {
    this.connections++
    this.limiterOf.set(fd, limiter)
  }

  private closed(fd: number): void {
    const limiter = this.limiterOf.get(fd)
    if (limiter === undefined) return
    this.limiterOf.delete(fd)
    this.connections--
    if (this.stage !== STAGE_NONE && this.isOver()) this.leave()
    limiter.connectionClosed()
  }

  /** Whether another connection may be taken; finds out that the reactor is overloaded. */
  mayAccept(): boolean {
    if (this.stage !== STAGE_NONE) return false
    if (this.connections < this.settings.maxConnections && !this.isMemoryShort(1)) return true
    this.enter()
    return false
  }

  /** Somebody found no send memory. */
  memoryRefused(): void {
    if (this.settings.hasStages && this.stage === STAGE_NONE && this.limiters.size > 0) {
      this.enter()
      this.tell()
    }
  }

  private isMemoryShort(share: number): boolean {
    const { arena } = this.core
    return this.settings.hasStages && arena.bytesInUse >= arena.sizeBytes * this.settings.memoryShare * share
  }

  private isOver(): boolean {
    return this.connections <= lowMark(this.settings.maxConnections) && !this.isMemoryShort(LOW_MEMORY)
  }

  private enter(): void {
    this.core.counters.overloads++
    this.stage = STAGE_WAITING
    this.sinceMs = this.core.now
    if (!this.settings.hasStages) return
    this.core.arm(this.check, CHECK_MS)
    if (this.settings.resetAfterMs !== Number.POSITIVE_INFINITY) this.watchMoves()
  }

  private leave(): void {
    if (this.stage === STAGE_NONE) return
    this.stage = STAGE_NONE
    this.core.deadlines.clear(this.check)
    this.moved = undefined
    this.unwatchMoves()
    this.unwatchMoves = nothing
    this.tell()
  }

  private tell(): void {
    for (const limiter of this.limiters) limiter.stageChanged()
  }

  onDeadline(): void {
    if (this.isOver()) {
      this.leave()
      return
    }
    const lastedMs = this.core.now - this.sinceMs
    if (this.stage === STAGE_WAITING && lastedMs >= this.settings.refuseAfterMs) {
      this.stage = STAGE_REFUSING
      this.tell()
    }
    this.core.arm(this.check, CHECK_MS)
    if (lastedMs >= this.settings.resetAfterMs) this.resetSome()
  }

  // ---- resetting ----

  private watchMoves(): void {
    const { slots } = this.core
    const moved = new WeakMap<object, number>()
    const before = Object.getOwnPropertyDescriptor(slots, "admit")
    const admit = slots.admit.bind(slots)
    this.unwatchMoves = () => {
      if (before === undefined) Reflect.deleteProperty(slots, "admit")
      else Object.defineProperty(slots, "admit", before)
    }
    this.moved = moved
    slots.admit = (slot, generation) => {
      if (!admit(slot, generation)) return false
      moved.set(slots.ownerOf(slot) as object, this.core.now)
      return true
    }
  }

  /** Resets some of the connections that have not moved for `resetAfterMs`: those first that stand still the longest. */
  private resetSome(): void {
    const { descriptors, now } = this.core
    const lastMove = (owner: object | undefined) => this.moved?.get(owner as object) ?? this.sinceMs
    const isMemory = this.isMemoryShort(LOW_MEMORY)
    const candidates = (
      isMemory ? descriptors.all() : [...this.limiterOf.keys()].map((fd) => descriptors.ownerOf(fd))
    ).filter(
      (owner) => owner?.resetByOverload !== undefined && now - lastMove(owner) >= this.settings.resetAfterMs,
    )
    const held = isMemory ? candidates.filter((owner) => (owner?.unsentBytes ?? 0) > 0) : candidates
    held.sort((a, b) => lastMove(a) - lastMove(b))
    const most = Math.max(1, Math.ceil(descriptors.open * RESET_SHARE))
    for (const owner of held.slice(0, most)) {
      this.core.counters.connectionsReset++
      owner?.resetByOverload?.()
    }
  }
}

function nothing(): void {}
