// A stream whose rest is given up is reset: a peer that saw an ordinary end would take the part for the whole.

import { expect, test } from "bun:test"
import { Simulation } from "../testing/index.ts"
import { Reactor } from "./reactor.ts"

const OPTIONS = { engine: "uring", host: "owned", sendArenaBytes: 1 << 20 } as const
/** More than the line's window takes from a peer that does not read. */
const UNREAD_BYTES = 300_000

test("a peer that takes nothing for the time of a linger sees a reset, and no end", () => {
  const simulation = new Simulation({ seed: 1 })
  const reactor = Reactor.open(OPTIONS, simulation)
  const seen: string[] = []
  const listener = reactor.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket) {
        socket.write(new Uint8Array(UNREAD_BYTES))
        socket.end()
      },
      data() {},
    },
  })
  const peer = simulation.connect(listener.port!, {
    onOpen: (peer) => peer.pause(),
    onEnd: () => void seen.push("end"),
    onReset: () => void seen.push("reset"),
  })
  simulation.until(reactor, () => reactor.stats().lingersExpired === 1)
  simulation.drive(reactor, reactor.close())
  peer.resume()
  simulation.time.moveTo(simulation.time.nowNs + 1e9)
  expect(seen).toEqual(["reset"])
})
