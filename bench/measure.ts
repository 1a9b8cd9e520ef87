// The measurements on one warm server: a run of a row, and its system calls.

import { readFileSync } from "node:fs"
import { EmptyWindow, type LoadResult, loadCommand, run, runLoad } from "./load.ts"
import { type Contestant, ROWS, type Row, type ServerKind, SYSTEM_CALLS_ROW } from "./matrix.ts"
import { type Server, startServer } from "./server_process.ts"

/** One row of one contestant in one repetition, with all that loadgen said. */
export interface Run {
  repetition: number
  contestant: string
  row: string
  /** Share of the time in which some process of the machine waited for a CPU: see DISTURBED. */
  waiting: number
  result: LoadResult
}

type Window = Pick<Run, "waiting" | "result">

/** The JIT is warm after this long at each of the loads that run other code. */
const JIT_WARM_SECONDS = 0.5
/** Before each window, at the row's own load: other rows and other servers have run in between. */
export const ROW_WARM_SECONDS = 0.1
/** Long enough that what a busy server settles into counts, and not the way there. */
const SYSTEM_CALLS_SECONDS = 0.5

/**
 * Server and client have a core each, so nobody should wait for one. A run with more waiting than this shared its
 * cores with something else, which also takes over part of the server's work: the kernel handles packets in the name
 * of whoever happens to run.
 */
export const DISTURBED = 0.15

/** Accepting and closing is code of its own: warm for messages alone, a short connection costs a twentieth more. */
const WARM: Record<ServerKind, Pick<Row, "load">[]> = {
  echo: [{ load: ["--connections", "50"] }, { load: ["--connections", "50", "--mode", "short"] }],
  http: [{ load: ["--connections", "50", "--kind", "http"] }],
}

export async function startWarm(contestant: Contestant, kind: ServerKind): Promise<Server> {
  const server = await startServer(contestant, kind)
  try {
    if (contestant.hasJit) for (const load of WARM[kind]) await runLoad(server, load, 0, JIT_WARM_SECONDS)
    return server
  } catch (error) {
    await server.stop()
    throw error
  }
}

/** A window without any answer is no measurement: it is taken once more, and a second one is the server's failure. */
export async function measureRun(server: Server, row: Row, seconds: number): Promise<Window> {
  try {
    return await measureWindow(server, row, seconds)
  } catch (error) {
    if (!(error instanceof EmptyWindow)) throw error
    return measureWindow(server, row, seconds)
  }
}

async function measureWindow(server: Server, row: Row, seconds: number): Promise<Window> {
  const before = waitingMicroseconds()
  const begun = performance.now()
  const result = await runLoad(server, row, ROW_WARM_SECONDS, seconds)
  return { waiting: (waitingMicroseconds() - before) / (performance.now() - begun) / 1000, result }
}

/** From the kernel's pressure figures; 0 where it keeps none, so that no run counts as disturbed. */
function waitingMicroseconds(): number {
  try {
    return Number(/^some .*total=(\d+)/m.exec(readFileSync("/proc/pressure/cpu", "utf8"))?.[1] ?? 0)
  } catch {
    return 0
  }
}

/**
 * System calls per request of the whole server process, counted by the kernel. Undefined where perf may not:
 * the program is missing, or tracepoints are not allowed.
 */
export async function measureSystemCalls(server: Server): Promise<number | undefined> {
  if (Bun.which("perf") === null) return undefined
  const { load } = ROWS.find(({ name }) => name === SYSTEM_CALLS_ROW)!
  const counting = "perf stat -x , -e raw_syscalls:sys_enter -p".split(" ")
  const command = loadCommand(server, load, 0, SYSTEM_CALLS_SECONDS)
  const { status, output, complaint } = await run([...counting, String(server.pid), "--", ...command])
  const calls = /^(\d+),[^\n]*sys_enter/m.exec(complaint)?.[1]
  if (status !== 0 || calls === undefined) return undefined
  return Number(calls) / (JSON.parse(output) as LoadResult).requests
}
