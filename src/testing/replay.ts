/**
 * Replay: a platform that answers as a recording says, without kernel, peers and time. The program must do what it did: each
 * call is compared with the recording, and the first difference is a `Divergence`.
 *
 *     const replay = new Replay(readFileSync("run.rec"))
 *     const reactor = Reactor.open({ engine: "uring" }, replay)      // the options of the recorded run
 *     reactor.listen(...)                                            // the program of the recorded run
 *     replay.drive()                                                 // hosted; an owned one runs by reactor.run()
 *
 * What the program hears from elsewhere (timers, files, other reactors) is not in the recording: a program that acts on it
 * diverges.
 */
import * as abi from "../../ffi/abi.ts"
import { bunLoop } from "../../ffi/bun.ts"
import type { EventWatch, Native, Platform, RuntimeLoop } from "../../ffi/native.ts"
import { decodeEntries, type Entry, type Kind, receivedOf } from "./recording.ts"

/** The program does something else than it did when it was recorded. */
export class Divergence extends Error {
  override name = "Divergence"
}

/** The recording is at its end: thrown out of `reactor.run()` of an owned host. */
export class ReplayEnded extends Error {
  override name = "ReplayEnded"
}

export class Replay implements Platform {
  readonly native: Native
  readonly loop: RuntimeLoop
  readonly clock: () => number
  /** Errors that callbacks of the loop threw: what nobody took. */
  readonly uncaught: unknown[] = []
  private readonly entries: Entry[]
  private next = 0
  private readonly callbacks: (() => void)[] = []
  private readonly regions = new Map<string, ArrayBuffer>()
  private readonly headers = new Map<number, Uint8Array>()

  /** @param recording what the sink of `record` was given, in one piece */
  constructor(recording: Uint8Array) {
    this.entries = decodeEntries(recording)
    this.clock = () => this.take("clock").value
    this.native = this.makeNative()
    this.loop = this.makeLoop()
  }

  /** Entries that have not been played. */
  get left(): number {
    return this.entries.length - this.next
  }

  /**
   * Plays the recording to its end: calls back as the runtime's loop did.
   * @throws Divergence
   */
  drive(): void {
    bunLoop.drainMicrotasks()
    while (this.left > 0) {
      const { value } = this.take("callback")
      const callback = this.callbacks[value]
      if (callback === undefined) throw new Divergence(`callback ${value} was never asked for`)
      try {
        callback()
      } catch (error) {
        if (error instanceof Divergence) throw error
        if (error instanceof ReplayEnded) return
        this.uncaught.push(error)
      }
      bunLoop.drainMicrotasks()
    }
  }

  private take(kind: Kind): Entry {
    const entry = this.entries[this.next]
    if (entry === undefined) throw new ReplayEnded(`${kind}: the recording has ended`)
    if (entry.kind !== kind)
      throw new Divergence(`entry ${this.next}: ${kind} is asked for, ${entry.kind} was recorded`)
    this.next++
    return entry
  }

  private region(ring: number, offset: number, length: number): ArrayBuffer {
    const key = `${ring} ${offset} ${length}`
    let region = this.regions.get(key)
    if (region === undefined) {
      region = offset === 0 ? this.headerOf(ring) : new ArrayBuffer(length)
      this.regions.set(key, region)
    }
    return region
  }

  private headerOf(ring: number): ArrayBuffer {
    return (this.headers.get(ring) as Uint8Array).buffer as ArrayBuffer
  }

  /** A part of the mapping by the field that says where it begins. */
  private part(ring: number, offset: number, count: number, size: number): Uint8Array {
    const words = new Uint32Array(this.headerOf(ring))
    return new Uint8Array(this.region(ring, words[offset / 4], words[count / 4] * size))
  }

  private tick(ring: number, count: number, waitNs: number): number {
    const at = this.next
    const { value, asked, answered } = this.take("tick")
    const commands = this.part(ring, abi.HEADER_COMMAND_OFFSET, abi.HEADER_COMMAND_CAPACITY, abi.COMMAND_SIZE)
    this.compare(at, commands.subarray(0, count * abi.COMMAND_SIZE), asked)
    this.headers.get(ring)?.set(answered.subarray(0, abi.HEADER_SIZE))
    if (waitNs < 0 || value <= 0) return value
    const told = answered.subarray(abi.HEADER_SIZE, abi.HEADER_SIZE + value * abi.COMPLETION_SIZE)
    this.part(ring, abi.HEADER_COMPLETION_OFFSET, abi.HEADER_COMPLETION_CAPACITY, abi.COMPLETION_SIZE).set(
      told,
    )
    const bufferBytes = new Uint32Array(this.headerOf(ring))[abi.HEADER_BUFFER_BYTES / 4]
    const buffers = this.part(ring, abi.HEADER_BUFFER_OFFSET, abi.HEADER_BUFFER_COUNT, bufferBytes)
    let from = abi.HEADER_SIZE + told.length
    for (const piece of receivedOf(told, buffers)) {
      piece.set(answered.subarray(from, from + piece.length))
      from += piece.length
    }
    return value
  }

  private compare(at: number, commands: Uint8Array, recorded: Uint8Array): void {
    if (Buffer.compare(commands, recorded) === 0) return
    const size = abi.COMMAND_SIZE
    const differs = (i: number) =>
      Buffer.compare(
        commands.subarray(i * size, (i + 1) * size),
        recorded.subarray(i * size, (i + 1) * size),
      ) !== 0
    let i = 0
    while (!differs(i)) i++
    throw new Divergence(
      `entry ${at}, command ${i}: ${describe(commands, i)} is asked for, ${describe(recorded, i)} was recorded`,
    )
  }

  private makeNative(): Native {
    const answer = (kind: Kind) => (): number => this.take(kind).value
    const fill = (kind: Kind, out: Uint8Array): number => {
      const { value, answered } = this.take(kind)
      out.set(answered)
      return value
    }
    return {
      path: "replay",
      abiVersion: () => abi.ABI_VERSION,
      open: (config) => {
        const { value, answered } = this.take("open")
        if (value < 0) config.set(answered)
        else this.headers.set(value, answered.slice())
        return value
      },
      tick: (ring, count, waitNs) => this.tick(ring, count, waitNs),
      region: (ring, offset, length) => this.region(ring, offset, length),
      close: answer("close"),
      notify: answer("notify"),
      eventFd: answer("eventFd"),
      watch: answer("watch"),
      listen: answer("listen"),
      socket: answer("socket"),
      adopt: answer("adopt"),
      setOption: answer("setOption"),
      getOption: answer("getOption"),
      name: (_ring, _fd, _peer, out) => fill("name", out),
      resolve: (_host, out) => fill("resolve", out),
      probe: () => "{}",
    }
  }

  private makeLoop(): RuntimeLoop {
    const keep = (callback: () => void): number => this.callbacks.push(callback) - 1
    return {
      drainMicrotasks: bunLoop.drainMicrotasks,
      nextTurn: (callback) => void keep(callback),
      setTimer: (callback) => keep(callback),
      clearTimer() {},
      watchEvent(_fd, onReadable): EventWatch {
        keep(onReadable)
        let isOpen = false
        return {
          get isOpen() {
            return isOpen
          },
          open() {
            isOpen = true
          },
          close() {
            isOpen = false
          },
        }
      },
      loopDescriptor: () => this.take("loopDescriptor").value,
    }
  }
}

const OP_NAMES = "- NOP ACCEPT CONNECT RECV SEND POLL TIMEOUT CANCEL SHUTDOWN CLOSE".split(" ")

function describe(commands: Uint8Array, index: number): string {
  const at = index * abi.COMMAND_SIZE
  if (at + abi.COMMAND_SIZE > commands.length) return "nothing"
  const view = new DataView(commands.buffer, commands.byteOffset + at, abi.COMMAND_SIZE)
  const op = OP_NAMES[view.getUint8(abi.COMMAND_OP)]
  const fd = view.getInt32(abi.COMMAND_FD, true)
  return `${op} fd ${fd} (${view.getUint32(abi.COMMAND_OFFSET, true)}, ${view.getUint32(abi.COMMAND_LENGTH, true)})`
}
