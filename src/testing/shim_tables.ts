/**
 * What the shim keeps for every engine (liburing-shim/shim.c): the slot table, the descriptor table, results that are known
 * without the kernel, and the completion array.
 */
import * as abi from "../../ffi/abi.ts"
import type { Mapping } from "./mapping.ts"

const EMFILE = 24
const COMPLETION_WORDS = abi.COMPLETION_SIZE / 4

/** An operation in flight, as the engine knows it. `op` 0: the slot is free. */
export interface Slot {
  generation: number
  fd: number
  offset: number
  length: number
  timeoutNs: number
  /** SEND: bytes that the kernel has taken. */
  done: number
  op: number
  flags: number
  sendState: number
  /** A cancellation has named it: it must not be armed again. */
  isCancelled: boolean
}

/** A descriptor, as the engine knows it. */
export interface Descriptor {
  /** Operations in flight on the number. */
  ops: number
  isOwned: boolean
}

/** A completion that did not come from the kernel: it waits for the next harvest. */
interface Deferred {
  slot: number
  generation: number
  result: number
  op: number
  /** The slot is in flight and ends with this. */
  isHeld: boolean
}

export class ShimTables {
  readonly slotCapacity: number
  /** Made as they are first used: TypeScript fills the lowest first. */
  readonly slots: Slot[] = []
  readonly descriptors: Descriptor[] = []
  /** Written since the last harvest began. */
  completionCount = 0
  /** The operation that ended last: for completions that come too late. */
  lastEnded: { slot: number; generation: number; op: number } | undefined
  readonly deferred: Deferred[] = []
  private readonly mapping: Mapping
  /** Closes a descriptor. */
  private readonly closeFile: (fd: number) => number

  constructor(mapping: Mapping, fdLimit: number, closeFile: (fd: number) => number) {
    this.mapping = mapping
    this.closeFile = closeFile
    this.slotCapacity = mapping.get(abi.HEADER_SLOT_CAPACITY)
    for (let i = 0; i < fdLimit; i++) this.descriptors.push({ ops: 0, isOwned: false })
  }

  /** The slot at an index below `slotCapacity`. */
  slotAt(index: number): Slot {
    while (this.slots.length <= index) this.slots.push(freeSlot())
    return this.slots[index]
  }

  // ---- descriptors ----

  own(fd: number): number {
    if (fd >= this.descriptors.length) {
      this.closeFile(fd)
      return -EMFILE
    }
    this.descriptors[fd].isOwned = true
    this.mapping.count(abi.HEADER_FDS_OPENED)
    this.mapping.set(abi.HEADER_FDS_LIVE, this.mapping.get(abi.HEADER_FDS_LIVE) + 1)
    return fd
  }

  disown(fd: number): void {
    this.descriptors[fd].isOwned = false
    this.mapping.count(abi.HEADER_FDS_CLOSED)
    this.mapping.set(abi.HEADER_FDS_LIVE, this.mapping.get(abi.HEADER_FDS_LIVE) - 1)
  }

  isOwned(fd: number): boolean {
    return this.descriptors[fd]?.isOwned === true
  }

  /** The ring is released: what it still owns is closed. */
  close(): void {
    for (let fd = 0; fd < this.descriptors.length; fd++) {
      if (!this.descriptors[fd].isOwned) continue
      this.disown(fd)
      this.closeFile(fd)
    }
  }

  // ---- completions ----

  get hasRoom(): boolean {
    return this.completionCount < this.mapping.get(abi.HEADER_COMPLETION_CAPACITY)
  }

  write(
    slot: number,
    generation: number,
    result: number,
    flags: number,
    bufferOffset: number,
    op: number,
  ): void {
    const { completions } = this.mapping
    const at = this.completionCount++ * COMPLETION_WORDS
    completions[at] = slot
    completions[at + 1] = generation
    completions[at + 2] = result
    completions[at + 3] = flags
    completions[at + 4] = bufferOffset
    completions[at + 5] = op
    completions[at + 6] = 0
    completions[at + 7] = 0
    this.mapping.count(abi.HEADER_COMPLETIONS)
  }

  emit(index: number, result: number, flags: number, bufferOffset: number): void {
    const slot = this.slots[index]
    this.write(index, slot.generation, result, flags, bufferOffset, slot.op)
    if (flags & abi.F_MORE) return
    if (slot.fd >= 0 && slot.op !== abi.OP_CLOSE) this.descriptors[slot.fd].ops--
    this.lastEnded = { slot: index, generation: slot.generation, op: slot.op }
    slot.op = 0
    const { mapping } = this
    mapping.set(abi.HEADER_IN_FLIGHT, mapping.get(abi.HEADER_IN_FLIGHT) - 1)
  }

  completeLater(index: number, result: number): void {
    const { generation, op } = this.slots[index]
    this.deferred.push({ slot: index, generation, result, op, isHeld: true })
  }

  emitDeferred(): void {
    let count = 0
    for (const entry of this.deferred) {
      if (!this.hasRoom) break
      count++
      if (entry.isHeld) this.emit(entry.slot, entry.result, 0, 0)
      else this.write(entry.slot, entry.generation, entry.result, 0, 0, entry.op)
    }
    if (count > 0) this.deferred.splice(0, count)
  }
}

function freeSlot(): Slot {
  return {
    generation: 0,
    fd: -1,
    offset: 0,
    length: 0,
    timeoutNs: 0,
    done: 0,
    op: 0,
    flags: 0,
    sendState: 0,
    isCancelled: false,
  }
}
