// The soak's server process: three listeners and a number of clients of its own on one reactor. run.ts starts it and talks
// to it by the runtime's own IPC, which therefore has to go on beside all the load.
//
//   URINGLOOP_ENGINE=uring bun test/soak/server.ts

import { heapStats } from "bun:jsc"
import { closeSync, openSync } from "node:fs"
import { type Connection, Reactor, type Socket } from "../../src/index.ts"
import { echoListener } from "../support/echo.ts"
import { Dials } from "./dials.ts"
import type { FromServer, ToServer } from "./messages.ts"

/** A peer of the impatient port that says nothing for this long is sent away. */
const IDLE_SECONDS = 2
/** Far beyond everything that the peers do: a stopped peer must not be mistaken for a dead one. */
const PATIENCE_MS = 3_600_000

const reactor = Reactor.open({ host: "hosted" })
const say = (message: FromServer) => process.send?.(message)

/** Echoes with promises, each read and write with a deadline. */
async function echoWithDeadlines(connection: Connection): Promise<void> {
  try {
    for (;;) {
      const chunk = await connection.read({ timeoutMs: PATIENCE_MS })
      if (chunk === undefined) break
      await connection.write(chunk, { timeoutMs: PATIENCE_MS })
    }
    await connection.shutdown()
  } catch {
    // The peer has reset it.
  }
  await connection.close()
}

async function serve(connections: AsyncIterable<Connection>): Promise<void> {
  for await (const connection of connections) void echoWithDeadlines(connection)
}

const LOCAL = { hostname: "127.0.0.1", port: 0 }
const echo = echoListener(reactor)
const promises = reactor.listen(LOCAL)
void serve(promises)
let sentAway = 0
const impatient = reactor.listen({
  ...LOCAL,
  socket: {
    open: (socket: Socket) => socket.timeout(IDLE_SECONDS),
    data: (socket: Socket, chunk: Buffer) => void socket.write(chunk),
    timeout(socket: Socket) {
      if (sentAway++ % 2 === 0) socket.terminate()
      else socket.end()
    },
  },
})
const dials = new Dials(reactor, echo.port!, promises.port!)

/** Descriptors held back from everybody else. */
const taken: number[] = []

function takeDescriptors(spare: number): void {
  try {
    for (;;) taken.push(openSync("/dev/null", "r"))
  } catch {
    for (const fd of taken.splice(-spare)) closeSync(fd)
  }
}

process.on("message", async (message: ToServer) => {
  switch (message.ask) {
    case "report":
      if (message.collect) Bun.gc(true)
      say({ say: "report", stats: reactor.stats(), dials: dials.counts, heapBytes: heapStats().heapSize })
      break
    case "startDials":
      dials.start()
      break
    case "stopDials":
      await dials.stop()
      say({ say: "dialsStopped" })
      break
    case "takeDescriptors":
      takeDescriptors(message.spare)
      break
    case "giveDescriptors":
      for (const fd of taken.splice(0)) closeSync(fd)
      break
    case "close":
      dials.closeListener()
      await reactor.close()
      say({ say: "closed", stats: reactor.stats(), dials: dials.counts })
      process.disconnect?.()
  }
})

say({
  say: "listening",
  pid: process.pid,
  engine: reactor.engine,
  ports: [echo.port!, promises.port!, impatient.port!],
})
