// A run on an engine is recorded and played again without one: the same program hears the same, and one that does something
// else is told where.

import { expect, test } from "bun:test"
import { Reactor, type ReactorOptions, type Socket } from "../../src/index.ts"
import { Divergence, Replay, ReplayEnded, record } from "../../src/testing/index.ts"
import { ENGINE, HOST, isHosted } from "../support/harness.ts"

const CLIENTS = 10

/** A server that answers each chunk with its length, tells what it hears, and closes its reactor after the last client. */
function program(
  reactor: Reactor,
  answer = (chunk: Buffer) => `${chunk.length};`,
): { port: number; heard: string[]; closed: Promise<void> } {
  const heard: string[] = []
  let ended = 0
  const { promise: closed, resolve } = Promise.withResolvers<void>()
  const listener = reactor.listen<number>({
    hostname: "127.0.0.1",
    port: 0,
    data: 0,
    socket: {
      open: (socket) => void heard.push(`open ${socket.remoteFamily}`),
      data(socket, chunk) {
        heard.push(`data ${chunk.length} ${Bun.hash(chunk)}`)
        socket.write(answer(chunk))
        socket.timeout(30)
      },
      close(_: Socket<number>, error) {
        heard.push(`close ${error}`)
        if (++ended === CLIENTS) void reactor.close().then(resolve)
      },
    },
  })
  return { port: listener.port!, heard, closed }
}

const OPTIONS: ReactorOptions = { engine: ENGINE, host: HOST, maxOperations: 256, sendArenaBytes: 1 << 20 }

/** Clients of another process, so that both hosts can be recorded. */
function startClients(port: number): Bun.Subprocess {
  const script = `
    const { connect } = await import("node:net")
    for (let i = 0; i < ${CLIENTS}; i++) {
      const socket = connect(${port}, "127.0.0.1")
      let rounds = 0
      socket.on("connect", () => socket.write(Buffer.alloc(100 + i * 5000, i)))
      socket.on("data", () => (++rounds < 4 ? socket.write(Buffer.alloc(rounds * 1000 + i)) : socket.end()))
      socket.on("error", () => {})
    }`
  return Bun.spawn([process.execPath, "-e", script], { stdout: "ignore", stderr: "inherit" })
}

async function recorded(): Promise<{ recording: Uint8Array; heard: string[] }> {
  const pieces: Uint8Array[] = []
  const reactor = Reactor.open(
    OPTIONS,
    record(undefined, (bytes) => void pieces.push(bytes)),
  )
  const { port, heard, closed } = program(reactor)
  const clients = startClients(port)
  if (isHosted) await closed
  else reactor.run(closed)
  clients.kill()
  await clients.exited
  return { recording: Buffer.concat(pieces), heard }
}

/** Plays a recording to a program; returns what that heard. */
function replayed(
  recording: Uint8Array,
  answer?: (chunk: Buffer) => string,
): { heard: string[]; replay: Replay } {
  const replay = new Replay(recording)
  const reactor = Reactor.open(OPTIONS, replay)
  const { heard, closed } = program(reactor, answer)
  if (isHosted) replay.drive()
  else runToEnd(reactor, closed)
  return { heard, replay }
}

function runToEnd(reactor: Reactor, closed: Promise<void>): void {
  try {
    reactor.run(closed)
  } catch (error) {
    if (!(error instanceof ReplayEnded)) throw error
  }
}

test("a recorded run is played again, as often as wanted", async () => {
  const { recording, heard } = await recorded()
  expect(heard.filter((line) => line.startsWith("open")).length).toBe(CLIENTS)
  expect(heard.filter((line) => line.startsWith("close")).length).toBe(CLIENTS)
  for (let i = 0; i < 3; i++) {
    const again = replayed(recording)
    expect(again.heard).toEqual(heard)
    expect(again.replay.uncaught).toEqual([])
    expect(again.replay.left).toBe(0)
  }
}, 30_000)

test("a program that does something else diverges, and is told where", async () => {
  const { recording } = await recorded()
  let answers = 0
  const run = () => {
    answers = 0
    replayed(recording, (chunk) => (++answers === 7 ? "something else" : `${chunk.length};`))
  }
  expect(run).toThrow(Divergence)
  expect(run).toThrow(/entry \d+, command \d+: SEND fd \d+ \(\d+, \d+\) is asked for, /)
}, 30_000)

test("a recording that breaks off is played as far as it goes", async () => {
  const { recording, heard } = await recorded()
  const half = replayed(recording.subarray(0, recording.length >> 1))
  expect(half.heard.length).toBeLessThan(heard.length)
  expect(half.heard).toEqual(heard.slice(0, half.heard.length))
}, 30_000)
