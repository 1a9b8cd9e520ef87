// results/index.html: the report as one page without any network, light and dark, readable on a phone.

import {
  bytes,
  type Cell,
  disturbance,
  megabytes,
  pairsText,
  type Report,
  ratioText,
  type TableRow,
  type Target,
  VERDICTS,
} from "./analysis.ts"
import { FEW, IDLE_PROCESSES, MANY } from "./idle.ts"
import { BASELINE } from "./matrix.ts"
import { DISTURBED, ROW_WARM_SECONDS } from "./measure.ts"
import { type PairedRatio, UNDISTURBED_MIN } from "./pairs.ts"
import { plot } from "./plot.ts"
import { INTERVAL_PAIRS } from "./statistics.ts"

const STYLE = `
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1e21; --soft: #5f6670; --line: #d9dde2;
  --better: #0b6e4f; --worse: #b3261e; --noise: #5f6670; --shade: #f4f6f8 }
@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --ink: #e6e8ea; --soft: #a0a8b2; --line: #353b43;
  --better: #5fd0a5; --worse: #ff8a80; --noise: #a0a8b2; --shade: #1e2329 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 62rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .25rem 0 .5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { margin: .5rem 0; max-width: 46rem } .soft { color: var(--soft) }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; vertical-align: top }
th:first-child, td:first-child { text-align: left } tr + tr > * { border-top: 1px solid var(--line) }
tbody th { font-weight: 500 }
td small { display: block; color: var(--soft); font-weight: 400; white-space: normal }
tr > :first-child { position: sticky; left: 0; background: var(--ground); white-space: normal; min-width: 7rem }
thead tr > th, thead tr > :first-child { background: var(--shade); font-weight: 600 }
.better { color: var(--better) } .worse { color: var(--worse) } .noise, .few { color: var(--noise) }
td.better, td.worse { font-weight: 600 }
.figures thead th { white-space: normal }
.targets th, .targets td { white-space: normal; text-align: left }
svg { display: block; width: 100%; max-width: 36rem; height: auto; font: 11px system-ui, sans-serif; fill: var(--ink) }
svg .workload { font-weight: 600; font-size: 12px } svg .tick, svg .contestant { fill: var(--soft) }
svg .contestant { font-size: 10px } svg .tick { font-size: 10px } svg .value { font-variant-numeric: tabular-nums }
svg .grid { stroke: var(--line); stroke-width: .6 } svg .one { stroke: var(--ink); stroke-width: 1.2 }
svg g.better { color: var(--better) } svg g.worse { color: var(--worse) }
svg g .value, svg .dot { fill: currentColor } svg .interval { stroke: currentColor; stroke-width: 2 }
svg .dot { stroke: currentColor; stroke-width: 1.5 } svg .noise .dot, svg .few .dot { fill: var(--ground) }
ul { padding-left: 1.2rem } dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .25rem 1rem }
dt { color: var(--soft) } dd { margin: 0; min-width: 0 } code { font-size: .9em }
`

export function reportPage(report: Report): string {
  const { environment } = report
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>uringloop: benchmark</title>
<style>${STYLE}</style>
</head>
<body>
<h1>io_uring against Bun's own loop</h1>
<p>Server CPU per request, Bun's divided by each contestant's in the same repetition: above 1 a request costs less
than on <code>Bun.listen</code>. The figure is the median of these ratios; in brackets its 95 % interval, bootstrapped
over the repetitions. A difference whose interval holds 1 is within the noise; fewer
than ${INTERVAL_PAIRS} pairs have no interval and tell too little.</p>
<p class="soft">${html(summary(report))}</p>
${disturbance(report) && `<p class="worse">${html(disturbance(report))}</p>`}
<h2>Ratios</h2>
${plot(report) || "<p>No ratio: Bun was not among the contestants, or alone.</p>"}
<p class="soft">Filled circle: better than Bun. Filled diamond: worse. Hollow circle: within the noise,
or too few pairs to tell. The axis is logarithmic.</p>
<h2>CPU per request</h2>
${mainTable(report)}
<h2>Requests per second</h2>
<p>Who had no CPU left is named: where it was the client, the server could have done more.</p>
${rateTable(report)}
<h2>System calls, memory, idling</h2>
${restTable(report)}
<h2>Targets</h2>
${targetTable(report.targets)}
${missing(report)}
<h2>Environment and method</h2>
<dl>
${entries({
  date: environment.date,
  kernel: `Linux ${environment.kernel}`,
  processor: `${environment.cpu} × ${environment.cores}`,
  "null system call":
    environment.nullSystemCallNs === undefined ? "n/a" : `${environment.nullSystemCallNs.toFixed(0)} ns`,
  versions: `Bun ${environment.bun}, uringloop ${environment.uringloop}, liburing ${environment.liburing}`,
  ...environment.settings,
  ...environment.conditions,
  ...method(report),
})}
</dl>
</body>
</html>
`
}

function method({ seed, seconds, wallSeconds, runs }: Report): Record<string, string> {
  const repetitions = new Set(runs.map(({ repetition }) => repetition)).size
  return {
    "CPU per request":
      "time on a CPU of all the server's threads, from /proc/PID/task/*/schedstat, over requests answered",
    repetition:
      "all servers of a kind run at once, idle ones without connections; row by row each contestant has one window, " +
      `one right after the other, rows and contestants in an order shuffled with seed ${seed}. ` +
      "The core contestants take part in each, the others in every third",
    windows: `${seconds} s, after ${ROW_WARM_SECONDS} s of the same load; ${repetitions} repetitions, ${Math.round(wallSeconds)} s in all`,
    pairs:
      "a ratio divides the two windows of one row and one repetition, which lie a second or two apart, so that a drift " +
      "of the machine's speed cancels out. The absolute µs are medians of their own",
    disturbed:
      `a run in which some process waited for a core for more than ${DISTURBED * 100} % of the time (/proc/pressure/cpu). ` +
      `Its pairs are left out where at least ${UNDISTURBED_MIN} others remain`,
    "memory per idle connection":
      `anonymous memory (/proc/PID/smaps_rollup) with ${count(MANY)} connections held minus that with ${count(FEW)}, over ` +
      `the difference, in a fresh process; median of ${IDLE_PROCESSES} processes. Base memory is RSS of the fresh process, ` +
      "its binary's pages included",
  }
}

const count = (value: number) => value.toLocaleString("en")

const AMPERSANDS: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" }
const html = (text: string) => text.replace(/[&<>"]/g, (character) => AMPERSANDS[character]!)

const entries = (pairs: Record<string, string>) =>
  Object.entries(pairs)
    .map(([name, value]) => `<dt>${html(name)}</dt><dd>${html(value)}</dd>`)
    .join("\n")

function summary(report: Report): string {
  const verdicts = report.table.flatMap(({ cells }) => cells.flatMap(({ verdict }) => verdict ?? []))
  const having = (wanted: string) => verdicts.filter((verdict) => verdict === wanted).length
  const met = report.targets.filter(({ isMet }) => isMet === true).length
  const judged = report.targets.filter(({ isMet }) => isMet !== undefined).length
  return (
    `${verdicts.length} comparisons: ${having("better")} better, ${having("worse")} worse, ` +
    `${having("noise")} within the noise, ${having("few")} with too few pairs to tell. Targets met: ${met} of ${judged}.`
  )
}

const cellOf = (row: TableRow, name: string) => row.cells.find(({ contestant }) => contestant === name)

/** Cells of the head are text, those of the body are HTML. */
function table(head: string[], lines: string[][], kind = ""): string {
  const columns = head.map((title) => `<th scope="col">${html(title)}</th>`).join("")
  const body = lines.map(([first, ...rest]) => `<tr><th scope="row">${first}</th>${rest.join("")}</tr>`)
  return `<div class="wide ${kind}" tabindex="0"><table><thead><tr>${columns}</tr></thead>
<tbody>${body.join("\n")}</tbody></table></div>`
}

const cell = (content: string, kind = "") => `<td${kind && ` class="${kind}"`}>${content}</td>`

function mainTable(report: Report): string {
  const others = report.contestants.filter(({ name }) => name !== BASELINE)
  const lines = report.table.map((row) => [
    html(row.title),
    cell(cost(cellOf(row, BASELINE))),
    ...others.map(({ name }) => ratioCell(cellOf(row, name))),
    row.timesLimit === undefined ? cell("n/a") : cell(paired(row.timesLimit)),
  ])
  return table(["workload", "Bun, µs", ...others.map(({ title }) => title), "uring / C limit"], lines)
}

const cost = (found: Cell | undefined) =>
  found === undefined ? "n/a" : `${microseconds(found)}<small>${plural(found.runs, "run")}</small>`

function ratioCell(found: Cell | undefined): string {
  if (found?.ratio === undefined) return cell(cost(found))
  const content = `${paired(found.ratio)}<small>${microseconds(found)} µs</small>`
  return cell(content, found.verdict).replace("<td", `<td title="${VERDICTS[found.verdict!]}"`)
}

function paired(ratio: PairedRatio): string {
  const [value, ...interval] = ratioText(ratio).split(" ")
  return `${value}<small>${interval.join("&nbsp;") || "no interval"}</small><small>${pairsText(ratio)}</small>`
}

const microseconds = ({ cpuMicroseconds }: Cell) => cpuMicroseconds.toFixed(cpuMicroseconds < 1 ? 3 : 2)

const plural = (count: number, noun: string) => `${count} ${noun}${count === 1 ? "" : "s"}`

function rateTable(report: Report): string {
  const lines = report.table.map((row) => [
    html(row.title),
    ...report.contestants.map(({ name }) => {
      const found = cellOf(row, name)
      if (found === undefined) return cell("n/a")
      const rate = Math.round(found.requestsPerSecond).toLocaleString("en")
      return cell(`${rate}<small>${found.saturated.join(", ") || "neither"}</small>`)
    }),
  ])
  return table(["workload", ...report.contestants.map(({ title }) => title)], lines)
}

function restTable(report: Report): string {
  const head = [
    "contestant",
    "system calls per request, × 50",
    "base memory",
    "memory per idle connection",
    "CPU ms/s, no connection",
    `CPU ms/s, ${count(MANY)} idle`,
  ]
  const lines = report.contestants.map(({ name, title }) => {
    const idle = report.idle[name]
    const figures = [
      report.systemCallsPerRequest[name]?.toFixed(2),
      idle && megabytes(idle.baseRssBytes),
      idle && bytes(idle.bytesPerConnection),
      idle?.cpuMsPerSecond.toFixed(2),
      idle?.cpuMsPerSecondHeld.toFixed(2),
    ]
    return [html(title), ...figures.map((figure) => cell(figure ?? "n/a"))]
  })
  return table(head, lines, "figures")
}

function targetTable(targets: Target[]): string {
  const lines = targets.map(({ title, aimedAt, measured, isMet }) => [
    html(title),
    cell(html(aimedAt)),
    cell(html(measured)),
    isMet === undefined ? cell("n/a") : cell(isMet ? "met" : "missed", isMet ? "better" : "worse"),
  ])
  return table(["target", "aimed at", "measured", ""], lines, "targets")
}

function missing({ unavailable }: Report): string {
  const lines = Object.entries(unavailable).map(
    ([name, reason]) => `<li>${html(name)} did not run: ${html(reason)}</li>`,
  )
  return lines.length === 0 ? "" : `<ul>${lines.join("\n")}</ul>`
}
