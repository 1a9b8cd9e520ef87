// What goes wrong on the way: resets, refusals, timeouts, aborts, deadlines. Each error has the system's code and
// reaches whoever waits, and the connection's descriptor is closed all the same.

import { expect } from "bun:test"
import { createServer } from "node:net"
import type { Connection } from "../../src/index.ts"
import { isHosted, onReactor, pause, rejection, signal, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"

onReactor("a reset reaches close(socket, error)", async (r) => {
  const closed = signal<Error | undefined>()
  let wasData = false
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket) {
        wasData = true
        socket.write("go")
      },
      close: (_, error) => closed.resolve(error),
    },
  })
  startPeer("reset", listener.port!, { bytes: 10, wait: 2 })
  const error = (await closed.promise) as Error & { code: string; syscall: string; errno: number }
  expect(wasData).toBe(true)
  expect(error.code).toBe("ECONNRESET")
  expect(error.syscall).toBe("read")
  expect(error.errno).toBe(-104)
  listener.stop()
})

onReactor("a reset rejects the read that waits, and those after", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  startPeer("reset", listener.port!, { bytes: 10, wait: 2 })
  const server = (await listener.accept()) as Connection
  expect((await server.read())!.length).toBe(10)
  await server.write("go")
  expect((await rejection(server.read())).code).toBe("ECONNRESET")
  expect((await rejection(server.read())).code).toBe("ECONNRESET")
  expect((await rejection(server.write("x"))).code).toBe("ECONNRESET")
  expect(server.isOpen).toBe(false)
  await server.close()
  listener.close()
})

onReactor("a reset rejects the writes that wait", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({
    hostname: "127.0.0.1",
    port: listener.port!,
    socket: { open: (socket) => socket.pause(), data() {} },
  })
  const server = (await listener.accept()) as Connection
  const big = new Uint8Array(30_000_000)
  const writes = [server.write(big), server.write("behind")].map(rejection)
  await pause(r, 20)
  client.terminate()
  for (const error of await Promise.all(writes)) expect(error.code).toMatch(/^(ECONNRESET|EPIPE)$/)
  await server.close()
  listener.close()
})

onReactor("terminate makes the peer see a reset", async (r) => {
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { data: (socket) => socket.terminate() },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  await client.write("x")
  expect((await rejection(client.read())).code).toBe("ECONNRESET")
  await client.close()
  listener.stop()
})

onReactor("connect refused", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const port = listener.port!
  listener.close()
  await until(r, "the listener is gone", () => r.stats().socketsOpen === 0)
  await pause(r, 20) // the ring keeps a closed listener alive for a moment
  const error = await rejection(r.connect({ hostname: "127.0.0.1", port }))
  expect(error.code).toBe("ECONNREFUSED")
  expect(error.syscall).toBe("connect")
  expect(error.message).toContain(`127.0.0.1:${port}`)
  const told = signal<Error & { code?: string }>()
  const second = await rejection(
    r.connect({
      hostname: "127.0.0.1",
      port,
      socket: { data() {}, connectError: (_, e) => told.resolve(e) },
    }),
  )
  expect(second.code).toBe("ECONNREFUSED")
  expect((await told.promise).code).toBe("ECONNREFUSED")
})

/** A raw listening socket whose queue is full: further connects get no answer. */
async function fullListener(r: Parameters<Parameters<typeof onReactor>[1]>[0]) {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0, backlog: 1 })
  // Nobody takes connections out of the kernel's queue.
  const stuck = listener as unknown as { pauseAccepting(): void }
  stuck.pauseAccepting()
  await pause(r, 20)
  const fillers = []
  for (let i = 0; i < 4; i++) {
    fillers.push(
      r.connect({ hostname: "127.0.0.1", port: listener.port!, timeoutMs: 200 }).then(
        (connection) => connection,
        () => undefined,
      ),
    )
  }
  const taken = (await Promise.all(fillers)).filter((filler) => filler !== undefined)
  expect(taken.length).toBeLessThan(4)
  return { listener, taken }
}

onReactor("connect times out with ETIMEDOUT", async (r) => {
  const { listener, taken } = await fullListener(r)
  const error = await rejection(r.connect({ hostname: "127.0.0.1", port: listener.port!, timeoutMs: 50 }))
  expect(error.code).toBe("ETIMEDOUT")
  expect(error.syscall).toBe("connect")
  await until(r, "the dialled descriptor is closed", () => r.stats().descriptorsOpen === 1 + taken.length)
  for (const filler of taken) filler.destroy()
  listener.close()
})

onReactor("connect is aborted by its signal", async (r) => {
  const { listener, taken } = await fullListener(r)
  const controller = new AbortController()
  const reason = new Error("enough")
  const dialling = rejection(
    r.connect({ hostname: "127.0.0.1", port: listener.port!, signal: controller.signal }),
  )
  await pause(r, 20)
  controller.abort(reason)
  expect(await dialling).toBe(reason)
  const already = rejection(
    r.connect({ hostname: "127.0.0.1", port: listener.port!, signal: AbortSignal.abort(reason) }),
  )
  expect(await already).toBe(reason)
  for (const filler of taken) filler.destroy()
  listener.close()
})

onReactor("a read given up has taken nothing", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept()) as Connection
  const error = await rejection(server.read({ timeoutMs: 20 }))
  expect(error.code).toBe("ETIMEDOUT")
  expect(error.syscall).toBe("read")
  const controller = new AbortController()
  const reason = new Error("changed my mind")
  const reading = rejection(server.read({ signal: controller.signal }))
  await pause(r, 5)
  controller.abort(reason)
  expect(await reading).toBe(reason)
  expect(await rejection(server.read({ signal: controller.signal }))).toBe(reason)
  await client.write("still here")
  expect(Buffer.from((await server.read({ timeoutMs: 5_000 }))!).toString()).toBe("still here")
  expect((await rejection(Promise.all([server.read(), server.read()]))).code).toBe("READ_PENDING")
  await client.close()
  await server.close()
  listener.close()
})

onReactor("an accept given up has taken nothing", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const controller = new AbortController()
  const reason = new Error("no more")
  const accepting = rejection(listener.accept({ signal: controller.signal }))
  const waiting = listener.accept()
  controller.abort(reason)
  expect(await accepting).toBe(reason)
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  expect(await waiting).toBeDefined()
  const last = listener.accept()
  listener.close()
  expect(await last).toBeUndefined()
  expect(await listener.accept()).toBeUndefined()
  await client.close()
})

onReactor("a write given up closes the connection: the stream has a hole", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  for (const way of ["deadline", "signal"] as const) {
    const client = await r.connect({
      hostname: "127.0.0.1",
      port: listener.port!,
      socket: { open: (socket) => socket.pause(), data() {} },
    })
    const server = (await listener.accept()) as Connection
    const controller = new AbortController()
    const reason = new Error("too slow")
    const big = new Uint8Array(30_000_000)
    const writing = rejection(
      server.write(big, way === "deadline" ? { timeoutMs: 50 } : { signal: controller.signal }),
    )
    const behind = rejection(server.write("behind"))
    await pause(r, 30)
    controller.abort(reason)
    const error = await writing
    if (way === "deadline") expect(error.code).toBe("ETIMEDOUT")
    else expect(error).toBe(reason)
    await behind
    expect(server.isOpen).toBe(false)
    await server.close()
    client.terminate()
  }
  listener.close()
})

onReactor("each write has its own deadline", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({
    hostname: "127.0.0.1",
    port: listener.port!,
    socket: { open: (socket) => socket.pause(), data() {} },
  })
  const server = (await listener.accept()) as Connection
  const first = rejection(server.write(new Uint8Array(30_000_000), { timeoutMs: 60_000 }))
  let second: (Error & { code?: string }) | undefined
  void rejection(server.write("behind", { timeoutMs: 50 })).then((error) => {
    second = error
  })
  await until(r, "the second write's deadline", () => second !== undefined, 3_000)
  expect(second!.code).toBe("ETIMEDOUT")
  await first
  await server.close()
  client.terminate()
  listener.close()
})

onReactor("the idle timeout handler runs, again and again, and bytes put it off", async (r) => {
  let timeouts = 0
  const opened = signal<{ end(): unknown; timeout(seconds: number): void }>()
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.timeout(0.05)
        opened.resolve(socket)
      },
      data() {},
      timeout(socket) {
        timeouts++
        socket.timeout(0.05)
      },
    },
  })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = await opened.promise
  await until(r, "two timeouts", () => timeouts >= 2)
  server.timeout(0)
  const before = timeouts
  await pause(r, 150)
  expect(timeouts).toBe(before)
  server.timeout(60)
  await client.close()
  listener.stop()
})

onReactor("a name that does not resolve", async (r) => {
  if (isHosted) {
    const error = await rejection(r.connect({ hostname: "no-such-host.invalid", port: 80 }))
    expect(error.code).toMatch(/^(ENOTFOUND|EAI_AGAIN|DNS_ENOTFOUND)$/)
  }
  // Listening resolves with the system's resolver, at once.
  let code = ""
  try {
    r.listen({ hostname: "no-such-host.invalid", port: 0 })
  } catch (error) {
    code = (error as { code: string }).code
  }
  expect(code).toBe("ENOTFOUND")
  expect(r.stats().descriptorsOpen).toBe(0)
})

onReactor("EADDRINUSE, from ourselves and from somebody else", async (r) => {
  const first = r.listen({ hostname: "127.0.0.1", port: 0 })
  let error: (Error & { code?: string; syscall?: string }) | undefined
  try {
    r.listen({ hostname: "127.0.0.1", port: first.port! })
  } catch (caught) {
    error = caught as Error
  }
  expect(error?.code).toBe("EADDRINUSE")
  expect(error?.syscall).toBe("listen")
  expect(r.stats().descriptorsOpen).toBe(1)
  first.close()
  // node:net listens at once, but tells of it through Bun's loop.
  if (!isHosted) return
  const server = createServer().listen(0, "127.0.0.1")
  await new Promise((resolve) => server.once("listening", resolve))
  const { port } = server.address() as { port: number }
  try {
    r.listen({ hostname: "127.0.0.1", port })
  } catch (caught) {
    error = caught as Error
  }
  expect(error?.code).toBe("EADDRINUSE")
  await new Promise((resolve) => server.close(resolve))
})
