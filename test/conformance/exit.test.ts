// When a process with a reactor ends, and when it does not: what is referenced keeps it alive, what is not does not, what
// was written is sent before it goes. Each program runs in a process of its own, hosted.

import { expect } from "bun:test"
import { runChild, startChild } from "../support/child.ts"
import { onReactor } from "../support/harness.ts"

const IMPORT = `import { connect, listen, Reactor, defaultReactor } from "SRC/index.ts"\n`
const FINE = { stdout: "", stderr: "", exitCode: 0, signal: undefined }

/** A program that must end by itself with 0. What it prints is given. */
function ends(name: string, program: string, stdout = ""): void {
  onReactor(name, async () => expect(await runChild(IMPORT + program)).toEqual({ ...FINE, stdout }), {
    host: "hosted",
  })
}

/** `listen` with an echo handler, on any port. */
const SERVER = `
  const accepted = []
  const listener = listen({
    hostname: "127.0.0.1", port: 0,
    socket: { open(socket) { accepted.push(socket) }, data(socket, chunk) { socket.write(chunk) } },
  })
`
/** A client that says "x" and has its answer in \`answer\`. */
const CLIENT = `
  const answer = Promise.withResolvers()
  const client = await connect({
    hostname: "127.0.0.1", port: listener.port, socket: { data(_, chunk) { answer.resolve(chunk.toString()) } },
  })
`

ends("a reactor that does nothing", "Reactor.open()")
ends("a default reactor that has done something", "await defaultReactor().nop()")
ends("an unreferenced listener", `${SERVER} listener.unref()`)
ends("a listener that is stopped", `${SERVER} listener.stop()`)
ends("a listener that is stopped later", `${SERVER} setTimeout(() => listener.stop(), 20)`)
ends("a listener, unreferenced later", `${SERVER} setTimeout(() => listener.unref(), 20)`)
ends(
  "a listener of connections that nobody accepts, unreferenced",
  `listen({ hostname: "127.0.0.1", port: 0 }).unref()`,
)
ends(
  "a closed reactor, with all that it had",
  `const r = Reactor.open()
   const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
   await r.connect({ hostname: "127.0.0.1", port: listener.port })
   const waiting = r.timeout(60_000).catch((error) => console.log(error.code))
   await r.close()
   await waiting`,
  "ECANCELED\n",
)
ends(
  "a client that finishes",
  `${SERVER} ${CLIENT}
   client.write("x"); console.log(await answer.promise); client.end(); listener.stop()`,
  "x\n",
)
ends(
  "promises: a client and a server that finish",
  `const listener = listen({ hostname: "127.0.0.1", port: 0 })
   const client = await connect({ hostname: "127.0.0.1", port: listener.port })
   const server = await listener.accept()
   await client.write("x"); console.log((await server.read()).length)
   await client.close(); await server.close(); listener.close()`,
  "1\n",
)
ends(
  "a client and a server, both unreferenced",
  `${SERVER} ${CLIENT}
   client.write("x"); console.log(await answer.promise)
   client.unref(); listener.unref()
   for (const socket of accepted) socket.unref()`,
  "x\n",
)
ends(
  "ref after unref, and unref again",
  `${SERVER} listener.unref(); listener.ref(); listener.ref(); setTimeout(() => listener.unref(), 20)`,
)
ends(
  "a refused connect",
  `await connect({ hostname: "127.0.0.1", port: 1 }).catch((e) => console.log(e.code))`,
  "ECONNREFUSED\n",
)
ends(
  "a cancelled timeout",
  `const r = Reactor.open(); const t = r.timeout(60_000); const e = t.catch((e) => console.log(e.code)); await r.cancel(t); await e`,
  "ECANCELED\n",
)
ends(
  "a raw timeout keeps it alive until it ends",
  `Reactor.open().timeout(30).then(() => console.log("ended"))`,
  "ended\n",
)
ends(
  "unreferenced sockets work while a timer of the runtime's keeps the process",
  `${SERVER} listener.unref()
   ${CLIENT}
   client.write("x"); await answer.promise
   client.unref()
   for (const socket of accepted) socket.unref()
   let answers = 0
   client.reload({ socket: { data() { answers++ } } })
   const timer = setInterval(() => {
     client.write("x")
     if (answers >= 20) { clearInterval(timer); console.log("answered") }
   }, 5)`,
  "answered\n",
)
ends(
  "an unreferenced listener accepts while a timer keeps the process",
  `${SERVER} listener.unref()
   const timer = setTimeout(() => {}, 60_000)
   ${CLIENT} client.unref(); client.write("x"); console.log(await answer.promise); client.end(); clearTimeout(timer)`,
  "x\n",
)
ends(
  "the idle timeout of an unreferenced socket does not keep it",
  `${SERVER} ${CLIENT} client.write("x"); await answer.promise
   client.timeout(60); client.unref(); listener.unref()
   for (const socket of accepted) socket.unref()`,
)

onReactor(
  "a referenced listener stays until it is stopped",
  async () => {
    const child = startChild(`${IMPORT}${SERVER}
      process.on("SIGUSR2", () => { console.log("stopping"); listener.stop() })
      console.log("port", listener.port)`)
    await child.until("\n")
    await Bun.sleep(300)
    expect(child.isOver).toBe(false)
    child.signal("SIGUSR2")
    expect(await child.exited).toMatchObject({ exitCode: 0, stderr: "", signal: undefined })
    expect(child.stdout()).toContain("stopping")
  },
  { host: "hosted" },
)

onReactor(
  "a referenced connection that waits stays, and goes when its peer does",
  async () => {
    const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    const child = startChild(`${IMPORT}
      await connect({ hostname: "127.0.0.1", port: ${listener.port}, socket: { data() {} } })
      console.log("connected")`)
    await child.until("connected")
    await Bun.sleep(200)
    expect(child.isOver).toBe(false)
    listener.stop(true)
    expect(await child.exited).toEqual({ ...FINE, stdout: "connected\n" })
  },
  { host: "hosted" },
)

onReactor(
  "process.exit in each handler",
  async () => {
    const programs = ["open", "data", "end", "close", "drain", "timeout"].map((handler) =>
      runChild(`${IMPORT}
        const listener = listen({
          hostname: "127.0.0.1", port: 0,
          socket: {
            open(socket) {
              if ("${handler}" === "timeout") socket.timeout(0.01)
              if ("${handler}" === "drain") while (socket.write(new Uint8Array(1e6)) === 1e6) {}
            },
            data() {},
            ${handler}() { console.log("leaving"); process.exit(7) },
          },
        })
        const client = await connect({ hostname: "127.0.0.1", port: listener.port, socket: { data() {} } })
        if ("${handler}" === "data") client.write("x")
        if ("${handler}" === "end" || "${handler}" === "close") client.end()`),
    )
    for (const outcome of await Promise.all(programs)) {
      expect(outcome).toEqual({ stdout: "leaving\n", stderr: "", exitCode: 7, signal: undefined })
    }
  },
  { host: "hosted" },
)

for (const [form, program] of [
  ["end(data)", "socket.end(bytes)"],
  ["write and end", "socket.write(bytes); socket.end()"],
  ["write and close", "socket.write(bytes); socket.close()"],
] as const) {
  onReactor(
    `${form}: all of it arrives before the process ends`,
    async () => {
      let received = 0
      const closed = Promise.withResolvers<void>()
      const listener = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: {
          data: (_, chunk) => {
            received += chunk.length
          },
          close: () => closed.resolve(),
          error: (_, error) => closed.reject(error),
        },
      })
      const outcome = await runChild(`${IMPORT}
        const bytes = Buffer.alloc(1_000_000, "abc")
        await connect({
          hostname: "127.0.0.1", port: ${listener.port}, socket: { open(socket) { ${program} }, data() {} },
        })`)
      expect(outcome).toEqual(FINE)
      await closed.promise
      expect(received).toBe(1_000_000)
      listener.stop(true)
    },
    { host: "hosted" },
  )
}

onReactor(
  "promises: what was written before close arrives before the process ends",
  async () => {
    let received = 0
    const closed = Promise.withResolvers<void>()
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data: (_, chunk) => {
          received += chunk.length
        },
        close: () => closed.resolve(),
      },
    })
    const outcome = await runChild(`${IMPORT}
      const c = await connect({ hostname: "127.0.0.1", port: ${listener.port} })
      await c.write(Buffer.alloc(5_000_000, "abc"))
      void c.close()`)
    expect(outcome).toEqual(FINE)
    await closed.promise
    expect(received).toBe(5_000_000)
    listener.stop(true)
  },
  { host: "hosted" },
)

onReactor(
  "an uncaught error of a handler ends the process with 1, and says what it was",
  async () => {
    for (const handler of ["open", "data", "close"]) {
      const outcome = await runChild(`${IMPORT}
        const listener = listen({
          hostname: "127.0.0.1", port: 0,
          socket: { data() {}, ${handler}() { throw new Error("boom in ${handler}") } },
        })
        const client = await connect({ hostname: "127.0.0.1", port: listener.port, socket: { data() {} } })
        client.write("x")
        setTimeout(() => client.end(), 50)`)
      expect(outcome.stderr).toContain(`error: boom in ${handler}`)
      expect({ stdout: outcome.stdout, exitCode: outcome.exitCode }).toEqual({ stdout: "", exitCode: 1 })
    }
  },
  { host: "hosted" },
)
