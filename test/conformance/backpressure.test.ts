// No queue is unbounded: what happens when a peer does not read, when the program does not, and when both are
// slow. In the end every byte is there, in order.

import { expect } from "bun:test"
import type { Connection, Socket } from "../../src/index.ts"
import { MAX_BLOCK_BYTES } from "../../src/reactor/arena.ts"
import { onReactor, pause, signal, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"
import { pattern, StreamCheck } from "../support/random.ts"

/** More than the kernel takes for a connection whose peer does not read. */
const KERNEL_MOST = 24 * 1024 * 1024

onReactor(
  "a peer that never reads: write takes less, then nothing; memory is bounded; drain goes on",
  async (r) => {
    let sent = 0
    let drains = 0
    const accepted = signal<Socket>()
    const listener = r.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { open: (socket) => accepted.resolve(socket), data() {}, drain: () => void drains++ },
    })
    const check = new StreamCheck(5)
    const client = await r.connect({
      hostname: "127.0.0.1",
      port: listener.port!,
      socket: { open: (socket) => socket.pause(), data: (_, chunk) => check.take(chunk) },
    })
    const server = await accepted.promise
    let refused = 0
    for (let idle = 0; idle < 20; ) {
      const count = server.write(pattern(5, sent, 300_000))
      expect(count).toBeGreaterThanOrEqual(0)
      expect(count).toBeLessThanOrEqual(300_000)
      sent += count
      if (count > 0) idle = 0
      else {
        refused++
        idle++
        expect(server.write("x")).toBe(0)
        await pause(r, 2)
      }
      if (sent > KERNEL_MOST) throw new Error(`${sent} bytes taken for a peer that does not read`)
    }
    expect(refused).toBeGreaterThan(0)
    expect(r.stats().sendBytesInUse).toBeLessThanOrEqual(2 * MAX_BLOCK_BYTES)
    expect(server.bytesWritten).toBe(sent)
    const before = drains
    client.resume()
    await until(r, "drain", () => drains > before)
    for (; sent < 30_000_000; ) {
      const count = server.write(pattern(5, sent, 300_000))
      sent += count
      if (count < 300_000) await pause(r, 1)
    }
    server.end()
    await until(r, "all bytes", () => check.bytes === sent)
    check.expect(sent)
    expect(r.stats().sendBytesInUse).toBe(0)
    listener.stop()
  },
)

onReactor("pause stops the flow, resume goes on in order, the end comes after the data", async (r) => {
  const events: string[] = []
  const check = new StreamCheck(9)
  const accepted = signal<Socket>()
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      open: (socket) => accepted.resolve(socket),
      data: (_, chunk) => check.take(chunk),
      end: (socket) => {
        events.push(`end after ${check.bytes}`)
        socket.end()
      },
      close: () => void events.push("close"),
    },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = await accepted.promise
  await client.write(pattern(9, 0, 1000))
  await until(r, "the first bytes", () => check.bytes === 1000)
  server.pause()
  await pause(r, 5)
  const before = check.bytes
  let sent = 1000
  let isDone = false
  const sending = (async () => {
    while (sent < 40_000_000) {
      await client.write(pattern(9, sent, 200_000))
      sent += 200_000
    }
    await client.shutdown()
    isDone = true
  })()
  await pause(r, 200)
  expect(isDone).toBe(false)
  expect(sent).toBeLessThan(KERNEL_MOST)
  expect(check.bytes).toBe(before)
  // What had arrived when the pause took effect is held: at most what the buffers hold.
  server.resume()
  await sending
  await until(r, "close", () => events.includes("close"))
  expect(events).toEqual([`end after ${sent}`, "close"])
  check.expect(sent)
  await client.close()
  listener.stop()
})

onReactor("the end that arrives during a pause waits for resume", async (r) => {
  const events: string[] = []
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.pause()
        void pause(r, 60).then(() => {
          events.push("resume")
          socket.resume()
        })
      },
      data: (_, chunk) => void events.push(`data ${chunk}`),
      end: () => void events.push("end"),
      close: () => void events.push("close"),
    },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  await client.write("tail")
  await client.shutdown()
  await until(r, "close", () => events.includes("close"))
  expect(events).toEqual(["resume", "data tail", "end", "close"])
  await client.close()
  listener.stop()
})

onReactor("pausing and resuming at random moments loses nothing", async (r, { random, seed }) => {
  const check = new StreamCheck(seed)
  const closed = signal()
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, chunk) {
        check.take(chunk)
        const dice = random.integer(0, 9)
        if (dice < 3) socket.pause()
        if (dice === 0) socket.resume()
        else if (dice === 1) queueMicrotask(() => socket.resume())
        else if (dice === 2) void pause(r, 1).then(() => socket.resume())
      },
      close: () => closed.resolve(),
    },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  let sent = 0
  while (sent < 6_000_000) {
    const count = 1 + random.size(60_000)
    await client.write(pattern(seed, sent, count))
    sent += count
  }
  await client.close()
  await closed.promise
  check.expect(sent)
  listener.stop()
})

onReactor("promise writes wait, and go out in the order of the calls", async (r, { random, seed }) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  let sent = 0
  const order: number[] = []
  const writes: Promise<void>[] = []
  for (let i = 0; i < 60; i++) {
    const count = i === 30 ? 5_000_000 : 1 + random.size(600_000)
    writes.push(server.write(pattern(seed, sent, count)).then(() => void order.push(i)))
    sent += count
  }
  await pause(r, 50)
  expect(order.length).toBeLessThan(60)
  const check = new StreamCheck(seed)
  const reading = (async () => {
    for await (const chunk of client) {
      check.take(chunk)
      if (random.integer(0, 20) === 0) await pause(r, 1)
    }
  })()
  await Promise.all(writes)
  expect(order).toEqual(Array.from({ length: 60 }, (_, i) => i))
  await server.close()
  await reading
  check.expect(sent)
  await client.close()
  listener.close()
})

onReactor("nobody reads a connection: what it holds is bounded, and all of it is there later", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  let sent = 0
  const sending = (async () => {
    while (sent < 40_000_000) {
      await client.write(pattern(3, sent, 250_000))
      sent += 250_000
    }
    await client.shutdown()
  })()
  await pause(r, 200)
  expect(sent).toBeLessThan(KERNEL_MOST)
  expect(r.stats().bytesReceived).toBeLessThan(4_000_000)
  const check = new StreamCheck(3)
  for await (const chunk of server) check.take(chunk)
  await sending
  check.expect(sent)
  await Promise.all([client.close(), server.close()])
  listener.close()
})

onReactor("a slow C reader gets 20 MB byte by byte right", async (r) => {
  const total = 20_000_000
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const peer = startPeer("slow", listener.port!, { chunk: 200_000, delay: 1000 })
  const server = (await listener.accept()) as Connection
  let hash = 2166136261
  for (let sent = 0; sent < total; sent += 400_000) {
    const bytes = pattern(2, sent, 400_000)
    for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i], 16777619)
    await server.write(bytes)
  }
  await server.close()
  expect(await peer.verdict(r)).toBe(`ok ${total} ${hash >>> 0}`)
  listener.close()
})

onReactor("peers that never read do not hold up the others", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  startPeer("hold", listener.port!, { count: 40, bytes: 1000 })
  const held: Promise<unknown>[] = []
  for (let i = 0; i < 40; i++) {
    const connection = (await listener.accept()) as Connection
    held.push(connection.write(new Uint8Array(8_000_000)).catch(() => undefined))
  }
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  for (let i = 0; i < 100; i++) {
    await client.write(pattern(i, 0, 100))
    const check = new StreamCheck(i)
    while (check.bytes < 100) check.take((await server.read())!)
    check.expect(100)
  }
  await client.close()
  listener.close()
  await r.close()
  await Promise.all(held)
})
