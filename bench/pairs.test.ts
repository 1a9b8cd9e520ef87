import { describe, expect, test } from "bun:test"
import { DISTURBED, type Run } from "./measure.ts"
import { pairedRatio, UNDISTURBED_MIN } from "./pairs.ts"
import { seededRandom } from "./statistics.ts"

const CALM = 0
const BUSY = DISTURBED + 0.01

/** Of one contestant and row: a cost per repetition, and how much others waited meanwhile. */
const runs = (costs: (number | undefined)[], waiting: number[] = []): Run[] =>
  costs.flatMap((cost, repetition) => {
    if (cost === undefined) return []
    const result = { server_cpu_us_per_request: cost } as Run["result"]
    return { repetition, contestant: "any", row: "any", waiting: waiting[repetition] ?? CALM, result }
  })

const ratioOf = (numerators: Run[], denominators: Run[]) =>
  pairedRatio(numerators, denominators, seededRandom(1))

describe("paired ratio", () => {
  test("cancels a drift that both sides share", () => {
    const drift = [1, 1.3, 1.5, 0.9, 1.1, 1.4, 1]
    const bun = runs(drift.map((factor) => 3 * factor))
    const other = runs(drift.map((factor) => 2 * factor).reverse()).map((run) => ({
      ...run,
      repetition: drift.length - 1 - run.repetition,
    }))
    const ratio = ratioOf(bun, other)!
    for (const value of [ratio.value, ratio.low!, ratio.high!]) expect(value).toBeCloseTo(1.5, 10)
  })

  test("takes the repetitions that both have", () => {
    const ratio = ratioOf(runs([4, 9, 9, 6, 9]), runs([2, undefined, undefined, 2, undefined]))!
    expect(ratio).toMatchObject({ value: 2.5, pairs: 2, leftOut: 0, disturbed: 0 })
    expect(ratioOf(runs([1]), runs([undefined, 1]))).toBeUndefined()
    expect(ratioOf(runs([1]), [])).toBeUndefined()
  })

  test("leaves out what was disturbed on either side", () => {
    const ratio = ratioOf(runs([2, 2, 2, 2, 50], [0, 0, 0, 0, BUSY]), runs([1, 9, 1, 1, 1], [0, BUSY]))!
    expect(ratio).toMatchObject({ value: 2, pairs: UNDISTURBED_MIN, leftOut: 2, disturbed: 0 })
  })

  test("but keeps all where too few would remain, and says so", () => {
    const ratio = ratioOf(runs([2, 4, 6], [0, BUSY]), runs([1, 1, 1]))!
    expect(ratio).toMatchObject({ value: 4, pairs: 3, leftOut: 0, disturbed: 1 })
  })
})
