// Connections as web streams: piping, backpressure, cancel and abort.

import { expect } from "bun:test"
import type { Connection } from "../../src/index.ts"
import { onReactor, rejection, until } from "../support/harness.ts"
import { pattern, StreamCheck } from "../support/random.ts"

onReactor("20 MB are piped through an echo of readable and writable", async (r) => {
  const total = 20_000_000
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  const echoing = server.readable.pipeTo(server.writable)
  let sent = 0
  const source = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent === total) controller.close()
      else controller.enqueue(pattern(6, sent, 200_000))
      sent += 200_000
    },
  })
  const check = new StreamCheck(6)
  const sink = new WritableStream<Uint8Array>({ write: (chunk) => check.take(chunk) })
  await Promise.all([source.pipeTo(client.writable), client.readable.pipeTo(sink), echoing])
  check.expect(total)
  await Promise.all([client.close(), server.close()])
  listener.close()
})

onReactor("cancelling the readable closes the connection", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  await server.write("x")
  const reader = client.readable.getReader()
  expect((await reader.read()).value?.length).toBe(1)
  await reader.cancel()
  expect(client.isOpen).toBe(false)
  expect(await server.read().catch(() => undefined)).toBeUndefined()
  await server.close()
  listener.close()
})

onReactor("aborting the writable closes the connection", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  const writer = client.writable.getWriter()
  await writer.write("hello")
  await writer.abort(new Error("no more"))
  await until(r, "the connection is closed", () => !client.isOpen)
  await rejection(writer.write("late"))
  await server.close()
  listener.close()
})

onReactor("an error of the connection errors its streams", async (r) => {
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket) => socket.terminate() },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const reader = client.readable.getReader()
  const writer = client.writable.getWriter()
  await writer.write("x")
  expect((await rejection(reader.read())).code).toBe("ECONNRESET")
  await client.close()
  listener.stop()
})
