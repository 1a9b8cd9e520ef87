// One repetition. The servers of a kind all run at once, and the runs of a row follow each other: a machine whose
// speed drifts has little time to drift between two runs that are compared. A server without connections sleeps.

import type { Contestant, Row, ServerKind } from "./matrix.ts"
import { measureRun, measureSystemCalls, type Run, startWarm } from "./measure.ts"
import type { Server } from "./server_process.ts"
import { type Random, shuffled } from "./statistics.ts"

/** The servers of one kind, each a fresh process. */
export type Servers = Map<Contestant, Server>

/** Told of a contestant that failed, and why; it throws what is not the contestant's fault. */
export type LeaveOut = (contestant: Contestant, error: unknown) => void

/** Calls `use` with warm servers of those contestants that could start, and stops them whatever happens. */
export async function withServers(
  contestants: Contestant[],
  kind: ServerKind,
  leaveOut: LeaveOut,
  use: (servers: Servers) => Promise<void>,
): Promise<void> {
  const servers: Servers = new Map()
  try {
    for (const contestant of contestants) {
      try {
        servers.set(contestant, await startWarm(contestant, kind))
      } catch (error) {
        leaveOut(contestant, error)
      }
    }
    await use(servers)
  } finally {
    await Promise.all([...servers.values()].map((server) => server.stop()))
  }
}

/** Each row with each contestant, the rows in a random order and the contestants of a row in another. */
export async function measureRows(
  servers: Servers,
  rows: Row[],
  repetition: number,
  seconds: number,
  random: Random,
  leaveOut: LeaveOut,
): Promise<Run[]> {
  const runs: Run[] = []
  for (const row of shuffled(rows, random)) {
    for (const contestant of shuffled([...servers.keys()], random)) {
      await attempt(servers, contestant, leaveOut, async (server) => {
        const run = await measureRun(server, row, seconds)
        runs.push({ repetition, contestant: contestant.name, row: row.name, ...run })
      })
    }
  }
  return runs
}

/** System calls per request, by contestant; without those for which it cannot be counted. */
export async function countSystemCalls(
  servers: Servers,
  leaveOut: LeaveOut,
): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const contestant of [...servers.keys()]) {
    await attempt(servers, contestant, leaveOut, async (server) => {
      const count = await measureSystemCalls(server)
      if (count !== undefined) counts[contestant.name] = count
    })
  }
  return counts
}

/** A server that fails is stopped and takes no further part. */
async function attempt(
  servers: Servers,
  contestant: Contestant,
  leaveOut: LeaveOut,
  measure: (server: Server) => Promise<void>,
): Promise<void> {
  const server = servers.get(contestant)!
  try {
    await measure(server)
  } catch (error) {
    servers.delete(contestant)
    await server.stop()
    leaveOut(contestant, error)
  }
}
