// Descriptors: the number of a closed connection goes to the next one at once, and nothing of the old one may reach it;
// and when there are none left, accepting pauses without spinning and goes on when there are.

import { expect } from "bun:test"
import type { Connection, Socket } from "../../src/index.ts"
import { startChild } from "../support/child.ts"
import { onReactor, openDescriptors, signal, until } from "../support/harness.ts"

const CYCLES = 2_000

onReactor("2,000 connections one after the other on the same numbers: each has its own bytes", async (r) => {
  const numbers = new Set<number>()
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const before = openDescriptors().size
  for (let i = 0; i < CYCLES; i++) {
    const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
    const server = (await listener.accept()) as Connection
    numbers.add(client.fd).add(server.fd)
    const tag = `${i};`
    // Both sides have something under way, and the closing side has something unread, when the number becomes free.
    void server.write(tag.repeat(20)).catch(() => undefined)
    await client.write(tag)
    expect(Buffer.from((await server.read())!).toString()).toBe(tag)
    const first = Buffer.from((await client.read())!).toString()
    expect(first).toBe(tag.repeat(20).slice(0, first.length))
    if (i % 3 === 0) client.destroy()
    else void client.close()
    if (i % 2 === 0) server.destroy()
    else await server.close()
  }
  await until(r, "all is closed", () => r.stats().socketsOpen === 1)
  // Not one number per connection: they were used again and again.
  expect(numbers.size).toBeLessThan(100)
  expect(openDescriptors().size).toBeLessThanOrEqual(before)
  expect(r.stats().stale).toBe(0)
  listener.close()
})

onReactor("handlers: 20 at a time, closed with bytes on their way, none arrive at the next", async (r) => {
  const wrong: string[] = []
  let closed = 0
  let served = 0
  const done = signal()
  const listener = r.listen<string>({
    hostname: "127.0.0.1",
    port: 0,
    data: "",
    socket: {
      // The first bytes are the connection's tag; all that follow must be of the same.
      data(socket, chunk) {
        const text = chunk.toString()
        if (socket.data === "") socket.data = text.slice(0, 5)
        for (let at = 0; at < text.length; at += 5) {
          if (text.slice(at, at + 5) !== socket.data)
            wrong.push(`${socket.data} got ${text.slice(at, at + 5)}`)
        }
        socket.write(socket.data.repeat(40))
        if (Number(socket.data) % 2 === 0) socket.end()
      },
      close: () => void served++,
    },
  })
  let begun = 0
  const next = async (): Promise<void> => {
    if (begun === CYCLES) return
    const tag = `${10_000 + begun++}`
    await r.connect({
      hostname: "127.0.0.1",
      port: listener.port!,
      socket: {
        open: (socket) => void socket.write(tag.repeat(3)),
        data(socket: Socket, chunk) {
          const text = chunk.toString()
          if (!tag.repeat(40).startsWith(text.slice(0, 5))) wrong.push(`${tag} received ${text.slice(0, 5)}`)
          // What else was sent is still on its way.
          if (Number(tag) % 3 === 0) socket.terminate()
          else socket.end(tag.repeat(7))
        },
        close() {
          if (++closed === CYCLES) done.resolve()
          next().catch(done.reject)
        },
      },
    })
  }
  await Promise.all(Array.from({ length: 20 }, next))
  await done.promise
  expect(wrong).toEqual([])
  await until(r, "the server's side is closed", () => served === CYCLES)
  listener.stop()
})

onReactor(
  "a raw descriptor's number goes to a connection, and nothing of the old operations to it",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    for (let i = 0; i < 200; i++) {
      const raw = r.socket("IPv4")
      await r.connectDescriptor(raw, { hostname: "127.0.0.1", port: listener.port! })
      const other = (await listener.accept()) as Connection
      const receiving = r.recv(raw)
      const ended = receiving.then(
        (bytes) => Buffer.from(bytes).toString(),
        (error) => error.code,
      )
      void other.write("old").catch(() => undefined)
      await r.cancel(receiving)
      expect(await ended).toMatch(/^(old|ECANCELED)$/)
      await r.closeDescriptor(raw)
      const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
      const server = (await listener.accept()) as Connection
      await server.write("new")
      expect(Buffer.from((await client.read())!).toString()).toBe("new")
      await Promise.all([client.close(), server.close(), other.close()])
    }
    listener.close()
  },
)

/** A server that reports at one signal and closes half of its connections at the other. */
const SERVER = `
  import { Reactor } from "SRC/index.ts"
  const r = Reactor.open()
  const open = []
  let served = 0
  const listener = r.listen({
    hostname: "127.0.0.1", port: 0,
    socket: {
      open(socket) { open.push(socket) },
      data(socket, chunk) { served++; socket.write(chunk) },
    },
  })
  process.on("SIGUSR2", () => {
    // Half of them go: those who wait get their turn.
    for (const socket of open.splice(0, open.length / 2)) socket.end()
  })
  let cpu
  process.on("SIGUSR1", () => {
    const { acceptPauses } = r.stats()
    const used = process.cpuUsage(cpu)
    cpu = process.cpuUsage()
    console.log(JSON.stringify({ open: open.length, served, acceptPauses, cpuMs: (used.user + used.system) / 1000 }))
  })
  console.log("port " + listener.port + ".")
`

interface Report {
  open: number
  served: number
  acceptPauses: number
  cpuMs: number
}

onReactor(
  "no descriptors left: accepting pauses, costs nothing, and goes on; all are served in the end",
  async () => {
    const child = startChild(SERVER, {}, "-n 64")
    await child.until(".\n")
    const port = Number(/port (\d+)/.exec(child.stdout())?.[1])
    let reports = 0
    const report = async (): Promise<Report> => {
      reports++
      child.signal("SIGUSR1")
      const lines = () =>
        child
          .stdout()
          .split("\n")
          .filter((line) => line.startsWith("{"))
      while (lines().length < reports) {
        if (child.isOver) throw new Error(`the server is gone: ${JSON.stringify(await child.exited)}`)
        await Bun.sleep(2)
      }
      return JSON.parse(lines()[reports - 1])
    }
    let answers = 0
    let ended = 0
    const clients = await Promise.all(
      Array.from({ length: 100 }, () =>
        Bun.connect({
          hostname: "127.0.0.1",
          port,
          socket: {
            data: () => void answers++,
            close: () => void ended++,
          },
        }),
      ),
    )
    for (const client of clients) client.write("x")
    let now = await report()
    while (now.acceptPauses === 0) {
      await Bun.sleep(20)
      now = await report()
    }
    expect(now.open).toBeGreaterThan(10)
    expect(now.open).toBeLessThan(64)
    // A second in which nothing can be accepted: about ten looks, and next to no work.
    const first = await report()
    await Bun.sleep(1_000)
    const second = await report()
    expect(second.open).toBe(first.open)
    expect(second.acceptPauses - first.acceptPauses).toBeGreaterThanOrEqual(1)
    expect(second.acceptPauses - first.acceptPauses).toBeLessThan(30)
    expect(second.cpuMs).toBeLessThan(500)
    while (answers < clients.length) {
      child.signal("SIGUSR2")
      await Bun.sleep(100)
    }
    expect(answers).toBe(clients.length)
    expect((await report()).served).toBe(clients.length)
    expect(ended).toBeGreaterThan(0)
    for (const client of clients) client.end()
    child.signal("SIGKILL")
    expect((await child.exited).stderr).toBe("")
  },
  { host: "hosted" },
)
