// The border itself: a whole conversation over sockets through records that are written and read at the offsets of abi.ts
// and nowhere else, so that abi.ts and the built library cannot differ unnoticed; and what is said when the library is
// missing, is no library, lacks a function or has another record layout. (That src/ uses the same offsets: core.test.ts.)

import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as abi from "./abi.ts"
import { loadShim, shimPath } from "./bun.ts"
import { ShimError } from "./native.ts"

const directory = mkdtempSync(join(tmpdir(), "uringloop-native-"))
afterAll(() => rmSync(directory, { recursive: true }))

const native = loadShim()
const AF_UNIX = 1
const SLOTS = 64
const BUFFERS = 4
const BUFFER_BYTES = 4096
const ARENA_BYTES = 1 << 20
const WAIT_NS = 1e9
const ENOENT = -2
const EBADF = -9
const EBUSY = -16
const ETIME = -62
const MS_AS_NS = 1_000_000n

interface Command {
  op: number
  flags?: number
  fd?: number
  slot: number
  generation: number
  offset?: number
  length?: number
  argument?: bigint
}

interface Completion {
  slot: number
  generation: number
  result: number
  flags: number
  bufferOffset: number
  op: number
}

/** A ring through its records. */
class Ring {
  readonly handle: number
  readonly header: DataView
  private readonly commands: DataView
  private readonly completions: DataView
  readonly arena: Uint8Array
  readonly buffers: Uint8Array

  constructor(engine: number) {
    this.handle = native.open(configOf(engine))
    if (this.handle < 0) throw new Error(`ul_open: ${this.handle}`)
    this.header = new DataView(native.region(this.handle, 0, abi.HEADER_SIZE))
    const part = (offset: number, bytes: number) => native.region(this.handle, this.at(offset), bytes)
    this.commands = new DataView(
      part(abi.HEADER_COMMAND_OFFSET, this.at(abi.HEADER_COMMAND_CAPACITY) * abi.COMMAND_SIZE),
    )
    this.completions = new DataView(
      part(abi.HEADER_COMPLETION_OFFSET, this.at(abi.HEADER_COMPLETION_CAPACITY) * abi.COMPLETION_SIZE),
    )
    this.arena = new Uint8Array(part(abi.HEADER_ARENA_OFFSET, ARENA_BYTES))
    this.buffers = new Uint8Array(part(abi.HEADER_BUFFER_OFFSET, BUFFERS * BUFFER_BYTES))
  }

  at(field: number): number {
    return this.header.getUint32(field, true)
  }

  counter(field: number): number {
    return Number(this.header.getBigUint64(field, true))
  }

  tick(commands: Command[], waitNs = 0): Completion[] {
    commands.forEach((command, i) => {
      const at = i * abi.COMMAND_SIZE
      const view = this.commands
      view.setBigUint64(at, 0n)
      view.setUint8(at + abi.COMMAND_OP, command.op)
      view.setUint8(at + abi.COMMAND_FLAGS, command.flags ?? 0)
      view.setInt32(at + abi.COMMAND_FD, command.fd ?? -1, true)
      view.setUint32(at + abi.COMMAND_SLOT, command.slot, true)
      view.setUint32(at + abi.COMMAND_GENERATION, command.generation, true)
      view.setUint32(at + abi.COMMAND_OFFSET, command.offset ?? 0, true)
      view.setUint32(at + abi.COMMAND_LENGTH, command.length ?? 0, true)
      view.setBigUint64(at + abi.COMMAND_ARGUMENT, command.argument ?? 0n, true)
    })
    const count = native.tick(this.handle, commands.length, waitNs)
    if (count < 0) throw new Error(`ul_tick: ${count}`)
    return Array.from({ length: count }, (_, i) => {
      const at = i * abi.COMPLETION_SIZE
      const view = this.completions
      return {
        slot: view.getUint32(at + abi.COMPLETION_SLOT, true),
        generation: view.getUint32(at + abi.COMPLETION_GENERATION, true),
        result: view.getInt32(at + abi.COMPLETION_RESULT, true),
        flags: view.getUint32(at + abi.COMPLETION_FLAGS, true),
        bufferOffset: view.getUint32(at + abi.COMPLETION_BUFFER_OFFSET, true),
        op: view.getUint32(at + abi.COMPLETION_OP, true),
      }
    })
  }

  /** Hands over commands, and ticks until as many completions have come. In the order of their slots. */
  complete(commands: Command[], count = commands.length): Completion[] {
    const all = this.tick(commands, WAIT_NS)
    for (let i = 0; i < 20 && all.length < count; i++) all.push(...this.tick([], WAIT_NS))
    return all.toSorted((a, b) => a.slot - b.slot)
  }

  close(): number {
    return native.close(this.handle)
  }
}

function configOf(engine: number): Uint8Array {
  const config = new Uint8Array(abi.CONFIG_SIZE)
  const view = new DataView(config.buffer)
  view.setUint32(abi.CONFIG_ENGINE, engine, true)
  view.setUint32(abi.CONFIG_SLOT_CAPACITY, SLOTS, true)
  view.setUint32(abi.CONFIG_ARENA_BYTES, ARENA_BYTES, true)
  view.setUint32(abi.CONFIG_BUFFER_COUNT, BUFFERS, true)
  view.setUint32(abi.CONFIG_BUFFER_BYTES, BUFFER_BYTES, true)
  view.setUint32(abi.CONFIG_SUBMISSION_ENTRIES, 64, true)
  view.setUint32(abi.CONFIG_COMPLETION_ENTRIES, 128, true)
  return config
}

/** A `struct ul_address` of an abstract unix name. */
function abstractAddress(name: string): Uint8Array<ArrayBuffer> {
  const bytes = Buffer.from(`\0${name}`)
  const record = new Uint8Array(abi.ADDRESS_SIZE)
  const view = new DataView(record.buffer)
  view.setUint16(abi.ADDRESS_FAMILY, AF_UNIX, true)
  view.setUint32(abi.ADDRESS_PATH_LENGTH, bytes.length, true)
  record.set(bytes, abi.ADDRESS_PATH)
  return record
}

/** The engines that this machine allows: epoll always, the others where io_uring is not blocked. */
const ENGINES = [
  { name: "uring", id: abi.ENGINE_URING },
  { name: "poll", id: abi.ENGINE_POLL },
  { name: "epoll", id: abi.ENGINE_EPOLL },
].filter(({ id }) => {
  const ring = native.open(configOf(id))
  if (ring >= 0) native.close(ring)
  return ring >= 0 || id === abi.ENGINE_EPOLL
})

describe.each(ENGINES)("records, engine $name", ({ name, id }) => {
  test("the header says what was configured, and where everything is", () => {
    const ring = new Ring(id)
    expect(ring.at(abi.HEADER_ABI_VERSION)).toBe(abi.ABI_VERSION)
    expect(ring.at(abi.HEADER_ENGINE)).toBe(id)
    expect(ring.at(abi.HEADER_SLOT_CAPACITY)).toBe(SLOTS)
    expect(ring.at(abi.HEADER_ARENA_BYTES)).toBe(ARENA_BYTES)
    expect(ring.at(abi.HEADER_BUFFER_COUNT)).toBe(BUFFERS)
    expect(ring.at(abi.HEADER_BUFFER_BYTES)).toBe(BUFFER_BYTES)
    // One region behind the other, aligned, and all within the mapping.
    const commandBytes = ring.at(abi.HEADER_COMMAND_CAPACITY) * abi.COMMAND_SIZE
    const completionBytes = ring.at(abi.HEADER_COMPLETION_CAPACITY) * abi.COMPLETION_SIZE
    let end: number = abi.HEADER_SIZE
    for (const [field, bytes] of [
      [abi.HEADER_COMMAND_OFFSET, commandBytes],
      [abi.HEADER_COMPLETION_OFFSET, completionBytes],
      [abi.HEADER_ARENA_OFFSET, ARENA_BYTES],
      [abi.HEADER_BUFFER_OFFSET, BUFFERS * BUFFER_BYTES],
    ]) {
      expect(bytes).toBeGreaterThan(0)
      expect(ring.at(field) % abi.ARENA_ALIGN).toBe(0)
      expect(ring.at(field)).toBeGreaterThanOrEqual(end)
      end = ring.at(field) + bytes
    }
    expect(ring.at(abi.HEADER_TOTAL_BYTES)).toBeGreaterThanOrEqual(end)
    expect(ring.close()).toBe(0)
  })

  test("a NOP: slot, generation and operation come back", () => {
    const ring = new Ring(id)
    expect(ring.complete([{ op: abi.OP_NOP, slot: 5, generation: 0xfedcba98 }])).toEqual([
      { slot: 5, generation: 0xfedcba98, result: 0, flags: 0, bufferOffset: 0, op: abi.OP_NOP },
    ])
    expect(ring.counter(abi.HEADER_COMMANDS)).toBe(1)
    expect(ring.counter(abi.HEADER_COMPLETIONS)).toBe(1)
    expect(ring.at(abi.HEADER_IN_FLIGHT)).toBe(0)
    expect(ring.close()).toBe(0)
  })

  test("a TIMEOUT takes its nanoseconds from the argument; the header has the time in milliseconds", () => {
    const ring = new Ring(id)
    ring.tick([])
    const before = ring.header.getFloat64(abi.HEADER_NOW_MS, true)
    const [completion] = ring.complete([
      { op: abi.OP_TIMEOUT, slot: 0, generation: 1, argument: 20n * MS_AS_NS },
    ])
    expect(completion.result).toBe(ETIME)
    const took = ring.header.getFloat64(abi.HEADER_NOW_MS, true) - before
    expect(took).toBeGreaterThanOrEqual(20)
    expect(took).toBeLessThan(2000)
    expect(ring.close()).toBe(0)
  })

  test("a CANCEL finds its target by slot and generation", () => {
    const ring = new Ring(id)
    ring.tick([{ op: abi.OP_TIMEOUT, slot: 3, generation: 8, argument: 3600_000n * MS_AS_NS }])
    expect(ring.at(abi.HEADER_IN_FLIGHT)).toBe(1)
    expect(ring.close()).toBe(EBUSY)
    const cancel = (slot: number, generation: number) =>
      ({ op: abi.OP_CANCEL, slot, generation: 1, offset: 3, length: generation }) satisfies Command
    expect(ring.complete([cancel(4, 7)]).map(({ slot, result }) => [slot, result])).toEqual([[4, ENOENT]])
    const both = ring.complete([cancel(6, 8)], 2)
    expect(both.map(({ slot, result }) => [slot, result])).toEqual([
      [3, -125],
      [6, 0],
    ])
    expect(ring.close()).toBe(0)
  })

  test("a wait that runs out is told in the header; a flush harvests nothing", () => {
    const ring = new Ring(id)
    let waits = 0
    do {
      expect(ring.tick([], 1e6)).toEqual([])
      waits++
    } while (ring.at(abi.HEADER_WAIT_EXPIRED) === 0 && waits < 100) // a signal may end a wait early
    expect(ring.at(abi.HEADER_WAIT_EXPIRED)).toBe(1)
    expect(ring.counter(abi.HEADER_WAITS)).toBe(waits)
    expect(ring.tick([{ op: abi.OP_NOP, slot: 1, generation: 1 }], abi.WAIT_FLUSH)).toEqual([])
    expect(ring.complete([], 1)).toHaveLength(1)
    expect(ring.at(abi.HEADER_WAIT_EXPIRED)).toBe(0)
    expect(ring.close()).toBe(0)
  })

  test("a conversation: listen, connect, accept, send, receive, shut down, close", () => {
    const ring = new Ring(id)
    const address = abstractAddress(`uringloop-native-${name}-${process.pid}`)
    const listener = native.listen(ring.handle, address, 8, 0)
    expect(listener).toBeGreaterThanOrEqual(0)
    const named = new Uint8Array(abi.ADDRESS_SIZE)
    expect(native.name(ring.handle, listener, 0, named)).toBe(0)
    expect(named).toEqual(address)
    const dialled = native.socket(ring.handle, AF_UNIX)
    expect(dialled).toBeGreaterThanOrEqual(0)
    ring.arena.set(address, 4096)

    const [accepted, connected] = ring.complete([
      { op: abi.OP_ACCEPT, fd: listener, slot: 1, generation: 1 },
      { op: abi.OP_CONNECT, fd: dialled, slot: 2, generation: 1, offset: 4096 },
    ])
    expect(connected).toMatchObject({ slot: 2, result: 0, flags: 0, op: abi.OP_CONNECT })
    expect(accepted).toMatchObject({ slot: 1, flags: 0, op: abi.OP_ACCEPT })
    const peer = accepted.result
    expect(ring.at(abi.HEADER_FDS_LIVE)).toBe(3)

    const text = Buffer.from("through the records")
    ring.arena.set(text, 8192)
    const [received, sent] = ring.complete([
      { op: abi.OP_RECV, fd: peer, slot: 1, generation: 2 },
      { op: abi.OP_SEND, fd: dialled, slot: 2, generation: 2, offset: 8192 + 8, length: text.length - 8 },
    ])
    expect(sent).toMatchObject({ slot: 2, generation: 2, result: text.length - 8, op: abi.OP_SEND })
    expect(received).toMatchObject({ slot: 1, generation: 2, result: text.length - 8, flags: abi.F_BUFFER })
    const start = received.bufferOffset
    expect(Buffer.from(ring.buffers.subarray(start, start + received.result)).toString()).toBe("the records")
    expect(ring.counter(abi.HEADER_BYTES_SENT)).toBe(text.length - 8)
    expect(ring.counter(abi.HEADER_BYTES_RECEIVED)).toBe(text.length - 8)

    // Multishot: a chunk with F_MORE, the end of the stream without.
    ring.tick([{ op: abi.OP_RECV, flags: abi.C_MULTISHOT, fd: peer, slot: 1, generation: 3 }])
    const [chunk] = ring
      .complete([{ op: abi.OP_SEND, fd: dialled, slot: 2, generation: 3, offset: 8192, length: 1 }])
      .filter(({ op }) => op === abi.OP_RECV)
      .concat(ring.tick([], 1e6).filter(({ op }) => op === abi.OP_RECV))
    expect(chunk).toMatchObject({ slot: 1, result: 1, flags: abi.F_MORE | abi.F_BUFFER })
    expect(ring.at(abi.HEADER_IN_FLIGHT)).toBe(1)
    const [end] = ring
      .complete([{ op: abi.OP_SHUTDOWN, fd: dialled, slot: 2, generation: 4, length: 1 }], 2)
      .filter(({ op }) => op === abi.OP_RECV)
    expect(end).toMatchObject({ slot: 1, generation: 3, result: 0, flags: 0 })

    const closed = ring.complete([
      { op: abi.OP_CLOSE, fd: peer, slot: 1, generation: 4 },
      { op: abi.OP_CLOSE, fd: dialled, slot: 2, generation: 5 },
      { op: abi.OP_CLOSE, fd: listener, slot: 3, generation: 1 },
    ])
    expect(closed.map(({ result }) => result)).toEqual([0, 0, 0])
    expect(ring.at(abi.HEADER_FDS_LIVE)).toBe(0)
    expect(ring.counter(abi.HEADER_FDS_OPENED)).toBe(3)
    expect(ring.counter(abi.HEADER_FDS_CLOSED)).toBe(3)
    expect(ring.close()).toBe(0)
  })

  test("a POLL has its mask in the length", () => {
    const ring = new Ring(id)
    const fd = native.eventFd(ring.handle)
    const POLLOUT = 4
    const [ready] = ring.complete([{ op: abi.OP_POLL, fd, slot: 1, generation: 1, length: POLLOUT }])
    expect(ready).toMatchObject({ result: POLLOUT, op: abi.OP_POLL })
    expect(ring.close()).toBe(0)
  })

  test("a command that is not allowed completes with an error and is counted", () => {
    const ring = new Ring(id)
    const [refused] = ring.complete([{ op: 99, slot: 1, generation: 1 }])
    expect(refused).toMatchObject({ slot: 1, generation: 1 })
    expect(refused.result).toBeLessThan(0)
    expect(ring.counter(abi.HEADER_REJECTED)).toBe(1)
    expect(ring.close()).toBe(0)
  })
})

describe("opening", () => {
  test("what is out of range is refused with the step and a reason", () => {
    const config = configOf(abi.ENGINE_EPOLL)
    const view = new DataView(config.buffer)
    view.setUint32(abi.CONFIG_BUFFER_COUNT, 3, true)
    expect(native.open(config)).toBeLessThan(0)
    expect(view.getUint32(abi.CONFIG_ERROR_STEP, true)).toBe(abi.STEP_CONFIG)
    const reason = config.subarray(abi.CONFIG_REASON, abi.CONFIG_REASON + abi.REASON_BYTES)
    expect(reason.indexOf(0)).toBeGreaterThan(0)
  })

  test("a ring that does not exist is EBADF; its memory is an error", () => {
    const handle = 60_000
    expect(native.tick(handle, 0, 0)).toBe(EBADF)
    expect(native.close(handle)).toBe(EBADF)
    expect(() => native.region(handle, 0, 8)).toThrow(ShimError)
    expect(() => native.region(handle, 0, 8)).toThrow(`there is no ring ${handle} on this thread`)
  })

  test("a region must lie within the mapping", () => {
    const ring = new Ring(abi.ENGINE_EPOLL)
    const total = ring.at(abi.HEADER_TOTAL_BYTES)
    expect(native.region(ring.handle, total - 8, 8).byteLength).toBe(8)
    expect(() => native.region(ring.handle, total - 8, 9)).toThrow(
      `region ${total - 8} + 9 lies outside of the mapping`,
    )
    expect(ring.close()).toBe(0)
  })
})

describe("the library", () => {
  /** What loadShim says to each path, told by a process in which none has been loaded. */
  function complaints(paths: string[]): { name: string; message: string; hasCause: boolean }[] {
    const code = `
      import { loadShim } from ${JSON.stringify(join(import.meta.dir, "bun.ts"))}
      const said = ${JSON.stringify(paths)}.map((path) => {
        process.env.URINGLOOP_SHIM = path
        try {
          return { name: "loaded", message: loadShim().path, hasCause: false }
        } catch (error) {
          return { name: error.name, message: error.message, hasCause: error.cause !== undefined }
        }
      })
      console.log(JSON.stringify(said))`
    const child = Bun.spawnSync([process.execPath, "-e", code], { stderr: "pipe" })
    if (!child.success) throw new Error(child.stderr.toString())
    return JSON.parse(child.stdout.toString())
  }

  /** A library with a version that does not exist yet, and some of the functions. */
  function build(file: string, functions: string[]): string {
    const path = join(directory, file)
    const source = functions.map((name) => `int ${name}(void) { return 4711; }\n`).join("")
    const compiler = Bun.spawnSync(["gcc", "-shared", "-fPIC", "-x", "c", "-o", path, "-"], {
      stdin: Buffer.from(source),
      stderr: "pipe",
    })
    if (!compiler.success) throw new Error(compiler.stderr.toString())
    return path
  }

  test("is the one that loadShim names, with this record layout; it is loaded once", () => {
    expect(native.path).toBe(shimPath())
    expect(native.abiVersion()).toBe(abi.ABI_VERSION)
    expect(loadShim()).toBe(native)
  })

  test("missing, no library, short of a function, of another layout: a ShimError says which, and what to do", async () => {
    const exported = [
      ...readFileSync(join(import.meta.dir, "../liburing-shim/exports.h"), "utf8").matchAll(
        /\bul_\w+(?=\()/g,
      ),
    ].map(([name]) => name)
    expect(exported).toContain("ul_tick")
    const missing = join(directory, "nowhere.so")
    const text = join(directory, "text.so")
    await Bun.write(text, "not a library")
    const short = build(
      "short.so",
      exported.filter((name) => name !== "ul_tick"),
    )
    const other = build("other.so", exported)
    const said = complaints([missing, text, short, other, native.path])
    expect(said.map(({ name }) => name)).toEqual([
      "ShimError",
      "ShimError",
      "ShimError",
      "ShimError",
      "loaded",
    ])
    expect(said[0].message).toBe(`the shim is not at ${missing}: build it with \`make shim\``)
    for (const [i, path] of [
      [1, text],
      [2, short],
    ] as const) {
      expect(said[i].message).toStartWith(`the shim at ${path} cannot be loaded: `)
      expect(said[i].hasCause).toBe(true)
    }
    expect(said[2].message).toContain("ul_tick")
    expect(said[3].message).toBe(
      `the shim at ${other} has record layout 4711, this version needs ${abi.ABI_VERSION}: run \`make shim\``,
    )
    // What failed is not remembered.
    expect(said[4].message).toBe(native.path)
  })
})
