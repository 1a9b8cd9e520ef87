// The runner of these benches: mitata measures, and this prints one line each, so that all of them are one table. mitata's
// own runner takes 0.8 s for each bench and cannot divide by what one call does several times.

import { measure } from "mitata"

/** One line of the table. */
export interface Cost {
  name: string
  /** What is measured. Asynchronous when it returns a promise. */
  call: () => unknown
  /** How often the call does what its name says. Default 1. */
  times?: number
}

/** Lines that belong together, and what they need while they run. */
export interface Group {
  name: string
  /** Called once, before the first line is measured. */
  open: () => Cost[]
  close?: () => void
}

/** Enough for figures that repeat to within a few per cent; all of them together stay below a minute. */
const MIN_TIME_NS = 120e6
/** Calls between two readings of the clock, where one call is too short to be read. */
const BATCH = 1024

const NAME_COLUMNS = 64
const VALUE_COLUMNS = 11

export async function runGroups(groups: Group[], filter: RegExp): Promise<void> {
  const heading = ["mean", "median", "p99"].map((text) => text.padStart(VALUE_COLUMNS))
  console.log(`${"nanoseconds per call".padEnd(NAME_COLUMNS)}${heading.join("")}`)
  for (const group of groups) {
    let isNamed = false
    const costs = group.open()
    try {
      for (const cost of costs) {
        if (!filter.test(`${group.name}: ${cost.name}`)) continue
        if (!isNamed) console.log(`\n${group.name}`)
        isNamed = true
        await runCost(cost)
      }
    } finally {
      group.close?.()
    }
  }
}

async function runCost({ name, call, times = 1 }: Cost): Promise<void> {
  const stats = await measure(call, { min_cpu_time: MIN_TIME_NS, batch_samples: BATCH })
  const values = [stats.avg, stats.p50, stats.p99].map((ns) => figure(ns / times).padStart(VALUE_COLUMNS))
  console.log(`  ${name}`.padEnd(NAME_COLUMNS) + values.join(""))
}

/** Three digits that count. */
function figure(ns: number): string {
  const digits = ns < 10 ? 2 : ns < 100 ? 1 : 0
  return ns.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })
}
