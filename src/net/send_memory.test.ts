// Send memory is shared, on a simulated kernel whose peers do not read.

import { expect, test } from "bun:test"
import { Simulation } from "../testing/index.ts"
import { Reactor } from "./reactor.ts"

const MIB = 1 << 20
const OPTIONS = { engine: "uring", host: "owned", sendArenaBytes: MIB } as const

test("one connection to a peer that does not read leaves room in the smallest arena", () => {
  const simulation = new Simulation({ seed: 1 })
  const reactor = Reactor.open(OPTIONS, simulation)
  simulation.serve(80, () => ({ onOpen: (peer) => peer.pause() }))
  const dial = () =>
    simulation.drive(reactor, reactor.connect({ hostname: "10.0.0.1", port: 80, socket: { data() {} } }))
  const first = dial()
  const second = dial()
  for (let i = 0; i < 3; i++) {
    first.write(new Uint8Array(MIB))
    simulation.drive(reactor, reactor.timeout(1))
  }
  expect(reactor.arena.freeBytes).toBeGreaterThanOrEqual(MIB / 4)
  expect(second.write(new Uint8Array(1000))).toBe(1000)
  simulation.drive(reactor, reactor.close())
})

test("scarce memory: 64 KiB to a connection from half full on, 16 KiB from three quarters on", () => {
  const simulation = new Simulation({ seed: 1 })
  const reactor = Reactor.open({ ...OPTIONS, sendArenaBytes: 8 * MIB }, simulation)
  const { arena } = reactor
  simulation.serve(80, () => ({ onOpen: (peer) => peer.pause() }))
  const dial = () =>
    simulation.drive(reactor, reactor.connect({ hostname: "10.0.0.1", port: 80, socket: { data() {} } }))
  const [first, second, third] = [dial(), dial(), dial()]
  const taken: number[] = []
  const take = (count: number) => {
    for (let i = 0; i < count; i++) taken.push(arena.alloc(MIB))
  }
  take(3)
  expect(first.write(new Uint8Array(MIB))).toBe(MIB)
  take(1)
  expect(second.write(new Uint8Array(MIB))).toBe(64 * 1024)
  take(1)
  expect(third.write(new Uint8Array(MIB))).toBe(16 * 1024)
  for (const block of taken) arena.free(block)
  simulation.drive(reactor, reactor.close())
})
