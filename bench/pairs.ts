// What is compared: two contestants' runs of one row in one repetition, which lie seconds apart. Whatever makes the
// machine faster or slower for longer than that cancels out of their ratio.

import { DISTURBED, type Run } from "./measure.ts"
import { medianRatio, type Random, type Ratio } from "./statistics.ts"

export interface PairedRatio extends Ratio {
  /** Pairs with a disturbed run that do not count, and such pairs that had to count. */
  leftOut: number
  disturbed: number
}

/** Disturbed pairs are left out only where so many others remain. */
export const UNDISTURBED_MIN = 3

export const cost = ({ result }: Run): number => result.server_cpu_us_per_request!

const isDisturbed = ({ waiting }: Run) => waiting > DISTURBED

/** Of the cost per request. Undefined when the two have no repetition in common. */
export function pairedRatio(
  numerators: readonly Run[],
  denominators: readonly Run[],
  random: Random,
): PairedRatio | undefined {
  const pairs = numerators.flatMap((run) => {
    const partner = denominators.find(({ repetition }) => repetition === run.repetition)
    return partner === undefined ? [] : [[run, partner] as const]
  })
  if (pairs.length === 0) return undefined
  const calm = pairs.filter((pair) => !pair.some(isDisturbed))
  const counted = calm.length >= UNDISTURBED_MIN ? calm : pairs
  const ratios = counted.map(([numerator, denominator]) => cost(numerator) / cost(denominator))
  return {
    ...medianRatio(ratios, random),
    leftOut: pairs.length - counted.length,
    disturbed: counted.length - counted.filter((pair) => calm.includes(pair)).length,
  }
}
