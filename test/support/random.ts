// Seeded randomness and byte patterns: a test that fails says its seed, and TEST_SEED=seed runs it again
// with the same sizes, chunks and moments.

import { Random as SeededRandom } from "../../src/testing/random.ts"

export class Random extends SeededRandom {
  /** Small values often, large ones sometimes: [0, most]. */
  size(most: number): number {
    return Math.floor(most * this.next() ** 4)
  }
}

/** Not a multiple of anything that a loop uses, so that a shifted or repeated part shows. */
const PERIOD = 64_507
const CYCLE = makeCycle()

function makeCycle(): Uint8Array {
  const random = new Random(20_251)
  const bytes = new Uint8Array(2 * PERIOD)
  for (let i = 0; i < PERIOD; i++) bytes[i] = bytes[PERIOD + i] = random.integer(0, 255)
  return bytes
}

/** Bytes [start, start + length) of the endless stream `seed`. A fresh array. */
export function pattern(seed: number, start: number, length: number): Buffer {
  const out = Buffer.allocUnsafe(length)
  for (let done = 0; done < length; ) {
    const from = (seed * 7919 + start + done) % PERIOD
    const count = Math.min(PERIOD, length - done)
    out.set(CYCLE.subarray(from, from + count), done)
    done += count
  }
  return out
}

/** Takes a stream as it arrives, and says whether it is the stream `seed` without a byte lost, added or moved. */
export class StreamCheck {
  /** Bytes taken. */
  bytes = 0
  private readonly seed: number
  private trouble = ""

  constructor(seed: number) {
    this.seed = seed
  }

  take(chunk: Uint8Array): void {
    if (this.trouble === "") {
      const wanted = pattern(this.seed, this.bytes, chunk.length)
      if (wanted.compare(chunk) !== 0) {
        const at = chunk.findIndex((byte, index) => byte !== wanted[index])
        this.trouble = `stream ${this.seed}: byte ${this.bytes + at} is ${chunk[at]}, wanted ${wanted[at]}`
      }
    }
    this.bytes += chunk.length
  }

  /** @throws when a byte was wrong, or the length is not `length` */
  expect(length: number): void {
    if (this.trouble !== "") throw new Error(this.trouble)
    if (this.bytes !== length) throw new Error(`stream ${this.seed}: ${this.bytes} bytes, wanted ${length}`)
  }
}
