/**
 * The memory that a ring shares with the shim, as typed arrays.
 *
 * The send arena appears in pieces of one MiB, each when it is first needed: a runtime's garbage collector counts every byte
 * of an external array as its own, and 64 MiB that nobody uses would let garbage grow to several times what it has to be
 * (186 MB resident instead of 60 with 50 connections echoing 16 KiB).
 */
import * as abi from "../../ffi/abi.ts"
import type { Native } from "../../ffi/native.ts"
import { MAX_BLOCK_BYTES } from "./arena.ts"

/** Bytes of the send arena; with the runtime's writer of UTF-8 in place, which its types leave out. */
export type ArenaPiece = Buffer & { utf8Write(text: string, offset: number, length: number): number }

/** A block never straddles two pieces: it is at most as large, and aligned to its size. */
const PIECE_SHIFT = 20
const PIECE_MASK = (1 << PIECE_SHIFT) - 1
if (MAX_BLOCK_BYTES !== 1 << PIECE_SHIFT)
  throw new Error("memory: a piece is not as large as the largest block")

export class SharedMemory {
  readonly header: Uint32Array
  readonly headerF64: Float64Array
  readonly counters: BigUint64Array
  /** Command records, as words. */
  readonly commands: Int32Array
  /** Completion records, as words. */
  readonly completions: Int32Array
  /** Receive memory. The engine's, but for the bytes that the completions of the current round point at. */
  readonly bufferBytes: Uint8Array
  /** The same bytes, with the runtime's faster copy. */
  private readonly received: Buffer
  private readonly native: Native
  private readonly ring: number
  private readonly arenaOffset: number
  private readonly pieces: (ArenaPiece | undefined)[] = []

  constructor(native: Native, ring: number) {
    this.native = native
    this.ring = ring
    const head = native.region(ring, 0, abi.HEADER_SIZE)
    this.header = new Uint32Array(head)
    this.headerF64 = new Float64Array(head)
    this.counters = new BigUint64Array(head)
    this.arenaOffset = this.at(abi.HEADER_ARENA_OFFSET)
    const part = (offset: number, bytes: number) => native.region(ring, this.at(offset), bytes)
    this.commands = new Int32Array(
      part(abi.HEADER_COMMAND_OFFSET, this.at(abi.HEADER_COMMAND_CAPACITY) * abi.COMMAND_SIZE),
    )
    this.completions = new Int32Array(
      part(abi.HEADER_COMPLETION_OFFSET, this.at(abi.HEADER_COMPLETION_CAPACITY) * abi.COMPLETION_SIZE),
    )
    this.bufferBytes = new Uint8Array(
      part(abi.HEADER_BUFFER_OFFSET, this.at(abi.HEADER_BUFFER_COUNT) * this.at(abi.HEADER_BUFFER_BYTES)),
    )
    this.received = Buffer.from(this.bufferBytes.buffer)
  }

  /** A u32 field of the header, by its byte offset (ffi/abi.ts, HEADER_*). */
  at(field: number): number {
    return this.header[field / 4]
  }

  /** The bytes around an arena block: it begins at `startOf(block)` of this array. */
  pieceOf(block: number): ArenaPiece {
    return this.pieces[block >> PIECE_SHIFT] ?? this.makePiece(block >> PIECE_SHIFT)
  }

  startOf(block: number): number {
    return block & PIECE_MASK
  }

  /** Received bytes in memory of their own, at offset 0 of it: of Bun's ways to make such a Buffer the fastest. */
  copyOf(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafeSlow(length)
    this.received.copy(bytes, 0, offset, offset + length)
    return bytes
  }

  /** Received bytes where they lie: there until the next round, and the rest of the mapping behind `.buffer`. */
  viewOf(offset: number, length: number): Buffer {
    return Buffer.from(this.received.buffer, offset, length)
  }

  private makePiece(index: number): ArenaPiece {
    const offset = this.arenaOffset + index * MAX_BLOCK_BYTES
    const piece = Buffer.from(this.native.region(this.ring, offset, MAX_BLOCK_BYTES)) as ArenaPiece
    while (this.pieces.length <= index) this.pieces.push(undefined)
    this.pieces[index] = piece
    return piece
  }
}
