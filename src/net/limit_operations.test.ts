// What a connection does when all operations are in flight, on a simulated kernel.

import { expect, test } from "bun:test"
import { Simulation } from "../testing/index.ts"
import { Reactor } from "./reactor.ts"

test("what was written before a close is sent when an operation is free again", () => {
  const simulation = new Simulation({ seed: 1 })
  const reactor = Reactor.open(
    { engine: "uring", host: "owned", maxOperations: 16, sendArenaBytes: 1 << 20 },
    simulation,
  )
  let errors = 0
  const hogs: Promise<unknown>[] = []
  const listener = reactor.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket) {
        socket.end("farewell")
        // The accept and the receive have two of the sixteen.
        for (let i = 0; i < 14; i++) hogs.push(reactor.timeout(100))
      },
      close(_, error) {
        if (error !== undefined) errors++
      },
    },
  })
  let received = ""
  let hasEnded = false
  simulation.connect(listener.port!, {
    onOpen: (peer) => peer.send(new Uint8Array(1)),
    onData(bytes) {
      received += new TextDecoder().decode(bytes)
    },
    onEnd() {
      hasEnded = true
    },
  })
  simulation.until(reactor, () => hasEnded)
  expect(received).toBe("farewell")
  expect(errors).toBe(0)
  simulation.drive(reactor, Promise.all(hogs))
  simulation.drive(reactor, reactor.close())
})
