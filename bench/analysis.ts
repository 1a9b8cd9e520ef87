// From raw runs to what the reports show: a cell per workload and contestant, and the targets met or missed.

import type { Environment } from "./environment.ts"
import type { IdleFigures } from "./idle.ts"
import { BASELINE, LIMIT, PRODUCT, TARGETS } from "./matrix.ts"
import { DISTURBED, type Run } from "./measure.ts"
import { cost, type PairedRatio, pairedRatio, UNDISTURBED_MIN } from "./pairs.ts"
import { median, type Ratio, seededRandom, type Verdict, verdictOf } from "./statistics.ts"

/** All of results/latest.json. What stands above `table` is measured, the rest follows from it. */
export interface Report {
  seed: number
  seconds: number
  wallSeconds: number
  environment: Environment
  contestants: { name: string; title: string }[]
  rows: { name: string; title: string; target?: number }[]
  /** Contestants that could not run, with the reason. */
  unavailable: Record<string, string>
  runs: Run[]
  systemCallsPerRequest: Record<string, number>
  idle: Record<string, IdleFigures>
  table: TableRow[]
  targets: Target[]
}

export type Measured = Omit<Report, "table" | "targets">

export interface Cell {
  contestant: string
  runs: number
  cpuMicroseconds: number
  requestsPerSecond: number
  p99Microseconds: number
  errors: number
  /** Who was saturated in at least half of the runs. */
  saturated: ("client" | "server")[]
  /** Bun's CPU per request over this one's: above 1 is better than Bun. Undefined for Bun, or without it. */
  ratio: PairedRatio | undefined
  verdict: Verdict | undefined
}

export interface TableRow {
  row: string
  title: string
  cells: Cell[]
  /** uringloop's CPU per request over C io_uring's. */
  timesLimit: PairedRatio | undefined
}

export interface Target {
  title: string
  aimedAt: string
  measured: string
  /** Undefined: not measured this time. */
  isMet: boolean | undefined
}

export function analyse(measured: Measured): Report {
  const table = measured.rows.map((row) => tableRow(measured, row))
  return { ...measured, table, targets: targetsOf(measured, table) }
}

function tableRow(measured: Measured, row: Measured["rows"][number]): TableRow {
  const runsOf = (contestant: string) =>
    measured.runs.filter((run) => run.contestant === contestant && run.row === row.name)
  const ratioOf = (numerator: string, denominator: string) =>
    pairedRatio(runsOf(numerator), runsOf(denominator), seededRandom(measured.seed))
  const cells = measured.contestants.flatMap(({ name }) => {
    const runs = runsOf(name)
    if (runs.length === 0) return []
    return [cellOf(name, runs, name === BASELINE ? undefined : ratioOf(BASELINE, name))]
  })
  return { row: row.name, title: row.title, cells, timesLimit: ratioOf(PRODUCT, LIMIT) }
}

function cellOf(contestant: string, runs: Run[], ratio: PairedRatio | undefined): Cell {
  const results = runs.map(({ result }) => result)
  const often = (who: "client" | "server") =>
    results.filter(({ saturated }) => saturated.includes(who)).length * 2 >= results.length
  const errors = results.flatMap((result) => Object.values(result.errors))
  return {
    contestant,
    runs: runs.length,
    cpuMicroseconds: median(runs.map(cost)),
    requestsPerSecond: median(results.map((result) => result.requests_per_second)),
    p99Microseconds: median(results.map((result) => result.latency_us.p99)),
    errors: errors.reduce((sum, count) => sum + count, 0),
    saturated: (["client", "server"] as const).filter(often),
    ratio,
    verdict: ratio && verdictOf(ratio),
  }
}

function targetsOf(measured: Measured, table: TableRow[]): Target[] {
  const timesBun = measured.rows.flatMap(({ name, title, target }) => {
    if (target === undefined) return []
    const cell = table.find(({ row }) => row === name)?.cells.find(({ contestant }) => contestant === PRODUCT)
    return [atLeast(`${title}: times Bun`, target, cell?.ratio)]
  })
  const worst = table
    .filter(({ timesLimit }) => timesLimit !== undefined)
    .reduce<TableRow | undefined>(
      (a, b) => (a === undefined || b.timesLimit!.value > a.timesLimit!.value ? b : a),
      undefined,
    )
  const bun = measured.idle[BASELINE]
  const product = measured.idle[PRODUCT]
  const extra = bun && product ? product.baseRssBytes - bun.baseRssBytes : undefined
  return [
    ...timesBun,
    atMost(
      `every workload: times C io_uring${worst ? ` (worst: ${worst.title})` : ""}`,
      TARGETS.timesLimit,
      worst?.timesLimit?.value,
      (value) => value.toFixed(2),
    ),
    atMost(
      "system calls per request at 50 connections",
      TARGETS.systemCallsPerRequest,
      measured.systemCallsPerRequest[PRODUCT],
      (value) => value.toFixed(2),
    ),
    atMost("base memory over Bun's", TARGETS.baseMemoryOverBunBytes, extra, megabytes),
    atMost("memory per idle connection", TARGETS.idleConnectionBytes, product?.bytesPerConnection, bytes),
  ]
}

function atLeast(title: string, least: number, ratio: Ratio | undefined): Target {
  const measured = ratio === undefined ? "not measured" : ratioText(ratio)
  return { title, aimedAt: `≥ ${least.toFixed(2)}`, measured, isMet: ratio && ratio.value >= least }
}

function atMost(
  title: string,
  most: number,
  value: number | undefined,
  show: (value: number) => string,
): Target {
  const measured = value === undefined ? "not measured" : show(value)
  return {
    title,
    aimedAt: `≤ ${show(most)}`,
    measured,
    isMet: value === undefined ? undefined : value <= most,
  }
}

/** Runs that did not have the cores to themselves, in words; "" when there was none. */
export function disturbance({ runs }: Measured): string {
  const count = runs.filter(({ waiting }) => waiting > DISTURBED).length
  return count === 0
    ? ""
    : `${count} of ${runs.length} runs were disturbed: something else wanted a core. Their pairs are left out where at ` +
        `least ${UNDISTURBED_MIN} others remain.`
}

/** What a ratio rests on: "9 pairs, 2 left out". */
export function pairsText({ pairs, leftOut, disturbed }: PairedRatio): string {
  const notes = [leftOut > 0 && `${leftOut} left out`, disturbed > 0 && `${disturbed} disturbed`]
  return [`${pairs} ${pairs === 1 ? "pair" : "pairs"}`, ...notes.filter((note) => note !== false)].join(", ")
}

export const ratioText = ({ value, low, high }: Ratio): string =>
  low === undefined || high === undefined
    ? value.toFixed(2)
    : `${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`

export const megabytes = (value: number): string => `${(value / 2 ** 20).toFixed(1)} MiB`
export const bytes = (value: number): string => `${Math.round(value)} B`

export const VERDICTS: Record<Verdict, string> = {
  better: "better than Bun",
  worse: "worse than Bun",
  noise: "within the noise",
  few: "too few pairs to tell",
}
