/**
 * The shared memory of a simulated ring, in the layout of liburing-shim/abi.h. One array buffer per region, because an
 * ArrayBuffer cannot be a part of another; `region` hands them out by their place in the mapping, as the shim's would be.
 */
import * as abi from "../../ffi/abi.ts"

const ARENA_PIECE_BYTES = 1 << 20
const PAGE_BYTES = 4096

export interface MappingSizes {
  engine: number
  features: number
  slots: number
  commands: number
  completions: number
  arenaBytes: number
  buffers: number
  bufferBytes: number
}

export class Mapping {
  readonly header: Uint32Array
  readonly commands: Int32Array
  readonly commandWords: Uint32Array
  readonly completions: Int32Array
  readonly buffers: Uint8Array
  private readonly headerF64: Float64Array
  private readonly regions = new Map<number, ArrayBuffer>()
  private readonly arenaPieces: Uint8Array[] = []

  constructor(sizes: MappingSizes) {
    const commandOffset = align(abi.HEADER_SIZE)
    const completionOffset = align(commandOffset + sizes.commands * abi.COMMAND_SIZE)
    const arenaOffset = align(completionOffset + sizes.completions * abi.COMPLETION_SIZE)
    const bufferOffset = align(arenaOffset + sizes.arenaBytes)
    const totalBytes = align(bufferOffset + sizes.buffers * sizes.bufferBytes)
    const head = this.add(0, abi.HEADER_SIZE)
    this.header = new Uint32Array(head)
    this.headerF64 = new Float64Array(head)
    this.commands = new Int32Array(this.add(commandOffset, sizes.commands * abi.COMMAND_SIZE))
    this.commandWords = new Uint32Array(this.commands.buffer)
    this.completions = new Int32Array(this.add(completionOffset, sizes.completions * abi.COMPLETION_SIZE))
    this.buffers = new Uint8Array(this.add(bufferOffset, sizes.buffers * sizes.bufferBytes))
    for (let at = 0; at < sizes.arenaBytes; at += ARENA_PIECE_BYTES) {
      this.arenaPieces.push(new Uint8Array(this.add(arenaOffset + at, ARENA_PIECE_BYTES)))
    }
    this.set(abi.HEADER_ABI_VERSION, abi.ABI_VERSION)
    this.set(abi.HEADER_ENGINE, sizes.engine)
    this.set(abi.HEADER_FEATURES, sizes.features)
    this.set(abi.HEADER_SLOT_CAPACITY, sizes.slots)
    this.set(abi.HEADER_COMMAND_CAPACITY, sizes.commands)
    this.set(abi.HEADER_COMPLETION_CAPACITY, sizes.completions)
    this.set(abi.HEADER_COMMAND_OFFSET, commandOffset)
    this.set(abi.HEADER_COMPLETION_OFFSET, completionOffset)
    this.set(abi.HEADER_ARENA_OFFSET, arenaOffset)
    this.set(abi.HEADER_ARENA_BYTES, sizes.arenaBytes)
    this.set(abi.HEADER_BUFFER_OFFSET, bufferOffset)
    this.set(abi.HEADER_BUFFER_COUNT, sizes.buffers)
    this.set(abi.HEADER_BUFFER_BYTES, sizes.bufferBytes)
    this.set(abi.HEADER_TOTAL_BYTES, totalBytes)
  }

  /** A u32 field of the header, by its byte offset. */
  get(field: number): number {
    return this.header[field / 4]
  }

  set(field: number, value: number): void {
    this.header[field / 4] = value
  }

  /** Adds to a u64 counter of the header. */
  count(field: number, by = 1): void {
    const low = this.header[field / 4] + by
    this.header[field / 4] = low
    if (low > 0xffff_ffff) this.header[field / 4 + 1]++
  }

  /** CLOCK_MONOTONIC at the end of a tick. */
  setNow(ms: number): void {
    this.headerF64[abi.HEADER_NOW_MS / 8] = ms
  }

  /** Bytes of the send arena. A block never straddles two pieces. */
  arena(offset: number, length: number): Uint8Array {
    const start = offset % ARENA_PIECE_BYTES
    return this.arenaPieces[Math.floor(offset / ARENA_PIECE_BYTES)].subarray(start, start + length)
  }

  /** @throws RangeError when the range is not one of the regions */
  region(offset: number, length: number): ArrayBuffer {
    const found = this.regions.get(offset)
    if (found === undefined || found.byteLength !== length) {
      throw new RangeError(`the simulated mapping has no region ${offset} + ${length}`)
    }
    return found
  }

  /** The memory is given back: whoever still looks at it reads zeros. */
  clear(): void {
    for (const buffer of this.regions.values()) new Uint8Array(buffer).fill(0)
  }

  private add(offset: number, bytes: number): ArrayBuffer {
    const buffer = new ArrayBuffer(bytes)
    this.regions.set(offset, buffer)
    return buffer
  }
}

function align(offset: number): number {
  return Math.ceil(offset / PAGE_BYTES) * PAGE_BYTES
}
