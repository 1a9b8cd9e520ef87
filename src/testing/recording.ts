/**
 * Recording: all that passes between a reactor and what it stands on, in order, so that it can be played again without kernel,
 * peers and time (replay.ts). A failure in the field becomes a test.
 *
 *     const file = openSync("run.rec", "w")
 *     const reactor = Reactor.open({}, record(undefined, (bytes) => writeSync(file, bytes)))
 *
 * An entry is: kind (1 byte), value (float64), length (uint32) and bytes of what was asked, the same of what was answered;
 * little endian. What programs send is not recorded, but for where it lay and how much it was; what they receive is.
 */
import * as abi from "../../ffi/abi.ts"
import type { EventWatch, Native, Platform, RuntimeLoop } from "../../ffi/native.ts"
import { runtimePlatform } from "../reactor/engine.ts"

/** Kinds of entries: calls of `Native` and `RuntimeLoop`, the clock, and callbacks of the loop. */
export const KINDS = [
  "tick",
  "clock",
  "callback",
  "open",
  "close",
  "notify",
  "eventFd",
  "watch",
  "listen",
  "socket",
  "adopt",
  "name",
  "setOption",
  "getOption",
  "resolve",
  "loopDescriptor",
] as const

export type Kind = (typeof KINDS)[number]

export interface Entry {
  kind: Kind
  /** The result; of a clock its milliseconds, of a callback its number. */
  value: number
  asked: Uint8Array
  answered: Uint8Array
}

const HEAD_BYTES = 1 + 8 + 4
const NOTHING: Uint8Array = new Uint8Array(0)

export function encodeEntry({ kind, value, asked, answered }: Entry): Uint8Array {
  const bytes = new Uint8Array(HEAD_BYTES + asked.length + 4 + answered.length)
  const view = new DataView(bytes.buffer)
  view.setUint8(0, KINDS.indexOf(kind))
  view.setFloat64(1, value, true)
  view.setUint32(9, asked.length, true)
  bytes.set(asked, HEAD_BYTES)
  view.setUint32(HEAD_BYTES + asked.length, answered.length, true)
  bytes.set(answered, HEAD_BYTES + asked.length + 4)
  return bytes
}

/** The entries of a recording; one that breaks off in the middle of an entry ends before it. */
export function decodeEntries(recording: Uint8Array): Entry[] {
  // A Buffer's `slice` is no copy.
  const bytes = new Uint8Array(recording.buffer, recording.byteOffset, recording.length)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const entries: Entry[] = []
  for (let at = 0; at + HEAD_BYTES <= bytes.length; ) {
    const askedEnd = at + HEAD_BYTES + view.getUint32(at + 9, true)
    if (askedEnd + 4 > bytes.length) break
    const end = askedEnd + 4 + view.getUint32(askedEnd, true)
    if (end > bytes.length) break
    entries.push({
      kind: KINDS[view.getUint8(at)],
      value: view.getFloat64(at + 1, true),
      asked: bytes.subarray(at + HEAD_BYTES, askedEnd),
      answered: bytes.subarray(askedEnd + 4, end),
    })
    at = end
  }
  return entries
}

/**
 * A platform that records.
 * @param platform what it stands on; undefined: the kernel and the runtime
 * @param sink takes the recording, piece by piece; the pieces are its own
 */
export function record(platform: Platform | undefined, sink: (bytes: Uint8Array) => void): Platform {
  const inner = platform ?? runtimePlatform()
  const log = (kind: Kind, value: number, asked = NOTHING, answered = NOTHING): number => {
    sink(encodeEntry({ kind, value, asked, answered }))
    return value
  }
  return {
    native: new RecordingNative(inner.native, log),
    loop: recordLoop(inner.loop, log),
    clock: () => log("clock", inner.clock()),
  }
}

type Log = (kind: Kind, value: number, asked?: Uint8Array, answered?: Uint8Array) => number

interface Views {
  header: Uint8Array
  commands: Uint8Array
  completions: Uint8Array
  buffers: Uint8Array
}

class RecordingNative implements Native {
  readonly path: string
  private readonly inner: Native
  private readonly log: Log
  private readonly rings = new Map<number, Views>()

  constructor(inner: Native, log: Log) {
    this.inner = inner
    this.log = log
    this.path = inner.path
  }

  readonly tick = (ring: number, count: number, waitNs: number): number => {
    const views = this.rings.get(ring)
    if (views === undefined) return this.inner.tick(ring, count, waitNs)
    const asked = views.commands.slice(0, count * abi.COMMAND_SIZE)
    const result = this.inner.tick(ring, count, waitNs)
    const isHarvest = waitNs >= 0 && result > 0
    const told = isHarvest ? views.completions.slice(0, result * abi.COMPLETION_SIZE) : NOTHING
    const answered = Buffer.concat([views.header, told, ...receivedOf(told, views.buffers)])
    return this.log("tick", result, asked, answered)
  }

  open(config: Uint8Array): number {
    const ring = this.inner.open(config)
    if (ring < 0) return this.log("open", ring, NOTHING, config.slice())
    const header = new Uint8Array(this.inner.region(ring, 0, abi.HEADER_SIZE))
    const words = new Uint32Array(header.buffer, header.byteOffset, abi.HEADER_SIZE / 4)
    const part = (offset: number, bytes: number) =>
      new Uint8Array(this.inner.region(ring, words[offset / 4], bytes))
    const at = (field: number) => words[field / 4]
    this.rings.set(ring, {
      header,
      commands: part(abi.HEADER_COMMAND_OFFSET, at(abi.HEADER_COMMAND_CAPACITY) * abi.COMMAND_SIZE),
      completions: part(
        abi.HEADER_COMPLETION_OFFSET,
        at(abi.HEADER_COMPLETION_CAPACITY) * abi.COMPLETION_SIZE,
      ),
      buffers: part(abi.HEADER_BUFFER_OFFSET, at(abi.HEADER_BUFFER_COUNT) * at(abi.HEADER_BUFFER_BYTES)),
    })
    return this.log("open", ring, NOTHING, header.slice())
  }

  close(ring: number): number {
    const result = this.log("close", this.inner.close(ring))
    if (result >= 0) this.rings.delete(ring)
    return result
  }
  notify(ring: number, on: number): number {
    return this.log("notify", this.inner.notify(ring, on))
  }
  eventFd(ring: number): number {
    return this.log("eventFd", this.inner.eventFd(ring))
  }
  watch(ring: number, fd: number): number {
    return this.log("watch", this.inner.watch(ring, fd))
  }
  listen(ring: number, address: Uint8Array, backlog: number, flags: number): number {
    return this.log("listen", this.inner.listen(ring, address, backlog, flags))
  }
  socket(ring: number, family: number): number {
    return this.log("socket", this.inner.socket(ring, family))
  }
  adopt(ring: number, fd: number): number {
    return this.log("adopt", this.inner.adopt(ring, fd))
  }
  name(ring: number, fd: number, peer: number, out: Uint8Array): number {
    return this.log("name", this.inner.name(ring, fd, peer, out), NOTHING, out.slice())
  }
  setOption(ring: number, fd: number, option: number, value: number): number {
    return this.log("setOption", this.inner.setOption(ring, fd, option, value))
  }
  getOption(ring: number, fd: number, option: number): number {
    return this.log("getOption", this.inner.getOption(ring, fd, option))
  }
  resolve(host: string, out: Uint8Array, capacity: number): number {
    return this.log("resolve", this.inner.resolve(host, out, capacity), NOTHING, out.slice())
  }
  // Without effect on what follows.
  abiVersion(): number {
    return this.inner.abiVersion()
  }
  region(ring: number, offset: number, length: number): ArrayBuffer {
    return this.inner.region(ring, offset, length)
  }
  probe(): string {
    return this.inner.probe()
  }
}

/** The received bytes that completions point at, in their order. */
export function receivedOf(completions: Uint8Array, buffers: Uint8Array): Uint8Array[] {
  const view = new DataView(completions.buffer, completions.byteOffset, completions.length)
  const pieces: Uint8Array[] = []
  for (let at = 0; at < completions.length; at += abi.COMPLETION_SIZE) {
    if ((view.getUint32(at + abi.COMPLETION_FLAGS, true) & abi.F_BUFFER) === 0) continue
    const start = view.getUint32(at + abi.COMPLETION_BUFFER_OFFSET, true)
    pieces.push(buffers.subarray(start, start + view.getInt32(at + abi.COMPLETION_RESULT, true)))
  }
  return pieces
}

/** Callbacks are known by the order in which they were asked for. */
function recordLoop(inner: RuntimeLoop, log: Log): RuntimeLoop {
  let asked = 0
  const numbered = (callback: () => void) => {
    const number = asked++
    return () => {
      log("callback", number)
      callback()
    }
  }
  return {
    drainMicrotasks: inner.drainMicrotasks,
    nextTurn: (callback, keepAlive) => inner.nextTurn(numbered(callback), keepAlive),
    setTimer: (callback, afterMs, keepAlive) => inner.setTimer(numbered(callback), afterMs, keepAlive),
    clearTimer: (timer) => inner.clearTimer(timer),
    watchEvent: (fd, onReadable): EventWatch => inner.watchEvent(fd, numbered(onReadable)),
    loopDescriptor: (fd) => log("loopDescriptor", inner.loopDescriptor(fd)),
  }
}
