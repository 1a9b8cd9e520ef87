// Seeds of the simulation as one test, so that their coverage counts: only `bun test` measures it.

import { expect, test } from "bun:test"
import { runSeed } from "../sim/run_seed.ts"

test("seeds of the simulation", () => {
  for (let seed = 1; seed <= 1_000; seed++) runSeed(seed, {})
  expect(true).toBe(true)
}, 120_000)
