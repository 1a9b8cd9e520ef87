// The report for a terminal.

import {
  bytes,
  type Cell,
  disturbance,
  megabytes,
  type Report,
  ratioText,
  type TableRow,
} from "./analysis.ts"
import { BASELINE } from "./matrix.ts"
import type { PairedRatio } from "./pairs.ts"
import { INTERVAL_PAIRS } from "./statistics.ts"

/** Marks a ratio whose interval does not hold 1; without a mark a difference is within the noise. */
const MARKS = { better: "+", worse: "-", noise: " ", few: " " } as const

export function reportText(report: Report): string {
  const { wallSeconds, seed, seconds } = report
  return [
    `Server CPU per request. Ratios are Bun's over the other's: above 1 is better than Bun.`,
    `Each is the median over the repetitions, with its 95 % interval, and (pairs) how many it rests on.`,
    `+ better, - worse, unmarked: within the noise, or fewer than ${INTERVAL_PAIRS} pairs and so no interval.`,
    "",
    table(mainTable(report)),
    "",
    [runsLine(report), disturbance(report)].join(" ").trimEnd(),
    "",
    "Requests per second (thousands), and who had no CPU left: s server, c client",
    table(rateTable(report)),
    "",
    table(restTable(report)),
    "",
    "Targets",
    table(
      report.targets.map(({ title, aimedAt, measured, isMet }) => [mark(isMet), title, aimedAt, measured]),
    ),
    ...Object.entries(report.unavailable).map(([name, reason]) => `\n${name} did not run: ${reason}`),
    ...errorLines(report),
    "",
    environmentLines(report),
    `seed ${seed}, windows of ${seconds} s, ${Math.round(wallSeconds)} s in all`,
  ].join("\n")
}

const mark = (isMet: boolean | undefined) => (isMet === undefined ? "n/a" : isMet ? "met" : "MISSED")

function titleOf(report: Report, name: string): string {
  return report.contestants.find((contestant) => contestant.name === name)?.title ?? name
}

const others = (report: Report) => report.contestants.filter(({ name }) => name !== BASELINE)
const cellOf = (row: TableRow, name: string) => row.cells.find(({ contestant }) => contestant === name)

function mainTable(report: Report): string[][] {
  const head = ["workload", "Bun µs", ...others(report).map(({ title }) => title), "uring / C limit"]
  const lines = report.table.map((row) => [
    row.title,
    cost(cellOf(row, BASELINE)),
    ...others(report).map(({ name }) => ratio(cellOf(row, name))),
    row.timesLimit === undefined ? "n/a" : withPairs(row.timesLimit),
  ])
  return [head, ...lines]
}

const cost = (cell: Cell | undefined) =>
  cell?.cpuMicroseconds.toFixed(cell.cpuMicroseconds < 1 ? 3 : 2) ?? "n/a"

function ratio(cell: Cell | undefined): string {
  if (cell === undefined) return "n/a"
  return cell.ratio === undefined ? `${cost(cell)} µs` : `${MARKS[cell.verdict!]} ${withPairs(cell.ratio)}`
}

const withPairs = (ratio: PairedRatio) => `${ratioText(ratio)} (${ratio.pairs})`

function rateTable(report: Report): string[][] {
  const rate = (cell: Cell | undefined) => {
    if (cell === undefined) return "n/a"
    const full = cell.saturated.map((who) => who[0]).join("")
    return `${(cell.requestsPerSecond / 1000).toFixed(1)} ${full.padEnd(2)}`
  }
  return [
    ["workload", ...report.contestants.map(({ title }) => title)],
    ...report.table.map((row) => [
      row.title,
      ...report.contestants.map(({ name }) => rate(cellOf(row, name))),
    ]),
  ]
}

function restTable(report: Report): string[][] {
  const head = [
    "",
    "system calls / request",
    "base memory",
    "per idle connection",
    "idle CPU ms/s",
    "with connections",
  ]
  const lines = report.contestants.map(({ name, title }) => {
    const idle = report.idle[name]
    return [
      title,
      report.systemCallsPerRequest[name]?.toFixed(2) ?? "n/a",
      idle ? megabytes(idle.baseRssBytes) : "n/a",
      idle ? bytes(idle.bytesPerConnection) : "n/a",
      idle?.cpuMsPerSecond.toFixed(2) ?? "n/a",
      idle?.cpuMsPerSecondHeld.toFixed(2) ?? "n/a",
    ]
  })
  return [head, ...lines]
}

function runsLine(report: Report): string {
  const counts = report.contestants.map(({ name, title }) => {
    const most = Math.max(0, ...report.table.map((row) => cellOf(row, name)?.runs ?? 0))
    return `${title} ${most}`
  })
  return `Runs: ${counts.join(", ")}.`
}

function errorLines(report: Report): string[] {
  return report.table.flatMap((row) =>
    row.cells
      .filter(({ errors }) => errors > 0)
      .map(({ contestant, errors }) => `${row.title}, ${titleOf(report, contestant)}: ${errors} errors`),
  )
}

function environmentLines({ environment }: Report): string {
  const { kernel, cpu, cores, bun, uringloop, liburing, nullSystemCallNs } = environment
  const call = nullSystemCallNs === undefined ? "" : `, null system call ${nullSystemCallNs.toFixed(0)} ns`
  return `Linux ${kernel}, ${cpu} × ${cores}${call}; Bun ${bun}, uringloop ${uringloop}, liburing ${liburing}`
}

/** Columns aligned: text to the left in the first, to the right in the others. */
function table(lines: string[][]): string {
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => (line[column] ?? "").length)),
  )
  const pad = (text: string, column: number) =>
    column === 0 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!)
  return lines.map((line) => line.map(pad).join("  ").trimEnd()).join("\n")
}
