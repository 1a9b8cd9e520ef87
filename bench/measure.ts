// The measurements: one contestant over all rows, its system calls, its memory and CPU at idle.

import { readFileSync } from "node:fs"
import { type LoadResult, loadCommand, run, runLoad } from "./load.ts"
import {
  type Contestant,
  IDLE_CONNECTIONS,
  IDLE_SECONDS,
  ROWS,
  type Row,
  type ServerKind,
  SYSTEM_CALLS_ROW,
} from "./matrix.ts"
import { type Server, startServer } from "./server_process.ts"
import { type Random, shuffled } from "./statistics.ts"

/** One row of one contestant in one repetition, with all that loadgen said. */
export interface Run {
  repetition: number
  contestant: string
  row: string
  /** Share of the time in which some process of the machine waited for a CPU: see DISTURBED. */
  waiting: number
  result: LoadResult
}

export interface IdleFigures {
  baseRssBytes: number
  /** (RSS with the connections - RSS before them) / connections. */
  bytesPerConnection: number
  connections: number
  /** CPU milliseconds per second with no connection, and with all of them idle. */
  cpuMsPerSecond: number
  cpuMsPerSecondHeld: number
}

/** The JIT is warm after this long (FACTS: at least 0.8 s). */
const JIT_WARM_SECONDS = 0.8
/** The change of workload settles. */
const ROW_WARM_SECONDS = 0.06
const SYSTEM_CALLS_SECONDS = 0.2

/**
 * Server and client have a core each, so nobody should wait for one. A run with more waiting than this shared its
 * cores with something else, which also takes over part of the server's work: the kernel handles packets in the name
 * of whoever happens to run.
 */
export const DISTURBED = 0.15

const WARM: Record<ServerKind, Pick<Row, "load">> = {
  echo: { load: ["--connections", "50"] },
  http: { load: ["--connections", "50", "--kind", "http"] },
}

/** A fresh process for each server kind that the rows need; the rows of a kind in a random order. */
export async function measureContestant(
  contestant: Contestant,
  rows: Row[],
  repetition: number,
  seconds: number,
  random: Random,
): Promise<Run[]> {
  const runs: Run[] = []
  const kinds = shuffled([...new Set(rows.map((row) => row.server))], random)
  for (const kind of kinds) {
    const server = await startWarm(contestant, kind)
    try {
      for (const row of shuffled(rows, random)) {
        if (row.server !== kind) continue
        const before = waitingMicroseconds()
        const begun = performance.now()
        const result = await runLoad(server, row, ROW_WARM_SECONDS, seconds)
        const waiting = (waitingMicroseconds() - before) / (performance.now() - begun) / 1000
        runs.push({ repetition, contestant: contestant.name, row: row.name, waiting, result })
      }
    } finally {
      await server.stop()
    }
  }
  return runs
}

/** From the kernel's pressure figures; 0 where it keeps none, so that no run counts as disturbed. */
function waitingMicroseconds(): number {
  try {
    return Number(/^some .*total=(\d+)/m.exec(readFileSync("/proc/pressure/cpu", "utf8"))?.[1] ?? 0)
  } catch {
    return 0
  }
}

async function startWarm(contestant: Contestant, kind: ServerKind): Promise<Server> {
  const server = await startServer(contestant, kind)
  try {
    if (contestant.hasJit) await runLoad(server, WARM[kind], 0, JIT_WARM_SECONDS)
    return server
  } catch (error) {
    await server.stop()
    throw error
  }
}

/**
 * System calls per request of the whole server process, counted by the kernel. Undefined where perf may not:
 * the program is missing, or tracepoints are not allowed.
 */
export async function measureSystemCalls(contestant: Contestant): Promise<number | undefined> {
  if (Bun.which("perf") === null) return undefined
  const row = ROWS.find(({ name }) => name === SYSTEM_CALLS_ROW)!
  const server = await startWarm(contestant, row.server)
  try {
    const counted = [
      "perf",
      "stat",
      "-x",
      ",",
      "-e",
      "raw_syscalls:sys_enter",
      "-p",
      String(server.pid),
      "--",
    ]
    const command = loadCommand(server, row.load, 0, SYSTEM_CALLS_SECONDS)
    const { status, output, complaint } = await run([...counted, ...command])
    const calls = /^(\d+),[^\n]*sys_enter/m.exec(complaint)?.[1]
    if (status !== 0 || calls === undefined) return undefined
    return Number(calls) / (JSON.parse(output) as LoadResult).requests
  } finally {
    await server.stop()
  }
}

const idle = (connections: number) => ({ load: ["--mode", "idle", "--connections", String(connections)] })

/**
 * Memory and CPU of a server that has nothing to do. The base is that of a fresh process. A tenth of the connections
 * comes and goes first, so that what the process grows by once (compiled code, pools: 4 MiB in Bun) is not charged to
 * the connections. It is not put under load before: the garbage of that load would be collected meanwhile, and the
 * connections would seem to cost less than nothing.
 */
export async function measureIdle(contestant: Contestant): Promise<IdleFigures> {
  const server = await startServer(contestant, "echo")
  try {
    const empty = await runLoad(server, idle(0), 0, IDLE_SECONDS)
    await runLoad(server, idle(IDLE_CONNECTIONS / 10), 0, 0.2)
    const held = await runLoad(server, idle(IDLE_CONNECTIONS), 0.2, IDLE_SECONDS)
    return {
      baseRssBytes: empty.server_rss_bytes_before!,
      bytesPerConnection: (held.server_rss_bytes_held! - held.server_rss_bytes_before!) / IDLE_CONNECTIONS,
      connections: IDLE_CONNECTIONS,
      cpuMsPerSecond: empty.server_cpu * 1000,
      cpuMsPerSecondHeld: held.server_cpu * 1000,
    }
  } finally {
    await server.stop()
  }
}
