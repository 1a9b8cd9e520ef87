// The command line of `make bench`, checked: a refusal names the option and what is allowed.

import { parseArgs } from "node:util"
import { CONTESTANTS, type Contestant, pick, ROWS, type Row } from "./matrix.ts"

export interface Options {
  contestants: Contestant[]
  rows: Row[]
  /** Most repetitions; the time may end them sooner. */
  repetitions: number
  /** Length of a measured window. */
  seconds: number
  /** Wall time that all of the measuring may take. Infinity when the repetitions are given. */
  budgetSeconds: number
  seed: number
  /** Folder of latest.json and index.html. */
  out: string
}

const REPETITIONS_MAX = 15
const REPETITIONS_QUICK = 2
const SECONDS = 0.2
const BUDGET_SECONDS = 145

export const USAGE = `usage: make bench ARGS="..."     or: bun bench/run.ts [options]
  --quick             ${REPETITIONS_QUICK} repetitions
  --contestants A,B   of ${CONTESTANTS.map(({ name }) => name).join(", ")}
  --rows A,B          of ${ROWS.map(({ name }) => name).join(", ")}
  --reps N            1 to 1000 repetitions, whatever time they take
                      (default: up to ${REPETITIONS_MAX}, as many as --budget allows)
  --seconds S         length of a measured window, 0.05 to 60 (default ${SECONDS})
  --budget S          wall time for the measuring, 10 to 86400 (default ${BUDGET_SECONDS})
  --seed N            of the order and of the intervals (default: from the clock; it is printed)
  --out FOLDER        where latest.json and index.html go (default results)
  --help
`

const within = (option: string, text: string | undefined, low: number, high: number, fallback: number) => {
  if (text === undefined) return fallback
  const value = Number(text)
  if (text.trim() !== "" && value >= low && value <= high) return value
  throw new RangeError(`--${option} ${text}: must be a number from ${low} to ${high}`)
}

const whole = (option: string, text: string | undefined, low: number, high: number, fallback: number) => {
  const value = within(option, text, low, high, fallback)
  if (Number.isInteger(value)) return value
  throw new RangeError(`--${option} ${text}: must be a whole number from ${low} to ${high}`)
}

/** Undefined when help was asked for. Throws RangeError or TypeError on bad input. */
export function parseOptions(args: string[]): Options | undefined {
  const { values } = parseArgs({
    args,
    options: {
      quick: { type: "boolean", default: false },
      contestants: { type: "string" },
      rows: { type: "string" },
      reps: { type: "string" },
      seconds: { type: "string" },
      budget: { type: "string" },
      seed: { type: "string" },
      out: { type: "string", default: "results" },
      help: { type: "boolean", default: false },
    },
  })
  if (values.help) return undefined
  if (values.quick && values.reps !== undefined) throw new RangeError("--quick and --reps: only one of them")
  const reps = whole("reps", values.reps, 1, 1000, values.quick ? REPETITIONS_QUICK : REPETITIONS_MAX)
  const budget = within("budget", values.budget, 10, 86_400, BUDGET_SECONDS)
  const isFixed = values.reps !== undefined && values.budget === undefined
  return {
    contestants: pick("contestants", values.contestants?.split(","), CONTESTANTS),
    rows: pick("rows", values.rows?.split(","), ROWS),
    repetitions: reps,
    seconds: within("seconds", values.seconds, 0.05, 60, SECONDS),
    budgetSeconds: isFixed ? Number.POSITIVE_INFINITY : budget,
    seed: whole("seed", values.seed, 0, 2 ** 32 - 1, Date.now() % 2 ** 32),
    out: values.out,
  }
}
