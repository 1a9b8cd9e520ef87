/**
 * Watches the border between TypeScript and an engine, any engine: a `Native` around another. It keeps an account of its own
 * from the records alone, and fails when a rule of docs/design.md ("What always holds") is broken by either side:
 *
 *  1. every command gets exactly one terminal completion, of its own operation, and none comes for anything else;
 *  2. memory of a send stays as it is until its terminal completion; received bytes lie within the receive memory, apart;
 *  3. descriptors opened = closed + open; no CLOSE while operations on the descriptor are in flight;
 *  4. a completion of the past is one that was made up on purpose (`staleAllowed`);
 *  6. a ring is released with nothing in flight and nothing open;
 *  and the header's counters agree with what was seen.
 */
import * as abi from "../../ffi/abi.ts"
import type { Native } from "../../ffi/native.ts"
import { PassThrough } from "./pass_through.ts"
import { Violation } from "./violation.ts"

const COMMAND_WORDS = abi.COMMAND_SIZE / 4
const COMPLETION_WORDS = abi.COMPLETION_SIZE / 4
const PIECE_BYTES = 1 << 20

/** A command without its terminal completion. */
interface Outstanding {
  generation: number
  op: number
  fd: number
  offset: number
  length: number
  /** SEND: of its bytes when it was asked for. */
  hash: number | bigint
}

interface WatchedRing {
  header: Uint32Array
  commands: Uint32Array
  completions: Int32Array
  outstanding: Map<number, Outstanding>
  commandsSeen: number
  completionsSeen: number
  staleSeen: number
  /** Descriptors with a SEND in flight. */
  sending: Set<number>
}

export interface CheckOptions {
  /** Completion records of the past that were made up so far. Default: none. */
  staleAllowed?: () => number
  /** Commands may be refused: a test asks for what is not allowed. */
  mayRefuse?: boolean
  /** Called before each tick, with the time that it may sleep. */
  beforeTick?: ((waitNs: number) => void) | undefined
  /** Called after each tick. */
  afterTick?: (ring: number) => void
  /** Told of each command and completion, as a line. */
  trace?: ((line: string) => void) | undefined
}

export class BorderChecker extends PassThrough {
  private readonly options: CheckOptions
  private readonly rings = new Map<number, WatchedRing>()

  constructor(inner: Native, options: CheckOptions = {}) {
    super(inner)
    this.options = options
  }

  override readonly tick = (ring: number, count: number, waitNs: number): number => {
    const watched = this.rings.get(ring)
    if (watched === undefined) return this.inner.tick(ring, count, waitNs)
    this.options.trace?.(`tick: ${count} commands, may wait ${waitNs} ns`)
    this.options.beforeTick?.(waitNs)
    for (let i = 0; i < count; i++) this.takeCommand(watched, ring, i * COMMAND_WORDS)
    const result = this.inner.tick(ring, count, waitNs)
    if (result < 0) throw new Violation(`tick answered ${result}`)
    if (waitNs >= 0) this.takeCompletions(watched, ring, result)
    this.checkHeader(watched)
    this.options.afterTick?.(ring)
    return result
  }

  override open(config: Uint8Array): number {
    const ring = this.inner.open(config)
    if (ring < 0) return ring
    const header = new Uint32Array(this.inner.region(ring, 0, abi.HEADER_SIZE))
    const at = (field: number) => header[field / 4]
    const part = (offset: number, bytes: number) => this.inner.region(ring, at(offset), bytes)
    this.rings.set(ring, {
      header,
      commands: new Uint32Array(
        part(abi.HEADER_COMMAND_OFFSET, at(abi.HEADER_COMMAND_CAPACITY) * abi.COMMAND_SIZE),
      ),
      completions: new Int32Array(
        part(abi.HEADER_COMPLETION_OFFSET, at(abi.HEADER_COMPLETION_CAPACITY) * abi.COMPLETION_SIZE),
      ),
      outstanding: new Map(),
      commandsSeen: 0,
      completionsSeen: 0,
      staleSeen: 0,
      sending: new Set(),
    })
    return ring
  }

  override close(ring: number): number {
    const watched = this.rings.get(ring)
    const openCount = watched?.header[abi.HEADER_FDS_LIVE / 4] ?? 0
    const result = this.inner.close(ring)
    if (result < 0 || watched === undefined) return result
    this.rings.delete(ring)
    if (watched.outstanding.size > 0) {
      throw new Violation(`the ring was released with ${watched.outstanding.size} commands in flight`)
    }
    if (openCount > 0) throw new Violation(`the ring was released with ${openCount} descriptors open`)
    return result
  }

  // ---- commands ----

  private takeCommand(watched: WatchedRing, ring: number, at: number): void {
    const words = watched.commands
    const op = words[at] & 0xff
    const fd = words[at + 1] | 0
    const slot = words[at + 2]
    const generation = words[at + 3]
    const offset = words[at + 4]
    const length = words[at + 5]
    watched.commandsSeen++
    this.options.trace?.(`  ask  ${OP_NAMES[op]} fd ${fd} slot ${slot}.${generation} ${offset} ${length}`)
    if (watched.outstanding.has(slot)) throw new Violation(`slot ${slot} is used again while it is in flight`)
    let hash: number | bigint = 0
    if (op === abi.OP_SEND) {
      if (watched.sending.has(fd)) throw new Violation(`descriptor ${fd} has two sends in flight`)
      watched.sending.add(fd)
      hash = this.hashOf(watched, ring, offset, length)
    }
    if (op === abi.OP_CLOSE && this.options.mayRefuse !== true) {
      for (const other of watched.outstanding.values()) {
        if (other.fd === fd && other.op !== abi.OP_CLOSE) {
          throw new Violation(`CLOSE of descriptor ${fd} with ${OP_NAMES[other.op]} in flight`)
        }
      }
    }
    watched.outstanding.set(slot, { generation, op, fd, offset, length, hash })
  }

  /** Of a send's bytes, in the arena. */
  private hashOf(watched: WatchedRing, ring: number, offset: number, length: number): number | bigint {
    const start = offset % PIECE_BYTES
    const piece = watched.header[abi.HEADER_ARENA_OFFSET / 4] + offset - start
    return Bun.hash(new Uint8Array(this.inner.region(ring, piece, PIECE_BYTES), start, length))
  }

  // ---- completions ----

  private takeCompletions(watched: WatchedRing, ring: number, count: number): void {
    watched.completionsSeen += count
    const pieces: [start: number, end: number][] = []
    for (let i = 0; i < count; i++) this.takeCompletion(watched, ring, i * COMPLETION_WORDS, pieces)
    pieces.sort((a, b) => a[0] - b[0])
    for (let i = 1; i < pieces.length; i++) {
      if (pieces[i][0] < pieces[i - 1][1])
        throw new Violation("two completions point at the same received bytes")
    }
  }

  private takeCompletion(watched: WatchedRing, ring: number, at: number, pieces: [number, number][]): void {
    const records = watched.completions
    const slot = records[at]
    const generation = records[at + 1] >>> 0
    const result = records[at + 2]
    const flags = records[at + 3]
    const op = records[at + 5]
    this.options.trace?.(
      `  told ${OP_NAMES[op]} slot ${slot}.${generation} ${result}${flags & 1 ? " more" : ""}`,
    )
    const command = watched.outstanding.get(slot)
    if (command === undefined || command.generation !== generation) {
      watched.staleSeen++
      if (watched.staleSeen > (this.options.staleAllowed?.() ?? 0)) {
        throw new Violation(`a completion for slot ${slot}.${generation}, which is not in flight`)
      }
      return
    }
    if (command.op !== op) {
      throw new Violation(`slot ${slot}: ${OP_NAMES[command.op]} completed as ${OP_NAMES[op]}`)
    }
    if (flags & abi.F_BUFFER) {
      const start = records[at + 4]
      const size = watched.header[abi.HEADER_BUFFER_COUNT / 4] * watched.header[abi.HEADER_BUFFER_BYTES / 4]
      if (start < 0 || result <= 0 || start + result > size) {
        throw new Violation(`received bytes ${start} + ${result} lie outside of the receive memory`)
      }
      pieces.push([start, start + result])
    } else if (op === abi.OP_RECV && result > 0) throw new Violation("a receive without its bytes")
    if (flags & abi.F_MORE) return
    watched.outstanding.delete(slot)
    if (op === abi.OP_SEND) {
      watched.sending.delete(command.fd)
      if (this.hashOf(watched, ring, command.offset, command.length) !== command.hash) {
        throw new Violation(`the bytes of a send on descriptor ${command.fd} changed while it was in flight`)
      }
    }
  }

  // ---- the account ----

  private checkHeader(watched: WatchedRing): void {
    const at = (field: number) => watched.header[field / 4]
    const expect = (what: string, seen: number, said: number) => {
      if (seen !== said) throw new Violation(`${what}: ${seen} seen, the header says ${said}`)
    }
    const rejected = at(abi.HEADER_REJECTED)
    if (rejected === 0) expect("commands in flight", watched.outstanding.size, at(abi.HEADER_IN_FLIGHT))
    else if (this.options.mayRefuse !== true) throw new Violation(`${rejected} commands were refused`)
    expect("commands", watched.commandsSeen, at(abi.HEADER_COMMANDS))
    expect("completions", watched.completionsSeen, at(abi.HEADER_COMPLETIONS))
    const openCount = at(abi.HEADER_FDS_LIVE)
    expect("descriptors open", at(abi.HEADER_FDS_OPENED) - at(abi.HEADER_FDS_CLOSED), openCount)
    const lent = at(abi.HEADER_BUFFERS_LENT)
    if (lent > at(abi.HEADER_BUFFER_COUNT))
      throw new Violation(`${lent} buffers are lent: more than there are`)
  }

  override notify(ring: number, on: number): number {
    this.options.trace?.(`  eventfd ${on ? "on" : "off"}`)
    return this.inner.notify(ring, on)
  }
}

const OP_NAMES: Record<number, string> = {
  [abi.OP_NOP]: "NOP",
  [abi.OP_ACCEPT]: "ACCEPT",
  [abi.OP_CONNECT]: "CONNECT",
  [abi.OP_RECV]: "RECV",
  [abi.OP_SEND]: "SEND",
  [abi.OP_POLL]: "POLL",
  [abi.OP_TIMEOUT]: "TIMEOUT",
  [abi.OP_CANCEL]: "CANCEL",
  [abi.OP_SHUTDOWN]: "SHUTDOWN",
  [abi.OP_CLOSE]: "CLOSE",
}
