// Chunks that arrived during a pause, handed on to handlers that do more than take them.

import { expect, test } from "bun:test"
import { Simulation } from "../testing/index.ts"
import { Reactor } from "./reactor.ts"

test("a handler that flushes gets the rest of what was held, and then the end", () => {
  // The pause's cancellation comes too late for what has arrived; small buffers make chunks of it.
  const simulation = new Simulation({ seed: 1, faults: { cancelAlready: 1 } })
  const reactor = Reactor.open(
    { engine: "uring", host: "owned", sendArenaBytes: 1 << 20, receiveBuffers: 8, receiveBufferBytes: 64 },
    simulation,
  )
  const told: string[] = []
  const listener = reactor.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      data(socket, chunk) {
        told.push(`${chunk.length}`)
        if (told.length === 1) {
          socket.pause()
          void reactor.timeout(100).then(() => socket.resume())
        }
        socket.write("x")
        socket.flush()
      },
      end: () => void told.push("end"),
      close: () => void told.push("close"),
    },
  })
  const peer = simulation.connect(listener.port!, {
    onOpen() {
      peer.send(new Uint8Array(150))
      peer.end()
    },
  })
  simulation.until(reactor, () => told.includes("end"))
  simulation.drive(reactor, reactor.close())
  expect(told).toEqual(["64", "64", "22", "end", "close"])
})
