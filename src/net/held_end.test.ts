// An end that a pause has held is handed on by a flush, before a tick. What the program does then must not wait behind the
// sleep of that tick, which was measured before.

import { expect, test } from "bun:test"
import { Deadline } from "../reactor/deadlines.ts"
import { type SimulatedPeer, Simulation } from "../testing/index.ts"
import type { Connection } from "./connection.ts"
import { Reactor } from "./reactor.ts"

const OPTIONS = { engine: "uring", host: "owned", sendArenaBytes: 1 << 20 } as const
const RESUME_MS = 100
/** More than the line's window takes from a peer that does not read: the send stays in flight. */
const UNREAD_BYTES = 300_000

/** A reactor with a connection to a bystander, who tells when it has heard something. */
function setUp() {
  // The receive that a pause cancels goes on for a while, and takes the end.
  const simulation = new Simulation({ seed: 1, faults: { cancelAlready: 1 } })
  const reactor = Reactor.open(OPTIONS, simulation)
  let heardAtMs = Number.POSITIVE_INFINITY
  simulation.serve(80, () => ({
    onData() {
      heardAtMs = simulation.clock()
    },
  }))
  const bystander = simulation.drive(reactor, reactor.connect({ hostname: "10.0.0.9", port: 80 }))
  const startMs = simulation.clock()
  const hearsInTime = () => {
    simulation.until(reactor, () => heardAtMs < Number.POSITIVE_INFINITY)
    expect(heardAtMs - startMs).toBeLessThan(RESUME_MS + 50)
    simulation.drive(reactor, reactor.close())
  }
  return { simulation, reactor, bystander, hearsInTime }
}

/** A peer that says something, ends its side a moment later, and reads nothing. */
function endsUnread(simulation: Simulation) {
  return {
    onOpen(peer: SimulatedPeer) {
      peer.pause()
      peer.send(new Uint8Array(1))
      simulation.time.after(50_000, () => peer.end())
    },
  }
}

test("what a close handler writes to another connection goes out at once", () => {
  const { simulation, reactor, bystander, hearsInTime } = setUp()
  const listener = reactor.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      data(socket) {
        socket.pause()
        socket.write(new Uint8Array(UNREAD_BYTES))
        socket.end()
        reactor.arm(new Deadline({ onDeadline: () => socket.resume() }, 0), RESUME_MS)
      },
      close: () => void bystander.write("he is gone"),
    },
  })
  simulation.connect(listener.port!, endsUnread(simulation))
  hearsInTime()
})

test("a promise that the end settles is not left waiting", () => {
  const { simulation, reactor, bystander, hearsInTime } = setUp()
  const listener = reactor.listen({ hostname: "127.0.0.1", port: 0 })
  void (async () => {
    const connection = (await listener.accept()) as Connection
    await connection.read()
    // As the connection itself does when its queue of unread bytes is full, and when it is not any more.
    const internal = connection as unknown as {
      pauseReceiving(): void
      resumeReceiving(): void
      endSending(): void
    }
    internal.pauseReceiving()
    await connection.write(new Uint8Array(UNREAD_BYTES))
    internal.endSending()
    reactor.arm(new Deadline({ onDeadline: () => internal.resumeReceiving() }, 0), RESUME_MS)
    await connection.read()
    await bystander.write("he is gone")
  })()
  simulation.connect(listener.port!, endsUnread(simulation))
  hearsInTime()
})
