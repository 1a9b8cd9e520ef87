// The slot table: every operation in flight sits in a slot, and (slot, generation) travel to the kernel as
// its user_data.
//
// A slot is used again as soon as it is released, so an index alone cannot tell a completion of the operation
// that is there now from a late one of the operation before. The generation can: it is bumped on release, and
// a completion that carries an older one is counted and dropped. Zeroed memory is always stale, since
// generation 0 is never given out. A generation comes back only after 2^32 - 1 uses of the same slot, long
// after the kernel has forgotten the first.
//
// A large capacity costs nothing until it is used: the arrays start small and double. The slot released last
// is used first, so that a server with few operations in flight stays within a few cache lines.

export const MAX_SLOTS = 2 ** 24

const INITIAL_SLOTS = 1024
const MAX_GENERATION = 2 ** 32 - 1
const MAX_KIND = 255

/** In `links`: end of the free list. */
const NO_SLOT = -1
/** In `links`: the slot is in flight, and in no list. */
const IN_FLIGHT = -2

export class SlotTable<Owner> {
  /** Most slots in flight at a time. */
  readonly capacity: number
  private readonly firstGeneration: number
  /**
   * Per slot: generation of the operation in it, or of the next one if it is free. 0 if it was never used.
   */
  private generations: Uint32Array
  /** Per slot: IN_FLIGHT, or the next slot of the free list. Meaningful below `unused`. */
  private links: Int32Array
  /** Per slot: what its owner said at `acquire`. */
  private kinds: Uint8Array
  /** Per slot below `unused`: its owner, undefined while free. Grows with use. */
  private readonly owners: (Owner | undefined)[] = []
  /** The slot released last, or NO_SLOT. */
  private freeHead = NO_SLOT
  /** Slots from here up were never used. Only grows. */
  private unused = 0
  /** Slots acquired and not released. */
  private inFlightCount = 0
  /** Completions that `admit` refused. */
  private staleCount = 0

  /**
   * @param capacity 1 to 2^24
   * @param firstGeneration of every slot; for tests of the wrap
   * @throws RangeError
   */
  constructor(capacity: number, firstGeneration = 1) {
    if (!(Number.isInteger(capacity) && capacity >= 1 && capacity <= MAX_SLOTS)) {
      throw new RangeError(`capacity must be an integer from 1 to ${MAX_SLOTS}, got ${capacity}`)
    }
    if (!(Number.isInteger(firstGeneration) && firstGeneration >= 1 && firstGeneration <= MAX_GENERATION)) {
      throw new RangeError(
        `firstGeneration must be an integer from 1 to ${MAX_GENERATION}, got ${firstGeneration}`,
      )
    }
    this.capacity = capacity
    this.firstGeneration = firstGeneration
    const size = Math.min(INITIAL_SLOTS, capacity)
    this.generations = new Uint32Array(size)
    this.links = new Int32Array(size)
    this.kinds = new Uint8Array(size)
  }

  get inFlight(): number {
    return this.inFlightCount
  }

  /** Completions refused by `admit` since the table was made. */
  get staleDropped(): number {
    return this.staleCount
  }

  /**
   * Takes a slot for an operation of `kind` (0 to 255). The table holds `owner` until `release`.
   * @returns the slot, or -1 if `capacity` are in flight
   * @throws RangeError if `kind` is out of range
   */
  acquire(kind: number, owner: Owner): number {
    if (kind >>> 0 !== kind || kind > MAX_KIND) {
      throw new RangeError(`kind must be an integer from 0 to ${MAX_KIND}, got ${kind}`)
    }
    let slot = this.freeHead
    if (slot !== NO_SLOT) {
      this.freeHead = this.links[slot]
      this.owners[slot] = owner
    } else {
      slot = this.unused
      if (slot === this.generations.length) {
        if (slot === this.capacity) return NO_SLOT
        this.grow()
      }
      this.unused = slot + 1
      this.generations[slot] = this.firstGeneration
      this.owners.push(owner)
    }
    this.links[slot] = IN_FLIGHT
    this.kinds[slot] = kind
    this.inFlightCount += 1
    return slot
  }

  /**
   * Gives the slot back, on the terminal completion of its operation and not before: from here on its
   * generation is stale.
   * @throws Error if the slot is not in flight
   */
  release(slot: number): void {
    if (this.links[slot] !== IN_FLIGHT)
      throw new Error(`slots: release of slot ${slot}, which is not in flight`)
    // Truncated to 32 bits: the generation after the last is 0, which is skipped.
    const generation = (this.generations[slot] + 1) | 0
    this.generations[slot] = generation === 0 ? 1 : generation
    this.owners[slot] = undefined
    this.links[slot] = this.freeHead
    this.freeHead = slot
    this.inFlightCount -= 1
  }

  /** Generation of the operation in `slot`: 1 to 2^32 - 1. 0 if the slot was never used. */
  generationOf(slot: number): number {
    return slot < this.unused ? this.generations[slot] : 0
  }

  /**
   * Whether the operation known as (`slot`, `generation`) is still in flight. Any numbers may be asked about.
   */
  isCurrent(slot: number, generation: number): boolean {
    return this.generations[slot] === generation && this.links[slot] === IN_FLIGHT
  }

  /**
   * `isCurrent` for a completion: one that is not current is counted in `staleDropped`, and the caller drops
   * it.
   */
  admit(slot: number, generation: number): boolean {
    if (this.isCurrent(slot, generation)) return true
    this.staleCount += 1
    return false
  }

  /** The kind given to `acquire`. Only for a slot in flight; otherwise a number without meaning. */
  kindOf(slot: number): number {
    return this.kinds[slot]
  }

  /** The owner given to `acquire`; undefined if the slot is not in flight. */
  ownerOf(slot: number): Owner | undefined {
    return this.owners[slot]
  }

  /**
   * Calls `visit` for each slot in flight, lowest first, for shutdown and diagnostics. `visit` may release
   * any slot. A slot that it acquires may be visited or not.
   */
  forEachInFlight(visit: (slot: number, kind: number, owner: Owner) => void): void {
    for (let slot = 0; slot < this.unused; slot++) {
      if (this.links[slot] === IN_FLIGHT) visit(slot, this.kinds[slot], this.owners[slot] as Owner)
    }
  }

  private grow(): void {
    const size = Math.min(this.generations.length * 2, this.capacity)
    const generations = new Uint32Array(size)
    const links = new Int32Array(size)
    const kinds = new Uint8Array(size)
    generations.set(this.generations)
    links.set(this.links)
    kinds.set(this.kinds)
    this.generations = generations
    this.links = links
    this.kinds = kinds
  }
}
