// Peers that die, stop, or leave at once, each a process of its own: the connection ends as docs/errors.md says, all that it
// had is given back, and another connection of the same reactor does not notice.

import { expect } from "bun:test"
import type { Connection, Reactor, Socket } from "../../src/index.ts"
import { startChild } from "../support/child.ts"
import { checkEcho, echoListener, serveEcho } from "../support/echo.ts"
import { onReactor, pause, rejection, signal, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"
import { Random } from "../support/random.ts"

const LOCAL = { hostname: "127.0.0.1", port: 0 }

/** A connection that goes on while the trouble happens; `done` checks every byte of it. */
async function bystander(r: Reactor): Promise<{ done(): Promise<void> }> {
  const listener = echoListener(r)
  const connection = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const other = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  await other.write("still here?")
  const checking = checkEcho(connection, new Random(1), 1, 2_000_000)
  return {
    async done() {
      await checking
      expect(Buffer.from((await other.read())!).toString()).toBe("still here?")
      await other.close()
      listener.stop()
      await until(r, "the bystanders are closed", () => r.stats().socketsOpen === 0)
    },
  }
}

/** Writes for ever. */
function flood(socket: Socket<unknown>): void {
  while (socket.write(BLOCK) === BLOCK.length) {}
}
/** More than a queue and what is in flight: some of it is in the peer's socket, unread. */
const FAR_BEHIND = 2_500_000
const BLOCK = new Uint8Array(100_000).fill(7)

onReactor("a client killed while it sends: the stream ends, without an error", async (r) => {
  const others = await bystander(r)
  let received = 0
  const closed = signal<unknown>()
  const events: string[] = []
  const listener = r.listen({
    ...LOCAL,
    socket: {
      data: (_, chunk) => {
        received += chunk.length
      },
      end: () => void events.push("end"),
      close: (_, error) => closed.resolve(error),
    },
  })
  const peer = startPeer("drip", listener.port!, { bytes: 10_000_000, delay: 50 })
  await until(r, "some bytes", () => received > 100)
  peer.kill()
  expect(await closed.promise).toBeUndefined()
  expect(events).toEqual(["end"])
  listener.stop()
  await others.done()
})

onReactor(
  "a client killed while it receives: ECONNRESET, and what was to be sent is given back",
  async (r) => {
    const others = await bystander(r)
    const closed = signal<unknown>()
    let flooded: Socket<unknown> | undefined
    const listener = r.listen({
      ...LOCAL,
      allowHalfOpen: true,
      socket: {
        open(socket) {
          flooded = socket as Socket<unknown>
          flood(flooded)
        },
        drain: flood,
        data() {},
        close: (_, error) => closed.resolve(error),
      },
    })
    const peer = startPeer("slow", listener.port!, { bytes: 10, chunk: 1000, delay: 1000 })
    await until(r, "the peer is behind", () => (flooded?.bytesWritten ?? 0) > FAR_BEHIND)
    peer.kill()
    expect(((await closed.promise) as { code?: string }).code).toMatch(/^(ECONNRESET|EPIPE)$/)
    listener.stop()
    await others.done()
    await until(r, "the send memory is free", () => r.stats().sendBytesInUse === 0)
  },
)

onReactor("promises: a client killed in the middle rejects the read and the write that wait", async (r) => {
  const others = await bystander(r)
  const listener = r.listen(LOCAL)
  const peer = startPeer("slow", listener.port!, { bytes: 10, chunk: 1000, delay: 1000 })
  const connection = (await listener.accept()) as Connection
  await connection.read()
  expect(await connection.read()).toBeUndefined() // it has ended its side, and reads
  const writing = rejection(connection.write(new Uint8Array(64_000_000)))
  await until(r, "the peer is behind", () => connection.bytesWritten > FAR_BEHIND)
  peer.kill()
  expect((await writing).code).toMatch(/^(ECONNRESET|EPIPE)$/)
  expect(connection.isOpen).toBe(false)
  await connection.close()
  listener.close()
  await others.done()
})

/** A server of the runtime's own, in a process that can be killed. */
const SERVER = `
  const flood = (socket) => { while (socket.write(block) === block.length) {} }
  const block = new Uint8Array(100_000)
  const handlers = {
    flood: { open: flood, drain: flood, data() {} },
    deaf: { open(socket) { socket.pause() }, data() {} },
  }
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: handlers[process.env.KIND] })
  console.log("port " + server.port + ".")
`

for (const [kind, what] of [
  ["flood", "sends"],
  ["deaf", "does not read"],
] as const) {
  onReactor(
    `a server killed while it ${what}: the dialled connection ends, and a new dial is refused`,
    async (r) => {
      const others = await bystander(r)
      const child = startChild(SERVER, { KIND: kind })
      await child.until(".\n")
      const port = Number(/port (\d+)/.exec(child.stdout())?.[1])
      const connection = await r.connect({ hostname: "127.0.0.1", port })
      const writing =
        kind === "deaf" ? connection.write(new Uint8Array(64_000_000)).catch((error) => error) : undefined
      if (kind === "deaf") await until(r, "it is behind", () => connection.bytesWritten > FAR_BEHIND)
      else await connection.read()
      child.signal("SIGKILL")
      // A FIN after the last byte, or a reset because something was left unread.
      let end: unknown
      try {
        while ((await connection.read()) !== undefined) {}
        end = "end"
      } catch (error) {
        end = (error as { code?: string }).code
      }
      expect(end).toMatch(kind === "deaf" ? /^(ECONNRESET|EPIPE)$/ : /^(end|ECONNRESET)$/)
      if (writing !== undefined) expect((await writing).code).toMatch(/^(ECONNRESET|EPIPE)$/)
      await connection.close()
      await child.exited
      const refused = await rejection(r.connect({ hostname: "127.0.0.1", port }))
      expect(refused.code).toBe("ECONNREFUSED")
      await others.done()
    },
    { host: "hosted" },
  )
}

onReactor("a peer stopped for a while and continued: every byte arrives", async (r) => {
  const listener = echoListener(r)
  const peer = startPeer("echo", listener.port!, { count: 30, bytes: 300_000, seed: 3 })
  for (let i = 0; i < 4; i++) {
    await pause(r, 30)
    peer.signal("SIGSTOP")
    await pause(r, 150)
    peer.signal("SIGCONT")
  }
  expect(await peer.verdict(r)).toBe("ok 30")
  listener.stop()
})

onReactor(
  "the server stopped for a while and continued: every byte arrives, deadlines are only late",
  async (r) => {
    const child = startChild(`
      import { echoListener } from "SRC/../test/support/echo.ts"
      import { Reactor } from "SRC/index.ts"
      const r = Reactor.open()
      const impatient = r.listen({
        hostname: "127.0.0.1", port: 0,
        socket: { open(socket) { socket.timeout(0.3) }, data() {}, timeout(socket) { socket.end("late") } },
      })
      console.log("ports " + echoListener(r).port + " " + impatient.port + ".")`)
    await child.until(".\n")
    const [echo, impatient] = /ports (\d+) (\d+)/.exec(child.stdout())!.slice(1).map(Number)
    const peer = startPeer("echo", echo, { count: 30, bytes: 300_000, seed: 4 })
    const idle = await r.connect({ hostname: "127.0.0.1", port: impatient })
    for (let i = 0; i < 4; i++) {
      await Bun.sleep(30)
      child.signal("SIGSTOP")
      await Bun.sleep(150)
      child.signal("SIGCONT")
    }
    expect(await peer.verdict(r)).toBe("ok 30")
    expect(Buffer.from((await idle.read())!).toString()).toBe("late")
    await idle.close()
    child.signal("SIGKILL")
    expect((await child.exited).stderr).toBe("")
  },
  { host: "hosted" },
)

for (const hard of [0, 1]) {
  for (const bytes of [0, 100]) {
    const how = `${hard ? "with a reset" : "at once"}, ${bytes} bytes sent`
    onReactor(`3,000 connects dropped ${how}: handlers hear of each, and the next is served`, async (r) => {
      let opened = 0
      let closed = 0
      const listener = r.listen({
        ...LOCAL,
        allowHalfOpen: true,
        socket: {
          open: () => void opened++,
          data: (socket, chunk) => void socket.write(chunk),
          end: (socket) => void socket.end(),
          close: () => void closed++,
        },
      })
      const peer = startPeer("burst", listener.port!, { total: 3_000, bytes, hard })
      expect(await peer.verdict(r)).toBe("ok 3000")
      const next = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
      await checkEcho(next, new Random(2), 2, 100_000)
      // A connection that is reset before it is accepted is accepted all the same on Linux.
      await until(r, "all are closed", () => r.stats().socketsOpen === 1)
      expect({ opened, closed }).toEqual({ opened: 3_001, closed: 3_001 })
      listener.stop()
    })
  }
}

onReactor("3,000 connects dropped before anybody accepts: each is accepted and ends", async (r) => {
  const listener = r.listen(LOCAL)
  const peer = startPeer("burst", listener.port!, { total: 3_000, bytes: 10, hard: 1 })
  expect(await peer.verdict(r)).toBe("ok 3000")
  const outcomes = { ended: 0, reset: 0 }
  for (let i = 0; i < 3_000; i++) {
    const connection = (await listener.accept()) as Connection
    try {
      while ((await connection.read()) !== undefined) {}
      outcomes.ended++
    } catch (error) {
      expect((error as { code?: string }).code).toBe("ECONNRESET")
      outcomes.reset++
    }
    await connection.close()
  }
  expect(outcomes.ended + outcomes.reset).toBe(3_000)
  const serving = serveEcho(listener)
  const next = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  await checkEcho(next, new Random(3), 3, 100_000)
  listener.close()
  await serving
})
