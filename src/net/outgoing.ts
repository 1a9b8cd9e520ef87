/**
 * What a connection has written and not yet asked the kernel to send: one block of the send arena, which grows by moving to
 * a larger one. Everything written between two ticks ends up in it, and leaves in one SEND.
 */
import { MAX_BLOCK_BYTES, MIN_BLOCK_BYTES } from "../reactor/arena.ts"
import type { Flushable } from "../reactor/core.ts"
import { DIRTY, REFERENCED, STARVED, WANTS_DRAIN } from "./connection_state.ts"
import { Endpoint } from "./endpoint.ts"

/** Share of a small send arena that one block may be. */
const LARGEST_SHARE = 1 / 4
/** Largest block of one connection once half of the send arena is in use, and once three quarters are. */
const SCARCE_BLOCK_BYTES = 64 * 1024
const LAST_BLOCK_BYTES = 16 * 1024

export const NO_BLOCK = -1

export abstract class OutgoingQueue extends Endpoint implements Flushable {
  /** Bits of connection_state.ts. */
  protected state = REFERENCED
  /** Block of the arena, or NO_BLOCK; its first `queueLength` bytes are written. */
  protected queueBlock = NO_BLOCK
  protected queueLength = 0
  /** Bytes taken from the program, in all. */
  protected written = 0

  abstract flushCommands(): void

  protected markDirty(): void {
    if (this.state & DIRTY) return
    this.state |= DIRTY
    this.core.markDirty(this)
  }

  /** Queues a copy of bytes. Returns how many: fewer, or 0, when the queue's limit or the arena is reached. */
  protected queueBytes(source: Uint8Array, start: number, length: number): number {
    const room = this.core.maxQueuedBytes - this.queueLength
    const count = this.reserve(length < room ? length : room)
    if (count > 0) {
      const part = count === source.length ? source : source.subarray(start, start + count)
      const memory = this.core.memory
      memory.pieceOf(this.queueBlock).set(part, memory.startOf(this.queueBlock) + this.queueLength)
      this.queued(count)
    }
    if (count < length) {
      this.state |= WANTS_DRAIN
      this.core.counters.writesCut++
    }
    return count
  }

  /** Queues text as UTF-8, in place, or returns -1 when it may not fit and has to be encoded by the caller. */
  protected queueText(text: string): number {
    const most = text.length * 3
    if (most > this.core.maxQueuedBytes - this.queueLength || this.reserve(most) < most) return -1
    const memory = this.core.memory
    const start = memory.startOf(this.queueBlock) + this.queueLength
    const count = memory.pieceOf(this.queueBlock).utf8Write(text, start, most)
    this.queued(count)
    return count
  }

  private queued(count: number): void {
    this.queueLength += count
    this.written += count
    this.markDirty()
  }

  /** Makes room behind the queue for `length` bytes. Returns the bytes that there is room for. */
  private reserve(length: number): number {
    const arena = this.core.arena
    const needed = this.queueLength + length
    if (length <= 0) return 0
    if (this.queueBlock !== NO_BLOCK && needed <= arena.capacityOf(this.queueBlock)) return length
    const block = this.allocate(needed)
    if (block < 0)
      return this.queueBlock === NO_BLOCK ? 0 : arena.capacityOf(this.queueBlock) - this.queueLength
    const room = arena.capacityOf(block) - this.queueLength
    if (this.queueBlock !== NO_BLOCK) {
      const memory = this.core.memory
      const start = memory.startOf(this.queueBlock)
      const queued = memory.pieceOf(this.queueBlock).subarray(start, start + this.queueLength)
      memory.pieceOf(block).set(queued, memory.startOf(block))
      arena.free(this.queueBlock)
    }
    this.queueBlock = block
    return room < length ? room : length
  }

  /** A block for `needed` bytes; when memory is short, a smaller one that still is larger than the queue; else -1. */
  private allocate(needed: number): number {
    const arena = this.core.arena
    const held = this.queueBlock === NO_BLOCK ? 0 : arena.capacityOf(this.queueBlock)
    let size = Math.max(Math.min(needed, this.fairShare()), MIN_BLOCK_BYTES)
    if (size <= held) return -1
    while (size > held && size >= MIN_BLOCK_BYTES) {
      const block = arena.alloc(size)
      if (block >= 0) return block
      size >>= 1
    }
    if ((this.state & STARVED) === 0) this.core.waitForMemory(this)
    this.state |= STARVED
    return -1
  }

  /** Largest block to ask for: peers that do not read must not take the memory that the others need to go on. */
  private fairShare(): number {
    const arena = this.core.arena
    const free = arena.freeBytes
    if (free > arena.sizeBytes / 2) return Math.min(MAX_BLOCK_BYTES, arena.sizeBytes * LARGEST_SHARE)
    return free > arena.sizeBytes / 4 ? SCARCE_BLOCK_BYTES : LAST_BLOCK_BYTES
  }
}
