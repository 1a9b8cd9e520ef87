// Several reactors: two in one thread, one after the other, one in a Worker. And what the counters say.

import { expect } from "bun:test"
import { checkEcho, echoListener } from "../support/echo.ts"
import {
  closeReactor,
  drive,
  ENGINE,
  HOST,
  onReactor,
  openDescriptors,
  openReactor,
  pause,
  until,
} from "../support/harness.ts"

onReactor(
  "two reactors in one thread talk to each other",
  async (r, { random }) => {
    const other = openReactor()
    const listener = echoListener(r)
    const clients = async () => {
      for (let i = 0; i < 20; i++) {
        const connection = await other.connect({ hostname: "127.0.0.1", port: listener.port! })
        await checkEcho(connection, random, i, random.size(400_000))
      }
    }
    await drive(other, clients(), 9_000, "the second reactor")
    listener.stop()
    await closeReactor(other)
  },
  { host: "hosted" },
) // owned reactors block: one waits while the other runs

onReactor(
  "a reactor that nobody closed does not disturb the next one",
  async (r) => {
    const idle = openReactor()
    const listener = idle.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    await drive(idle, idle.connect({ hostname: "127.0.0.1", port: listener.port! }), 5_000, "connecting")
    for (let round = 0; round < 5; round++) {
      const own = r.listen({ hostname: "127.0.0.1", port: 0 })
      await pause(r, 1)
      own.close()
      await until(r, "the listener is closed", () => r.stats().descriptorsOpen === 0)
      for (let i = 0; i < 20; i++) await pause(r, 2)
      const before = openDescriptors().size
      const third = openReactor()
      await drive(third, third.nop(), 5_000, "the third reactor")
      await closeReactor(third)
      for (let i = 0; i < 100 && openDescriptors().size > before; i++) await pause(r, 5)
      expect(openDescriptors().size).toBe(before)
    }
    await closeReactor(idle)
  },
  { host: "hosted" },
)

onReactor(
  "50 reactors one after the other leave no descriptor and little memory",
  async () => {
    const before = openDescriptors().size
    for (let i = 0; i < 50; i++) {
      const reactor = openReactor()
      const body = async () => {
        const listener = reactor.listen({
          hostname: "127.0.0.1",
          port: 0,
          socket: { data: (s, c) => void s.write(c) },
        })
        const client = await reactor.connect({ hostname: "127.0.0.1", port: listener.port! })
        await client.write("x")
        expect((await client.read())!.length).toBe(1)
      }
      await drive(reactor, body(), 5_000, `reactor ${i}`)
      await closeReactor(reactor)
    }
    for (let i = 0; i < 100 && openDescriptors().size > before; i++) await Bun.sleep(10)
    expect(openDescriptors().size).toBeLessThanOrEqual(before)
  },
  { host: "hosted" },
)

onReactor("the counters are consistent while there is traffic", async (r, { random }) => {
  const listener = echoListener(r)
  await Promise.all(
    Array.from({ length: 10 }, async (_, i) => {
      const connection = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
      await checkEcho(connection, random, i, 100_000)
    }),
  )
  listener.stop()
  await until(r, "all is closed", () => r.stats().descriptorsOpen === 0)
  const s = r.stats()
  expect(s.engine).toBe(ENGINE)
  expect(s.host).toBe(HOST)
  expect(s.bytesReceived).toBe(2_000_000)
  expect(s.bytesSent).toBe(2_000_000)
  expect(s.descriptorsOpened).toBe(21)
  expect(s.descriptorsClosed).toBe(21)
  expect(s.socketsOpen).toBe(0)
  expect(s.operationsInFlight).toBe(0)
  expect(s.commandsInFlight).toBe(0)
  expect(s.sendBytesInUse).toBe(0)
  expect(s.sendBytesHighWater).toBeGreaterThan(0)
  expect(s.rejected + s.stale + s.overflows + s.uncaught + s.acceptPauses + s.lingersExpired).toBe(0)
  expect(s.commands).toBeGreaterThan(60)
  expect(s.completions).toBeGreaterThanOrEqual(s.commands)
  expect(s.waits).toBeLessThanOrEqual(s.ticks)
})

onReactor(
  "a reactor in a Worker opens, echoes, closes; another after it",
  async (r) => {
    for (let i = 0; i < 2; i++) {
      const worker = new Worker(new URL("../support/worker.ts", import.meta.url).href)
      const answer = await new Promise((resolve, reject) => {
        worker.onmessage = (event) => resolve(event.data)
        worker.onerror = (event) => reject(new Error(event.message))
        worker.postMessage({ engine: ENGINE, host: HOST })
      })
      expect(answer).toEqual({ echoed: 300_000, open: 0, inFlight: 0, closed: true })
      worker.terminate()
    }
    await r.nop()
  },
  { host: "hosted" },
) // Bun's loop has to hear the Worker; what host the Worker has is its own
