// A process that ends at any stage, in any way: its peers see the end (a FIN or a reset), its port is free, nothing hangs.

import { expect } from "bun:test"
import type { Connection } from "../../src/index.ts"
import { startChild } from "../support/child.ts"
import { onReactor, pause, rejection, until } from "../support/harness.ts"

const WAYS = ["process.exit", "SIGTERM", "SIGKILL", "an uncaught error"] as const
type Way = (typeof WAYS)[number]

/** Gets into a stage, says so, and ends in its way; a signal comes from the test. */
const program = (stage: string) => `
  import { connect, listen, defaultReactor } from "SRC/index.ts"
  const leave = () => {
    console.log("ready.")
    setInterval(() => {}, 1000) // a signal is to end it, not the end of its work
    if (process.env.WAY === "process.exit") process.exit(3)
    if (process.env.WAY === "an uncaught error") throw new Error("boom")
  }
  const block = new Uint8Array(100_000).fill(7)
  const flood = (socket) => { while (socket.write(block) === block.length) {} }
  const serve = (handlers) => {
    const listener = listen({ hostname: "127.0.0.1", port: 0, socket: { data() {}, ...handlers } })
    console.log("port " + listener.port + ".")
    return listener
  }
  ${stage}`

const STAGES: Record<string, string> = {
  listening: `
    let open = 0
    serve({ open() { if (++open === 3) setTimeout(leave, 10) } })`,
  connecting: `
    connect({ hostname: "127.0.0.1", port: Number(process.env.PORT), socket: { data() {} } }).catch(() => {})
    setTimeout(leave, 50)`,
  sending: `
    serve({ open(socket) { flood(socket); setTimeout(leave, 100) }, drain: flood })`,
  "closing a connection": `
    serve({ open(socket) { flood(socket); setTimeout(() => { socket.end(); setTimeout(leave, 20) }, 50) } })`,
  "closing the reactor": `
    serve({ open(socket) { flood(socket); setTimeout(() => { void defaultReactor().close(); leave() }, 50) } })`,
}

/** Reads to the end, which may be a reset. */
async function readToEnd(connection: Connection): Promise<number> {
  let bytes = 0
  try {
    for await (const chunk of connection) {
      bytes += chunk.length
      expect(chunk.every((byte) => byte === 7)).toBe(true)
    }
  } catch (error) {
    expect((error as { code?: string }).code).toBe("ECONNRESET")
  }
  await connection.close()
  return bytes
}

for (const [stage, code] of Object.entries(STAGES)) {
  for (const way of WAYS) {
    onReactor(
      `the process ends by ${way} while ${stage}`,
      async (r) => {
        const isDialling = stage === "connecting"
        const full = isDialling ? r.listen({ hostname: "127.0.0.1", port: 0, backlog: 1 }) : undefined
        if (full !== undefined) await fill(r, full)
        const child = startChild(program(code), { WAY: way, PORT: String(full?.port) })
        let port = 0
        let reading: Promise<number>[] = []
        if (!isDialling) {
          await child.until(".\n")
          port = Number(/port (\d+)/.exec(child.stdout())?.[1])
          const count = stage === "listening" ? 3 : 1
          const clients = await Promise.all(
            Array.from({ length: count }, () => r.connect({ hostname: "127.0.0.1", port })),
          )
          // Not reading before the other side has come into its stage.
          reading = clients.map(async (client) => {
            await child.until("ready.")
            return readToEnd(client)
          })
        }
        await child.until("ready.")
        if (way === "SIGTERM" || way === "SIGKILL") child.signal(way)
        const outcome = await child.exited
        expect(endOf(outcome)).toBe(way)
        const received = await Promise.all(reading)
        if (stage !== "listening" && !isDialling) expect(received[0]).toBeGreaterThan(0)
        if (!isDialling) {
          // The kernel lets go of a ring, and so of a listener, a moment after the process is gone.
          await until(r, "the port is free", () => !listens(port))
          expect((await rejection(r.connect({ hostname: "127.0.0.1", port }))).code).toBe("ECONNREFUSED")
        }
        full?.close()
      },
      { host: "hosted" },
    )
  }
}

function endOf({
  exitCode,
  signal,
  stderr,
}: {
  exitCode: number | null
  signal: string | undefined
  stderr: string
}): Way {
  if (signal === "SIGTERM" || signal === "SIGKILL") return signal
  if (exitCode === 3 && stderr === "") return "process.exit"
  if (exitCode === 1 && stderr.includes("error: boom")) return "an uncaught error"
  throw new Error(`ended with ${exitCode}, ${signal}: ${stderr}`)
}

/** Whether anybody listens on a port of 127.0.0.1 (proc(5), net/tcp: state 0A). */
function listens(port: number): boolean {
  const table = Bun.spawnSync(["cat", "/proc/self/net/tcp"]).stdout.toString()
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`
  return table.split("\n").some((line) => line.includes(`${local} 00000000:0000 0A`))
}

/** Fills the queue of a listener that accepts nothing: further connects get no answer. */
async function fill(
  r: Parameters<Parameters<typeof onReactor>[1]>[0],
  listener: { port: number | undefined },
): Promise<void> {
  ;(listener as unknown as { pauseAccepting(): void }).pauseAccepting()
  await pause(r, 20)
  for (let i = 0; i < 4; i++) {
    await r.connect({ hostname: "127.0.0.1", port: listener.port!, timeoutMs: 100 }).then(
      () => undefined,
      () => undefined,
    )
  }
}
