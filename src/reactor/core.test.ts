// The records as the reactor writes and reads them, word by word in typed arrays, against the byte offsets of abi.ts: what
// the shim would see of each command, and what an owner is told of each completion.

import { afterEach, beforeEach, describe, expect, test } from "bun:test"
import * as abi from "../../ffi/abi.ts"
import { type OperationOwner, ReactorCore } from "./core.ts"

const KIND = 9

interface Told {
  kind: number
  slot: number
  result: number
  flags: number
  bufferOffset: number
}

class Owner implements OperationOwner {
  readonly told: Told[] = []
  onCompletion(kind: number, slot: number, result: number, flags: number, bufferOffset: number): void {
    this.told.push({ kind, slot, result, flags, bufferOffset })
  }
}

let core: ReactorCore
let owner: Owner

beforeEach(() => {
  // Owned: nothing happens but what the test does.
  core = new ReactorCore({ engine: "epoll", host: "owned", maxOperations: 64, sendArenaBytes: 1 << 20 })
  owner = new Owner()
})

afterEach(async () => {
  core.run(core.close())
})

/** The command at `index` as the shim sees it. */
function commandAt(index: number) {
  const { buffer, byteOffset } = core.memory.commands
  const view = new DataView(buffer, byteOffset + index * abi.COMMAND_SIZE, abi.COMMAND_SIZE)
  return {
    op: view.getUint8(abi.COMMAND_OP),
    flags: view.getUint8(abi.COMMAND_FLAGS),
    reserved: view.getUint16(2, true),
    fd: view.getInt32(abi.COMMAND_FD, true),
    slot: view.getUint32(abi.COMMAND_SLOT, true),
    generation: view.getUint32(abi.COMMAND_GENERATION, true),
    offset: view.getUint32(abi.COMMAND_OFFSET, true),
    length: view.getUint32(abi.COMMAND_LENGTH, true),
    argument: view.getBigUint64(abi.COMMAND_ARGUMENT, true),
  }
}

/** Ticks without dispatch would lose completions: this looks at what the last round dispatched. */
function completionAt(index: number) {
  const { buffer, byteOffset } = core.memory.completions
  const view = new DataView(buffer, byteOffset + index * abi.COMPLETION_SIZE, abi.COMPLETION_SIZE)
  return {
    slot: view.getUint32(abi.COMPLETION_SLOT, true),
    result: view.getInt32(abi.COMPLETION_RESULT, true),
    flags: view.getUint32(abi.COMPLETION_FLAGS, true),
    bufferOffset: view.getUint32(abi.COMPLETION_BUFFER_OFFSET, true),
  }
}

/** Takes back what was written: the shim never sees these. */
function forget(): void {
  core.slots.forEachInFlight((slot) => core.slots.release(slot))
  Reflect.set(core, "commandCount", 0)
}

describe("commands", () => {
  test("every field is where the shim reads it", () => {
    const slot = core.submit(abi.OP_SEND, abi.C_QUIET, 0x7ffffffe, KIND, owner, 0x12345678, 0x00fedcba)
    expect(commandAt(0)).toEqual({
      op: abi.OP_SEND,
      flags: abi.C_QUIET,
      reserved: 0,
      fd: 0x7ffffffe,
      slot,
      generation: core.slots.generationOf(slot),
      offset: 0x12345678,
      length: 0x00fedcba,
      argument: 0n,
    })
    forget()
  })

  test("one behind the other, each with its slot", () => {
    const slots = [abi.OP_NOP, abi.OP_RECV, abi.OP_CLOSE].map((op) =>
      core.submit(op, abi.C_MULTISHOT, -1, KIND, owner, 0, 0),
    )
    expect([0, 1, 2].map((i) => commandAt(i).op)).toEqual([abi.OP_NOP, abi.OP_RECV, abi.OP_CLOSE])
    expect([0, 1, 2].map((i) => commandAt(i).slot)).toEqual(slots)
    expect([0, 1, 2].map((i) => commandAt(i).fd)).toEqual([-1, -1, -1])
    expect(new Set(slots).size).toBe(3)
    forget()
  })

  test("unsigned values beyond 2^31 stay what they are", () => {
    core.submit(abi.OP_CANCEL, 0, -1, KIND, owner, 0x80000001, 0xffffffff)
    expect(commandAt(0)).toMatchObject({ offset: 0x80000001, length: 0xffffffff })
    forget()
  })

  test("a timeout's nanoseconds fill the argument, above 32 bits too", () => {
    for (const ns of [0, 1, 0xffffffff, 0x1_0000_0000, 0x1_2345_6789, Number.MAX_SAFE_INTEGER]) {
      core.submitTimeout(ns, KIND, owner)
      expect(commandAt(0)).toMatchObject({
        op: abi.OP_TIMEOUT,
        fd: -1,
        offset: 0,
        length: 0,
        argument: BigInt(ns),
      })
      forget()
    }
  })

  test("an argument does not stay behind for the next use of the record", () => {
    core.submitTimeout(Number.MAX_SAFE_INTEGER, KIND, owner)
    forget()
    core.submit(abi.OP_NOP, 0, -1, KIND, owner, 0, 0)
    expect(commandAt(0).argument).toBe(0n)
    forget()
  })

  test("a cancellation names slot and generation of its target", () => {
    const target = core.submit(abi.OP_NOP, 0, -1, KIND, owner, 0, 0)
    core.cancelSlot(target)
    expect(commandAt(1)).toMatchObject({
      op: abi.OP_CANCEL,
      offset: target,
      length: core.slots.generationOf(target),
    })
    forget()
  })
})

describe("completions", () => {
  test("each is told to the owner of its slot, field by field", () => {
    const slots = [0, 1, 2].map((kind) => core.submit(abi.OP_NOP, 0, -1, KIND + kind, owner, 0, 0))
    expect(core.round(0)).toBe(3)
    expect(owner.told).toEqual(
      slots.map((slot, i) => ({ kind: KIND + i, slot, result: 0, flags: 0, bufferOffset: 0 })),
    )
    expect(core.slots.inFlight).toBe(0)
  })

  test("a failure comes as a negated errno", () => {
    core.submitTimeout(1, KIND, owner)
    core.round(Number.POSITIVE_INFINITY)
    expect(owner.told).toMatchObject([{ kind: KIND, result: -62 }])
  })

  test("bytes are where bufferOffset says, and the slot stays in flight with F_MORE", async () => {
    const { writer, fd } = pipeOfSockets()
    const slot = core.submit(abi.OP_RECV, abi.C_MULTISHOT, fd, KIND, owner, 0, 0)
    core.round(0)
    writer("records")
    for (let i = 0; i < 10 && owner.told.length < 2; i++) core.round(1e8)
    const received = owner.told.find(({ flags }) => flags & abi.F_BUFFER)
    expect(received).toMatchObject({ kind: KIND, slot, result: 7, flags: abi.F_BUFFER | abi.F_MORE })
    const start = received?.bufferOffset ?? -1
    expect(Buffer.from(core.bufferBytes.subarray(start, start + 7)).toString()).toBe("records")
    expect(core.slots.ownerOf(slot)).toBe(owner)
    core.cancelSlot(slot)
    for (let i = 0; i < 10 && core.slots.inFlight > 0; i++) core.round(1e8)
    expect(owner.told.at(-1)).toMatchObject({ slot, result: -125 })
    expect((owner.told.at(-1)?.flags ?? -1) & abi.F_MORE).toBe(0)
  })

  test("is told as it stands in the record", () => {
    core.submitTimeout(1, KIND, owner)
    core.round(Number.POSITIVE_INFINITY)
    const { kind: _, ...told } = owner.told[0]
    expect(completionAt(0)).toEqual(told)
  })

  test("one of a slot that is in other hands by now is counted and dropped", () => {
    const slot = core.submit(abi.OP_NOP, 0, -1, KIND, owner, 0, 0)
    core.slots.release(slot)
    expect(core.slots.acquire(KIND, owner)).toBe(slot)
    core.round(0)
    expect(owner.told).toEqual([])
    expect(core.stats().stale).toBe(1)
    core.slots.release(slot)
  })

  test("an owner that throws does not keep the others from hearing", () => {
    const errors: unknown[] = []
    core.reportUncaught = (error) => void errors.push(error)
    const broken: OperationOwner = {
      onCompletion() {
        throw new Error("a bug")
      },
    }
    core.submit(abi.OP_NOP, 0, -1, KIND, broken, 0, 0)
    core.submit(abi.OP_NOP, 0, -1, KIND, owner, 0, 0)
    core.round(0)
    expect(owner.told).toHaveLength(1)
    expect(errors).toMatchObject([{ message: "a bug" }])
  })
})

describe("the header", () => {
  test("time, expiry and host readiness are read where the shim writes them", () => {
    const { buffer, byteOffset } = core.memory.header
    const view = new DataView(buffer, byteOffset, abi.HEADER_SIZE)
    core.round(1e6)
    expect(core.now).toBe(view.getFloat64(abi.HEADER_NOW_MS, true))
    expect(core.now).toBeGreaterThan(0)
    expect(core.waitExpired).toBe(true)
    expect(view.getUint32(abi.HEADER_WAIT_EXPIRED, true)).toBe(1)
    core.round(0)
    expect(core.waitExpired).toBe(false)
    expect(core.hostReady).toBe(false)
    view.setUint32(abi.HEADER_HOST_READY, 1, true)
    expect(core.hostReady).toBe(true)
  })

  test("every counter of the stats is the shim's own", () => {
    const { buffer, byteOffset } = core.memory.header
    const view = new DataView(buffer, byteOffset, abi.HEADER_SIZE)
    const counters = {
      descriptorsOpened: abi.HEADER_FDS_OPENED,
      descriptorsClosed: abi.HEADER_FDS_CLOSED,
      ticks: abi.HEADER_TICKS,
      systemCalls: abi.HEADER_SYSTEM_CALLS,
      waits: abi.HEADER_WAITS,
      commands: abi.HEADER_COMMANDS,
      completions: abi.HEADER_COMPLETIONS,
      rejected: abi.HEADER_REJECTED,
      stale: abi.HEADER_STALE,
      overflows: abi.HEADER_OVERFLOWS,
      noBuffers: abi.HEADER_NO_BUFFERS,
      sendsBlocked: abi.HEADER_SENDS_BLOCKED,
      bytesReceived: abi.HEADER_BYTES_RECEIVED,
      bytesSent: abi.HEADER_BYTES_SENT,
    }
    const before = Object.entries(counters).map(
      ([name, field]) => [name, field, view.getBigUint64(field, true)] as const,
    )
    before.forEach(([, field], i) => void view.setBigUint64(field, BigInt(1000 + i), true))
    const stats = core.stats()
    before.forEach(
      ([name], i) => void expect([name, stats[name as keyof typeof stats]]).toEqual([name, 1000 + i]),
    )
    for (const [, field, value] of before) view.setBigUint64(field, value, true)
  })
})

/** A connected pair: one end is the ring's, and the other is written to without it. */
function pipeOfSockets(): { writer: (text: string) => void; fd: number } {
  const name = Buffer.from(`\0uringloop-core-${process.pid}-${performance.now()}`)
  const address = new Uint8Array(abi.ADDRESS_SIZE)
  const view = new DataView(address.buffer)
  view.setUint16(abi.ADDRESS_FAMILY, 1, true)
  view.setUint32(abi.ADDRESS_PATH_LENGTH, name.length, true)
  address.set(name, abi.ADDRESS_PATH)
  const listener = core.native.listen(core.ring, address, 1, 0)
  const dialled = core.native.socket(core.ring, 1)
  if (listener < 0 || dialled < 0) throw new Error(`no sockets: ${listener}, ${dialled}`)
  const block = core.arena.alloc(address.length)
  core.memory.pieceOf(block).set(address, core.memory.startOf(block))
  const setUp = new Owner()
  core.submit(abi.OP_ACCEPT, 0, listener, KIND, setUp, 0, 0)
  core.submit(abi.OP_CONNECT, 0, dialled, KIND + 1, setUp, block, 0)
  for (let i = 0; i < 10 && setUp.told.length < 2; i++) core.round(1e8)
  core.arena.free(block)
  const fd = setUp.told.find(({ kind }) => kind === KIND)?.result ?? -1
  if (fd < 0) throw new Error("not accepted")
  const writer = (text: string) => {
    const bytes = core.arena.alloc(text.length)
    core.memory.pieceOf(bytes).write(text, core.memory.startOf(bytes))
    core.submit(abi.OP_SEND, 0, dialled, KIND + 1, owner, bytes, text.length)
  }
  return { writer, fd }
}
