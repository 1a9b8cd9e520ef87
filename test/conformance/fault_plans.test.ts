// Fault plans on the engines: each fault reaches the program as docs/testing.md says, what it makes up keeps to the rules of
// the border (a checker stands between the plan and the reactor), and the end of every test looks for leaks.

import { expect } from "bun:test"
import { bunLoop } from "../../ffi/bun.ts"
import type { Platform } from "../../ffi/native.ts"
import type { Connection, Reactor } from "../../src/index.ts"
import { BorderChecker, type FaultRule, type FaultyPlatform, withFaults } from "../../src/testing/index.ts"
import { checkEcho, echoListener, serveEcho } from "../support/echo.ts"
import { onReactor, pause, rejection, type TestOptions, type TestTools, until } from "../support/harness.ts"
import { pattern, StreamCheck } from "../support/random.ts"

let plan: FaultyPlatform

/** A test on a reactor with these rules. */
function onFaults(
  name: string,
  rules: FaultRule[],
  body: (reactor: Reactor, tools: TestTools) => Promise<void>,
  options: TestOptions = {},
): void {
  const platform = (): Platform => {
    plan = withFaults(undefined, rules, 7)
    return { native: new BorderChecker(plan.native), loop: bunLoop, clock: plan.clock }
  }
  onReactor(name, body, { ...options, platform })
}

/** A listener, a client and the server's side of it. */
async function pair(
  r: Reactor,
): Promise<{ client: Connection; server: Connection; stop: () => Promise<void> }> {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const [server, client] = await Promise.all([
    listener.accept() as Promise<Connection>,
    r.connect({ hostname: "127.0.0.1", port: listener.port! }),
  ])
  return {
    client,
    server,
    async stop() {
      await client.close()
      await server.close()
      listener.close()
    },
  }
}

async function readText(connection: Connection, bytes: number): Promise<string[]> {
  const chunks: string[] = []
  for (let count = 0; count < bytes; ) {
    const chunk = await connection.read()
    if (chunk === undefined) break
    chunks.push(Buffer.from(chunk).toString())
    count += chunk.length
  }
  return chunks
}

for (const code of ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"]) {
  onFaults(
    `accept ${code}: accepting pauses, and the connection is served afterwards`,
    [{ operation: "accept", error: code, times: 2 }],
    async (r) => {
      const { client, server, stop } = await pair(r)
      expect(r.stats().acceptPauses).toBe(2)
      await client.write("hello")
      expect(await readText(server, 5)).toEqual(["hello"])
      expect(plan.faultCounts).toEqual([2])
      await stop()
    },
  )
}

onFaults(
  "accept ECONNABORTED: the connection is gone, and the next is served at once",
  [{ operation: "accept", error: "ECONNABORTED", times: 1 }],
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const first = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    expect(await first.read()).toBeUndefined()
    const { 0: server, 1: second } = await Promise.all([
      listener.accept() as Promise<Connection>,
      r.connect({ hostname: "127.0.0.1", port: listener.port! }),
    ])
    await second.write("x")
    expect(await readText(server, 1)).toEqual(["x"])
    expect(r.stats().acceptPauses).toBe(0)
    await Promise.all([first.close(), second.close(), server.close()])
    listener.close()
  },
)

onFaults(
  "accept ends: armed again, all connections of a burst arrive",
  [{ operation: "accept", ends: true, every: 2 }],
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const clients = await Promise.all(
      Array.from({ length: 20 }, () => r.connect({ hostname: "127.0.0.1", port: listener.port! })),
    )
    const servers = await Promise.all(clients.map(() => listener.accept()))
    expect(servers.every((server) => server?.isOpen)).toBe(true)
    expect(plan.faultCounts[0]).toBeGreaterThanOrEqual(9)
    expect(r.stats().rearms).toBeGreaterThanOrEqual(9)
    await Promise.all([...clients, ...servers].map((connection) => connection?.close()))
    listener.close()
  },
)

onFaults(
  "a listener that closes on a connection that waits behind a fault closes that, too",
  [{ operation: "accept", error: "EMFILE" }],
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await until(r, "the fault", () => plan.faultCounts[0] > 0)
    listener.close()
    expect(await client.read()).toBeUndefined()
    await client.close()
  },
)

for (const code of ["ECONNRESET", "ETIMEDOUT", "EHOSTUNREACH"]) {
  onFaults(
    `recv ${code}: the connection ends with it, of that connection alone`,
    [{ operation: "recv", error: code, connection: 1 }],
    async (r) => {
      const one = await pair(r)
      const two = await pair(r)
      const first = one.client // dialled: it has the number 1 or 2
      await first.write("to the server")
      await one.server.write("to the client")
      await two.client.write("hello")
      expect(await readText(two.server, 5)).toEqual(["hello"])
      const errors = await Promise.allSettled([first.read(), one.server.read()])
      const failed = errors.filter(({ status }) => status === "rejected") as PromiseRejectedResult[]
      expect(failed.map(({ reason }) => reason.code)).toContain(code)
      expect(plan.faultCounts).toEqual([1])
      await one.stop()
      await two.stop()
    },
  )
}

for (const code of ["ENOBUFS", "ECANCELED"]) {
  onFaults(
    `recv ${code}: armed again, and not a byte is lost`,
    [{ operation: "recv", error: code, every: 2 }],
    async (r) => {
      const { client, server, stop } = await pair(r)
      for (let i = 0; i < 20; i++) {
        await client.write(`message ${i} `)
        if (i % 3 === 0) await pause(r, 1)
      }
      await client.shutdown()
      const chunks: string[] = []
      for await (const chunk of server) chunks.push(Buffer.from(chunk).toString())
      expect(chunks.join("")).toBe(Array.from({ length: 20 }, (_, i) => `message ${i} `).join(""))
      expect(plan.faultCounts[0]).toBeGreaterThan(0)
      await stop()
    },
  )
}

onFaults("recv bytes: in pieces", [{ operation: "recv", bytes: 3 }], async (r) => {
  const { client, server, stop } = await pair(r)
  await client.write("abcdefgh")
  expect(await readText(server, 8)).toEqual(["abc", "def", "gh"])
  await stop()
})

onFaults(
  "recv bytes of a single receive: the rest is for the next",
  [{ operation: "recv", bytes: 3 }],
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const fd = r.socket("IPv4")
    const [server] = await Promise.all([
      listener.accept() as Promise<Connection>,
      r.connectDescriptor(fd, { hostname: "127.0.0.1", port: listener.port! }),
    ])
    await server.write("abcdefgh")
    const chunks: string[] = []
    for (let i = 0; i < 3; i++) chunks.push(Buffer.from(await r.recv(fd)).toString())
    expect(chunks).toEqual(["abc", "def", "gh"])
    await r.closeDescriptor(fd)
    await server.close()
    listener.close()
  },
)

onFaults(
  "recv ends: armed again, no byte is lost",
  [{ operation: "recv", ends: true }],
  async (r, { random }) => {
    const listener = echoListener(r)
    await checkEcho(await r.connect({ hostname: "127.0.0.1", port: listener.port! }), random, 3, 200_000)
    expect(plan.faultCounts[0]).toBeGreaterThan(0)
    listener.stop()
  },
)

onFaults("recv delayMs: later, in order", [{ operation: "recv", delayMs: 60, times: 1 }], async (r) => {
  const { client, server, stop } = await pair(r)
  const begins = performance.now()
  await client.write("first ")
  await client.flush()
  await pause(r, 5)
  await client.write("second")
  expect((await readText(server, 12)).join("")).toBe("first second")
  expect(performance.now() - begins).toBeGreaterThan(55)
  await stop()
})

onFaults(
  "a delay wakes a reactor that sleeps",
  [{ operation: "recv", delayMs: 400, times: 1 }],
  async (r) => {
    const { client, server, stop } = await pair(r)
    await client.write("x")
    expect(await readText(server, 1)).toEqual(["x"])
    await stop()
  },
)

for (const code of ["EPIPE", "ECONNRESET", "ENOBUFS"]) {
  onFaults(
    `send ${code}: the connection ends with it, and nothing of that send has gone out`,
    [{ operation: "send", error: code, after: 1, times: 1 }],
    async (r) => {
      const { client, server, stop } = await pair(r)
      await client.write("first")
      await client.flush()
      await client.write("second")
      const error = await rejection(client.flush())
      expect((error as { code?: string }).code).toBe(code)
      expect(await readText(server, 99)).toEqual(["first"])
      expect(client.isOpen).toBe(false)
      await stop()
    },
  )
}

onFaults(
  "send with bytes and error: so much has gone out",
  [{ operation: "send", error: "ECONNRESET", bytes: 4, times: 1 }],
  async (r) => {
    const { client, server, stop } = await pair(r)
    await client.write("abcdefgh")
    expect((await rejection(client.flush())).code).toBe("ECONNRESET")
    expect(await readText(server, 99)).toEqual(["abcd"])
    await stop()
  },
)

onFaults("send delayMs", [{ operation: "send", delayMs: 50, times: 1 }], async (r) => {
  const { client, server, stop } = await pair(r)
  const begins = performance.now()
  await client.write("x")
  await client.flush()
  expect(performance.now() - begins).toBeGreaterThan(45)
  expect(await readText(server, 1)).toEqual(["x"])
  await stop()
})

for (const code of ["ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH"]) {
  onFaults(`connect ${code}`, [{ operation: "connect", error: code, times: 1 }], async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const error = await rejection(r.connect({ hostname: "127.0.0.1", port: listener.port! }))
    expect([error.code, error.syscall]).toEqual([code, "connect"])
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    await client.close()
    listener.close()
  })
}

onFaults(
  "connect with error and delayMs: fails late",
  [{ operation: "connect", error: "ETIMEDOUT", delayMs: 50 }],
  async (r) => {
    const begins = performance.now()
    expect((await rejection(r.connect({ hostname: "127.0.0.1", port: 9 }))).code).toBe("ETIMEDOUT")
    expect(performance.now() - begins).toBeGreaterThan(45)
  },
)

onFaults("socket EMFILE", [{ operation: "socket", error: "EMFILE" }], async (r) => {
  expect((await rejection(r.connect({ hostname: "127.0.0.1", port: 9 }))).code).toBe("EMFILE")
})

onFaults("listen EADDRINUSE", [{ operation: "listen", error: "EADDRINUSE", times: 1 }], async (r) => {
  expect(() => r.listen({ hostname: "127.0.0.1", port: 0 })).toThrow("EADDRINUSE")
  r.listen({ hostname: "127.0.0.1", port: 0 }).close()
})

onFaults(
  "close EIO, cancel EALREADY, shutdown ENOTCONN: closed all the same",
  [
    { operation: "close", error: "EIO" },
    { operation: "cancel", error: "EALREADY" },
    { operation: "shutdown", error: "ENOTCONN" },
  ],
  async (r) => {
    const { client, server, stop } = await pair(r)
    await client.write("x")
    await client.shutdown()
    expect(await readText(server, 1)).toEqual(["x"])
    await pause(r, 5)
    await stop()
    expect(plan.faultCounts.every((count) => count > 0)).toBe(true)
  },
)

onFaults(
  "nop and poll fail, a timeout is late",
  [
    { operation: "nop", error: "EIO", times: 1 },
    { operation: "poll", error: "EBADF" },
    { operation: "timeout", delayMs: 40 },
  ],
  async (r) => {
    expect((await rejection(r.nop())).code).toBe("EIO")
    await r.nop()
    const fd = r.socket("IPv4")
    expect((await rejection(r.pollAdd(fd, 1))).code).toBe("EBADF")
    const begins = performance.now()
    await r.timeout(1)
    expect(performance.now() - begins).toBeGreaterThan(35)
    await r.closeDescriptor(fd)
  },
)

onFaults(
  "everything at once: each connection is whole or has failed, and nothing is left",
  [
    { operation: "accept", error: "EMFILE", probability: 0.1 },
    { operation: "accept", ends: true, probability: 0.2 },
    { operation: "recv", bytes: 100, probability: 0.2 },
    { operation: "recv", error: "ENOBUFS", probability: 0.2 },
    { operation: "recv", ends: true, probability: 0.2 },
    { operation: "recv", delayMs: 5, probability: 0.1 },
    { operation: "recv", error: "ECONNRESET", probability: 0.01 },
    { operation: "send", error: "EPIPE", probability: 0.01 },
    { operation: "send", delayMs: 3, probability: 0.1 },
    { operation: "connect", error: "ECONNREFUSED", probability: 0.1 },
    { operation: "close", delayMs: 2, probability: 0.2 },
    { operation: "cancel", error: "ENOENT", probability: 0.2 },
  ],
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    void serveEcho(listener)
    const ends = await Promise.all(Array.from({ length: 60 }, (_, i) => converse(r, listener.port!, i + 1)))
    const broken = ends.filter((end) => end !== "whole").length
    const grave = [6, 7, 9].reduce((sum, rule) => sum + plan.faultCounts[rule], 0)
    expect(broken).toBeLessThanOrEqual(grave)
    expect(broken).toBeLessThan(60)
    expect(plan.faultCounts.filter((count) => count === 0).length).toBeLessThanOrEqual(3)
    listener.close()
  },
)

/** Sends bytes to an echo and takes them back; says how that ended. What comes back is always what was sent. */
async function converse(r: Reactor, port: number, seed: number): Promise<string> {
  const total = 20_000
  const check = new StreamCheck(seed)
  let connection: Connection | undefined
  try {
    connection = await r.connect({ hostname: "127.0.0.1", port })
    for (let sent = 0; sent < total; sent += 4000) {
      await connection.write(pattern(seed, sent, 4000))
      await pause(r, 1)
    }
    await connection.shutdown()
    for await (const chunk of connection) check.take(chunk)
    check.expect(check.bytes)
    return check.bytes < total ? "cut" : "whole"
  } catch (error) {
    const { code } = error as { code?: string }
    expect(code).toMatch(/^(ECONNRESET|EPIPE|ECONNREFUSED|CONNECTION_CLOSED)$/)
    return code as string
  } finally {
    await connection?.close()
  }
}
