// Every limit is small here: receive buffers, queues, operations, send memory. What does not fit waits or is
// refused with a clear error; nothing is lost, nothing is stuck, and afterwards all goes on.

import { expect } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { connect as connectTcp } from "node:net"
import type { Connection, Socket } from "../../src/index.ts"
import { checkEcho, echoListener, serveEcho } from "../support/echo.ts"
import { ENGINE, onReactor, openDescriptors, pause, rejection, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"
import { pattern, StreamCheck } from "../support/random.ts"

for (const [receiveBuffers, receiveBufferBytes, connections, bytes] of [
  [16, 1024, 500, 20_000],
  [1, 1024, 100, 10_000],
  [1, 64, 20, 3_000],
  [1, 65_536, 50, 200_000],
] as const) {
  onReactor(
    `${receiveBuffers} receive buffer(s) of ${receiveBufferBytes} bytes, ${connections} connections`,
    async (r, { seed }) => {
      const listener = echoListener(r)
      const peer = startPeer("echo", listener.port!, { count: connections, bytes, seed: seed % 1_000_000 })
      expect(await peer.verdict(r)).toBe(`ok ${connections}`)
      listener.stop()
      // Only a ring of provided buffers can run dry; the other engines read when there is a buffer.
      if (ENGINE === "uring" && receiveBuffers === 16) expect(r.stats().noBuffers).toBeGreaterThan(0)
    },
    { reactor: { receiveBuffers, receiveBufferBytes } },
  )
}

onReactor(
  "the smallest rings: 8 submissions, 16 completions, 300 connections",
  async (r, { seed }) => {
    const listener = echoListener(r)
    const peer = startPeer("echo", listener.port!, { count: 300, bytes: 30_000, seed: seed % 1_000_000 })
    expect(await peer.verdict(r)).toBe("ok 300")
    listener.stop()
  },
  { reactor: { submissionEntries: 8, completionEntries: 16 } },
)

onReactor(
  "the smallest rings: 500 dials, timeouts and cancellations at once",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const serving = serveEcho(listener)
    const timeouts = Array.from({ length: 500 }, (_, i) => r.timeout(i % 2 === 0 ? 60_000 : 5))
    const settled = Promise.allSettled(timeouts)
    const clients = await Promise.all(
      Array.from({ length: 500 }, () => r.connect({ hostname: "127.0.0.1", port: listener.port! })),
    )
    await Promise.all(clients.map((client, i) => client.write(pattern(i, 0, 100))))
    await Promise.all(
      clients.map(async (client, i) => {
        const check = new StreamCheck(i)
        while (check.bytes < 100) check.take((await client.read())!)
        check.expect(100)
        await client.close()
      }),
    )
    for (let i = 0; i < 500; i += 2) void r.cancel(timeouts[i])
    const results = await settled
    expect(results.filter((result) => result.status === "fulfilled").length).toBe(250)
    listener.close()
    await serving
  },
  { reactor: { submissionEntries: 8, completionEntries: 16 } },
)

onReactor(
  "1 MiB of send memory, 50 connections of 200 KB each way",
  async (r, { random }) => {
    const listener = echoListener(r)
    await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const connection = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
        await checkEcho(connection, random, i, 200_000)
      }),
    )
    expect(r.stats().sendBytesHighWater).toBeLessThanOrEqual(1024 * 1024)
    listener.stop()
  },
  { reactor: { sendArenaBytes: 1024 * 1024 } },
)

onReactor(
  "1 MiB of send memory taken by peers that do not read: the others get theirs when it comes back",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    const server = (await listener.accept()) as Connection
    const hold = startPeer("hold", listener.port!, { count: 4, bytes: 1 })
    const held: Connection[] = []
    const writes: Promise<unknown>[] = []
    for (let i = 0; i < 4; i++) {
      const connection = (await listener.accept()) as Connection
      held.push(connection)
      writes.push(rejection(connection.write(new Uint8Array(20_000_000))))
    }
    await until(r, "the memory is full", () => r.stats().sendBytesInUse > 700_000)
    const big = server.write(pattern(1, 0, 900_000)).then(() => server.close())
    for (const connection of held) connection.destroy()
    const check = new StreamCheck(1)
    for await (const chunk of client) check.take(chunk)
    check.expect(900_000)
    await big
    await Promise.all(writes)
    await client.close()
    hold.kill()
    listener.close()
  },
  { reactor: { sendArenaBytes: 1024 * 1024 } },
)

onReactor(
  "maxOperations reached by raw operations: a clear error, and it goes on when there is room",
  async (r) => {
    const waiting: Promise<unknown>[] = []
    const controller = new AbortController()
    for (let i = 0; i < 32; i++) waiting.push(rejection(r.timeout(60_000, { signal: controller.signal })))
    const refused = await rejection(r.timeout(1))
    expect(refused.code).toBe("LIMIT_OPERATIONS")
    expect(refused.message).toContain("maxOperations")
    expect((await rejection(r.nop())).code).toBe("LIMIT_OPERATIONS")
    expect(r.stats().operationsInFlight).toBe(32)
    // Cancelling must work with no slot free: that is when it is needed.
    const reason = new Error("enough")
    controller.abort(reason)
    for (const error of await Promise.all(waiting)) expect(error).toBe(reason)
    await r.timeout(1)
  },
  { reactor: { maxOperations: 32 } },
)

onReactor(
  "maxOperations reached by connections: they can be closed, and it goes on",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const clients: Connection[] = []
    const servers: Connection[] = []
    let refused: (Error & { code?: string }) | undefined
    while (refused === undefined && clients.length < 40) {
      const dialled = await r.connect({ hostname: "127.0.0.1", port: listener.port! }).catch((error) => {
        refused = error
      })
      if (dialled === undefined) break
      if (!dialled.isOpen) {
        refused = await rejection(dialled.read())
        break
      }
      clients.push(dialled)
      const server = (await listener.accept()) as Connection
      if (!server.isOpen) {
        refused = await rejection(server.read())
        break
      }
      servers.push(server)
    }
    expect(refused?.code).toBe("LIMIT_OPERATIONS")
    expect(r.stats().operationsInFlight).toBeGreaterThan(12)
    // The table is full of receives: fill what is left, then close everything.
    const fillers: Promise<unknown>[] = []
    while (r.stats().operationsInFlight < 16) fillers.push(r.timeout(200))
    await Promise.all([...clients, ...servers].map((connection) => connection.close()))
    await Promise.all(fillers)
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await client.write("works again")
    let server = (await listener.accept()) as Connection
    while (!server.isOpen) server = (await listener.accept()) as Connection
    expect(Buffer.from((await server.read())!).toString()).toBe("works again")
    await Promise.all([client.close(), server.close()])
    listener.close()
  },
  { reactor: { maxOperations: 16 } },
)

onReactor(
  "maxOperations reached: refused dials leave no descriptor",
  async (r) => {
    const controller = new AbortController()
    const waiting: Promise<unknown>[] = []
    for (let i = 0; i < 16; i++) waiting.push(rejection(r.timeout(60_000, { signal: controller.signal })))
    const before = openDescriptors().size
    for (let i = 0; i < 20; i++) {
      const error = await rejection(r.connect({ hostname: "127.0.0.1", port: 9 }))
      expect(error.code).toBe("LIMIT_OPERATIONS")
    }
    expect(openDescriptors().size).toBe(before)
    controller.abort(new Error("enough"))
    await Promise.all(waiting)
  },
  { reactor: { maxOperations: 16 } },
)

onReactor(
  "reactor.close() with the operation table full",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const waiting: Promise<unknown>[] = []
    while (r.stats().operationsInFlight < 16) waiting.push(rejection(r.timeout(60_000)))
    await r.close()
    for (const error of await Promise.all(waiting)) {
      expect((error as { code?: string }).code).toBe("ECANCELED")
    }
    expect(listener.fd).toBe(-1)
  },
  { reactor: { maxOperations: 16 } },
)

onReactor(
  "peers that half-close and do not read hold a bounded number of kernel threads, and others go on",
  async (r) => {
    const wanted = 8 * 1024 * 1024
    const chunk = new Uint8Array(1024 * 1024)
    const answer = (socket: Socket<number>) => {
      while (socket.data > 0) {
        const taken = socket.write(chunk.subarray(0, Math.min(chunk.length, socket.data)))
        if (taken <= 0) return
        socket.data -= taken
      }
      socket.end()
    }
    const listener = r.listen<number>({
      hostname: "127.0.0.1",
      port: 0,
      allowHalfOpen: true,
      socket: {
        data(socket) {
          socket.data = wanted
          answer(socket)
        },
        drain: answer,
      },
    })
    const ask = (reads: boolean) => {
      const peer = connectTcp({ host: "127.0.0.1", port: listener.port!, allowHalfOpen: true })
      peer.on("error", () => undefined)
      if (!reads) peer.pause()
      peer.end("get")
      return peer
    }
    const silent = Array.from({ length: 48 }, () => ask(false))
    await until(r, "blocked sends", () => r.stats().sendsBlocked >= silent.length)
    await pause(r, 100)
    const workers = readdirSync("/proc/self/task").filter((task) =>
      readFileSync(`/proc/self/task/${task}/comm`, "latin1").startsWith("iou-wrk"),
    )
    expect(workers.length).toBeLessThanOrEqual(32)
    let got = 0
    const reader = ask(true)
    reader.on("data", (bytes) => {
      got += bytes.length
    })
    await until(r, "the answer", () => got === wanted)
    for (const peer of [...silent, reader]) peer.destroy()
    listener.stop(true)
  },
  { host: "hosted" }, // its peers are the runtime's sockets
)
