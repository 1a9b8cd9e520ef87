// Runs the load generator against a server and reads its line of JSON.

import type { Row } from "./matrix.ts"
import { CLIENT_CORE, pinned, ROOT, type Server } from "./server_process.ts"

/** What loadgen prints, as far as it is used here; see bench/loadgen/report.c. */
export interface LoadResult {
  requests: number
  bytes: number
  seconds: number
  requests_per_second: number
  errors: Record<string, number>
  latency_from: string
  latency_us: { p50: number; p90: number; p99: number; p999: number; max: number }
  client_busy: number
  server_cpu: number
  server_cpu_seconds: number
  server_cpu_us_per_request?: number
  /** At the end of the window; idle: with all connections still open. */
  server_rss_bytes: number
  server_anonymous_bytes: number
  /** idle: before the first connection. */
  server_rss_bytes_before?: number
  saturated: ("client" | "server")[]
}

/**
 * `--spin`: the client never sleeps. A server that has to wake a sleeping client on another core pays for the
 * interrupt, which in a virtual machine costs several requests and says nothing about the server's loop; a peer on
 * another machine costs it nothing.
 */
const ALWAYS = ["--spin"]
const LOADGEN = "bench/build/loadgen"

export class LoadFailure extends Error {
  override name = "LoadFailure"
}

/** All connections were answered when they opened, and none within the window: the server had no core meanwhile. */
export class EmptyWindow extends LoadFailure {
  override name = "EmptyWindow"
}
const EXIT_NO_ANSWERS = 3

export function loadCommand(
  server: Server,
  load: string[],
  warmupSeconds: number,
  seconds: number,
): string[] {
  const target = ["--port", String(server.port), "--server-pid", String(server.pid)]
  const times = ["--warmup", String(warmupSeconds), "--seconds", String(seconds)]
  return pinned(CLIENT_CORE, [LOADGEN, ...target, ...times, ...ALWAYS, ...load])
}

export async function runLoad(
  server: Server,
  row: Pick<Row, "load">,
  warmupSeconds: number,
  seconds: number,
): Promise<LoadResult> {
  const { status, output, complaint } = await run(loadCommand(server, row.load, warmupSeconds, seconds))
  if (status === EXIT_NO_ANSWERS && complaint === "") throw new EmptyWindow("no answer within the window")
  if (status !== 0) throw new LoadFailure(complaint.trim() || `loadgen ended with status ${status}`)
  return JSON.parse(output) as LoadResult
}

export async function run(command: string[]): Promise<{ status: number; output: string; complaint: string }> {
  const child = Bun.spawn(command, { cwd: ROOT, stdin: "ignore", stdout: "pipe", stderr: "pipe" })
  const [output, complaint, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { status, output, complaint }
}
