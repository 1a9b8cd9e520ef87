import { expect, test } from "bun:test"
import { leastSquares, type Sample, slopes } from "./samples.ts"

const MIB = 1024 * 1024

/** Memory of a server that leaks `perTenMinutes`, with the wobble of a garbage collector's. */
function samples(perTenMinutes: number, wobbleBytes: number): Sample[] {
  return Array.from({ length: 600 }, (_, seconds) => ({
    seconds,
    anonymousBytes: 50 * MIB + (perTenMinutes * seconds) / 600 + wobbleBytes * Math.sin(seconds * 12.9898),
    heapBytes: undefined,
    residentBytes: 0,
    descriptors: 100 + (seconds % 7),
    operations: 100,
    arenaBytes: 0,
    sockets: 100,
    deadlines: 0,
  }))
}

const over = (all: Sample[]) =>
  slopes(all, 60, 1)
    .filter(({ isOver }) => isOver)
    .map(({ name }) => name)

test("the slope of a line, and of a level one", () => {
  const line = leastSquares([
    [0, 1],
    [1, 3],
    [2, 5],
  ])
  expect(line.slope).toBeCloseTo(2)
  expect(line.standardError).toBeCloseTo(0)
  const points: [number, number][] = [
    [0, 4],
    [1, 5],
    [2, 4],
  ]
  expect(leastSquares(points).slope).toBeCloseTo(0)
  expect(leastSquares(points).standardError).toBeCloseTo(0.577, 2)
})

test("too few points say nothing", () => {
  expect(leastSquares([])).toEqual({ slope: 0, standardError: 0 })
  const two: [number, number][] = [
    [0, 1],
    [1, 2],
  ]
  expect(leastSquares(two)).toEqual({ slope: 0, standardError: 0 })
})

test("a leak is found in the wobble, and the wobble is no leak", () => {
  expect(over(samples(0, 5 * MIB))).toEqual([])
  expect(over(samples(0.5 * MIB, 5 * MIB))).toEqual([])
  expect(over(samples(10 * MIB, 5 * MIB))).toEqual(["anonymousBytes"])
  expect(over(samples(2 * MIB, 0))).toEqual(["anonymousBytes"])
})

test("only samples after the warm-up count", () => {
  const all = samples(0, 0)
  for (const sample of all) if (sample.seconds < 60) sample.anonymousBytes = 0
  expect(over(all)).toEqual([])
})
