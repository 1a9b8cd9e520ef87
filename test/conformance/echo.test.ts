// Bytes of one socket arrive once, in order, whatever the sizes, the chunking and the number of connections:
// callback form, promise form, against connections of the same reactor and against a C client.

import { expect } from "bun:test"
import type { Connection, Socket } from "../../src/index.ts"
import { checkEcho, echoListener, serveEcho } from "../support/echo.ts"
import { onReactor, signal, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"
import { pattern, StreamCheck } from "../support/random.ts"

const MOST_BYTES = 300_000

onReactor("callback server echoes streams of random size and chunking", async (r, { random }) => {
  const listener = echoListener(r)
  const clients = Array.from({ length: 40 }, async (_, i) => {
    const connection = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await checkEcho(connection, random, i, random.size(MOST_BYTES))
  })
  await Promise.all(clients)
  listener.stop()
})

onReactor("promise server echoes streams of random size and chunking", async (r, { random }) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const serving = serveEcho(listener)
  const clients = Array.from({ length: 40 }, async (_, i) => {
    const connection = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await checkEcho(connection, random, i, random.size(MOST_BYTES))
  })
  await Promise.all(clients)
  listener.close()
  await serving
})

onReactor("the largest and the smallest writes arrive whole", async (r, { random }) => {
  const listener = echoListener(r)
  for (const total of [0, 1, 2, 65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577, 5_000_000]) {
    const connection = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await checkEcho(connection, random, total, total)
  }
  listener.stop()
})

onReactor("callback client: writes of every kind, drain until all is taken", async (r, { random, seed }) => {
  const listener = echoListener(r)
  const total = 3_000_000
  const check = new StreamCheck(seed)
  const done = signal()
  let sent = 0
  const fill = (socket: Socket) => {
    while (sent < total) {
      const length = Math.min(total - sent, 1 + random.size(200_000))
      const bytes = pattern(seed, sent, length)
      const kind = random.integer(0, 3)
      // What a write takes is a copy: the array may be spoiled at once.
      const given =
        kind === 0
          ? bytes
          : kind === 1
            ? new Uint8Array(bytes).buffer
            : kind === 2
              ? new DataView(new Uint8Array(bytes).buffer)
              : new Uint8Array(bytes)
      const count = socket.write(given)
      expect(count).toBeGreaterThanOrEqual(0)
      if (given instanceof Uint8Array) given.fill(0)
      sent += count
      if (count < length) return
    }
    socket.shutdown()
  }
  await r.connect({
    hostname: "127.0.0.1",
    port: listener.port!,
    allowHalfOpen: true,
    socket: {
      open: fill,
      drain: (socket) => {
        if (sent < total) fill(socket)
      },
      data: (_, chunk) => check.take(chunk),
      close: () => done.resolve(),
      error: (_, error) => done.reject(error),
    },
  })
  await done.promise
  check.expect(total)
  listener.stop()
})

onReactor("text is written as UTF-8, lone surrogates and all", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  const texts = ["", "a", "ä€😀", "\ud800", "x".repeat(70_000), "é".repeat(400_000), "\u0000"]
  const wanted = Buffer.concat(texts.map((text) => Buffer.from(text)))
  const sending = (async () => {
    for (const text of texts) await client.write(text)
    await client.shutdown()
  })()
  const chunks: Uint8Array[] = []
  for await (const chunk of server) chunks.push(chunk)
  await sending
  expect(Buffer.concat(chunks).equals(wanted)).toBe(true)
  listener.close()
})

onReactor(
  "received chunks are the program's own: nothing is written into them later",
  async (r, { seed }) => {
    const kept: Buffer[] = []
    const done = signal()
    const listener = r.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data: (_, chunk) => void kept.push(chunk),
        close: () => done.resolve(),
      },
    })
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    const total = 8_000_000
    for (let sent = 0; sent < total; sent += 50_000) await client.write(pattern(seed, sent, 50_000))
    await client.close()
    await done.promise
    const check = new StreamCheck(seed)
    for (const chunk of kept) {
      expect(chunk.byteOffset).toBe(0)
      check.take(chunk)
    }
    check.expect(total)
    listener.stop()
  },
)

onReactor("borrowed chunks hold the right bytes while the handler runs", async (r, { seed }) => {
  const check = new StreamCheck(seed)
  const done = signal()
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    borrow: true,
    socket: { data: (_, chunk) => check.take(chunk), close: () => done.resolve() },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  for (let sent = 0; sent < 4_000_000; sent += 40_000) await client.write(pattern(seed, sent, 40_000))
  await client.close()
  await done.promise
  check.expect(4_000_000)
  listener.stop()
})

for (const binaryType of ["buffer", "uint8array", "arraybuffer"] as const) {
  onReactor(`binaryType ${binaryType}`, async (r) => {
    const got = signal<unknown>()
    const listener = r.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { binaryType, data: (_, chunk) => got.resolve(chunk) },
    })
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await client.write("hello")
    const chunk = await got.promise
    if (binaryType === "arraybuffer") expect(chunk).toBeInstanceOf(ArrayBuffer)
    else expect((chunk as Uint8Array).constructor).toBe(binaryType === "buffer" ? Buffer : Uint8Array)
    expect(Buffer.from(chunk as Uint8Array).toString()).toBe("hello")
    await client.close()
    listener.stop()
  })
}

onReactor("a C client checks every byte on 200 connections", async (r, { seed }) => {
  const listener = echoListener(r)
  const peer = startPeer("echo", listener.port!, { count: 200, bytes: 100_000, seed: seed % 1_000_000 })
  expect(await peer.verdict(r)).toBe("ok 200")
  listener.stop()
})

onReactor("a C client checks the promise form on 100 connections", async (r, { seed }) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const serving = serveEcho(listener)
  const peer = startPeer("echo", listener.port!, { count: 100, bytes: 100_000, seed: seed % 1_000_000 })
  expect(await peer.verdict(r)).toBe("ok 100")
  listener.close()
  await serving
})

onReactor("bytes that drip in one by one arrive", async (r) => {
  const listener = echoListener(r)
  const peer = startPeer("drip", listener.port!, { bytes: 300, delay: 300 })
  expect(await peer.verdict(r)).toMatch(/^ok 300 /)
  listener.stop()
})

onReactor("2,500 connections at a time, both ends in this process", async (r, { seed }) => {
  const listener = echoListener(r)
  const count = 2_500
  const checks = Array.from({ length: count }, (_, i) => new StreamCheck(seed + i))
  const all: Socket[] = []
  let answered = 0
  let closed = 0
  for (let i = 0; i < count; i += 500) {
    const batch = Array.from({ length: 500 }, (_, k) =>
      r.connect({
        hostname: "127.0.0.1",
        port: listener.port!,
        socket: {
          data(_, chunk) {
            const check = checks[i + k]
            check.take(chunk)
            if (check.bytes === 700) answered++
          },
          close: () => void closed++,
        },
      }),
    )
    all.push(...(await Promise.all(batch)))
  }
  expect(r.stats().socketsOpen).toBeGreaterThanOrEqual(count)
  all.forEach((socket, i) => {
    expect(socket.write(pattern(seed + i, 0, 700))).toBe(700)
  })
  await until(r, "all answers", () => answered === count)
  for (const check of checks) check.expect(700)
  for (const socket of all) socket.end()
  listener.stop()
  await until(r, "all closed", () => closed === count && r.stats().socketsOpen === 0)
})
