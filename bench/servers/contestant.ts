// Which loop a benchmark server runs on. The handlers are the caller's and the same for all.
//
//   CONTESTANT=bun          Bun.listen
//   CONTESTANT=uringloop    listen of src/index.ts; URINGLOOP_ENGINE and URINGLOOP_HOST choose engine and host
//   DISABLE=min_wait,...    kernel features not to use (uringloop)
//   STATS=1                 prints `stats {json}` of the reactor at the end (uringloop, hosted)

import type { FeatureName } from "../../src/index.ts"

/** What the servers need of a socket; Bun's own and ours both have it. */
export interface ServedSocket<Data> {
  data: Data
  write(bytes: Uint8Array): number
}

export interface ServedHandlers<Data> {
  open(socket: ServedSocket<Data>): void
  data(socket: ServedSocket<Data>, chunk: Buffer): void
  drain(socket: ServedSocket<Data>): void
}

const HOSTNAME = "127.0.0.1"

/** Listens until SIGTERM. */
export async function serveSockets<Data>(handlers: ServedHandlers<Data>): Promise<void> {
  const contestant = process.env.CONTESTANT ?? "bun"
  const port = Number(process.env.PORT ?? 0)
  const socket = { ...handlers, close() {}, error() {} }
  if (contestant === "bun") {
    process.on("SIGTERM", () => process.exit(0))
    announce(Bun.listen<Data>({ hostname: HOSTNAME, port, socket }).port)
  } else if (contestant === "uringloop") {
    await serveOnUringloop(port, socket)
  } else {
    throw new RangeError(`CONTESTANT=${contestant}: must be bun or uringloop`)
  }
}

function announce(port: number | undefined): void {
  console.log(`listening on ${HOSTNAME}:${port}`)
}

async function serveOnUringloop<Data>(
  port: number,
  socket: ServedHandlers<Data> & { close(): void; error(): void },
): Promise<void> {
  // Only here, so that the server on Bun's loop maps nothing of ours.
  const { Reactor } = await import("../../src/index.ts")
  const disable = (process.env.DISABLE?.split(",") ?? []) as FeatureName[]
  const reactor = Reactor.open({ disable })
  const isOwned = process.env.URINGLOOP_HOST === "owned"
  // A thread that blocks in the ring never runs Bun's signal handlers: there the signal's own effect ends it.
  if (!isOwned) {
    process.on("SIGTERM", () => {
      if (process.env.STATS === "1") console.log(`stats ${JSON.stringify(reactor.stats())}`)
      process.exit(0)
    })
  }
  announce(reactor.listen<Data>({ hostname: HOSTNAME, port, socket }).port)
  if (isOwned) reactor.run()
}
