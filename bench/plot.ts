// The plot: a dot and its interval for each workload and contestant on a logarithmic axis of ratios. Written by
// hand as one SVG: a plotting library would need a DOM, and this is two dozen lines of geometry. Colours come from
// the page by class, so that light and dark are the page's matter; shape tells what colour tells.

import { type Cell, type Report, ratioText, VERDICTS } from "./analysis.ts"

const WIDTH = 400
const LABEL_WIDTH = 118
const VALUE_WIDTH = 40
const LEFT = LABEL_WIDTH
const RIGHT = WIDTH - VALUE_WIDTH
const GROUP_HEAD = 24
const LINE = 17
const AXIS = 26
const TICKS = [0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 6, 8]
/** The axis holds at least this, so that a small difference does not look like a large one. */
const NARROWEST: [number, number] = [0.88, 1.35]

interface Scale {
  low: number
  high: number
  /** The place of a ratio across the picture. */
  at(ratio: number): number
}

export function plot(report: Report): string {
  const groups = report.table
    .map(({ title, cells }) => ({ title, cells: cells.filter(({ ratio }) => ratio !== undefined) }))
    .filter(({ cells }) => cells.length > 0)
  if (groups.length === 0) return ""
  const scale = scaleFor(groups.flatMap(({ cells }) => cells))
  const parts: string[] = []
  let top = AXIS
  for (const { title, cells } of groups) {
    parts.push(text(0, top + GROUP_HEAD - 8, title, "workload"))
    top += GROUP_HEAD
    for (const cell of cells) {
      parts.push(mark(report, cell, scale, top + LINE / 2))
      top += LINE
    }
  }
  const height = top + 6
  return [
    `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="plot-title">`,
    `<title id="plot-title">Ratios of CPU per request, Bun's over each contestant's, with 95 % intervals</title>`,
    ...axis(scale, height),
    ...parts,
    "</svg>",
  ].join("\n")
}

function scaleFor(cells: Cell[]): Scale {
  const ends = cells.flatMap(({ ratio }) => [
    ratio!.value,
    ratio!.low ?? ratio!.value,
    ratio!.high ?? ratio!.value,
  ])
  const low = Math.min(NARROWEST[0], ...ends.map((end) => end * 0.98))
  const high = Math.max(NARROWEST[1], ...ends.map((end) => end * 1.02))
  const at = (ratio: number) => LEFT + ((RIGHT - LEFT) * Math.log(ratio / low)) / Math.log(high / low)
  return { low, high, at }
}

function axis({ low, high, at }: Scale, height: number): string[] {
  let lastLabel = Number.NEGATIVE_INFINITY
  const ticks = TICKS.filter((tick) => tick >= low && tick <= high)
  return ticks.flatMap((tick) => {
    const x = at(tick).toFixed(1)
    const rule = `<line class="${tick === 1 ? "one" : "grid"}" x1="${x}" x2="${x}" y1="${AXIS - 6}" y2="${height}"/>`
    // Labels that would touch are left out, but never the one that all is measured by.
    const isCrowded = tick !== 1 && (at(tick) - lastLabel < 24 || Math.abs(at(tick) - at(1)) < 24)
    if (isCrowded) return [rule]
    lastLabel = at(tick)
    return [rule, text(at(tick), 11, tick === 1 ? "1 = Bun" : String(tick), "tick", "middle")]
  })
}

function mark(report: Report, { contestant, ratio, verdict }: Cell, { at }: Scale, y: number): string {
  const { value, low, high } = ratio!
  const title = report.contestants.find(({ name }) => name === contestant)?.title ?? contestant
  const x = at(value)
  const interval =
    low === undefined || high === undefined
      ? ""
      : `<line class="interval" x1="${at(low).toFixed(1)}" x2="${at(high).toFixed(1)}" y1="${y}" y2="${y}"/>`
  return [
    `<g class="${verdict}"><title>${title}: ${ratioText(ratio!)}, ${VERDICTS[verdict!]}</title>`,
    text(LABEL_WIDTH - 8, y + 3.5, title, "contestant", "end"),
    interval,
    shape(verdict!, x, y),
    text(WIDTH, y + 3.5, value.toFixed(2), "value", "end"),
    "</g>",
  ].join("")
}

/** A filled circle wins, a filled diamond loses, a hollow circle tells nothing: all of one size. */
function shape(verdict: NonNullable<Cell["verdict"]>, x: number, y: number): string {
  const at = x.toFixed(1)
  if (verdict === "worse") return `<path class="dot" d="M${at} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>`
  return `<circle class="dot" cx="${at}" cy="${y}" r="4.5"/>`
}

function text(x: number, y: number, content: string, name: string, anchor = "start"): string {
  return `<text class="${name}" x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}">${content}</text>`
}
