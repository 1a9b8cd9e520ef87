// The allocator of the send arena: it hands out byte ranges of a region of shared memory, which it never
// reads or writes.
//
// Blocks are powers of two from 1 KiB to 1 MiB, each aligned to its own size. Freed blocks of a size form a
// stack: the one freed last is handed out first, because its bytes are still in the cache, and a pair of
// alloc and free touches two words. Free blocks are not merged when they are freed, since a server asks for
// the same few sizes over and over. They are merged when an allocation would otherwise fail, and only if a
// scan has shown that merging makes it succeed.
//
// Memory that was never used comes last and from the lowest address up, a megabyte at a time, each cut from
// its low end. The kernel backs a page when it is first touched, so what is resident follows what was needed
// at the peak, not the region.

const MIN_BLOCK_SHIFT = 10
const MAX_ORDER = 10
/** A unit is the smallest block; an order is the power of two of units in a block. */
const CHUNK_UNITS = 1 << MAX_ORDER

export const MIN_BLOCK_BYTES = 1 << MIN_BLOCK_SHIFT
export const MAX_BLOCK_BYTES = MIN_BLOCK_BYTES << MAX_ORDER
/** Keeps every offset and size an int32. */
export const MAX_ARENA_BYTES = 2 ** 30

/** States of a block, in the high bits of the byte of its first unit; its order is in the low four. */
const FREE = 0x10
const ALLOCATED = 0x20
const ORDER_MASK = 0x0f

const NO_UNIT = -1
/** In `noFitFrom`: a block of no order has been looked for in vain. */
const NOT_SCANNED = MAX_ORDER + 1

export class Arena {
  readonly sizeBytes: number
  /**
   * Per unit: state and order of the block that begins there. Where none begins: anything but ALLOCATED.
   */
  private readonly states: Uint8Array
  /**
   * Per unit that begins a free block: the unit of the free block below it on the stack of its order, or
   * NO_UNIT.
   */
  private readonly links: Int32Array
  /** Per order: the unit on top of the stack of free blocks, or NO_UNIT. */
  private readonly tops = new Int32Array(MAX_ORDER + 1).fill(NO_UNIT)
  /**
   * Per chunk of 1 MiB: the smallest order that it cannot hold even if merged, as scanned since the last free
   * in it.
   */
  private readonly noFitFrom: Uint8Array
  /** First unit of the untouched rest of the region; a multiple of CHUNK_UNITS that only grows. */
  private frontier = 0
  /** Sum of the capacities of allocated blocks. */
  private inUse = 0
  /** The largest value that `inUse` has had. */
  private highWater = 0
  /** Times that `mergeAll` ran. */
  private merges = 0

  /**
   * @param sizeBytes size of the region: a multiple of 1 MiB, up to 1 GiB. Costs 5 bytes of bookkeeping per
   * KiB.
   * @throws RangeError
   */
  constructor(sizeBytes: number) {
    if (!(sizeBytes > 0 && sizeBytes <= MAX_ARENA_BYTES && sizeBytes % MAX_BLOCK_BYTES === 0)) {
      throw new RangeError(
        `sizeBytes must be a multiple of ${MAX_BLOCK_BYTES} up to ${MAX_ARENA_BYTES}, got ${sizeBytes}`,
      )
    }
    const units = sizeBytes >>> MIN_BLOCK_SHIFT
    this.sizeBytes = sizeBytes
    this.states = new Uint8Array(units)
    this.links = new Int32Array(units)
    this.noFitFrom = new Uint8Array(units >>> MAX_ORDER).fill(NOT_SCANNED)
  }

  /** Bytes of allocated blocks, counted at their capacity. */
  get bytesInUse(): number {
    return this.inUse
  }

  /** The largest `bytesInUse` so far. */
  get highWaterBytes(): number {
    return this.highWater
  }

  /** Bytes not allocated. They may be in pieces: a block of this size need not exist. */
  get freeBytes(): number {
    return this.sizeBytes - this.inUse
  }

  /** Nothing at or above this offset has ever been handed out: an upper bound of the resident part. */
  get touchedBytes(): number {
    return this.frontier << MIN_BLOCK_SHIFT
  }

  /** Times that an allocation had to merge free blocks throughout the region. Many: it is too small. */
  get mergePasses(): number {
    return this.merges
  }

  /**
   * Hands out a block of at least `minBytes` (a whole number, 0 to 1 MiB; 0 counts as 1). Its contents are
   * undefined.
   *
   * @returns the offset of the block, aligned to its capacity, or -1 if no block of that size can be made
   * @throws RangeError if `minBytes` is out of range
   */
  alloc(minBytes: number): number {
    if (!(minBytes >= 0 && minBytes <= MAX_BLOCK_BYTES)) {
      throw new RangeError(`minBytes must be from 0 to ${MAX_BLOCK_BYTES}, got ${minBytes}`)
    }
    const order = minBytes <= MIN_BLOCK_BYTES ? 0 : 32 - MIN_BLOCK_SHIFT - Math.clz32(minBytes - 1)
    let unit = this.tops[order]
    if (unit !== NO_UNIT) {
      this.tops[order] = this.links[unit]
    } else {
      unit = this.allocSlow(order)
      if (unit === NO_UNIT) return -1
    }
    this.states[unit] = ALLOCATED | order
    this.inUse += MIN_BLOCK_BYTES << order
    if (this.inUse > this.highWater) this.highWater = this.inUse
    return unit << MIN_BLOCK_SHIFT
  }

  /**
   * Takes back the block at `offset`, which `alloc` returned.
   * @throws Error if no allocated block begins there: a wrong offset, or one that was freed already
   */
  free(offset: number): void {
    const unit = offset >>> MIN_BLOCK_SHIFT
    const state = this.states[unit]
    if (unit << MIN_BLOCK_SHIFT !== offset || (state & ALLOCATED) === 0) {
      throw new Error(`arena: free of a block that is not allocated at offset ${offset}`)
    }
    const order = state & ORDER_MASK
    this.noFitFrom[unit >>> MAX_ORDER] = NOT_SCANNED
    this.inUse -= MIN_BLOCK_BYTES << order
    this.push(unit, order)
  }

  /**
   * The size in bytes of the allocated block at `offset`.
   * @throws Error if no allocated block begins there
   */
  capacityOf(offset: number): number {
    const unit = offset >>> MIN_BLOCK_SHIFT
    const state = this.states[unit]
    if (unit << MIN_BLOCK_SHIFT !== offset || (state & ALLOCATED) === 0) {
      throw new Error(`arena: capacity of a block that is not allocated at offset ${offset}`)
    }
    return MIN_BLOCK_BYTES << (state & ORDER_MASK)
  }

  /**
   * A block of an order whose stack is empty: split, then untouched memory, then merged. NO_UNIT if there is
   * none.
   */
  private allocSlow(order: number): number {
    const unit = this.split(order)
    if (unit !== NO_UNIT) return unit
    if (this.frontier < this.states.length) {
      const chunk = this.frontier
      this.frontier += CHUNK_UNITS
      this.cut(chunk, MAX_ORDER, order)
      return chunk
    }
    if (this.freeBytes < MIN_BLOCK_BYTES << order || !this.canMergeTo(order)) return NO_UNIT
    this.mergeAll()
    return this.split(order)
  }

  /** Pops a block of `order`, from the smallest larger block if need be. */
  private split(order: number): number {
    for (let from = order; from <= MAX_ORDER; from++) {
      const unit = this.tops[from]
      if (unit === NO_UNIT) continue
      this.tops[from] = this.links[unit]
      this.cut(unit, from, order)
      return unit
    }
    return NO_UNIT
  }

  /**
   * Halves the block at `unit` from order `from` down to `to`, keeping the low half each time and freeing the
   * other.
   */
  private cut(unit: number, from: number, to: number): void {
    for (let order = from - 1; order >= to; order--) this.push(unit + (1 << order), order)
  }

  private push(unit: number, order: number): void {
    this.states[unit] = FREE | order
    this.links[unit] = this.tops[order]
    this.tops[order] = unit
  }

  /**
   * Whether some aligned range of `order` consists of free blocks alone. Chunks in which nothing was freed
   * since they were last scanned in vain are skipped: under lasting exhaustion a refused allocation costs the
   * few chunks that changed, not the whole region.
   */
  private canMergeTo(order: number): boolean {
    for (let chunk = 0; chunk < this.noFitFrom.length; chunk++) {
      if (this.noFitFrom[chunk] <= order) continue
      if (this.hasFreeRange(chunk * CHUNK_UNITS, order)) return true
      this.noFitFrom[chunk] = order
    }
    return false
  }

  private hasFreeRange(chunkUnit: number, order: number): boolean {
    const span = 1 << order
    const chunkEnd = chunkUnit + CHUNK_UNITS
    let unit = chunkUnit
    let rangeEnd = unit + span
    while (unit < chunkEnd) {
      const state = this.states[unit]
      unit += 1 << (state & ORDER_MASK)
      if ((state & FREE) === 0) {
        // The rest of the range is of no use. An allocated block larger than the range ends on a boundary of
        // ranges.
        if (unit < rangeEnd) unit = rangeEnd
        rangeEnd = unit + span
      } else if (unit >= rangeEnd) {
        return true
      }
    }
    return false
  }

  /**
   * Merges free buddies throughout the region and rebuilds the stacks with the lowest addresses on top.
   * Visits every block: 64 MiB in 1 KiB blocks take 0.3 to 0.5 ms once compiled, 3 ms the first time. Needs
   * the whole region to be touched.
   */
  private mergeAll(): void {
    const { states, tops, links } = this
    this.merges += 1
    for (let unit = 0; unit < states.length; ) {
      const state = states[unit]
      // Everything below `unit` is merged as far as it goes, so its lower buddies can be taken up one after
      // the other.
      if ((state & FREE) !== 0) this.mergeDown(unit, state & ORDER_MASK)
      unit += 1 << (state & ORDER_MASK)
    }
    tops.fill(NO_UNIT)
    const bottoms = new Int32Array(MAX_ORDER + 1).fill(NO_UNIT)
    for (let unit = 0; unit < states.length; ) {
      const state = states[unit]
      const order = state & ORDER_MASK
      if ((state & FREE) !== 0) {
        const bottom = bottoms[order]
        if (bottom === NO_UNIT) tops[order] = unit
        else links[bottom] = unit
        links[unit] = NO_UNIT
        bottoms[order] = unit
      }
      unit += 1 << order
    }
  }

  /**
   * Joins the free block at `unit` to its lower buddy while that is free and of the same order. The byte of
   * the buddy is never stale: a larger block that took in the buddy would have taken in this block too.
   */
  private mergeDown(unit: number, order: number): void {
    const { states } = this
    let head = unit
    let merged = order
    while (merged < MAX_ORDER && (head & (1 << merged)) !== 0) {
      const buddy = head - (1 << merged)
      if (states[buddy] !== (FREE | merged)) return
      head = buddy
      merged += 1
      states[head] = FREE | merged
    }
  }
}
