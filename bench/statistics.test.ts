import { describe, expect, test } from "bun:test"
import { INTERVAL_PAIRS, median, medianRatio, seededRandom, shuffled, verdictOf } from "./statistics.ts"

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

describe("median of ratios", () => {
  /** Ratios around a middle with an even spread of a few percent. */
  const ratios = (middle: number, spread: number, count: number, seed: number) => {
    const random = seededRandom(seed)
    return Array.from({ length: count }, () => middle * (1 + spread * (random() * 2 - 1)))
  }

  test("encloses the value, and tells a difference that is larger than the spread", () => {
    const ratio = medianRatio(ratios(1.2, 0.08, 11, 1), seededRandom(9))
    expect(ratio.low!).toBeLessThan(ratio.value)
    expect(ratio.high!).toBeGreaterThan(ratio.value)
    expect(ratio.value).toBeCloseTo(1.2, 1)
    expect(ratio.pairs).toBe(11)
    expect(verdictOf(ratio)).toBe("better")
    expect(verdictOf(medianRatio(ratios(0.8, 0.08, 11, 1), seededRandom(9)))).toBe("worse")
  })

  test.each([INTERVAL_PAIRS, 9, 15])(
    "of %d like against like is within the noise at about the promised rate",
    (pairs) => {
      let outside = 0
      for (let seed = 0; seed < 400; seed++) {
        if (verdictOf(medianRatio(ratios(1, 0.1, pairs, seed), seededRandom(seed))) !== "noise") outside++
      }
      expect(outside).toBeLessThan(400 * 0.1)
    },
  )

  test("narrows as pairs are added", () => {
    const width = (count: number) => {
      const ratio = medianRatio(ratios(1, 0.1, count, 5), seededRandom(1))
      return ratio.high! - ratio.low!
    }
    expect(width(60)).toBeLessThan(width(6))
  })

  test("of few pairs has no interval and no verdict", () => {
    const few = new Array<number>(INTERVAL_PAIRS - 1).fill(2)
    const ratio = medianRatio(few, seededRandom(1))
    expect(ratio).toEqual({ value: 2, low: undefined, high: undefined, pairs: INTERVAL_PAIRS - 1 })
    expect(verdictOf(ratio)).toBe("few")
  })

  test("is the same for the same seed", () => {
    const of = () => medianRatio(ratios(1.5, 0.1, 9, 1), seededRandom(4))
    expect(of()).toEqual(of())
  })
})
