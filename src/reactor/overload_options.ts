/**
 * Options of limits and overload, checked.
 */
import { integerOption, invalidType, outOfRange } from "../errors.ts"

export interface OverloadOptions {
  /** Share of the send memory in use at which the reactor is overloaded. Default 0.9. */
  memoryShare?: number
  /** Overloaded for so long, milliseconds, connections that come are accepted and reset. Default: never, they wait. */
  refuseAfterMs?: number
  /** Overloaded for so long, connections on which nothing moved in that time are reset. Default: never. */
  resetAfterMs?: number
}

/** With every choice made. Infinity: no limit, never. */
export interface OverloadSettings {
  maxConnections: number
  /** `overload` was given. */
  hasStages: boolean
  memoryShare: number
  refuseAfterMs: number
  resetAfterMs: number
}

const MOST = 2 ** 31 - 1
const NAMES = ["memoryShare", "refuseAfterMs", "resetAfterMs"]
const DEFAULT_MEMORY_SHARE = 0.9

/** @throws TypeError, RangeError that names the option and what is allowed */
export function settleOverload(
  maxConnections: number | undefined,
  options: OverloadOptions | undefined,
): OverloadSettings {
  if (options !== undefined && (typeof options !== "object" || options === null))
    throw invalidType("overload", "an object", options)
  for (const name of Object.keys(options ?? {})) {
    if (!NAMES.includes(name))
      throw outOfRange(`option "overload.${name}"`, `one of ${NAMES.join(", ")}`, name)
  }
  const { memoryShare = DEFAULT_MEMORY_SHARE, refuseAfterMs, resetAfterMs } = options ?? {}
  if (typeof memoryShare !== "number") throw invalidType("overload.memoryShare", "a number", memoryShare)
  if (!(memoryShare > 0 && memoryShare <= 1))
    throw outOfRange("overload.memoryShare", "above 0, at most 1", memoryShare)
  return {
    maxConnections: limitOption("maxConnections", maxConnections),
    hasStages: options !== undefined,
    memoryShare,
    refuseAfterMs: limitOption("overload.refuseAfterMs", refuseAfterMs, 0),
    resetAfterMs: limitOption("overload.resetAfterMs", resetAfterMs),
  }
}

/** An integer, or Infinity where none is given. */
export function limitOption(name: string, value: number | undefined, least = 1): number {
  return value === undefined ? Number.POSITIVE_INFINITY : integerOption(name, value, least, MOST)
}
