// Closing with everything still going on: connections, listeners, raw operations, the reactor itself. A closed
// reactor says so and touches nothing.

import { expect } from "bun:test"
import { type Connection, POLLIN, Reactor } from "../../src/index.ts"
import { echoListener } from "../support/echo.ts"
import {
  closeReactor,
  drive,
  ENGINE,
  HOST,
  onReactor,
  openReactor,
  pause,
  rejection,
  signal,
  thrown,
  until,
} from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"
import { pattern } from "../support/random.ts"

onReactor("an empty reactor closes at once", async () => {})

onReactor(
  "reactor.close() ends raw operations of every kind",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const fd = r.socket("IPv4")
    await r.connectDescriptor(fd, { hostname: "127.0.0.1", port: listener.port! })
    const all = [r.recv(fd), r.pollAdd(fd, POLLIN), r.timeout(60_000), r.accept(listener.fd)].map(
      (operation: Promise<unknown>) => rejection(operation),
    )
    await r.nop()
    await r.close()
    for (const error of await Promise.all(all)) expect(error.code).toMatch(/^(ECANCELED|REACTOR_CLOSED)$/)
  },
  { leavesDescriptors: true },
)

onReactor("reactor.close() under load", async (r, { seed }) => {
  const listener = echoListener(r)
  const peer = startPeer("echo", listener.port!, { count: 200, bytes: 100_000_000, seed: seed % 1_000_000 })
  await until(r, "traffic", () => r.stats().bytesReceived > 5_000_000)
  await r.close()
  expect(r.isClosed).toBe(true)
  peer.kill()
})

onReactor("reactor.close() ends connections in every state, and settles all who wait", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const connections: Connection[] = []
  for (let i = 0; i < 12; i++) {
    connections.push(await r.connect({ hostname: "127.0.0.1", port: listener.port! }))
    connections.push((await listener.accept()) as Connection)
  }
  const waits: Promise<unknown>[] = []
  connections.forEach((connection, i) => {
    if (i % 4 === 0) waits.push(connection.read().catch(() => undefined))
    if (i % 4 === 1) waits.push(connection.write(new Uint8Array(9_000_000)).catch(() => undefined))
    if (i % 4 === 2) waits.push(connection.shutdown())
    if (i % 4 === 3) waits.push(connection.close())
  })
  waits.push(listener.accept())
  const dialling = rejection(r.connect({ hostname: "127.0.0.1", port: listener.port! }))
  await r.close()
  await Promise.all(waits)
  expect((await dialling).code).toBe("REACTOR_CLOSED")
})

onReactor("handlers close anything at any time", async (r, { random }) => {
  let opened = 0
  let closed = 0
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        opened++
        if (random.integer(0, 9) === 0) socket.terminate()
      },
      data(socket, chunk) {
        const dice = random.integer(0, 7)
        if (dice === 0) socket.end(chunk)
        else if (dice === 1) socket.close()
        else if (dice === 2) socket.terminate()
        else if (dice === 3) socket.shutdown()
        else if (dice === 4) socket.pause()
        else socket.write(chunk)
        if (dice < 4) socket.write("late")
        if (dice === 4) socket.close()
      },
      close(socket) {
        closed++
        socket.terminate()
        socket.end()
        socket.close()
        socket.pause()
        socket.resume()
        socket.shutdown()
        socket.timeout(1)
        socket.flush()
        expect(socket.write("late")).toBe(-1)
      },
    },
  })
  for (let i = 0; i < 300; i++) {
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await client.write("abc").catch(() => undefined)
    await client.read({ timeoutMs: 5_000 }).catch(() => undefined)
    await client.close()
  }
  await until(r, "every socket has been closed once", () => opened === 300 && closed === 300)
  listener.stop()
})

onReactor("listener.stop(true) closes its connections and no others", async (r) => {
  const first = echoListener(r)
  const second = echoListener(r)
  const a = await r.connect({ hostname: "127.0.0.1", port: first.port! })
  const b = await r.connect({ hostname: "127.0.0.1", port: second.port! })
  await a.write("a")
  await b.write("b")
  await Promise.all([a.read(), b.read()])
  first.stop(true)
  expect(await a.read().catch(() => undefined)).toBeUndefined()
  await b.write("still")
  expect(Buffer.from((await b.read())!).toString()).toBe("still")
  await a.close()
  await b.close()
  second.stop()
})

onReactor("what was written before close arrives after it", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  await server.write(pattern(4, 0, 1_000_000))
  const closing = server.close()
  expect(server.isOpen).toBe(false)
  expect(server.fd).toBe(-1)
  let bytes = 0
  for await (const chunk of client) bytes += chunk.length
  expect(bytes).toBe(1_000_000)
  await closing
  await closing
  await server.close()
  await client.close()
  listener.close()
})

onReactor("a closed reactor says REACTOR_CLOSED", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  await r.close()
  await r.close()
  expect(thrown(() => r.listen({ hostname: "127.0.0.1", port: 0 })).code).toBe("REACTOR_CLOSED")
  expect((await rejection(r.connect({ hostname: "127.0.0.1", port: 1 }))).code).toBe("REACTOR_CLOSED")
  expect((await rejection(r.timeout(1))).code).toBe("REACTOR_CLOSED")
  expect((await rejection(r.nop())).code).toBe("REACTOR_CLOSED")
  expect((await rejection(r.send(5, "x"))).code).toBe("REACTOR_CLOSED")
  expect(thrown(() => r.socket("IPv4")).code).toBe("REACTOR_CLOSED")
  expect(client.isOpen).toBe(false)
  expect((await rejection(client.write("x"))).code).toBe("CONNECTION_CLOSED")
  expect(await client.read()).toBeUndefined()
  expect(await listener.accept()).toBeUndefined()
})

onReactor(
  "a closed reactor does not write into the memory of the next one",
  async (r) => {
    const old = openReactor()
    await drive(old, old.close(), 5_000, "the first close")
    const next = openReactor()
    const got = signal<string>()
    const body = async () => {
      const listener = next.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: { data: (_, chunk) => got.resolve(chunk.toString()) },
      })
      const client = await next.connect({ hostname: "127.0.0.1", port: listener.port! })
      await client.write("mine, mine, mine")
      expect((await rejection(old.send(5, "NOT YOURS"))).code).toBe("REACTOR_CLOSED")
      expect(await got.promise).toBe("mine, mine, mine")
      expect(old.stats().bytesSent).toBe(0)
    }
    // The reactor that the harness opened is not driven meanwhile: in the owned host each has its own run().
    expect(r.isOpen).toBe(true)
    await drive(next, body(), 5_000, "the second reactor")
    await closeReactor(next)
  },
  { host: "hosted" },
)

onReactor("await using closes what it opened", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  {
    await using client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await using server = (await listener.accept()) as Connection
    await client.write("x")
    await server.read()
  }
  {
    using other = r.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    expect(other.port).toBeGreaterThan(0)
  }
  listener.close()
  await until(r, "all is closed", () => r.stats().descriptorsOpen === 0)
  if (HOST !== "hosted") return // an owned reactor is closed inside of its run(), see below
  let inner: Reactor
  {
    await using reactor = Reactor.open({ engine: ENGINE, host: HOST })
    inner = reactor
    reactor.listen({ hostname: "127.0.0.1", port: 0 })
    await reactor.timeout(1)
  }
  expect(inner.isClosed).toBe(true)
})

onReactor(
  "an owned reactor is closed inside of run",
  async (r) => {
    const mine = openReactor()
    mine.run(
      (async () => {
        const listener = mine.listen({ hostname: "127.0.0.1", port: 0 })
        await mine.connect({ hostname: "127.0.0.1", port: listener.port! })
        await mine.close()
      })(),
    )
    expect(mine.isClosed).toBe(true)
    await r.nop()
  },
  { host: "owned" },
)

onReactor("a stopped listener frees its port", async (r) => {
  const first = r.listen({ hostname: "127.0.0.1", port: 0 })
  const port = first.port!
  await pause(r, 1)
  first.close()
  await until(r, "the listener is closed", () => r.stats().descriptorsOpen === 0)
  for (let attempt = 0; ; attempt++) {
    try {
      r.listen({ hostname: "127.0.0.1", port }).close()
      break
    } catch (error) {
      if (attempt === 100) throw error
      await pause(r, 5) // the ring keeps a closed listener alive for a moment
    }
  }
})
