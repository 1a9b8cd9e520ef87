// The same script played against Bun's own sockets and against ours, and the two records compared. A record has one
// list of lines per side, because what happens first on the two ends of a connection is the kernel's business;
// neighbouring chunks of one side are joined, because where a stream is cut is nobody's promise.

import { expect } from "bun:test"
import { createConnection } from "node:net"
import type { Reactor } from "../../src/index.ts"
import { onReactor } from "./harness.ts"

/** What Bun's sockets and ours have in common, as far as the scripts use it. */
export interface ParitySocket {
  data: unknown
  readonly readyState: number
  readonly listener: ParityListener | undefined
  readonly localPort: number | undefined
  readonly localAddress: string | undefined
  readonly localFamily: string | undefined
  readonly remotePort: number | undefined
  readonly remoteAddress: string | undefined
  readonly remoteFamily: string | undefined
  readonly bytesWritten: number
  write(data?: unknown, offset?: unknown, length?: unknown): number
  end(data?: unknown, offset?: unknown, length?: unknown): number
  shutdown(halfClose?: boolean): void
  terminate(): void
  close(): void
  pause(): void
  resume(): void
  timeout(seconds: number): void
  flush(): void
  reload(options: unknown): void
  setNoDelay(enable?: boolean): boolean
  setKeepAlive(enable?: boolean, delayMs?: number): boolean
}

export interface ParityListener {
  data: unknown
  readonly port: number
  readonly hostname: string
  readonly unix: string | undefined
  readonly fd: number
  ref(): void
  unref(): void
  stop(closeActiveConnections?: boolean): void
  reload(options: unknown): void
}

export type ParityHandlers = Record<string, unknown>

/** Bun, or a reactor. */
export interface World {
  readonly isOurs: boolean
  listen(options: unknown): ParityListener
  connect(options: unknown): Promise<ParitySocket>
}

export type Lines = Record<string, string[]>

/** What Bun says and what we say instead, on purpose; `why` is for readers. */
export interface Difference {
  /** Name of the scenario. */
  scenario: string
  bun: string
  ours: string
  why: string
}

const GIVE_UP_MS = 5_000
/** Long enough for an event too many to show itself. Nothing waits for this. */
const AFTERMATH_MS = 25

/** The record of one run. */
export class Log {
  readonly lines: Lines = {}
  /** Sides whose last line is a chunk. */
  private readonly isOpen = new Set<string>()

  add(side: string, line: string): void {
    this.isOpen.delete(side)
    this.of(side).push(line)
  }

  /** A chunk; joined with the one before. */
  data(side: string, chunk: Uint8Array | ArrayBuffer): void {
    const lines = this.of(side)
    const text = Buffer.from(chunk as Uint8Array).toString("latin1")
    if (this.isOpen.has(side)) lines.push(`${lines.pop()}${text}`)
    else lines.push(`data ${text}`)
    this.isOpen.add(side)
  }

  has(side: string, line: string): boolean {
    return this.of(side).includes(line)
  }

  /** Waits for a line. */
  async until(side: string, line: string): Promise<void> {
    const ends = performance.now() + GIVE_UP_MS
    while (!this.has(side, line)) {
      if (performance.now() > ends) {
        throw new Error(`${side}: "${line}" never came: ${JSON.stringify(this.lines)}`)
      }
      await Bun.sleep(1)
    }
  }

  /** Handlers that note everything they are told, `extra` in front of them. */
  handlers(side: string, extra: Extra = {}) {
    const note = (name: string, write: (argument: never) => void) => [
      name,
      (socket: ParitySocket, argument: never) => {
        write(argument)
        extra[name]?.(socket, argument)
      },
    ]
    return Object.fromEntries([
      ...["open", "end", "timeout"].map((name) => note(name, () => this.add(side, name))),
      note("data", (chunk: Uint8Array) => this.data(side, chunk)),
      note("close", (error: unknown) => this.add(side, `close ${describeError(error)}`)),
      note("error", (error: unknown) => this.add(side, `error ${describeError(error)}`)),
      ["drain", extra.drain],
      ["connectError", extra.connectError],
    ]) as ParityHandlers
  }

  private of(side: string): string[] {
    this.lines[side] ??= []
    return this.lines[side]
  }
}

export function describeError(error: unknown): string {
  if (error === undefined || error === null) return "without error"
  if (!(error instanceof Error)) return `with ${String(error)}`
  const { code, syscall, errno } = error as Error & { code?: string; syscall?: string; errno?: number }
  return code === undefined ? error.message : `${code} ${syscall} ${errno}`
}

/** What a call returns, or the class and code of what it throws. */
export function outcome(call: () => unknown): string {
  try {
    return String(call())
  } catch (error) {
    const { name, code } = error as Error & { code?: string }
    return `throws ${name} ${code}`
  }
}

export function bunWorld(): World {
  return {
    isOurs: false,
    listen: (options) => Bun.listen(options as never) as unknown as ParityListener,
    connect: (options) => Bun.connect(options as never) as unknown as Promise<ParitySocket>,
  }
}

export function ourWorld(reactor: Reactor): World {
  return {
    isOurs: true,
    listen: (options) => reactor.listen(options as never) as unknown as ParityListener,
    connect: (options) => reactor.connect(options as never) as unknown as Promise<ParitySocket>,
  }
}

type Extra = Record<string, (socket: ParitySocket, argument: never) => void>

/** A listener and a client of one world, both noting everything; the script goes on in `server` and `client`. */
export async function pair(
  world: World,
  log: Log,
  server: Extra,
  client: Extra = {},
  both: object = {},
): Promise<{ listener: ParityListener; client: ParitySocket; server: ParitySocket }> {
  const { listener, accepted } = listenWith(world, log, server, both)
  const socket = await world.connect({
    hostname: "127.0.0.1",
    port: listener.port,
    socket: log.handlers("client", client),
    ...both,
  })
  return { listener, client: socket, server: await accepted }
}

/** A listener that notes everything, and a peer of the runtime's own that sends "x", ends, and reads to the end. */
export async function plainPeer(
  world: World,
  log: Log,
  server: Extra,
  both: object = {},
): Promise<{ listener: ParityListener }> {
  const { listener, accepted } = listenWith(world, log, server, both)
  const peer = createConnection({ host: "127.0.0.1", port: listener.port, allowHalfOpen: true })
  peer.on("data", (chunk) => log.data("peer", chunk as Buffer))
  peer.on("end", () => log.add("peer", "end"))
  peer.on("error", (error) => log.add("peer", `error ${describeError(error)}`))
  peer.end("x")
  await accepted
  return { listener }
}

function listenWith(world: World, log: Log, server: Extra, options: object) {
  const { promise: accepted, resolve } = Promise.withResolvers<ParitySocket>()
  const handlers = log.handlers("server", server)
  const { open } = handlers as { open(socket: ParitySocket): void }
  handlers.open = (socket: ParitySocket) => {
    resolve(socket)
    open(socket)
  }
  const listener = world.listen({ hostname: "127.0.0.1", port: 0, socket: handlers, ...options })
  return { listener, accepted }
}

/** Declares the test that plays `script` in both worlds and compares the records. */
export function parity(
  name: string,
  script: (world: World, log: Log) => Promise<void>,
  differences: readonly Difference[] = [],
): void {
  onReactor(
    `parity: ${name}`,
    async (reactor) => {
      const mine = differences.filter(({ scenario }) => scenario === name)
      const play = async (world: World) => {
        const log = new Log()
        await script(world, log)
        await Bun.sleep(AFTERMATH_MS)
        return log.lines
      }
      const [bun, ours] = await Promise.all([play(bunWorld()), play(ourWorld(reactor))])
      // The table is as exact as the rest: what it says of Bun must be what Bun says.
      for (const difference of mine) {
        expect(Object.values(bun).flat()).toContain(difference.bun)
      }
      const wanted = Object.entries(bun).map(([side, lines]) => [
        side,
        lines
          .map((line) => mine.find((difference) => difference.bun === line)?.ours ?? line)
          .filter((line) => line !== ""),
      ])
      expect(ours).toEqual(Object.fromEntries(wanted))
    },
    { host: "hosted" },
  )
}
