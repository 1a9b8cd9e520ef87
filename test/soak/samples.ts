// What the soak measures of its server, once a second, and what the measurements say at the end: a line through each series
// by least squares, and a bound on what it may rise in ten minutes. Memory wobbles by megabytes with the garbage collector, so a
// rise counts when it is over the bound by more than that wobble explains.

import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import type { ReactorStats } from "../../src/index.ts"

const KIB = 1024
export const MIB = 1024 * 1024

export interface Sample {
  seconds: number
  /** Anonymous memory after a full garbage collection; undefined in the seconds without one. */
  anonymousBytes: number | undefined
  heapBytes: number | undefined
  residentBytes: number
  /** The reactor's own: those that a phase of EMFILE takes are no leak. */
  descriptors: number
  operations: number
  arenaBytes: number
  sockets: number
  deadlines: number
}

/** Bound on the rise of each series in ten minutes of load. */
const BOUNDS: Record<keyof Omit<Sample, "seconds" | "residentBytes">, number> = {
  anonymousBytes: MIB,
  heapBytes: MIB,
  // These go up and down with the load, which is the same all the time: what they wobble by.
  descriptors: 60,
  operations: 120,
  arenaBytes: 4 * MIB,
  sockets: 60,
  deadlines: 60,
}

export interface Slope {
  name: string
  /** Least-squares rise in ten minutes, how sure that is (one standard error), and what it may be. */
  perTenMinutes: number
  standardError: number
  bound: number
  /** Over the bound by more than chance makes of a level series with such a wobble. */
  isOver: boolean
  mean: number
  points: number
}

/** A level series comes out as rising by so many standard errors about once in 700 times. */
const SURE_ERRORS = 3

export function takeSample(
  pid: number,
  seconds: number,
  stats: ReactorStats,
  collectedHeapBytes?: number,
): Sample {
  const memory = readMemory(pid)
  const isCollected = collectedHeapBytes !== undefined
  return {
    seconds,
    anonymousBytes: isCollected ? memory.anonymousBytes : undefined,
    heapBytes: collectedHeapBytes,
    residentBytes: memory.residentBytes,
    descriptors: stats.descriptorsOpen,
    operations: stats.operationsInFlight,
    arenaBytes: stats.sendBytesInUse,
    sockets: stats.socketsOpen,
    deadlines: stats.deadlinesArmed,
  }
}

export function readMemory(pid: number): { residentBytes: number; anonymousBytes: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0) * KIB
  return { residentBytes: field("VmRSS"), anonymousBytes: field("RssAnon") }
}

export function countDescriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

/** What a process has open, by number. */
export function openFiles(pid: number): Map<string, string> {
  const files = new Map<string, string>()
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    try {
      files.set(name, readlinkSync(`/proc/${pid}/fd/${name}`))
    } catch {
      // Closed meanwhile.
    }
  }
  return files
}

/** Slopes over the samples from `fromSeconds` on. `scale` widens the bounds of a run that is too short for them. */
export function slopes(samples: Sample[], fromSeconds: number, scale: number): Slope[] {
  return Object.entries(BOUNDS).map(([name, bound]) => {
    const points = samples
      .filter(({ seconds }) => seconds >= fromSeconds)
      .map((sample) => [sample.seconds, sample[name as keyof Sample]] as [number, number | undefined])
      .filter((point): point is [number, number] => point[1] !== undefined)
    const line = leastSquares(points)
    const perTenMinutes = 600 * line.slope
    const standardError = 600 * line.standardError
    return {
      name,
      perTenMinutes,
      standardError,
      bound: bound * scale,
      isOver: perTenMinutes - SURE_ERRORS * standardError > bound * scale,
      mean: points.reduce((sum, [, y]) => sum + y, 0) / Math.max(points.length, 1),
      points: points.length,
    }
  })
}

/** The slope of the line that fits best, and its standard error; zeros for fewer than three points. */
export function leastSquares(points: [number, number][]): { slope: number; standardError: number } {
  const count = points.length
  if (count < 3) return { slope: 0, standardError: 0 }
  const mean = (index: 0 | 1) => points.reduce((sum, point) => sum + point[index], 0) / count
  const [meanX, meanY] = [mean(0), mean(1)]
  let above = 0
  let below = 0
  for (const [x, y] of points) {
    above += (x - meanX) * (y - meanY)
    below += (x - meanX) ** 2
  }
  if (below === 0) return { slope: 0, standardError: 0 }
  const slope = above / below
  const squares = points.reduce((sum, [x, y]) => sum + (y - meanY - slope * (x - meanX)) ** 2, 0)
  return { slope, standardError: Math.sqrt(squares / (count - 2) / below) }
}
