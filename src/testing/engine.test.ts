// The simulated engine at its border, record by record: the rules that ffi/native.test.ts holds the shim to.

import { beforeEach, describe, expect, test } from "bun:test"
import * as abi from "../../ffi/abi.ts"
import { encodeIp } from "../reactor/address.ts"
import type { FaultRates } from "./faults.ts"
import { SimulationStuck } from "./ring.ts"
import type { SimulatedNative } from "./simulated_native.ts"
import { Simulation } from "./simulation.ts"

const EINVAL = -22
const EBUSY = -16
const ENOENT = -2
const ENOBUFS = -105
const ECANCELED = -125
const ETIME = -62

let simulation: Simulation
let native: SimulatedNative
let ring: number

function open(faults: FaultRates = {}, configure: (view: DataView) => void = () => {}): void {
  simulation = new Simulation({ seed: 1, faults, network: { latencyNs: [1000, 1000] } })
  native = simulation.kernel
  const config = new Uint8Array(abi.CONFIG_SIZE)
  const view = new DataView(config.buffer)
  view.setUint32(abi.CONFIG_ENGINE, abi.ENGINE_URING, true)
  view.setUint32(abi.CONFIG_SLOT_CAPACITY, 32, true)
  view.setUint32(abi.CONFIG_BUFFER_COUNT, 2, true)
  view.setUint32(abi.CONFIG_BUFFER_BYTES, 64, true)
  configure(view)
  ring = native.open(config)
}

beforeEach(() => open())

interface Command {
  op: number
  slot: number
  generation?: number
  fd?: number
  flags?: number
  offset?: number
  length?: number
  ns?: number
}

function write(commands: Command[]): void {
  const words = native.ringOf(ring)!.mapping.commands
  commands.forEach((command, i) => {
    const at = i * (abi.COMMAND_SIZE / 4)
    const { op, slot, generation = 1, fd = -1, flags = 0, offset = 0, length = 0, ns = 0 } = command
    words.set([op | (flags << 8), fd, slot, generation, offset, length, ns, 0], at)
  })
}

function tick(commands: Command[] = [], waitNs = 0) {
  write(commands)
  const count = native.tick(ring, commands.length, waitNs)
  const { completions } = native.ringOf(ring)!.mapping
  return Array.from({ length: count }, (_, i) => {
    const at = i * (abi.COMPLETION_SIZE / 4)
    return {
      slot: completions[at],
      result: completions[at + 2],
      flags: completions[at + 3],
      at: completions[at + 4],
    }
  })
}

const header = (field: number) => native.ringOf(ring)!.mapping.get(field)

/** A descriptor that is connected, and the peer at its other end. */
function connected() {
  const listener = native.listen(ring, encodeIp("127.0.0.1", 0), 8, 0)
  const address = new Uint8Array(abi.ADDRESS_SIZE)
  native.name(ring, listener, 0, address)
  const port = address[abi.ADDRESS_PORT] | (address[abi.ADDRESS_PORT + 1] << 8)
  const received: number[] = []
  const peer = simulation.connect(port, { onData: (bytes) => void received.push(...bytes) })
  const [accepted] = tick([{ op: abi.OP_ACCEPT, slot: 30, fd: listener }], 1e9)
  return { fd: accepted.result, peer, received, listener }
}

describe("validation", () => {
  test("commands that make no sense are refused, and counted", () => {
    const refused = tick([
      { op: 99, slot: 0 },
      { op: abi.OP_NOP, slot: 1, generation: 0 },
      { op: abi.OP_NOP, slot: 32 },
      { op: abi.OP_RECV, slot: 2, fd: -1 },
      { op: abi.OP_RECV, slot: 3, fd: 3, flags: abi.C_QUIET },
      { op: abi.OP_SEND, slot: 4, fd: 3, offset: 0, length: 0 },
      { op: abi.OP_SEND, slot: 5, fd: 3, offset: 0xffff_ffff | 0, length: 2 },
      { op: abi.OP_CLOSE, slot: 6, fd: 5 },
    ])
    expect(refused.map(({ result }) => result)).toEqual(new Array(8).fill(EINVAL))
    expect(header(abi.HEADER_REJECTED)).toBe(8)
    expect(header(abi.HEADER_IN_FLIGHT)).toBe(0)
  })

  test("CLOSE is refused while operations are in flight, and taken afterwards", () => {
    const { fd } = connected()
    tick([{ op: abi.OP_RECV, slot: 1, fd }])
    expect(tick([{ op: abi.OP_CLOSE, slot: 2, fd }])[0].result).toBe(EBUSY)
    tick([{ op: abi.OP_CANCEL, slot: 3, offset: 1, length: 1 }])
    expect(tick([{ op: abi.OP_CLOSE, slot: 4, fd }])).toEqual([{ slot: 4, result: 0, flags: 0, at: 0 }])
  })

  test("a slot in flight is not taken twice", () => {
    tick([{ op: abi.OP_TIMEOUT, slot: 1, ns: 1e9 }])
    expect(tick([{ op: abi.OP_NOP, slot: 1, generation: 2 }])[0].result).toBe(EINVAL)
    expect(native.close(ring)).toBe(EBUSY)
  })
})

describe("operations", () => {
  test("a multishot receive goes on, ends without buffers, and they are back one tick later", () => {
    const { fd, peer } = connected()
    tick([{ op: abi.OP_RECV, slot: 1, fd, flags: abi.C_MULTISHOT }])
    peer.send(new Uint8Array(200).fill(5))
    const got = tick([], 1e9)
    expect(got.map(({ result, flags }) => [result, flags & abi.F_MORE])).toEqual([
      [64, abi.F_MORE],
      [64, abi.F_MORE],
      [ENOBUFS, 0],
    ])
    expect(header(abi.HEADER_BUFFERS_LENT)).toBe(2)
    const more = tick([{ op: abi.OP_RECV, slot: 1, generation: 2, fd, flags: abi.C_MULTISHOT }])
    expect(more.map(({ result }) => result)).toEqual([64, 8])
    expect(native.ringOf(ring)!.mapping.buffers[more[1].at]).toBe(5)
  })

  test("a send that does not fit is continued to its last byte", () => {
    open({ shortSend: 0.9 })
    const { fd, received } = connected()
    native.ringOf(ring)!.mapping.arena(0, 1000).fill(7)
    let told = tick([{ op: abi.OP_SEND, slot: 1, fd, offset: 0, length: 1000 }], 1e9)
    for (let i = 0; told.length === 0 && i < 100; i++) told = tick([], 1e9)
    expect(told).toEqual([{ slot: 1, result: 1000, flags: 0, at: 0 }])
    expect(header(abi.HEADER_SENDS_BLOCKED)).toBeGreaterThan(0)
    simulation.time.moveTo(simulation.time.nowNs + 1e9)
    expect(received).toEqual(new Array(1000).fill(7))
  })

  test("cancelling: the target ends, the cancellation tells; what has ended is not found", () => {
    tick([{ op: abi.OP_TIMEOUT, slot: 1, ns: 1e9 }])
    const both = tick([{ op: abi.OP_CANCEL, slot: 2, offset: 1, length: 1 }])
    expect(both.map(({ slot, result }) => [slot, result])).toEqual([
      [1, ECANCELED],
      [2, 0],
    ])
    expect(tick([{ op: abi.OP_CANCEL, slot: 3, offset: 1, length: 1 }])[0].result).toBe(ENOENT)
  })

  test("stale entries are counted and dropped, stale records reach TypeScript", () => {
    open({ staleEntry: 1 })
    for (let i = 0; i < 5; i++) expect(tick([{ op: abi.OP_NOP, slot: 1, generation: i + 1 }])).toHaveLength(1)
    expect(header(abi.HEADER_STALE)).toBe(5)
    open({ staleRecord: 1 })
    expect(tick([{ op: abi.OP_NOP, slot: 1 }])).toHaveLength(2)
    expect(header(abi.HEADER_IN_FLIGHT)).toBe(0)
  })

  test("more completions than fit come with the next tick", () => {
    open({}, (view) => view.setUint32(abi.CONFIG_COMPLETION_CAPACITY, 8, true))
    const nops = Array.from({ length: 12 }, (_, slot) => ({ op: abi.OP_NOP, slot }))
    expect(tick(nops)).toHaveLength(8)
    expect(tick([])).toHaveLength(4)
  })
})

describe("waiting", () => {
  test("moves time to the next event, and no further than allowed", () => {
    tick([{ op: abi.OP_TIMEOUT, slot: 1, ns: 5e6 }])
    const startMs = simulation.clock()
    expect(tick([], 1e6)).toEqual([])
    expect(header(abi.HEADER_WAIT_EXPIRED)).toBe(1)
    expect(simulation.clock() - startMs).toBeWithin(1, 1.1)
    expect(tick([], 1e12)[0].result).toBe(ETIME)
    expect(simulation.clock() - startMs).toBeWithin(5, 5.1)
  })

  test("for ever, with nothing to come, is found out", () => {
    expect(() => tick([], Number.POSITIVE_INFINITY)).toThrow(SimulationStuck)
  })

  test("the eventfd speaks of what comes up while it is on, not of what is there", () => {
    const { fd, peer } = connected()
    let isReadable = false
    simulation.loop.watchEvent(native.eventFd(ring), () => {}).open()
    const heard = () => simulation.loop.isSignalled(native.eventFd(ring))
    tick([{ op: abi.OP_RECV, slot: 1, fd, flags: abi.C_MULTISHOT }])
    peer.send(new Uint8Array(1))
    simulation.time.moveTo(simulation.time.nowNs + 1e9)
    native.notify(ring, 1)
    isReadable = heard()
    expect(isReadable).toBe(false)
    tick()
    peer.send(new Uint8Array(1))
    simulation.time.moveTo(simulation.time.nowNs + 1e9)
    expect(heard()).toBe(true)
  })
})
