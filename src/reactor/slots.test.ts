// The slot table against a model (a map of what is in flight), and each promise of its docstrings.

import { heapStats } from "bun:jsc"
import { describe, expect, test } from "bun:test"
import { MAX_SLOTS, SlotTable } from "./slots.ts"

const MAX_GENERATION = 2 ** 32 - 1

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

interface Operation {
  slot: number
  generation: number
  kind: number
  owner: { id: number }
}

/** Random acquire, release and late completions; every field of every operation is compared throughout. */
function runAgainstModel(seed: number, capacity: number, firstGeneration: number, steps: number): void {
  const random = seeded(seed)
  const table = new SlotTable<{ id: number }>(capacity, firstGeneration)
  const live: Operation[] = []
  const finished: Operation[] = []
  const isLiveSlot = new Set<number>()
  const expectMatch = (operation: Operation) => {
    const { slot, generation, kind, owner } = operation
    const matches =
      table.generationOf(slot) === generation &&
      table.isCurrent(slot, generation) &&
      table.admit(slot, generation) &&
      table.kindOf(slot) === kind &&
      table.ownerOf(slot) === owner
    if (!matches) throw new Error(`operation ${owner.id} differs (seed ${seed})`)
  }
  let stale = 0
  for (let step = 0; step < steps; step++) {
    const choice = random()
    // The balance tips back and forth, so that the table runs both full and empty.
    const acquireShare = Math.floor(step / 2000) % 2 === 0 ? 0.6 : 0.25
    if (choice < acquireShare) {
      const kind = Math.floor(random() * 256)
      const owner = { id: step }
      const slot = table.acquire(kind, owner)
      if (live.length === capacity) {
        expect(slot).toBe(-1)
        continue
      }
      if (slot < 0 || slot >= capacity || isLiveSlot.has(slot))
        throw new Error(`bad slot ${slot} (seed ${seed})`)
      isLiveSlot.add(slot)
      live.push({ slot, generation: table.generationOf(slot), kind, owner })
    } else if (choice < 0.85 && live.length > 0) {
      const at = Math.floor(random() * live.length)
      const operation = live[at]
      expectMatch(operation)
      table.release(operation.slot)
      isLiveSlot.delete(operation.slot)
      live[at] = live[live.length - 1]
      live.pop()
      finished.push(operation)
      if (isLiveSlot.size !== table.inFlight) throw new Error("inFlight differs")
      if (table.ownerOf(operation.slot) !== undefined) throw new Error("the owner is still held")
    } else if (finished.length > 0) {
      const late = finished[Math.floor(random() * finished.length)]
      if (table.admit(late.slot, late.generation)) throw new Error(`stale was admitted (seed ${seed})`)
      stale += 1
    }
  }
  for (const operation of live) expectMatch(operation)
  expect(table.staleDropped).toBe(stale)
  const visited: number[] = []
  table.forEachInFlight((slot) => visited.push(slot))
  expect(visited).toEqual([...isLiveSlot].sort((left, right) => left - right))
}

describe("against the model", () => {
  test("small and often full", () => runAgainstModel(1, 50, 1, 60_000))
  test("growing past the first size", () => runAgainstModel(2, 5000, 1, 60_000))
  test("generations wrapping all the time", () => runAgainstModel(3, 300, MAX_GENERATION - 3, 60_000))
})

describe("slots", () => {
  test("the one released last is used first, and fresh ones in order", () => {
    const table = new SlotTable<string>(10)
    expect([0, 1, 2, 3].map((kind) => table.acquire(kind, "owner"))).toEqual([0, 1, 2, 3])
    for (const slot of [1, 3, 0]) table.release(slot)
    expect([0, 0, 0, 0].map((kind) => table.acquire(kind, "owner"))).toEqual([0, 3, 1, 4])
  })

  test("full is -1 and ends with a release, at capacities around the growth steps", () => {
    for (const capacity of [1, 1023, 1024, 1025, 2048, 3000]) {
      const table = new SlotTable<number>(capacity)
      for (let slot = 0; slot < capacity; slot++) expect(table.acquire(slot & 0xff, slot)).toBe(slot)
      expect(table.acquire(0, 0)).toBe(-1)
      expect(table.inFlight).toBe(capacity)
      for (let slot = 0; slot < capacity; slot++) {
        if (table.ownerOf(slot) !== slot || table.kindOf(slot) !== (slot & 0xff))
          throw new Error(`lost ${slot}`)
        if (!table.isCurrent(slot, 1)) throw new Error(`generation of ${slot} was lost`)
      }
      table.release(capacity - 1)
      expect(table.acquire(5, -5)).toBe(capacity - 1)
      expect(table.generationOf(capacity - 1)).toBe(2)
      expect(table.acquire(0, 0)).toBe(-1)
    }
  })

  test("a large capacity costs nothing until it is used", () => {
    const before = heapStats().extraMemorySize
    const tables = Array.from({ length: 200 }, () => new SlotTable<number>(MAX_SLOTS))
    for (const table of tables) table.acquire(1, 1)
    const after = heapStats().extraMemorySize
    // Preallocated, each table would take 144 MiB.
    expect(after - before).toBeLessThan(32 * 2 ** 20)
    expect(tables[199].capacity).toBe(MAX_SLOTS)
  })

  test("the owner is let go on release", async () => {
    const table = new SlotTable<object>(4)
    const references: WeakRef<object>[] = []
    const use = () => {
      for (let round = 0; round < 100; round++) {
        const owner = { payload: new Uint8Array(1000) }
        references.push(new WeakRef(owner))
        table.release(table.acquire(0, owner))
      }
    }
    use()
    await Bun.sleep(0)
    Bun.gc(true)
    // The stack is scanned conservatively, so that one or two may seem to be in use.
    expect(references.filter((reference) => reference.deref() !== undefined).length).toBeLessThan(10)
    expect(table.ownerOf(0)).toBeUndefined()
  })
})

describe("generations", () => {
  test("a completion of the operation before is stale, once released and once reused", () => {
    const table = new SlotTable<string>(8)
    const slot = table.acquire(3, "first")
    const generation = table.generationOf(slot)
    expect(generation).toBe(1)
    expect(table.admit(slot, generation)).toBe(true)
    table.release(slot)
    expect(table.admit(slot, generation)).toBe(false)
    expect(table.acquire(4, "second")).toBe(slot)
    expect(table.admit(slot, generation)).toBe(false)
    expect(table.admit(slot, table.generationOf(slot))).toBe(true)
    expect(table.staleDropped).toBe(2)
  })

  test("isCurrent asks and does not count", () => {
    const table = new SlotTable<string>(8)
    expect(table.isCurrent(0, 1)).toBe(false)
    expect(table.staleDropped).toBe(0)
  })

  test("zeroed memory, slots never used, free slots and wild numbers are never current", () => {
    const table = new SlotTable<string>(5000)
    expect(table.isCurrent(0, 0)).toBe(false)
    expect(table.generationOf(0)).toBe(0)
    const slot = table.acquire(0, "owner")
    expect(table.isCurrent(slot, 0)).toBe(false)
    table.release(slot)
    // The generation that the next operation will have: not in flight yet.
    expect(table.isCurrent(slot, table.generationOf(slot))).toBe(false)
    for (const wild of [1, 1023, 1024, 4999, 5000, 2 ** 24, 2 ** 32 - 1, -1, 0.5, Number.NaN]) {
      for (const generation of [0, 1, 2]) expect(table.isCurrent(wild, generation)).toBe(false)
      expect(table.ownerOf(wild)).toBeUndefined()
    }
  })

  test("wrap from the last to 1, without 0 between", () => {
    const table = new SlotTable<string>(1, MAX_GENERATION - 1)
    const seen: number[] = []
    for (let round = 0; round < 4; round++) {
      const slot = table.acquire(0, "owner")
      const generation = table.generationOf(slot)
      expect(table.isCurrent(slot, generation)).toBe(true)
      seen.push(generation)
      table.release(slot)
    }
    expect(seen).toEqual([MAX_GENERATION - 1, MAX_GENERATION, 1, 2])
  })

  test("above 2^31 they stay unsigned", () => {
    const table = new SlotTable<string>(1, 2 ** 31 - 1)
    table.release(table.acquire(0, "owner"))
    expect(table.generationOf(table.acquire(0, "owner"))).toBe(2 ** 31)
    expect(table.isCurrent(0, 2 ** 31)).toBe(true)
    expect(table.isCurrent(0, -(2 ** 31))).toBe(false)
  })
})

describe("forEachInFlight", () => {
  test("visits slot, kind and owner of what is in flight, and the visitor may release", () => {
    const table = new SlotTable<string>(3000)
    for (let slot = 0; slot < 2500; slot++) table.acquire(slot % 7, `owner ${slot}`)
    for (let slot = 0; slot < 2500; slot += 2) table.release(slot)
    const visited: number[] = []
    table.forEachInFlight((slot, kind, owner) => {
      if (kind !== slot % 7 || owner !== `owner ${slot}`) throw new Error(`wrong at ${slot}`)
      visited.push(slot)
      table.release(slot)
    })
    expect(visited).toEqual(Array.from({ length: 1250 }, (_, index) => index * 2 + 1))
    expect(table.inFlight).toBe(0)
    table.forEachInFlight(() => {
      throw new Error("nothing is in flight")
    })
  })
})

describe("misuse", () => {
  test("releasing twice, or what was never acquired", () => {
    const table = new SlotTable<string>(2000)
    const slot = table.acquire(0, "owner")
    table.release(slot)
    for (const wrong of [slot, 1, 1500, 2000, -1, Number.NaN]) {
      expect(() => table.release(wrong)).toThrow(`slots: release of slot ${wrong}, which is not in flight`)
    }
    expect(table.inFlight).toBe(0)
  })

  test("kinds, capacities and first generations out of range", () => {
    const table = new SlotTable<string>(4)
    for (const kind of [-1, 256, 1.5, Number.NaN]) {
      expect(() => table.acquire(kind, "owner")).toThrow(`kind must be an integer from 0 to 255, got ${kind}`)
    }
    expect(table.inFlight).toBe(0)
    for (const capacity of [0, -1, 1.5, MAX_SLOTS + 1, Number.NaN]) {
      expect(() => new SlotTable<string>(capacity)).toThrow("capacity must be an integer from 1 to 16777216")
    }
    for (const generation of [0, 2 ** 32, 1.5]) {
      expect(() => new SlotTable<string>(1, generation)).toThrow("firstGeneration must be an integer from 1")
    }
  })
})
