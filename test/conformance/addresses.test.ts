// Where one can listen and connect: paths, abstract names, IPv4, IPv6, both at once, names; what is said when it cannot
// be; and the addresses that the two sides of a connection tell of each other.

import { expect } from "bun:test"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Connection, Listener, Reactor } from "../../src/index.ts"
import { isHosted, onReactor, pause, rejection, thrown, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"

/** Both ends of a connection, after a byte each way. */
async function exchange(r: Reactor, listener: Listener, options: object): Promise<[Connection, Connection]> {
  const client = await r.connect(options)
  const server = (await listener.accept()) as Connection
  await client.write("a")
  await server.write("b")
  expect(Buffer.from((await server.read())!).toString()).toBe("a")
  expect(Buffer.from((await client.read())!).toString()).toBe("b")
  return [client, server]
}

/** What a connection says of its ends. */
function ends(c: Connection): unknown[] {
  return [c.localAddress, c.localPort, c.localFamily, c.remoteAddress, c.remotePort, c.remoteFamily]
}

const CLOSED = [undefined, undefined, undefined, undefined, undefined, undefined]

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "uringloop-unix-"))
  try {
    await body(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

for (const hostname of ["127.0.0.1", "127.8.9.10", "::1"]) {
  onReactor(`${hostname}: both sides say the same of the connection`, async (r) => {
    const listener = r.listen({ hostname, port: 0 })
    const family = hostname.includes(":") ? "IPv6" : "IPv4"
    const { port } = listener
    expect(listener.getsockname()).toEqual({ family, address: hostname, port: port! })
    expect(listener.hostname).toBe(hostname)
    expect(listener.unix).toBeUndefined()
    const [client, server] = await exchange(r, listener, { hostname, port })
    const { localPort, localAddress } = client
    expect(ends(server)).toEqual([hostname, port, family, localAddress, localPort, family])
    expect(ends(client)).toEqual([localAddress, localPort, family, hostname, port, family])
    expect(localPort).toBeGreaterThan(0)
    expect(localAddress).toBe(
      family === "IPv6" ? "::1" : localAddress!.replace(/^(?!127\.).*/, "not loopback"),
    )
    const closing = server.close()
    expect(ends(server)).toEqual(CLOSED)
    expect(server.fd).toBe(-1)
    await closing
    await client.close()
    expect(ends(client)).toEqual(CLOSED)
    listener.close()
    expect(listener.port).toBe(port)
  })
}

onReactor("brackets around an IPv6 address, in connect", async (r) => {
  const listener = r.listen({ hostname: "::1", port: 0 })
  const [client, server] = await exchange(r, listener, { hostname: "[::1]", port: listener.port })
  await Promise.all([client.close(), server.close()])
  listener.close()
})

onReactor("IPv4 through an IPv6 listener is mapped", async (r) => {
  const listener = r.listen({ hostname: "::", port: 0 })
  const { port } = listener
  const [client, server] = await exchange(r, listener, { hostname: "127.0.0.1", port })
  expect(server.localAddress).toBe("::ffff:127.0.0.1")
  expect(server.remoteAddress).toBe("::ffff:127.0.0.1")
  expect(server.remoteFamily).toBe("IPv6")
  expect(client.remoteAddress).toBe("127.0.0.1")
  const [second, other] = await exchange(r, listener, { hostname: "::ffff:127.0.0.1", port })
  expect(second.remoteAddress).toBe("::ffff:127.0.0.1")
  expect(other.remoteAddress).toBe("::ffff:127.0.0.1")
  await Promise.all([client, server, second, other].map((connection) => connection.close()))
  listener.close()
})

/** The kernel picks the port for IPv6 alone: another program may have it for IPv4, so this tries a few. */
async function onePortTwice(r: Reactor): Promise<{ six: Listener; four: Listener }> {
  for (let attempt = 1; ; attempt++) {
    const six = r.listen({ hostname: "::", port: 0, ipv6Only: true })
    const port = six.port!
    try {
      const refused = await rejection(r.connect({ hostname: "127.0.0.1", port }))
      expect(refused.code).toBe("ECONNREFUSED")
      return { six, four: r.listen({ hostname: "0.0.0.0", port }) }
    } catch (error) {
      six.close()
      if (attempt === 10) throw error
    }
  }
}

onReactor("ipv6Only leaves the port free for IPv4", async (r) => {
  const { six, four } = await onePortTwice(r)
  const port = six.port!
  for (const [listener, hostname] of [
    [six, "::1"],
    [four, "127.0.0.1"],
  ] as const) {
    const [client, server] = await exchange(r, listener, { hostname, port })
    await Promise.all([client.close(), server.close()])
    listener.close()
  }
})

onReactor(
  'the name "localhost"',
  async (r) => {
    const listener = r.listen({ hostname: "localhost", port: 0 })
    expect(listener.hostname).toBe("localhost")
    expect(listener.getsockname()).toEqual({
      family: expect.stringMatching(/^IPv[46]$/),
      address: expect.stringMatching(/^(127\.0\.0\.1|::1)$/),
      port: listener.port!,
    })
    const [client, server] = await exchange(r, listener, { hostname: "localhost", port: listener.port })
    await Promise.all([client.close(), server.close()])
    listener.close()
  },
  { host: "hosted" },
) // connect asks the runtime's resolver, which an owned host does not let answer

onReactor('listening on "localhost" asks the system, in either host', async (r) => {
  const listener = r.listen({ hostname: "localhost", port: 0 })
  const bound = listener.getsockname() as { address: string }
  const [client, server] = await exchange(r, listener, { hostname: bound.address, port: listener.port })
  await Promise.all([client.close(), server.close()])
  listener.close()
})

onReactor("a name that does not resolve: ENOTFOUND from both", async (r) => {
  const error = thrown(() => r.listen({ hostname: "no-such-host.invalid", port: 0 })) as Error & {
    code?: string
    syscall?: string
  }
  expect(error.code).toBe("ENOTFOUND")
  expect(error.syscall).toBe("getaddrinfo")
  expect(error.message).toContain("no-such-host.invalid")
  if (!isHosted) return // connect asks the runtime's resolver
  const dialled = await rejection(r.connect({ hostname: "no-such-host.invalid", port: 1 }))
  expect(dialled.code).toBe("ENOTFOUND")
  expect(dialled.syscall).toBe("getaddrinfo")
  expect(dialled.message).toContain("no-such-host.invalid")
  expect(r.stats().descriptorsOpened).toBe(0)
})

onReactor("a port in use, an address that is not ours", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const { port } = listener
  for (const [options, code, where] of [
    [{ hostname: "127.0.0.1", port: port! }, "EADDRINUSE", `127.0.0.1:${port}`],
    [{ hostname: "0.0.0.0", port: port! }, "EADDRINUSE", `0.0.0.0:${port}`],
    [{ hostname: "::", port: port! }, "EADDRINUSE", `[::]:${port}`],
    [{ hostname: "127.0.0.1", port: port!, exclusive: true }, "EADDRINUSE", `127.0.0.1:${port}`],
    [{ hostname: "127.0.0.1", port: port!, reusePort: true }, "EADDRINUSE", `127.0.0.1:${port}`],
    [{ hostname: "192.0.2.1", port: 0 }, "EADDRNOTAVAIL", "192.0.2.1:0"],
  ] as const) {
    const error = thrown(() => r.listen(options)) as Error & { syscall?: string; errno?: number }
    expect((error as { code?: string }).code).toBe(code)
    expect(error.syscall).toBe("listen")
    expect(error.errno).toBeLessThan(0)
    expect(error.message).toContain(where)
  }
  expect(r.stats().descriptorsOpened).toBe(1)
  listener.close()
})

onReactor("reusePort: two listeners share the connections", async (r) => {
  const counts = [0, 0]
  const first = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    reusePort: true,
    socket: { data: (socket) => void socket.end(`${counts[0]++}`) },
  })
  const second = r.listen({
    hostname: "127.0.0.1",
    port: first.port!,
    reusePort: true,
    socket: { data: (socket) => void socket.end(`${counts[1]++}`) },
  })
  const clients = await Promise.all(
    Array.from({ length: 200 }, () => r.connect({ hostname: "127.0.0.1", port: first.port! })),
  )
  for (const client of clients) await client.write("x")
  for (const client of clients) expect((await client.read())!.length).toBeGreaterThan(0)
  await Promise.all(clients.map((client) => client.close()))
  expect(counts[0] + counts[1]).toBe(200)
  // The kernel picks by a hash of the address: that one side gets none of 200 does not happen.
  expect(Math.min(...counts)).toBeGreaterThan(0)
  first.stop()
  second.stop()
})

onReactor(
  "backlog: connections wait in the kernel until they are accepted, and no more than that",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0, backlog: 300 })
    const internal = listener as unknown as { pauseAccepting(): void; resumeAccepting(): void }
    internal.pauseAccepting()
    await pause(r, 5)
    startPeer("hold", listener.port!, { count: 250, bytes: 1 })
    const small = r.listen({ hostname: "127.0.0.1", port: 0, backlog: 1 })
    const stuck = small as unknown as { pauseAccepting(): void; resumeAccepting(): void }
    stuck.pauseAccepting()
    await pause(r, 5)
    const dials = await Promise.allSettled(
      Array.from({ length: 6 }, () =>
        r.connect({ hostname: "127.0.0.1", port: small.port!, timeoutMs: 150 }),
      ),
    )
    const connected = dials.filter((dial) => dial.status === "fulfilled")
    expect(connected.length).toBeGreaterThanOrEqual(1)
    expect(connected.length).toBeLessThan(6)
    for (const dial of connected) dial.value.destroy()
    internal.resumeAccepting()
    for (let i = 0; i < 250; i++) expect(await listener.accept()).toBeDefined()
    listener.close()
    small.close()
  },
)

onReactor("a path: the file is there while it listens, and gone after", async (r) => {
  await withFolder(async (folder) => {
    const unix = join(folder, "röhre.sock")
    const listener = r.listen({ unix })
    expect(existsSync(unix)).toBe(true)
    expect(listener.unix).toBe(unix)
    expect(listener.port).toBeUndefined()
    expect(listener.hostname).toBeUndefined()
    expect(listener.getsockname()).toEqual({ family: "unix", path: unix })
    const [client, server] = await exchange(r, listener, { unix })
    expect(ends(client)).toEqual(CLOSED)
    expect(ends(server)).toEqual(CLOSED)
    const second = thrown(() => r.listen({ unix })) as Error & { code?: string; syscall?: string }
    expect(second.code).toBe("EADDRINUSE")
    expect(second.syscall).toBe("listen")
    expect(second.message).toContain(unix)
    expect(existsSync(unix)).toBe(true)
    listener.close()
    await until(r, "the file is gone", () => !existsSync(unix))
    await client.write("goes on")
    expect(Buffer.from((await server.read())!).toString()).toBe("goes on")
    await Promise.all([client.close(), server.close()])
    expect((await rejection(r.connect({ unix }))).code).toBe("ENOENT")
    r.listen({ unix, socket: { data() {} } }).stop(true)
    await until(r, "the second file is gone", () => !existsSync(unix))
  })
})

onReactor("a file that is no socket stays where it is", async (r) => {
  await withFolder(async (folder) => {
    const unix = join(folder, "file")
    writeFileSync(unix, "mine")
    expect(thrown(() => r.listen({ unix })).code).toBe("EADDRINUSE")
    expect((await rejection(r.connect({ unix }))).code).toBe("ECONNREFUSED")
    expect(existsSync(unix)).toBe(true)
    expect(thrown(() => r.listen({ unix: join(folder, "no", "folder") })).code).toBe("ENOENT")
    await until(r, "no descriptor is open", () => r.stats().descriptorsOpen === 0)
  })
})

onReactor("the longest path, and one byte more", async (r) => {
  await withFolder(async (folder) => {
    const longest = `${folder}/${"x".repeat(107 - folder.length - 1)}`
    const listener = r.listen({ unix: longest })
    expect(listener.getsockname()).toEqual({ family: "unix", path: longest })
    const [client, server] = await exchange(r, listener, { unix: longest })
    await Promise.all([client.close(), server.close()])
    listener.close()
    await until(r, "the file is gone", () => !existsSync(longest))
    const error = thrown(() => r.listen({ unix: `${longest}x` }))
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toContain("unix must be a path of 1 to 107 bytes")
  })
})

onReactor("abstract names: no file, the longest too", async (r) => {
  for (const name of [`uringloop-${process.pid}`, `${process.pid}`.padEnd(107, "n")]) {
    const unix = `\0${name}`
    const listener = r.listen({ unix })
    expect(listener.getsockname()).toEqual({ family: "unix", path: unix })
    expect(thrown(() => r.listen({ unix })).code).toBe("EADDRINUSE")
    const [client, server] = await exchange(r, listener, { unix })
    await Promise.all([client.close(), server.close()])
    listener.close()
    await until(r, "the name is free again", () => r.stats().descriptorsOpen === 0)
  }
  expect(thrown(() => r.listen({ unix: `\0${"n".repeat(108)}` })).message).toContain("1 to 108 bytes")
})
