// The same seed is the same run, to the last completion and nanosecond.

import { expect, test } from "bun:test"
import { runSeed } from "../../test/sim/run_seed.ts"

function traceOf(seed: number): string[] {
  const lines: string[] = []
  runSeed(seed, { trace: (line) => void lines.push(line) })
  return lines
}

test("twenty seeds, each run twice, with others in between", () => {
  const first = Array.from({ length: 20 }, (_, seed) => traceOf(seed + 1))
  const second = Array.from({ length: 20 }, (_, seed) => traceOf(seed + 1))
  expect(second).toEqual(first)
  expect(new Set(first.map((lines) => lines.join("\n"))).size).toBe(20)
})
