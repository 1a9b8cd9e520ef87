// The deadlines of connections: a hierarchical timing wheel of intrusive nodes.
//
// A server arms an idle deadline on every byte it receives and lets almost none of them fire. So arming and
// clearing must cost the same with ten connections and with a million: a node is linked into the slot of its
// due tick and out again, and nothing is sorted, searched or allocated.
//
// Six levels of 32 slots. A slot of level 0 is one tick wide, a slot of level n is 32^n ticks wide. The level
// of a deadline is where its due tick first differs from the current tick, read in base 32 from the top:
//
//     tick:  | epoch ...  | level 5 | level 4 | level 3 | level 2 | level 1 | level 0 |
//     bits:  | 30 and up  | 25..29  | 20..24  | 15..19  | 10..14  |  5..9   |  0..4   |
//
// Three things follow, and the code below leans on them:
//   - Every occupied slot lies ahead of the current tick and none wraps around. The lowest set bit of the
//     lowest level that is not empty is the next thing to happen, whatever the distance: no empty tick is
//     ever walked.
//   - When the current tick reaches the start of a slot of level n > 0, its nodes move to lower levels
//     ("cascade"), at most five times in the life of a deadline.
//   - What lies beyond the current epoch (2^30 ticks, 49 days at 4 ms) waits in one far list that cascades at
//     the end of the epoch, so that any finite duration is held without loss.

const SLOT_BITS = 5
const SLOTS_PER_LEVEL = 1 << SLOT_BITS
const LEVELS = 6
const EPOCH_TICKS = 2 ** (SLOT_BITS * LEVELS)

/**
 * The far list: counted as the only slot of a level above the last, so that it has a head and a bit like any
 * other.
 */
const FAR_SLOT = LEVELS * SLOTS_PER_LEVEL
const NO_SLOT = -1

const MAX_RESOLUTION_MS = 1000
/** Keeps every sum of times exact to well under a tick. */
const MAX_MS = Number.MAX_SAFE_INTEGER

/** What a deadline belongs to: a connection, a dial, a listener. */
export interface DeadlineOwner {
  /**
   * Called once when `deadline` fires; it is no longer armed by then and may be armed again from here.
   * May arm and clear any deadline of the wheel. May throw: the other deadlines still fire.
   */
  onDeadline(kind: number, deadline: Deadline): void
}

/**
 * One deadline, and at the same time its node in the wheel. Made once per connection and kind, then armed and
 * cleared any number of times. Belongs to one wheel for as long as it is armed. 64 bytes.
 */
export class Deadline {
  readonly owner: DeadlineOwner
  /**
   * The owner's own number for what this deadline means (idle, linger, connect). Handed back when it fires.
   */
  readonly kind: number
  /** First tick at which it may fire. Written by the wheel; meaningful while armed. */
  dueTick = 0
  /** Neighbours in the circular list of its slot; itself while not armed. Written by the wheel. */
  prev: Deadline = this
  next: Deadline = this
  /** level * 32 + slot within the level, or -1 while not armed. Written by the wheel. */
  slot = NO_SLOT

  constructor(owner: DeadlineOwner, kind: number) {
    this.owner = owner
    this.kind = kind
  }

  get isArmed(): boolean {
    return this.slot !== NO_SLOT
  }
}

/**
 * All times are milliseconds of one clock that the caller chooses (`performance.now()`, a simulated one);
 * fractions count.
 */
export class DeadlineWheel {
  readonly resolutionMs: number
  /** The time of tick 0: a whole number, so that subtracting it from a later time is exact. */
  private readonly originMs: number
  /** The latest time given to `advance`. Never decreases. */
  private nowMs: number
  /**
   * The current tick is `epochTick + lowTick`; `epochTick` is a multiple of EPOCH_TICKS. All ticks up to it
   * have fired.
   */
  private epochTick = 0
  /** 0 to EPOCH_TICKS - 1: stays an int32 however long the process runs. Written by `moveTo` alone. */
  private lowTick = 0
  /** Deadlines linked into slots. */
  private armedCount = 0
  /** True while callbacks run. Written by `advance` alone. */
  private advancing = false
  /** Sentinel of each slot's circular list, the far list last. */
  private readonly heads: Deadline[] = []
  /** One word per level, bit n set if and only if slot n has a node; the last word is the far list's. */
  private readonly occupied = new Int32Array(LEVELS + 1)

  /**
   * @param nowMs any finite time; the wheel starts there
   * @param resolutionMs width of a tick, a whole number from 1 to 1000; deadlines fire up to this much late,
   * never early
   * @throws RangeError
   */
  constructor(nowMs: number, resolutionMs = 4) {
    if (!(Math.abs(nowMs) <= MAX_MS)) throw outOfRange("nowMs", nowMs, -MAX_MS, MAX_MS)
    if (!(Number.isInteger(resolutionMs) && resolutionMs >= 1 && resolutionMs <= MAX_RESOLUTION_MS)) {
      throw new RangeError(
        `resolutionMs must be a whole number from 1 to ${MAX_RESOLUTION_MS}, got ${resolutionMs}`,
      )
    }
    this.resolutionMs = resolutionMs
    this.originMs = Math.floor(nowMs)
    this.nowMs = nowMs
    for (let slot = 0; slot <= FAR_SLOT; slot++) this.heads.push(new Deadline(SENTINEL_OWNER, slot))
  }

  /** Number of armed deadlines. */
  get armed(): number {
    return this.armedCount
  }

  /**
   * Arms `deadline` to fire at the first tick at or after `nowMs + afterMs`, and after the tick that fired
   * last. One that is armed already moves. A `nowMs` before the last `advance` counts as that time. The order
   * of deadlines that fall on the same tick is not defined.
   *
   * @throws RangeError if `afterMs` is negative, NaN or beyond 2^53 - 1, or `nowMs` is NaN or beyond it; an
   * armed deadline then stays as it was
   */
  arm(deadline: Deadline, nowMs: number, afterMs: number): void {
    if (!(afterMs >= 0 && afterMs <= MAX_MS)) throw outOfRange("afterMs", afterMs, 0, MAX_MS)
    if (!(nowMs <= MAX_MS)) throw outOfRange("nowMs", nowMs, -MAX_MS, MAX_MS)
    const dueMs = Math.max(nowMs, this.nowMs) - this.originMs + afterMs
    const currentTick = this.epochTick + this.lowTick
    // Rounding of the quotient cannot make it early: between a multiple of a whole number and the next double
    // there is more than half a unit of the quotient's last place.
    const dueTick = Math.max(Math.ceil(dueMs / this.resolutionMs), currentTick + 1)

    const slot = this.slotOf(dueTick)
    deadline.dueTick = dueTick
    // A busy connection re-arms its idle deadline far more often than that deadline's slot changes, which is
    // 4 s wide at 30 s. Leaving the lists alone then takes re-arming from 13 ns to 9 (loop over 1000 and
    // 100,000 armed deadlines, Bun 1.4.5, EPYC).
    if (slot === deadline.slot) return
    if (deadline.slot === NO_SLOT) this.armedCount += 1
    else this.unlink(deadline)
    this.link(deadline, slot)
  }

  /** Takes `deadline` out; it will not fire. Does nothing if it is not armed. */
  clear(deadline: Deadline): void {
    if (deadline.slot === NO_SLOT) return
    this.unlink(deadline)
    // A cleared node must not keep the connections alive that happened to be its neighbours.
    deadline.prev = deadline
    deadline.next = deadline
    deadline.slot = NO_SLOT
    this.armedCount -= 1
  }

  /**
   * Moves the clock to `nowMs` and fires everything that is due by then, earlier ticks first. A time before
   * the last one is ignored. A callback may arm and clear anything: what it arms fires within this call if it
   * is due by `nowMs` on a tick later than the one being fired. Called from a callback, does nothing and
   * returns 0.
   *
   * @returns the number of deadlines fired
   * @throws RangeError if `nowMs` is NaN or beyond 2^53 - 1; otherwise the first error that a callback threw,
   * after all have run; later ones are lost
   */
  advance(nowMs: number): number {
    if (!(nowMs <= MAX_MS)) throw outOfRange("nowMs", nowMs, -MAX_MS, MAX_MS)
    if (this.advancing || nowMs <= this.nowMs) return 0
    this.nowMs = nowMs
    const targetTick = Math.floor((nowMs - this.originMs) / this.resolutionMs)
    if (targetTick === this.epochTick + this.lowTick) return 0

    let fired = 0
    let hasFailed = false
    let firstError: unknown
    this.advancing = true
    for (let slot = this.nextSlot(); slot !== NO_SLOT; slot = this.nextSlot()) {
      const startTick = this.startTickOf(slot)
      if (startTick > targetTick) break
      this.moveTo(startTick)
      if (slot >= SLOTS_PER_LEVEL) {
        this.cascade(slot)
        continue
      }
      // Nothing can join this list while it fires (arm goes past the current tick), but anything can leave
      // it. So the front is taken anew each time, and no pointer into the list is held across a callback.
      const head = this.heads[slot]
      while (head.next !== head) {
        const deadline = head.next
        this.clear(deadline)
        fired += 1
        try {
          deadline.owner.onDeadline(deadline.kind, deadline)
        } catch (error) {
          if (!hasFailed) firstError = error
          hasFailed = true
        }
      }
    }
    this.moveTo(targetTick)
    this.advancing = false
    if (hasFailed) throw firstError
    return fired
  }

  /**
   * How long the loop may sleep, in milliseconds from `nowMs`: 0 if something is due, Infinity if nothing is
   * armed. Never later than the next deadline. May be earlier, by less than the width of its slot: the call
   * of `advance` at that time fires nothing, and the next answer is closer.
   */
  nextDueInMs(nowMs: number): number {
    const slot = this.nextSlot()
    if (slot === NO_SLOT) return Number.POSITIVE_INFINITY
    const inMs = this.originMs + this.startTickOf(slot) * this.resolutionMs - nowMs
    return Math.max(inMs, 0)
  }

  /** Visits every armed deadline, in no order, for diagnostics. `visit` must not arm or clear any. */
  forEachArmed(visit: (deadline: Deadline) => void): void {
    for (const head of this.heads) {
      for (let deadline = head.next; deadline !== head; deadline = deadline.next) visit(deadline)
    }
  }

  /** When an armed deadline fires, by the wheel's clock, milliseconds. */
  dueAtMs(deadline: Deadline): number {
    return this.originMs + deadline.dueTick * this.resolutionMs
  }

  /** The slot of a tick that is not before the current one. */
  private slotOf(tick: number): number {
    const low = tick - this.epochTick
    if (low >= EPOCH_TICKS) return FAR_SLOT
    const highestDifference = 31 - Math.clz32((low ^ this.lowTick) | 1)
    // Division by SLOT_BITS: exact for 0 to 29.
    const level = (highestDifference * 13) >>> 6
    return (level << SLOT_BITS) | ((low >>> (level * SLOT_BITS)) & (SLOTS_PER_LEVEL - 1))
  }

  /**
   * The occupied slot that starts first, or NO_SLOT. All set bits are at or ahead of the current tick (see
   * the top).
   */
  private nextSlot(): number {
    for (let level = 0; level <= LEVELS; level++) {
      const word = this.occupied[level]
      if (word !== 0) return (level << SLOT_BITS) | (31 - Math.clz32(word & -word))
    }
    return NO_SLOT
  }

  /** The first tick of an occupied slot. */
  private startTickOf(slot: number): number {
    if (slot === FAR_SLOT) return this.epochTick + EPOCH_TICKS
    const shift = (slot >>> SLOT_BITS) * SLOT_BITS
    const above = shift + SLOT_BITS
    const start = ((this.lowTick >>> above) << above) | ((slot & (SLOTS_PER_LEVEL - 1)) << shift)
    return this.epochTick + start
  }

  /** Makes `tick` the current one. No occupied slot may start before it. */
  private moveTo(tick: number): void {
    if (tick - this.epochTick >= EPOCH_TICKS) this.epochTick = tick - (tick % EPOCH_TICKS)
    this.lowTick = tick - this.epochTick
  }

  /**
   * Moves the nodes of a slot whose start is the current tick to the levels below, or to the next far list.
   */
  private cascade(slot: number): void {
    const head = this.heads[slot]
    let deadline = head.next
    // Emptied first: a far node may come straight back to the far list.
    head.prev = head
    head.next = head
    this.setEmpty(slot)
    while (deadline !== head) {
      const next = deadline.next
      this.link(deadline, this.slotOf(deadline.dueTick))
      deadline = next
    }
  }

  private link(deadline: Deadline, slot: number): void {
    const head = this.heads[slot]
    const tail = head.prev
    deadline.prev = tail
    deadline.next = head
    deadline.slot = slot
    tail.next = deadline
    head.prev = deadline
    // A shift counts modulo 32, which is the slot within its level.
    this.occupied[slot >>> SLOT_BITS] |= 1 << slot
  }

  /** Takes `deadline` out of its list and leaves its own fields as they were. */
  private unlink(deadline: Deadline): void {
    const { prev, next } = deadline
    prev.next = next
    next.prev = prev
    // Only the sentinel is its own neighbour on both sides of a removed node.
    if (prev === next) this.setEmpty(deadline.slot)
  }

  private setEmpty(slot: number): void {
    this.occupied[slot >>> SLOT_BITS] &= ~(1 << slot)
  }
}

const SENTINEL_OWNER: DeadlineOwner = {
  onDeadline() {
    throw new Error("deadlines: a list head was fired")
  },
}

function outOfRange(name: string, value: number, minimum: number, maximum: number): RangeError {
  return new RangeError(`${name} must be a number from ${minimum} to ${maximum}, got ${value}`)
}
