// What a server costs that has nothing to do: memory and CPU, without connections and with many.

import { type LoadResult, runLoad } from "./load.ts"
import type { Contestant } from "./matrix.ts"
import { startServer } from "./server_process.ts"
import { median } from "./statistics.ts"

export interface IdleFigures {
  /** RSS of a fresh process. */
  baseRssBytes: number
  /** Anonymous memory with MANY connections minus that with FEW, over their difference. */
  bytesPerConnection: number
  /** CPU milliseconds per second with no connection, and with MANY idle ones. */
  cpuMsPerSecond: number
  cpuMsPerSecondHeld: number
}

/** Each figure is the median of so many fresh processes, at the same time: nothing here depends on speed. */
export const IDLE_PROCESSES = 5
/**
 * Connections held for the memory of one. What a process allocates once (pools at their first use, compiled code) is
 * there with FEW, and pages of its binary, which it touches whoever is connected, are not anonymous memory: neither
 * is charged to the connections.
 */
export const FEW = 1000
export const MANY = 10_000
/** They come and go first, so that FEW finds compiled code, and what was allocated once for so many. */
const PASSING = FEW
const PASSING_SECONDS = 0.1
const HOLD_SECONDS = 0.5
/** Before idle CPU is taken: what starting, or accepting MANY, leaves to compile and to collect is done. */
const SETTLE_SECONDS = 0.5

export async function measureIdle(contestant: Contestant): Promise<IdleFigures> {
  const processes = Array.from({ length: IDLE_PROCESSES }, () => measureProcess(contestant))
  const figures = await allOrNone(processes)
  const middle = (of: keyof IdleFigures) => median(figures.map((figure) => figure[of]))
  return {
    baseRssBytes: middle("baseRssBytes"),
    bytesPerConnection: middle("bytesPerConnection"),
    cpuMsPerSecond: middle("cpuMsPerSecond"),
    cpuMsPerSecondHeld: middle("cpuMsPerSecondHeld"),
  }
}

/** Like Promise.all, but waits for the others when one fails: they stop their servers. */
async function allOrNone<T>(promises: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises)
  return Promise.all(promises)
}

/** No load before: its garbage would be collected meanwhile, and connections would seem to cost less than nothing. */
async function measureProcess(contestant: Contestant): Promise<IdleFigures> {
  const server = await startServer(contestant, "echo")
  const hold = (connections: number, settle: number, seconds: number): Promise<LoadResult> =>
    runLoad(server, { load: ["--mode", "idle", "--connections", String(connections)] }, settle, seconds)
  try {
    const none = await hold(0, SETTLE_SECONDS, HOLD_SECONDS)
    await hold(PASSING, 0, PASSING_SECONDS)
    const few = await hold(FEW, 0, HOLD_SECONDS)
    const many = await hold(MANY, SETTLE_SECONDS, HOLD_SECONDS)
    return {
      baseRssBytes: none.server_rss_bytes_before!,
      bytesPerConnection: (many.server_anonymous_bytes - few.server_anonymous_bytes) / (MANY - FEW),
      cpuMsPerSecond: none.server_cpu * 1000,
      cpuMsPerSecondHeld: many.server_cpu * 1000,
    }
  } finally {
    await server.stop()
  }
}
