// A program hears of a connection's end only when it has heard of its beginning, on a simulated kernel that can be brought
// into the states in which that is hard.

import { expect, test } from "bun:test"
import { Simulation } from "../testing/index.ts"
import { Reactor } from "./reactor.ts"

const OPTIONS = { engine: "uring", host: "owned", maxOperations: 16, sendArenaBytes: 1 << 20 } as const

test("a connection that is accepted while the reactor closes is neither opened nor closed to the program", () => {
  const simulation = new Simulation({ seed: 1, faults: { cancelLostRace: 1 } })
  const reactor = Reactor.open(OPTIONS, simulation)
  const told: string[] = []
  const listener = reactor.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { open: () => void told.push("open"), data() {}, close: () => void told.push("close") },
  })
  simulation.drive(reactor, reactor.nop())
  // In the kernel's queue, not accepted yet: the accept and the close meet in the next round.
  simulation.connect(listener.port!, {})
  simulation.time.moveTo(simulation.time.nowNs + 1e9)
  simulation.drive(reactor, reactor.close())
  expect(reactor.stats().descriptorsOpened).toBe(2)
  expect(reactor.stats().descriptorsClosed).toBe(2)
  expect(told).toEqual([])
})

test("a connection without a free operation to receive with is opened, then closed with the error", () => {
  const simulation = new Simulation({ seed: 1 })
  const reactor = Reactor.open(OPTIONS, simulation)
  const told: string[] = []
  const listener = reactor.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: () => void told.push("open"),
      data() {},
      close: (_, error) => void told.push(`close ${(error as { code?: string })?.code}`),
    },
  })
  const waiting = Array.from({ length: 15 }, () => reactor.timeout(60_000).catch(() => undefined))
  simulation.connect(listener.port!, {})
  simulation.until(reactor, () => reactor.stats().descriptorsOpened === 2)
  simulation.drive(reactor, reactor.close())
  simulation.drive(reactor, Promise.all(waiting))
  expect(told).toEqual(["open", "close LIMIT_OPERATIONS"])
})
