// Limits on connections and on the rate of accepting, and what happens when they are reached (docs/limits.md).

import { expect } from "bun:test"
import type { Connection, Reactor, Socket } from "../../src/index.ts"
import { onReactor, pause, rejection, until } from "../support/harness.ts"

async function dialMany(r: Reactor, port: number, count: number): Promise<Connection[]> {
  return Promise.all(Array.from({ length: count }, () => r.connect({ hostname: "127.0.0.1", port })))
}

/** A listener that answers each connection with "hi", and knows which are open. */
function greeter(
  r: Reactor,
  limits: object,
): { port: number; open: Set<Socket>; most: () => number; stop(): void } {
  const open = new Set<Socket>()
  let most = 0
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    ...limits,
    socket: {
      open(socket) {
        open.add(socket)
        most = Math.max(most, open.size)
        socket.write("hi")
      },
      data() {},
      close: (socket) => void open.delete(socket),
    },
  })
  return { port: listener.port!, open, most: () => most, stop: () => listener.stop() }
}

async function greeted(connection: Connection): Promise<boolean> {
  const chunk = await connection.read()
  const isGreeted = chunk !== undefined
  await connection.close()
  return isGreeted
}

onReactor("maxConnections of a listener: the others wait, and are served as connections close", async (r) => {
  const server = greeter(r, { maxConnections: 10 })
  const clients = await dialMany(r, server.port, 40)
  await until(r, "ten are open", () => server.open.size === 10)
  await pause(r, 20)
  expect(server.open.size).toBe(10)
  expect(r.stats().acceptLimitPauses).toBe(1)
  expect(r.stats().connectionsLimited).toBe(10)
  const all = await Promise.all(clients.map(greeted))
  expect(all.every((isGreeted) => isGreeted)).toBe(true)
  expect(server.most()).toBe(10)
  expect(r.stats().connectionsRefused).toBe(0)
  server.stop()
})

onReactor(
  "maxConnections of the reactor counts all listeners; below 95 % accepting goes on",
  async (r) => {
    const one = greeter(r, {})
    const two = greeter(r, {})
    const clients = await dialMany(r, one.port, 25)
    clients.push(...(await dialMany(r, two.port, 25)))
    await until(r, "forty are open", () => one.open.size + two.open.size === 40)
    await pause(r, 20)
    const open = () => one.open.size + two.open.size
    expect([open(), r.stats().overloadStage, r.stats().overloads]).toEqual([40, 1, 1])
    // 39 is not enough of a gap: accepting goes on at 38.
    const first = [...one.open][0]
    first.terminate()
    await pause(r, 20)
    expect([open(), r.stats().overloadStage]).toEqual([39, 1])
    const second = [...one.open][0]
    second.terminate()
    await until(r, "two more", () => open() === 40)
    expect(r.stats().overloads).toBe(2)
    await Promise.all(clients.map((client) => greeted(client).catch(() => client.close())))
    expect(one.most() + two.most()).toBeLessThanOrEqual(50)
    one.stop()
    two.stop()
  },
  { reactor: { maxConnections: 40 } },
)

onReactor("maxConnections: accept() gives no more either", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0, maxConnections: 2 })
  const clients = await dialMany(r, listener.port!, 3)
  const first = (await listener.accept()) as Connection
  const second = (await listener.accept()) as Connection
  let third: Connection | undefined
  const waiting = listener.accept().then((connection) => {
    third = connection
  })
  await pause(r, 20)
  expect(third).toBeUndefined()
  await first.close()
  await waiting
  expect((third as unknown as Connection).isOpen).toBe(true)
  await Promise.all([...clients, second, third].map((connection) => connection?.close()))
  listener.close()
})

onReactor("a listener that stops resets those that wait", async (r) => {
  const server = greeter(r, { maxConnections: 1 })
  const clients = await dialMany(r, server.port, 5)
  await until(r, "one is open", () => server.open.size === 1)
  await pause(r, 10)
  server.stop()
  const ends = await Promise.allSettled(clients.map(greeted))
  expect(ends.filter(({ status }) => status === "fulfilled").length).toBe(1)
  await Promise.all(clients.map((client) => client.close()))
})

onReactor("acceptsPerSecond: a burst, then so many a second", async (r) => {
  const server = greeter(r, { acceptsPerSecond: 50, acceptBurst: 5 })
  const begins = performance.now()
  const clients = await dialMany(r, server.port, 20)
  const served = clients.map(greeted)
  await until(r, "the burst", () => server.most() >= 1)
  expect(server.most()).toBeLessThanOrEqual(6)
  expect((await Promise.all(served)).every((isGreeted) => isGreeted)).toBe(true)
  const tookMs = performance.now() - begins
  // Fifteen behind the burst, 20 ms each.
  expect(tookMs).toBeGreaterThan(260)
  expect(tookMs).toBeLessThan(8000)
  expect(r.stats().acceptLimitPauses).toBeGreaterThan(0)
  server.stop()
})

onReactor(
  "overload that lasts: refusing, until there is room",
  async (r) => {
    const server = greeter(r, {})
    const clients = await dialMany(r, server.port, 8)
    await until(r, "refusing", () => r.stats().overloadStage === 2)
    const late = await r.connect({ hostname: "127.0.0.1", port: server.port })
    expect((await rejection(late.read())).code).toBe("ECONNRESET")
    await late.close()
    expect(r.stats().connectionsRefused).toBe(4 + 1)
    const ends = await Promise.allSettled(clients.map(greeted))
    expect(ends.filter(({ status }) => status === "fulfilled").length).toBe(4)
    await until(r, "room", () => server.open.size === 0 && r.stats().overloadStage === 0)
    const [again] = await dialMany(r, server.port, 1)
    expect(await greeted(again)).toBe(true)
    await Promise.all(clients.map((client) => client.close()))
    server.stop()
  },
  { reactor: { maxConnections: 4, overload: { refuseAfterMs: 60 } } },
)

onReactor(
  "overload that lasts: connections that do not move are reset, the others go on",
  async (r) => {
    const errors: string[] = []
    const listener = r.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data: (socket, chunk) => void socket.write(chunk),
        close: (_, error) => void (error && errors.push((error as { code?: string }).code as string)),
      },
    })
    const clients = await dialMany(r, listener.port!, 4)
    const [busy] = clients
    await busy.write("x")
    expect((await busy.read())!.length).toBe(1)
    const waiting = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    for (let i = 0; errors.length === 0; i++) {
      await busy.write("x")
      expect((await busy.read())!.length).toBe(1)
      await pause(r, 5)
      expect(i).toBeLessThan(500)
    }
    expect(errors).toEqual(["LIMIT_OVERLOAD"])
    expect(r.stats().connectionsReset).toBe(1)
    await waiting.write("y")
    expect((await waiting.read())!.length).toBe(1)
    await busy.write("x")
    expect((await busy.read())!.length).toBe(1)
    await Promise.all([...clients, waiting].map((client) => client.close()))
    listener.stop()
  },
  { reactor: { maxConnections: 4, overload: { resetAfterMs: 200 } } },
)

onReactor(
  "send memory held by peers that do not read: they are reset, and the memory is free again",
  async (r) => {
    const listener = r.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open(socket) {
          const more = () => {
            while (socket.write(chunk) === chunk.length);
          }
          socket.data = more as never
          more()
        },
        data() {},
        drain: (socket) => (socket.data as unknown as () => void)(),
      },
    })
    const chunk = new Uint8Array(65_536)
    const readers: Connection[] = []
    for (let i = 0; i < 12; i++) {
      const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
      readers.push(client)
    }
    await until(r, "overload", () => r.stats().overloads > 0)
    await until(r, "resets", () => r.stats().connectionsReset > 0)
    await until(r, "relief", () => r.stats().overloadStage === 0)
    for (const client of readers) client.destroy()
    listener.stop(true)
  },
  { reactor: { sendArenaBytes: 1 << 20, overload: { memoryShare: 0.8, resetAfterMs: 100 } } },
)

onReactor(
  "maxQueuedBytes: write takes so much, and drain follows",
  async (r) => {
    let taken = -1
    let drains = 0
    const listener = r.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open(socket) {
          taken = socket.write(new Uint8Array(50_000))
        },
        data() {},
        drain: () => void drains++,
      },
    })
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    for (let bytes = 0; bytes < 10_000; ) bytes += (await client.read())!.length
    expect([taken, drains, r.stats().writesCut]).toEqual([10_000, 1, 1])
    await client.close()
    listener.stop()
  },
  { reactor: { maxQueuedBytes: 10_000 } },
)
