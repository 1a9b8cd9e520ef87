/**
 * Options of debug mode (debug.ts), checked, with every choice made.
 */
import { integerOption, invalidType, outOfRange } from "../errors.ts"
import type { PendingItem } from "./pending.ts"

export interface DebugOptions {
  /** Time between two looks for what hangs, milliseconds. Default 30,000. */
  scanMs?: number
  /** What has not moved for so long hangs, milliseconds. Default 300,000. */
  boundMs?: number
  /** Told of what hangs, once until it moves again. Default: a warning on stderr. */
  report?: (items: PendingItem[]) => void
}

/** With every choice made. */
export type DebugSettings = Required<DebugOptions>

const NAMES = ["scanMs", "boundMs", "report"]
const DEFAULT_SCAN_MS = 30_000
const DEFAULT_BOUND_MS = 300_000
const MOST_MS = 2 ** 31 - 1

/**
 * undefined: no debug mode.
 * @param value the option; undefined: `URINGLOOP_DEBUG` decides
 * @throws TypeError, RangeError that names the option and what is allowed
 */
export function settleDebug(
  value: boolean | DebugOptions | undefined,
  warn: (items: PendingItem[]) => void,
): DebugSettings | undefined {
  const isOn = value ?? !["", "0"].includes(process.env.URINGLOOP_DEBUG ?? "")
  if (isOn === false) return undefined
  const options = isOn === true ? {} : isOn
  if (typeof options !== "object" || options === null)
    throw invalidType("debug", "a boolean or an object", value)
  for (const name of Object.keys(options)) {
    if (!NAMES.includes(name)) throw outOfRange(`option "debug.${name}"`, `one of ${NAMES.join(", ")}`, name)
  }
  const { scanMs = DEFAULT_SCAN_MS, boundMs = DEFAULT_BOUND_MS, report = warn } = options
  integerOption("debug.scanMs", scanMs, 1, MOST_MS)
  integerOption("debug.boundMs", boundMs, 1, MOST_MS)
  if (typeof report !== "function") throw invalidType("debug.report", "a function", report)
  return { scanMs, boundMs, report }
}
