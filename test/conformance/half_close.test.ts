// One side ends before the other: with and without allowHalfOpen, in both forms, both ways round.

import { expect } from "bun:test"
import type { Connection } from "../../src/index.ts"
import { onReactor, rejection, signal, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"
import { pattern, StreamCheck } from "../support/random.ts"

onReactor("client ends first, server answers after, callback form", async (r) => {
  const events: string[] = []
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      data: (_, chunk) => void events.push(`server data ${chunk}`),
      end(socket) {
        events.push("server end")
        expect(socket.write("answer after the end")).toBe(20)
        socket.end()
      },
      close: () => void events.push("server close"),
    },
  })
  const closed = signal()
  const client = await r.connect({
    hostname: "127.0.0.1",
    port: listener.port!,
    allowHalfOpen: true,
    socket: {
      data: (_, chunk) => void events.push(`client data ${chunk}`),
      end: () => void events.push("client end"),
      close() {
        events.push("client close")
        closed.resolve()
      },
    },
  })
  client.write("question")
  client.shutdown()
  expect(client.write("late")).toBe(-1)
  await closed.promise
  await until(r, "the server's close", () => events.includes("server close"))
  expect(events.filter((event) => event.startsWith("server"))).toEqual([
    "server data question",
    "server end",
    "server close",
  ])
  expect(events.filter((event) => event.startsWith("client"))).toEqual([
    "client data answer after the end",
    "client close",
  ])
  listener.stop()
})

onReactor("server ends first, client answers after, promise form", async (r, { seed }) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  await server.write("hello")
  await server.shutdown()
  expect((await rejection(server.write("late"))).code).toBe("CONNECTION_CLOSED")
  expect(Buffer.from((await client.read())!).toString()).toBe("hello")
  expect(await client.read()).toBeUndefined()
  expect(await client.read()).toBeUndefined()
  expect(client.isOpen).toBe(true)
  const total = 2_000_000
  const check = new StreamCheck(seed)
  const reading = (async () => {
    for await (const chunk of server) check.take(chunk)
  })()
  for (let sent = 0; sent < total; sent += 100_000) await client.write(pattern(seed, sent, 100_000))
  await client.shutdown()
  await reading
  check.expect(total)
  await Promise.all([client.close(), server.close()])
  listener.close()
})

onReactor("without allowHalfOpen the end of the peer ends both, callback form", async (r) => {
  const events: string[] = []
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data: (_, chunk) => void events.push(`data ${chunk}`),
      end(socket) {
        events.push(`end ${socket.readyState}`)
        socket.write("last words")
      },
      close(socket, error) {
        events.push(`close ${socket.readyState} ${error}`)
        expect(socket.write("late")).toBe(-1)
        expect(socket.end("late")).toBe(-1)
      },
    },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  await client.write("x")
  await client.shutdown()
  const chunks: Uint8Array[] = []
  for await (const chunk of client) chunks.push(chunk)
  expect(Buffer.concat(chunks).toString()).toBe("last words")
  expect(events).toEqual(["data x", "end 1", "close -1 undefined"])
  await client.close()
  listener.stop()
})

onReactor("without allowHalfOpen the end of the peer ends both, promise form", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0, allowHalfOpen: false })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  await client.write("x")
  await client.shutdown()
  expect(Buffer.from((await server.read())!).toString()).toBe("x")
  expect(await server.read()).toBeUndefined()
  expect(server.isOpen).toBe(false)
  expect((await rejection(server.write("late"))).code).toBe("CONNECTION_CLOSED")
  expect(await client.read()).toBeUndefined()
  await client.close()
  listener.close()
})

onReactor("both ends end at once", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  for (let i = 0; i < 50; i++) {
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    const server = (await listener.accept()) as Connection
    await Promise.all([client.write("a"), server.write("b")])
    await Promise.all([client.shutdown(), server.shutdown()])
    expect(Buffer.from((await server.read())!).toString()).toBe("a")
    expect(Buffer.from((await client.read())!).toString()).toBe("b")
    expect(await client.read()).toBeUndefined()
    expect(await server.read()).toBeUndefined()
    await Promise.all([client.close(), server.close()])
  }
  listener.close()
})

onReactor("end with data: all of it arrives, then the end", async (r) => {
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: (socket) => {
        socket.write("first ")
        expect(socket.end("last")).toBe(4)
        expect(socket.readyState).toBe(-1)
        expect(socket.remoteAddress).toBeUndefined()
      },
      data() {},
    },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const chunks: Uint8Array[] = []
  for await (const chunk of client) chunks.push(chunk)
  expect(Buffer.concat(chunks).toString()).toBe("first last")
  await client.close()
  listener.stop()
})

onReactor("a megabyte written right before end arrives whole at a C client", async (r, { seed }) => {
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      data() {},
      end(socket) {
        const bytes = pattern(seed, 0, 1_000_000)
        expect(socket.write(bytes)).toBe(bytes.length)
        socket.end()
      },
    },
  })
  const peer = startPeer("half", listener.port!, { bytes: 5, chunk: 4096 })
  let hash = 2166136261
  for (const byte of pattern(seed, 0, 1_000_000)) hash = Math.imul(hash ^ byte, 16777619) >>> 0
  expect(await peer.verdict(r)).toBe(`ok 1000000 ${hash}`)
  listener.stop()
})

onReactor("shutdown and flush after close settle", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  await client.write(pattern(1, 0, 900_000))
  const closing = client.close()
  const after = Promise.allSettled([client.flush(), client.shutdown()])
  const check = new StreamCheck(1)
  for await (const chunk of server) check.take(chunk)
  check.expect(900_000)
  await closing
  let isSettled = false
  void after.then(() => {
    isSettled = true
  })
  await until(r, "flush() and shutdown() called after close() settle", () => isSettled, 3_000)
  await server.close()
  listener.close()
})
