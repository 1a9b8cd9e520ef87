// Very many short connections: each is answered, and afterwards the process is as it was. Descriptors, operations in
// flight and memory do not grow with the number of connections that have been.

import { expect } from "bun:test"
import { ENGINE, HOST, onReactor, openDescriptors, pause, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"

const IS_FULL = ENGINE === "uring" && HOST === "hosted"
const TOTAL = IS_FULL ? 100_000 : 20_000
const THIRDS = 3
const PARALLEL = 100
/** Much more than what a run of this size wobbles by; a leak of 1 KB per connection is past it. */
const GROWTH_LIMIT_BYTES = 30_000_000
const LIMIT_MS = 40_000

for (const form of ["handlers", "promises"] as const) {
  const total = form === "handlers" ? TOTAL : TOTAL / 5
  onReactor(
    `${total} short connections, ${form}`,
    async (r) => {
      const port = form === "handlers" ? serveHandlers(r) : servePromises(r)
      const rest: { descriptors: number; rss: number }[] = []
      let most = { inFlight: 0, sockets: 0, sendBytes: 0 }
      for (let third = 0; third < THIRDS; third++) {
        const count = Math.floor(total / THIRDS)
        const peer = startPeer("short", port, { total: count, parallel: PARALLEL, bytes: 128, sources: 200 })
        const verdict = peer.verdict(r, LIMIT_MS)
        let isOver = false
        void verdict.finally(() => {
          isOver = true
        })
        while (!isOver) {
          const s = r.stats()
          most = {
            inFlight: Math.max(most.inFlight, s.operationsInFlight),
            sockets: Math.max(most.sockets, s.socketsOpen),
            sendBytes: Math.max(most.sendBytes, s.sendBytesInUse),
          }
          await pause(r, 5)
        }
        expect(await verdict).toBe(`ok ${count}`)
        await until(r, "all are closed", () => r.stats().socketsOpen === 1)
        expect(r.stats().operationsInFlight).toBe(1) // the listener's accept
        Bun.gc(true)
        rest.push({ descriptors: openDescriptors().size, rss: process.memoryUsage.rss() })
      }
      const [first, , last] = rest
      expect(last.descriptors).toBeLessThanOrEqual(first.descriptors + 50) // those open at the moment
      expect(last.rss - first.rss).toBeLessThan(GROWTH_LIMIT_BYTES)
      // Never more than there are connections at a time, and those that are being closed.
      expect(most.sockets).toBeLessThan(50 * PARALLEL)
      expect(most.inFlight).toBeLessThan(100 * PARALLEL)
      expect(most.sendBytes).toBeLessThan(16 * 1024 * 1024)
      const s = r.stats()
      expect(s.bytesReceived).toBe(THIRDS * Math.floor(total / THIRDS) * 128)
      expect(s.descriptorsOpened - s.descriptorsClosed).toBe(1)
      expect(s.stale + s.rejected + s.lingersExpired + s.acceptPauses + s.uncaught).toBe(0)
      await r.close()
    },
    { limitMs: LIMIT_MS },
  )
}

type TestedReactor = Parameters<Parameters<typeof onReactor>[1]>[0]

function serveHandlers(r: TestedReactor): number {
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket, chunk) => void socket.write(chunk) },
  })
  return listener.port!
}

function servePromises(r: TestedReactor): number {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  void (async () => {
    for await (const connection of listener) {
      void (async () => {
        try {
          for await (const chunk of connection) await connection.write(chunk)
        } catch {
          // The peer has reset it: that is how it ends.
        }
        await connection.close()
      })()
    }
  })()
  return listener.port!
}
