// A server under measurement: started fresh on its own core and port, stopped by its own process id. Whatever is
// still running when this process ends is stopped too, and nothing else ever is.

import type { Subprocess } from "bun"
import type { Contestant, ServerKind } from "./matrix.ts"

/** The folder that commands are run from. */
export const ROOT = `${import.meta.dir}/..`
export const SERVER_CORE = 0
export const CLIENT_CORE = 1

const START_MS = 10_000
const STOP_MS = 2000

const running = new Set<Subprocess>()

export class ServerFailure extends Error {
  override name = "ServerFailure"
}

export interface Server {
  pid: number
  port: number
  /** Resolves when the process is gone, with what it printed after its first line. */
  stop(): Promise<string>
}

/** Runs a command pinned to a core. It is the pinned process itself that has the returned pid. */
export function pinned(core: number, command: string[]): string[] {
  return ["taskset", "--cpu-list", String(core), ...command]
}

export async function startServer(
  contestant: Contestant,
  kind: ServerKind,
  extraEnv: Record<string, string> = {},
): Promise<Server> {
  const child = Bun.spawn(pinned(SERVER_CORE, contestant.command(kind, process.execPath)), {
    cwd: ROOT,
    env: { ...process.env, ...contestant.env, ...extraEnv, PORT: "0" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  running.add(child)
  void child.exited.then(() => running.delete(child))
  const lines = linesOf(child.stdout)
  const complaint = new Response(child.stderr).text()

  const stop = async (): Promise<string> => {
    child.kill("SIGTERM")
    const hard = setTimeout(() => child.kill("SIGKILL"), STOP_MS)
    await child.exited
    clearTimeout(hard)
    return lines.rest()
  }

  const first = await lines.first()
  const port = /^listening on [\d.]+:(\d+)$/.exec(first)?.[1]
  if (port === undefined) {
    await stop()
    throw new ServerFailure(
      `${contestant.title} (${kind}) did not start: ${reasonIn(await complaint, first)}`,
    )
  }
  return { pid: child.pid, port: Number(port), stop }
}

/** The line of an uncaught error that says what happened, else the last thing said. */
function reasonIn(complaint: string, output: string): string {
  const lines = complaint.split("\n").filter((line) => line.trim() !== "")
  return (
    lines.find((line) => /^\w*(Error|error)\b/.test(line)) ?? lines.at(-1) ?? (output || "it said nothing")
  )
}

function linesOf(stream: ReadableStream<Uint8Array>) {
  const reader = stream.getReader()
  const decoder = new TextDecoder()
  let text = ""
  const more = async (): Promise<boolean> => {
    const { done, value } = await reader.read()
    if (value !== undefined) text += decoder.decode(value, { stream: true })
    return !done
  }
  return {
    async first(): Promise<string> {
      const late = setTimeout(() => void reader.cancel(), START_MS)
      while (!text.includes("\n") && (await more()));
      clearTimeout(late)
      const end = text.includes("\n") ? text.indexOf("\n") : text.length
      const line = text.slice(0, end)
      text = text.slice(end + 1)
      return line
    },
    async rest(): Promise<string> {
      while (await more());
      return text
    },
  }
}

/** For the end of this process, however it comes. */
export function stopAllServers(): void {
  for (const child of running) child.kill("SIGKILL")
}
