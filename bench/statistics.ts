// The statistics of the benchmark: medians, the median of paired ratios with its bootstrap interval, and the
// seeded random numbers behind the interval and the order of the runs.

/** Numbers in [0, 1) that depend on the seed alone (mulberry32). */
export type Random = () => number

export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A shuffled copy (Fisher-Yates). */
export function shuffled<T>(items: readonly T[], random: Random): T[] {
  const copy = [...items]
  for (let i = copy.length - 1; i > 0; i--) {
    const other = Math.floor(random() * (i + 1))
    const moved = copy[i]!
    copy[i] = copy[other]!
    copy[other] = moved
  }
  return copy
}

/** NaN for no values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** The median of ratios that were each taken within one repetition. `low` and `high` bound the 95 % interval. */
export interface Ratio {
  value: number
  /** Undefined with fewer pairs than INTERVAL_PAIRS. */
  low: number | undefined
  high: number | undefined
  /** How many ratios it is the median of. */
  pairs: number
}

export type Verdict = "better" | "worse" | "noise" | "few"

const RESAMPLES = 2000
const TAIL = 0.025

/** With fewer, the lowest and the highest together hold the true median less often than an interval of 95 % should. */
export const INTERVAL_PAIRS = 5

/**
 * The interval is a percentile bootstrap over repetitions: a pair is one value. Requests inside a run are not
 * independent and are never resampled.
 */
export function medianRatio(ratios: readonly number[], random: Random): Ratio {
  const ratio = { value: median(ratios), low: undefined, high: undefined, pairs: ratios.length }
  if (ratios.length < INTERVAL_PAIRS) return ratio
  const medians = Float64Array.from({ length: RESAMPLES }, () => median(resample(ratios, random))).sort()
  return {
    ...ratio,
    low: medians[Math.floor(TAIL * RESAMPLES)]!,
    high: medians[Math.ceil((1 - TAIL) * RESAMPLES) - 1]!,
  }
}

function resample(values: readonly number[], random: Random): number[] {
  return values.map(() => values[Math.floor(random() * values.length)]!)
}

/** A difference whose interval holds 1 is within the noise; without an interval there are too few pairs to tell. */
export function verdictOf({ low, high }: Ratio): Verdict {
  if (low === undefined || high === undefined) return "few"
  if (low > 1) return "better"
  return high < 1 ? "worse" : "noise"
}
