// Runs seeds of the simulation.
//
//   bun test/sim/run.ts --seeds 1..10000          one line per thousand, each failure with the command that replays it
//   bun test/sim/run.ts --seed 42 [--trace]       one seed; with --trace all that passes the border of the kernel
//   ... --record                                  appends range, counts and outcome to results/sim.json
//   ... --keep-going                              does not stop at ten failures
//
// The last line is `N passed, N failed`, in blocks of a thousand seeds; exit status 1 when any failed.

import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { runSeed } from "./run_seed.ts"
import { Tally } from "./tally.ts"

const RESULTS = join(import.meta.dir, "../../results/sim.json")
const BLOCK_SEEDS = 1000
const FAILURES_SHOWN = 10

interface Arguments {
  first: number
  last: number
  isTraced: boolean
  isRecorded: boolean
  keepsGoing: boolean
}

function parse(args: string[]): Arguments {
  const parsed = { first: 1, last: 1000, isTraced: false, isRecorded: false, keepsGoing: false }
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--seeds")
      [parsed.first, parsed.last] = args[++i]!.split("..").map(Number) as [number, number]
    else if (args[i] === "--seed") parsed.first = parsed.last = Number(args[++i])
    else if (args[i] === "--trace") parsed.isTraced = true
    else if (args[i] === "--record") parsed.isRecorded = true
    else if (args[i] === "--keep-going") parsed.keepsGoing = true
    else throw new Error(`unknown argument ${args[i]}`)
  }
  if (!Number.isInteger(parsed.first) || !Number.isInteger(parsed.last) || parsed.last < parsed.first) {
    throw new Error("--seeds takes FROM..TO, --seed takes a whole number")
  }
  return parsed
}

function main(args: Arguments): number {
  const tally = new Tally()
  let passed = 0
  let failed = 0
  for (let from = args.first; from <= args.last; from += BLOCK_SEEDS) {
    const to = Math.min(from + BLOCK_SEEDS - 1, args.last)
    const before = tally.failures.length
    for (let seed = from; seed <= to; seed++) {
      const error = runOne(seed, args, tally)
      if (error !== undefined) report(seed, error, tally)
      if (tally.failures.length >= FAILURES_SHOWN && !args.keepsGoing) break
    }
    if (tally.failures.length > before) failed++
    else passed++
    console.log(
      `${tally.failures.length > before ? "FAIL" : "ok  "} seeds ${from}..${to}: ${tally.summary()}`,
    )
    if (tally.failures.length >= FAILURES_SHOWN && !args.keepsGoing) break
  }
  console.log(tally.faultLines())
  if (args.isRecorded) record(args, tally)
  console.log(`${passed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

function runOne(seed: number, args: Arguments, tally: Tally): unknown {
  try {
    tally.add(runSeed(seed, args.isTraced ? { trace: (line) => console.log(line) } : {}))
    return undefined
  } catch (error) {
    return error
  }
}

function report(seed: number, error: unknown, tally: Tally): void {
  tally.failures.push(seed)
  const text =
    error instanceof Error
      ? error.name === "Violation"
        ? error.message
        : (error.stack ?? error.message)
      : error
  console.log(`seed ${seed}: ${text}\n  replay: bun test/sim/run.ts --seed ${seed} --trace`)
}

function record(args: Arguments, tally: Tally): void {
  let runs: unknown[] = []
  try {
    runs = JSON.parse(readFileSync(RESULTS, "utf8")) as unknown[]
  } catch {
    // The first run that is recorded.
  }
  runs.push({
    date: new Date().toISOString().slice(0, 10),
    commit: commit(),
    from: args.first,
    to: args.last,
    ...tally.asRecord(),
  })
  writeFileSync(RESULTS, `${JSON.stringify(runs, undefined, 1)}\n`)
}

/** Whose programs these seeds were: another version draws others. */
function commit(): string {
  return Bun.spawnSync(["git", "rev-parse", "--short", "HEAD"], { cwd: import.meta.dir })
    .stdout.toString()
    .trim()
}

process.exit(main(parse(process.argv.slice(2))))
