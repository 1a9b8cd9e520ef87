// No drop, retry, refusal or pause is silent: each raises its counter of `reactor.stats()`, and an even course raises none.

import { expect } from "bun:test"
import type { Connection, Reactor, ReactorStats } from "../../src/index.ts"
import { Counters } from "../../src/reactor/counters.ts"
import { type FaultRule, withFaults } from "../../src/testing/index.ts"
import { onReactor, pause, rejection, type TestOptions, until } from "../support/harness.ts"

const NAMES = Object.keys(new Counters()) as (keyof Counters)[]

/** The counters that are not 0. */
function raised(stats: ReactorStats): Partial<Counters> {
  return Object.fromEntries(NAMES.filter((name) => stats[name] !== 0).map((name) => [name, stats[name]]))
}

/** A test on a reactor with these rules; `body` is given the two sides of a connection. */
function onPair(
  name: string,
  rules: FaultRule[],
  body: (r: Reactor, client: Connection, server: Connection) => Promise<void>,
  options: TestOptions = {},
): void {
  const platform = () => withFaults(undefined, rules)
  const run = async (r: Reactor) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    const server = (await listener.accept()) as Connection
    await body(r, client, server)
    client.destroy()
    server.destroy()
    listener.close()
  }
  onReactor(name, run, { ...options, platform })
}

onPair("an even course raises none", [], async (r, client, server) => {
  await client.write("hello")
  expect((await server.read())!.length).toBe(5)
  await client.close()
  expect(await server.read()).toBeUndefined()
  await server.close()
  expect(raised(r.stats())).toEqual({})
  expect(r.stats().fallbackReason).toBeUndefined()
})

onPair("rearms", [{ operation: "recv", ends: true, times: 1 }], async (r, client, server) => {
  await client.write("hello")
  await server.read()
  await until(r, "the rearm", () => r.stats().rearms > 0)
  expect(raised(r.stats())).toEqual({ rearms: 1 })
})

onPair(
  "acceptsFailed",
  [{ operation: "accept", error: "ECONNABORTED", after: 1, times: 1 }],
  async (r, _client, server) => {
    const again = await r.connect({ hostname: "127.0.0.1", port: server.localPort! })
    expect(await again.read()).toBeUndefined()
    await again.close()
    expect(raised(r.stats())).toEqual({ rearms: 1, acceptsFailed: 1 })
  },
)

onPair(
  "connectionsFailed, and bytesUnsent behind a failed send",
  [
    { operation: "send", delayMs: 20, error: "EPIPE", times: 1 },
    { operation: "recv", error: "ECONNRESET" },
  ],
  async (r, client) => {
    await client.write("first")
    await pause(r, 2)
    await client.write("second")
    expect((await rejection(client.flush())).code).toBe("EPIPE")
    await until(r, "the close", () => r.stats().bytesUnsent > 0)
    expect(r.stats().bytesUnsent).toBe(6)
    expect(r.stats().connectionsFailed).toBeGreaterThanOrEqual(1)
  },
)

onPair(
  "connectsFailed",
  [{ operation: "connect", error: "ECONNREFUSED", after: 1 }],
  async (r, _client, server) => {
    await rejection(r.connect({ hostname: "127.0.0.1", port: server.localPort! }))
    expect(raised(r.stats())).toEqual({ connectsFailed: 1 })
  },
)

onPair("readPauses", [], async (r, client) => {
  await client.write(new Uint8Array(300_000))
  await until(r, "the pause", () => r.stats().readPauses > 0)
  expect(raised(r.stats())).toEqual({ readPauses: 1 })
})

onReactor("bytesDiscarded: of a connection whose open has thrown", async (r) => {
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open() {
        throw new Error("not this one")
      },
      error() {},
      data() {},
    },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  await client.write("hi")
  expect(await client.read()).toBeUndefined()
  await client.close()
  await until(r, "the bytes", () => r.stats().bytesDiscarded > 0)
  expect(raised(r.stats())).toEqual({ bytesDiscarded: 2 })
  listener.stop()
})

onReactor("connectionsUnasked: accepted, and never asked for", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  await pause(r, 5)
  listener.close()
  expect(await client.read().catch(() => undefined)).toBeUndefined()
  await client.close()
  expect(r.stats().connectionsUnasked).toBe(1)
})

onReactor(
  "operationsRefused",
  async (r) => {
    const abort = new AbortController()
    const running = Array.from({ length: 20 }, () => rejection(r.timeout(60_000, { signal: abort.signal })))
    await pause(r, 2)
    expect(raised(r.stats())).toEqual({ operationsRefused: 4 })
    abort.abort()
    await Promise.all(running)
  },
  { reactor: { maxOperations: 16 } },
)

onReactor(
  "sendMemoryRefused",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const clients: Connection[] = []
    const writes: Promise<unknown>[] = []
    for (let i = 0; i < 200 && r.stats().sendMemoryRefused === 0; i++) {
      const dialled = r.connect({ hostname: "127.0.0.1", port: listener.port! })
      const client = await dialled.catch(() => undefined) // LIMIT_SEND_MEMORY: counted as well
      if (client === undefined) break
      clients.push(client)
      writes.push(rejection(client.write(new Uint8Array(8_000_000))))
      await pause(r, 2)
    }
    expect(r.stats().sendMemoryRefused).toBeGreaterThan(0)
    expect(r.stats().writesCut).toBeGreaterThan(0)
    for (const client of clients) client.destroy()
    listener.close()
    await Promise.all(writes)
  },
  { reactor: { sendArenaBytes: 1 << 20 } },
)
