/**
 * One ring of a fault plan: stands between the reactor's records and the shim's, and makes of some operations what the rules
 * say. The reactor has command, completion and receive memory of its own here; what passes is copied.
 *
 *     reactor's commands ──▶ take ──▶ shim's commands ──▶ (tick) ──▶ shim's completions ──▶ judge ──▶ told ──▶ reactor's
 *
 * What a rule makes up keeps to the rules of docs/design.md ("What always holds"):
 *
 *  - One terminal completion per command. An operation that is made to fail has not been handed over at all (send, connect,
 *    ...), or has ended underneath by the time its failure is told (accept, recv: it is cancelled, what still comes is kept,
 *    and the made-up end takes the place of the true one).
 *  - Nothing is lost that the kernel would have kept: received bytes and accepted connections that come while an operation
 *    is being ended, or behind an error after which one tries again (KEPT), wait for the next such operation on the
 *    descriptor.
 *  - Time and wake-ups are the shim's: a delay is a TIMEOUT of our own, a completion that was made up outside of a harvest
 *    announces itself by a NOP. So a host that sleeps hears of them, in a simulated kernel too.
 *
 * The first OWN_SLOTS of the shim's slots are ours, the reactor's stand behind them.
 */
import { constants } from "node:os"
import * as abi from "../../ffi/abi.ts"
import type { Native } from "../../ffi/native.ts"
import type { Fault, FaultRules } from "./fault_rules.ts"
import { OWN_SLOTS, OwnCommands } from "./own_commands.ts"

const COMMAND_WORDS = abi.COMMAND_SIZE / 4
const COMPLETION_WORDS = abi.COMPLETION_SIZE / 4
const { errno } = constants
const ECANCELED = errno.ECANCELED
const ENOBUFS = errno.ENOBUFS
/** After these one tries again, and finds what was there. After any other, bytes and connections are gone. */
const KEPT = new Set([
  errno.EAGAIN,
  errno.EINTR,
  errno.ECANCELED,
  errno.ENOBUFS,
  errno.ENOMEM,
  errno.EMFILE,
  errno.ENFILE,
])

/** What is to be told to the reactor, or waits for an operation that asks for it. */
interface Outcome {
  result: number
  flags: number
  bytes: Uint8Array | undefined
}

/** A command of the reactor's without its terminal completion. */
interface Operation {
  readonly slot: number
  readonly generation: number
  readonly op: number
  readonly fd: number
  readonly isMultishot: boolean
  /** The shim has it. */
  isUnderway: boolean
  /** What it ends with once it has ended underneath. */
  ending: (Outcome & { delayNs: number }) | undefined
  /** What still arrives until then is dropped. */
  isBroken: boolean
  /** Decided when it was asked for: what its completion is to be, and how late. */
  fault: Fault | undefined
  /** Completions that a delay holds back, in order. */
  held: Outcome[] | undefined
}

interface Told extends Outcome {
  slot: number
  generation: number
  op: number
  operation: Operation | undefined
}

export class FaultyRing {
  private readonly native: Native
  private readonly handle: number
  private readonly rules: FaultRules
  private readonly realHeader: Uint32Array
  private readonly realCommands: Int32Array
  private readonly realCompletions: Int32Array
  private readonly realBuffers: Uint8Array
  private readonly header: Uint32Array
  private readonly counters: BigUint64Array
  private readonly commands: Int32Array
  private readonly completions: Int32Array
  private readonly buffers: Uint8Array
  private readonly commandCapacity: number
  private readonly completionCapacity: number
  /** Of the reactor's, by its slot. */
  private readonly operations = new Map<number, Operation>()
  /** What has arrived for a descriptor and found no operation. */
  private readonly waiting = new Map<number, Outcome[]>()
  /** Of those descriptors, the ones that are listeners. */
  private readonly listeners = new Set<number>()
  /** Numbers of the connections. */
  private readonly connections = new Map<number, number>()
  private connectionCount = 0
  /** To be told, in order. */
  private out: Told[] = []
  /** Records in the shim's command array. */
  private forwarded = 0
  private readonly own = new OwnCommands()
  private readonly nextPlace = () => this.place()
  private isAnnounced = false
  private commandsSeen = 0
  private completionsTold = 0

  constructor(native: Native, handle: number, rules: FaultRules) {
    this.native = native
    this.handle = handle
    this.rules = rules
    const head = native.region(handle, 0, abi.HEADER_SIZE)
    this.realHeader = new Uint32Array(head)
    const at = (field: number) => this.realHeader[field / 4]
    const part = (offset: number, bytes: number) => native.region(handle, at(offset), bytes)
    this.commandCapacity = at(abi.HEADER_COMMAND_CAPACITY)
    this.completionCapacity = at(abi.HEADER_COMPLETION_CAPACITY)
    const commandBytes = this.commandCapacity * abi.COMMAND_SIZE
    const completionBytes = this.completionCapacity * abi.COMPLETION_SIZE
    const bufferBytes = at(abi.HEADER_BUFFER_COUNT) * at(abi.HEADER_BUFFER_BYTES)
    this.realCommands = new Int32Array(part(abi.HEADER_COMMAND_OFFSET, commandBytes))
    this.realCompletions = new Int32Array(part(abi.HEADER_COMPLETION_OFFSET, completionBytes))
    this.realBuffers = new Uint8Array(part(abi.HEADER_BUFFER_OFFSET, bufferBytes))
    this.header = new Uint32Array(abi.HEADER_SIZE / 4)
    this.counters = new BigUint64Array(this.header.buffer)
    this.commands = new Int32Array(commandBytes / 4)
    this.completions = new Int32Array(completionBytes / 4)
    this.buffers = new Uint8Array(bufferBytes)
    this.copyHeader()
  }

  /** The reactor's side of the memory at an offset of the mapping; undefined where it is the shim's own. */
  region(offset: number, length: number): ArrayBuffer | undefined {
    const start = (field: number) => this.realHeader[field / 4]
    const parts: [number, ArrayBufferLike][] = [
      [0, this.header.buffer],
      [start(abi.HEADER_COMMAND_OFFSET), this.commands.buffer],
      [start(abi.HEADER_COMPLETION_OFFSET), this.completions.buffer],
      [start(abi.HEADER_BUFFER_OFFSET), this.buffers.buffer],
    ]
    const found = parts.find(([begin, { byteLength }]) => offset === begin && length === byteLength)
    return found?.[1] as ArrayBuffer | undefined
  }

  /** A command, an answer or a wake-up of our own is under way: the ring cannot be released yet. */
  get isBusy(): boolean {
    return this.own.isBusy
  }

  /** The ring is gone: what is seen of it from now on is empty, as it is without a plan. */
  clear(): void {
    this.header.fill(0)
    this.buffers.fill(0)
  }

  tick(count: number, waitNs: number): number {
    for (let i = 0; i < count; i++) this.take(i * COMMAND_WORDS)
    this.own.issue(this.realCommands, this.nextPlace)
    const isHarvest = waitNs >= 0
    const result = this.enter(isHarvest && this.out.length > 0 ? 0 : waitNs)
    let told = 0
    if (isHarvest && result >= 0) {
      for (let i = 0; i < result; i++) this.look(i * COMPLETION_WORDS)
      told = this.tell()
    }
    this.announce()
    this.own.issue(this.realCommands, this.nextPlace)
    if (this.forwarded > 0) this.enter(abi.WAIT_FLUSH)
    this.copyHeader()
    return result < 0 ? result : told
  }

  private enter(waitNs: number): number {
    const count = this.forwarded
    this.forwarded = 0
    return this.native.tick(this.handle, count, waitNs)
  }

  /** As the shim says, but for what passes here. */
  copyHeader(): void {
    this.header.set(this.realHeader)
    this.header[abi.HEADER_SLOT_CAPACITY / 4] -= OWN_SLOTS
    this.header[abi.HEADER_IN_FLIGHT / 4] = this.operations.size
    this.counters[abi.HEADER_COMMANDS / 8] = BigInt(this.commandsSeen)
    this.counters[abi.HEADER_COMPLETIONS / 8] = BigInt(this.completionsTold)
  }

  // ---- commands ----

  private take(at: number): void {
    const words = this.commands
    const operation: Operation = {
      slot: words[at + 2],
      generation: words[at + 3] >>> 0,
      op: words[at] & 0xff,
      fd: words[at + 1],
      isMultishot: (words[at] & (abi.C_MULTISHOT << 8)) !== 0 && (words[at] & 0xff) !== abi.OP_SEND,
      isUnderway: false,
      ending: undefined,
      isBroken: false,
      fault: undefined,
      held: undefined,
    }
    const { op, fd } = operation
    this.commandsSeen++
    this.operations.set(operation.slot, operation)
    if (op === abi.OP_RECV || op === abi.OP_ACCEPT) {
      const waiting = this.waiting.get(fd)
      if (waiting === undefined) this.forward(at, operation)
      else this.answer(operation, waiting)
      return
    }
    if (op === abi.OP_CONNECT) this.number(fd)
    const length = op === abi.OP_SEND ? words[at + 5] : 0
    const fault = this.rules.decide(op, fd, this.connections.get(fd) ?? 0, length)
    operation.fault = fault
    if (op === abi.OP_CLOSE) this.forget(fd)
    // Cancelling and closing happen all the same: only what they answer is made up.
    const isDone = fault === undefined || fault.result === 0 || op === abi.OP_CANCEL || op === abi.OP_CLOSE
    const isCut = fault !== undefined && op === abi.OP_SEND && fault.bytes > 0
    if (isCut) words[at + 5] = Math.min(length, fault.bytes)
    if (isDone || isCut) this.forward(at, operation)
    else this.finish(operation, fault.result)
  }

  private forward(at: number, operation: Operation): void {
    const to = this.place()
    this.realCommands.set(this.commands.subarray(at, at + COMMAND_WORDS), to)
    this.realCommands[to + 2] += OWN_SLOTS
    if (operation.op === abi.OP_CANCEL) this.realCommands[to + 4] += OWN_SLOTS
    operation.isUnderway = true
  }

  /** Where the next record for the shim goes, in words. */
  private place(): number {
    if (this.forwarded === this.commandCapacity) this.enter(abi.WAIT_FLUSH)
    return this.forwarded++ * COMMAND_WORDS
  }

  /** The descriptor is being closed: what waits for it never is asked for. */
  private forget(fd: number): void {
    for (const { result } of this.waiting.get(fd) ?? []) {
      if (this.listeners.has(fd) && result >= 0) this.own.close(result)
    }
    this.waiting.delete(fd)
    this.listeners.delete(fd)
    this.connections.delete(fd)
  }

  /** What could not be told in this tick must not be slept over. */
  private announce(): void {
    if (this.out.length === 0 || this.isAnnounced) return
    this.isAnnounced = true
    this.own.wake(() => {
      this.isAnnounced = false
    })
  }

  // ---- completions ----

  private look(at: number): void {
    const words = this.realCompletions
    const slot = words[at] - OWN_SLOTS
    const generation = words[at + 1] >>> 0
    const result = words[at + 2]
    const flags = words[at + 3]
    if (slot < 0) {
      this.own.completed(words[at])
      return
    }
    const bytes =
      flags & abi.F_BUFFER ? this.realBuffers.slice(words[at + 4], words[at + 4] + result) : undefined
    const operation = this.operations.get(slot)
    if (operation === undefined || operation.generation !== generation) {
      // Of the past: the reactor drops it.
      this.out.push({ slot, generation, op: words[at + 5], result, flags, bytes, operation: undefined })
      return
    }
    const isLast = (flags & abi.F_MORE) === 0
    if (isLast) operation.isUnderway = false
    const { op, fault, ending } = operation
    if (ending !== undefined) {
      this.keep(operation, result, bytes)
      if (isLast) this.emit(operation, ending, ending.delayNs)
    } else if (op === abi.OP_RECV || op === abi.OP_ACCEPT) {
      this.judge(operation, { result, flags, bytes })
    } else {
      const isMadeUp = fault !== undefined && fault.result !== 0
      this.emit(operation, { result: isMadeUp ? fault.result : result, flags, bytes }, fault?.delayNs ?? 0)
    }
  }

  /** Something has arrived for a receive or an accept. */
  private judge(operation: Operation, outcome: Outcome): void {
    const { op, fd } = operation
    const { result, flags, bytes } = outcome
    const isAccept = op === abi.OP_ACCEPT
    if (result < 0) {
      this.emit(operation, outcome)
      return
    }
    const connection = isAccept ? this.connectionCount + 1 : (this.connections.get(fd) ?? 0)
    const fault = this.rules.decide(op, fd, connection, isAccept ? 0 : result)
    if (fault === undefined) this.emit(operation, outcome)
    else if (fault.result !== 0) {
      const isKept = KEPT.has(-fault.result)
      if (isKept) this.waitingOf(operation).unshift(outcome)
      else if (isAccept) this.own.close(result)
      // A connection that breaks loses all that is under way; one that was never accepted takes no other with it.
      operation.isBroken = !isKept && !isAccept
      this.end(operation, { result: fault.result, flags: 0, bytes: undefined }, fault.delayNs)
    } else if (fault.ends) this.end(operation, { result, flags: flags & ~abi.F_MORE, bytes }, fault.delayNs)
    else if (fault.bytes > 0 && bytes !== undefined) this.cut(operation, bytes, flags, fault)
    else this.emit(operation, outcome, fault.delayNs)
  }

  /** In pieces; all but the first piece of a single receive wait for the next one. */
  private cut(operation: Operation, bytes: Uint8Array, flags: number, fault: Fault): void {
    const size = operation.isMultishot ? fault.bytes : Math.min(fault.bytes, bytes.length)
    for (let start = 0; start < bytes.length; start += size) {
      const piece = bytes.subarray(start, start + size)
      const isLast = start + size >= bytes.length
      if (!operation.isMultishot && !isLast) {
        this.waitingOf(operation).unshift({
          result: bytes.length - size,
          flags: abi.F_BUFFER,
          bytes: bytes.subarray(size),
        })
        this.emit(operation, { result: size, flags: abi.F_BUFFER, bytes: piece }, fault.delayNs)
        return
      }
      const pieceFlags = isLast ? flags : abi.F_BUFFER | abi.F_MORE
      this.emit(operation, { result: piece.length, flags: pieceFlags, bytes: piece }, fault.delayNs)
    }
  }

  /** Ends an operation with `outcome`: at once when it is over underneath, otherwise when it has been cancelled there. */
  private end(operation: Operation, outcome: Outcome, delayNs: number): void {
    operation.ending = { ...outcome, delayNs }
    if (!operation.isUnderway) {
      this.emit(operation, outcome, delayNs)
      return
    }
    const { slot, generation } = operation
    this.own.cancel(slot + OWN_SLOTS, generation)
  }

  /** Arrived while the operation was being ended: it is there for the next one. */
  private keep(operation: Operation, result: number, bytes: Uint8Array | undefined): void {
    if (operation.isBroken || result === -ECANCELED || result === -ENOBUFS) return
    if (operation.op === abi.OP_ACCEPT && result < 0) return
    const flags = bytes === undefined ? 0 : abi.F_BUFFER
    this.waitingOf(operation).push({ result, flags, bytes })
  }

  /** A receive or accept that finds what it asks for here. It does not reach the shim: the next one does. */
  private answer(operation: Operation, waiting: Outcome[]): void {
    const isAccept = operation.op === abi.OP_ACCEPT
    this.waiting.delete(operation.fd)
    while (waiting.length > 0) {
      const { result, flags, bytes } = waiting.shift() as Outcome
      const isLast = !operation.isMultishot || waiting.length === 0 || (isAccept ? result < 0 : result <= 0)
      const { F_MORE } = abi
      this.judge(operation, { result, flags: isLast ? flags & ~F_MORE : flags | F_MORE, bytes })
      if (isLast || operation.ending !== undefined) break
    }
    if (waiting.length > 0) this.waitingOf(operation).push(...waiting)
  }

  private waitingOf({ fd, op }: Operation): Outcome[] {
    let waiting = this.waiting.get(fd)
    if (waiting === undefined) {
      waiting = []
      this.waiting.set(fd, waiting)
      if (op === abi.OP_ACCEPT) this.listeners.add(fd)
    }
    return waiting
  }

  private number(fd: number): void {
    this.connections.set(fd, ++this.connectionCount)
  }

  // ---- what the reactor is told ----

  private finish(operation: Operation, result: number): void {
    this.emit(operation, { result, flags: 0, bytes: undefined }, operation.fault?.delayNs)
  }

  private emit(operation: Operation, outcome: Outcome, delayNs = 0): void {
    if (operation.held !== undefined) {
      operation.held.push(outcome)
      return
    }
    if (delayNs === 0) {
      this.push(operation, outcome)
      return
    }
    operation.held = [outcome]
    this.own.delay(delayNs, () => {
      const held = operation.held ?? []
      operation.held = undefined
      for (const one of held) this.push(operation, one)
    })
  }

  private push(operation: Operation, outcome: Outcome): void {
    const { slot, generation, op } = operation
    if (op === abi.OP_ACCEPT && outcome.result >= 0) this.number(outcome.result)
    this.out.push({ slot, generation, op, operation, ...outcome })
  }

  /** Writes as many completions as there is room for. Returns how many. */
  private tell(): number {
    let used = 0
    let count = 0
    for (const told of this.out) {
      const size = told.bytes?.length ?? 0
      if (count === this.completionCapacity || used + size > this.buffers.length) break
      const at = count++ * COMPLETION_WORDS
      const words = this.completions
      words[at] = told.slot
      words[at + 1] = told.generation
      words[at + 2] = told.result
      words[at + 3] = told.flags
      words[at + 4] = used
      words[at + 5] = told.op
      if (told.bytes !== undefined) this.buffers.set(told.bytes, used)
      used += size
      if (told.operation !== undefined && (told.flags & abi.F_MORE) === 0) this.operations.delete(told.slot)
    }
    this.out.splice(0, count)
    this.completionsTold += count
    return count
  }
}
