/**
 * The provided buffers of the simulated ring: handed to receives in order, one receive a buffer (classic) or one behind the
 * other in the same buffer until it is full (incremental, 6.12). A buffer goes back when the engine says so; its bytes are
 * then overwritten, so that whoever reads them too late reads nonsense.
 */

/** What recycled memory looks like. */
const POISON = 0xdb

export interface Piece {
  /** Offset of the bytes in the receive memory. */
  offset: number
  /** Bytes of room there. */
  length: number
}

export class ReceiveBuffers {
  readonly count: number
  readonly sizeBytes: number
  readonly isIncremental: boolean
  private readonly bytes: Uint8Array
  /** Buffers that the kernel may fill, the next one first. */
  private readonly inRing: number[] = []
  /** Bytes of the first of them that are used (incremental). */
  private usedBytes = 0
  /** Buffers that TypeScript has been told the last bytes of, until they are given back. */
  private readonly finished: number[] = []
  /** Ranges that the last round's completions point into: [offset, length, ...]. */
  private readonly lent: number[] = []

  constructor(bytes: Uint8Array, count: number, sizeBytes: number, isIncremental: boolean) {
    this.bytes = bytes
    this.count = count
    this.sizeBytes = sizeBytes
    this.isIncremental = isIncremental
    for (let i = 0; i < count; i++) this.inRing.push(i)
  }

  get isEmpty(): boolean {
    return this.inRing.length === 0
  }

  /** Buffers that the kernel may fill. */
  get inRingCount(): number {
    return this.inRing.length
  }

  /** Buffers that the last round's completions have used up. */
  get finishedCount(): number {
    return this.finished.length
  }

  /** Where the next receive goes. Not to be called when empty. */
  peek(): Piece {
    return {
      offset: this.inRing[0] * this.sizeBytes + this.usedBytes,
      length: this.sizeBytes - this.usedBytes,
    }
  }

  /** The bytes of a piece. */
  view(offset: number, length: number): Uint8Array {
    return this.bytes.subarray(offset, offset + length)
  }

  /** The kernel has put `length` bytes there. Returns false when it is done with this buffer. */
  take(length: number): boolean {
    this.usedBytes += length
    if (this.isIncremental && this.usedBytes < this.sizeBytes) return true
    this.inRing.shift()
    this.usedBytes = 0
    return false
  }

  /** A completion that points at these bytes goes to TypeScript; `hasMore` as `take` said. */
  lend(offset: number, length: number, hasMore: boolean): void {
    this.lent.push(offset, length)
    if (!hasMore) this.finished.push(Math.floor(offset / this.sizeBytes))
  }

  /** TypeScript has consumed what the last round's completions pointed at. */
  recycle(): void {
    const { lent, finished } = this
    for (let i = 0; i < lent.length; i += 2) this.bytes.fill(POISON, lent[i], lent[i] + lent[i + 1])
    lent.length = 0
    for (const buffer of finished) this.inRing.push(buffer)
    finished.length = 0
  }
}
