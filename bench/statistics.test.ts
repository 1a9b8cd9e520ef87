import { describe, expect, test } from "bun:test"
import { median, ratioOfMedians, seededRandom, shuffled, verdictOf } from "./statistics.ts"

describe("median", () => {
  test("of an odd number is the middle one, of an even number the mean of the two", () => {
    expect(median([9, 1, 5])).toBe(5)
    expect(median([4, 1, 3, 2])).toBe(2.5)
    expect(median([7])).toBe(7)
  })

  test("sorts by number, not by text", () => {
    expect(median([10, 9, 100])).toBe(10)
  })

  test("of nothing is NaN, and leaves its argument as it was", () => {
    expect(median([])).toBeNaN()
    const values = [3, 1, 2]
    median(values)
    expect(values).toEqual([3, 1, 2])
  })
})

describe("seeded random numbers", () => {
  test("repeat with the seed and differ without", () => {
    const draw = (seed: number) => Array.from({ length: 5 }, seededRandom(seed))
    expect(draw(7)).toEqual(draw(7))
    expect(draw(7)).not.toEqual(draw(8))
  })

  test("are spread evenly over [0, 1)", () => {
    const random = seededRandom(1)
    const tenths = new Array<number>(10).fill(0)
    for (let i = 0; i < 100_000; i++) tenths[Math.floor(random() * 10)]!++
    for (const count of tenths) expect(Math.abs(count - 10_000)).toBeLessThan(500)
  })

  test("shuffle keeps every item and reaches every order", () => {
    const random = seededRandom(3)
    const orders = new Set<string>()
    for (let i = 0; i < 500; i++) orders.add(shuffled(["a", "b", "c"], random).join(""))
    expect([...orders].sort()).toEqual(["abc", "acb", "bac", "bca", "cab", "cba"])
  })
})

describe("ratio of medians", () => {
  /** Runs around a middle with an even spread of a few percent. */
  const runs = (middle: number, spread: number, count: number, seed: number) => {
    const random = seededRandom(seed)
    return Array.from({ length: count }, () => middle * (1 + spread * (random() * 2 - 1)))
  }

  test("encloses the value, and tells a difference that is larger than the spread", () => {
    const ratio = ratioOfMedians(runs(3.6, 0.05, 11, 1), runs(3, 0.05, 11, 2), seededRandom(9))
    expect(ratio.low!).toBeLessThan(ratio.value)
    expect(ratio.high!).toBeGreaterThan(ratio.value)
    expect(ratio.value).toBeCloseTo(1.2, 1)
    expect(verdictOf(ratio)).toBe("better")
    expect(verdictOf(ratioOfMedians(runs(3, 0.05, 11, 1), runs(3.6, 0.05, 11, 2), seededRandom(9)))).toBe(
      "worse",
    )
  })

  test("of like against like is within the noise at about the promised rate", () => {
    let outside = 0
    for (let seed = 0; seed < 200; seed++) {
      const ratio = ratioOfMedians(runs(3, 0.1, 11, seed), runs(3, 0.1, 11, seed + 1000), seededRandom(seed))
      if (verdictOf(ratio) !== "noise") outside++
    }
    expect(outside).toBeLessThan(25)
  })

  test("narrows as runs are added", () => {
    const width = (count: number) => {
      const ratio = ratioOfMedians(runs(3, 0.1, count, 5), runs(3, 0.1, count, 6), seededRandom(1))
      return ratio.high! - ratio.low!
    }
    expect(width(60)).toBeLessThan(width(6))
  })

  test("of single runs has no interval and no verdict but noise", () => {
    const ratio = ratioOfMedians([4], [2], seededRandom(1))
    expect(ratio).toEqual({ value: 2, low: undefined, high: undefined })
    expect(verdictOf(ratio)).toBe("noise")
  })

  test("is the same for the same seed", () => {
    const of = () => ratioOfMedians(runs(3, 0.1, 9, 1), runs(2, 0.1, 9, 2), seededRandom(4))
    expect(of()).toEqual(of())
  })
})
