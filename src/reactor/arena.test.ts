// The arena against a model that keeps a plain list of the ranges handed out, and each promise of its
// docstrings.

import { describe, expect, test } from "bun:test"
import { Arena, MAX_ARENA_BYTES, MAX_BLOCK_BYTES, MIN_BLOCK_BYTES } from "./arena.ts"

const KIB = 1024
const MIB = 1024 * KIB

/** mulberry32: uniform in [0, 1), the same sequence for the same seed. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

function allocAll(arena: Arena, minBytes: number): number[] {
  const offsets: number[] = []
  for (let offset = arena.alloc(minBytes); offset !== -1; offset = arena.alloc(minBytes)) offsets.push(offset)
  return offsets
}

/** Which KiB are taken; a second, independent account of the region. */
class RangeModel {
  readonly taken: Uint8Array
  readonly capacities = new Map<number, number>()

  constructor(sizeBytes: number) {
    this.taken = new Uint8Array(sizeBytes / KIB)
  }

  take(offset: number, capacity: number): void {
    const range = this.taken.subarray(offset / KIB, (offset + capacity) / KIB)
    if (offset < 0 || range.length !== capacity / KIB) throw new Error(`outside the region: ${offset}`)
    if (range.includes(1)) throw new Error(`overlap at ${offset}`)
    range.fill(1)
    this.capacities.set(offset, capacity)
  }

  giveBack(offset: number): void {
    const capacity = this.capacities.get(offset) ?? 0
    this.taken.fill(0, offset / KIB, (offset + capacity) / KIB)
    this.capacities.delete(offset)
  }

  hasFreeBlock(capacity: number): boolean {
    for (let start = 0; start < this.taken.length; start += capacity / KIB) {
      if (!this.taken.subarray(start, start + capacity / KIB).includes(1)) return true
    }
    return false
  }
}

function capacityFor(minBytes: number): number {
  let capacity = MIN_BLOCK_BYTES
  while (capacity < minBytes) capacity *= 2
  return capacity
}

/**
 * Waves of filling and emptying, so that the region is often full and always fragmented. Refusals must be
 * right.
 */
function runAgainstModel(
  seed: number,
  sizeBytes: number,
  operations: number,
): { refused: number; met: number } {
  const random = seeded(seed)
  const arena = new Arena(sizeBytes)
  const model = new RangeModel(sizeBytes)
  const live: number[] = []
  let highWater = 0
  let refused = 0
  let met = 0
  for (let operation = 0; operation < operations; operation++) {
    const isFilling = Math.floor(operation / 700) % 2 === 0
    if (live.length > 0 && random() < (isFilling ? 0.3 : 0.65)) {
      const at = Math.floor(random() * live.length)
      const offset = live[at]
      live[at] = live[live.length - 1]
      live.pop()
      expect(arena.capacityOf(offset)).toBe(model.capacities.get(offset) ?? -1)
      arena.free(offset)
      model.giveBack(offset)
    } else {
      const minBytes = Math.floor(2 ** (random() * 20.001))
      if (minBytes > MAX_BLOCK_BYTES) continue
      const offset = arena.alloc(minBytes)
      const capacity = capacityFor(minBytes)
      if (offset === -1) {
        if (model.hasFreeBlock(capacity)) throw new Error(`refused ${minBytes} in vain (seed ${seed})`)
        refused += 1
      } else {
        if (offset % capacity !== 0) throw new Error(`not aligned: ${offset} for ${minBytes} (seed ${seed})`)
        model.take(offset, capacity)
        live.push(offset)
        met += 1
      }
    }
    const inUse = model.taken.reduce((sum, unit) => sum + unit, 0) * KIB
    highWater = Math.max(highWater, inUse)
    if (arena.bytesInUse !== inUse) throw new Error(`bytesInUse is ${arena.bytesInUse}, not ${inUse}`)
    if (arena.freeBytes !== sizeBytes - inUse) throw new Error("freeBytes is wrong")
    if (arena.highWaterBytes !== highWater) throw new Error("highWaterBytes is wrong")
  }
  for (const offset of live) arena.free(offset)
  expect(arena.bytesInUse).toBe(0)
  // Everything merges back, whatever went before.
  expect(allocAll(arena, MAX_BLOCK_BYTES)).toHaveLength(sizeBytes / MAX_BLOCK_BYTES)
  return { refused, met }
}

describe("against the model", () => {
  for (const [seed, mebibytes, operations] of [
    [1, 1, 40_000],
    [2, 2, 30_000],
    [3, 5, 20_000],
  ]) {
    test(`seed ${seed}, ${mebibytes} MiB`, () => {
      const { refused, met } = runAgainstModel(seed, mebibytes * MIB, operations)
      expect(refused).toBeGreaterThan(1000)
      expect(met).toBeGreaterThan(1000)
    })
  }
})

describe("blocks", () => {
  test("capacity is the next power of two, from 1 KiB to 1 MiB", () => {
    const arena = new Arena(8 * MIB)
    for (const [minBytes, capacity] of [
      [0, KIB],
      [1, KIB],
      [KIB, KIB],
      [KIB + 1, 2 * KIB],
      [16 * KIB - 1, 16 * KIB],
      [16 * KIB, 16 * KIB],
      [512 * KIB + 1, MIB],
      [MIB, MIB],
    ]) {
      const offset = arena.alloc(minBytes)
      expect(arena.capacityOf(offset)).toBe(capacity)
      expect(offset % capacity).toBe(0)
    }
  })

  test("the block freed last is handed out first", () => {
    const arena = new Arena(4 * MIB)
    const offsets = Array.from({ length: 8 }, () => arena.alloc(4 * KIB))
    for (const offset of offsets) arena.free(offset)
    const again = Array.from({ length: 8 }, () => arena.alloc(4 * KIB))
    expect(again).toEqual(offsets.toReversed())
  })

  test("untouched memory is used from the lowest address up, after everything freed", () => {
    const arena = new Arena(8 * MIB)
    const offsets = Array.from({ length: 1024 }, () => arena.alloc(KIB))
    expect(offsets).toEqual(Array.from({ length: 1024 }, (_, index) => index * KIB))
    expect(arena.touchedBytes).toBe(MIB)
    expect(arena.alloc(MIB)).toBe(MIB)
    expect(arena.touchedBytes).toBe(2 * MIB)

    arena.free(MIB)
    // Split rather than taken from above.
    expect(arena.alloc(8 * KIB)).toBe(MIB)
    expect(arena.touchedBytes).toBe(2 * MIB)
  })

  test("counters", () => {
    const arena = new Arena(2 * MIB)
    const small = arena.alloc(1)
    const large = arena.alloc(100 * KIB)
    expect(arena.bytesInUse).toBe(129 * KIB)
    arena.free(large)
    expect(arena.bytesInUse).toBe(KIB)
    expect(arena.highWaterBytes).toBe(129 * KIB)
    expect(arena.freeBytes).toBe(2 * MIB - KIB)
    arena.free(small)
    expect(arena.freeBytes).toBe(arena.sizeBytes)
  })
})

describe("exhaustion", () => {
  test("is -1 at exactly the size of the region, and ends with a free", () => {
    for (const blockBytes of [KIB, 16 * KIB, MIB]) {
      const arena = new Arena(3 * MIB)
      const offsets = allocAll(arena, blockBytes)
      expect(new Set(offsets).size).toBe((3 * MIB) / blockBytes)
      expect(arena.freeBytes).toBe(0)
      arena.free(offsets[1])
      expect(arena.alloc(blockBytes)).toBe(offsets[1])
      expect(arena.alloc(1)).toBe(-1)
    }
  })

  test("fragments are merged when a larger block is asked for", () => {
    const arena = new Arena(2 * MIB)
    const offsets = allocAll(arena, KIB)
    for (const offset of offsets) if ((offset / KIB) % 2 === 0) arena.free(offset)
    // Half is free and no two free blocks are neighbours.
    expect(arena.freeBytes).toBe(MIB)
    expect(arena.alloc(2 * KIB)).toBe(-1)
    expect(arena.mergePasses).toBe(0)
    // The buddy of a freed block; the other half of the pair that follows it is no buddy.
    arena.free(7 * KIB)
    expect(arena.alloc(2 * KIB)).toBe(6 * KIB)
    expect(arena.alloc(2 * KIB)).toBe(-1)
    expect(arena.mergePasses).toBe(1)

    arena.free(6 * KIB)
    for (const offset of offsets) if ((offset / KIB) % 2 === 1 && offset !== 7 * KIB) arena.free(offset)
    expect(arena.bytesInUse).toBe(0)
    expect(allocAll(arena, MIB)).toEqual([0, MIB])
  })

  test("refusals do not merge, not even where free neighbours are no buddies", () => {
    const arena = new Arena(2 * MIB)
    for (const offset of allocAll(arena, KIB)) {
      const inFour = (offset / KIB) % 4
      if (inFour === 1 || inFour === 2) arena.free(offset)
    }
    for (let round = 0; round < 100; round++) {
      arena.free(arena.alloc(KIB))
      for (let blockBytes = 2 * KIB; blockBytes <= MIB; blockBytes *= 2) {
        expect(arena.alloc(blockBytes)).toBe(-1)
      }
    }
    expect(arena.mergePasses).toBe(0)
  })

  test("a refusal of one size does not hide what fits a smaller one", () => {
    const arena = new Arena(MIB)
    const offsets = allocAll(arena, KIB)
    for (const offset of offsets.slice(8, 12)) arena.free(offset)
    expect(arena.alloc(MIB)).toBe(-1)
    expect(arena.alloc(8 * KIB)).toBe(-1)
    expect(arena.alloc(4 * KIB)).toBe(8 * KIB)
  })

  test("a lower stack of merged blocks leaves the allocated ones alone", () => {
    const arena = new Arena(MIB)
    const kept = arena.alloc(4 * KIB)
    const offsets = allocAll(arena, 4 * KIB)
    for (const offset of offsets) arena.free(offset)
    expect(arena.alloc(512 * KIB)).toBe(512 * KIB)
    expect(arena.alloc(256 * KIB)).toBe(256 * KIB)
    expect(arena.alloc(256 * KIB)).toBe(-1)
    expect(arena.capacityOf(kept)).toBe(4 * KIB)
    arena.free(kept)
    expect(arena.alloc(256 * KIB)).toBe(0)
  })
})

describe("misuse", () => {
  const refused = (offset: number) => `arena: free of a block that is not allocated at offset ${offset}`

  test("freeing twice, or what was never handed out", () => {
    const arena = new Arena(2 * MIB)
    const offset = arena.alloc(4 * KIB)
    arena.free(offset)
    expect(() => arena.free(offset)).toThrow(refused(offset))

    const second = arena.alloc(4 * KIB)
    const wrong = [second + KIB, second + 1, second + 0.5, -KIB, 2 * MIB, 2 ** 32 + second, Number.NaN]
    for (const at of wrong) {
      expect(() => arena.free(at)).toThrow(refused(at))
      expect(() => arena.capacityOf(at)).toThrow("arena: capacity of a block that is not allocated")
    }
    expect(arena.bytesInUse).toBe(4 * KIB)
    arena.free(second)
  })

  test("freeing twice after the block was merged away", () => {
    const arena = new Arena(MIB)
    const offsets = allocAll(arena, KIB)
    for (const offset of offsets) arena.free(offset)
    expect(arena.alloc(MIB)).toBe(0)
    for (const offset of offsets.slice(1)) expect(() => arena.free(offset)).toThrow(refused(offset))
    arena.free(0)
    expect(() => arena.free(0)).toThrow(refused(0))
  })

  test("sizes out of range", () => {
    const arena = new Arena(MIB)
    for (const minBytes of [-1, MIB + 1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => arena.alloc(minBytes)).toThrow(`minBytes must be from 0 to 1048576, got ${minBytes}`)
    }
    for (const sizeBytes of [0, -MIB, MIB + KIB, 1.5 * MIB, MAX_ARENA_BYTES + MIB, Number.NaN]) {
      expect(() => new Arena(sizeBytes)).toThrow("sizeBytes must be a multiple of 1048576")
    }
    expect(new Arena(MAX_ARENA_BYTES).freeBytes).toBe(2 ** 30)
  })
})
