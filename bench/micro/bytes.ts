// Handing received bytes to a user: a copy that is theirs, or a view of the memory that the kernel wrote to.

import { bench, do_not_optimize, group, summary } from "mitata"
import { externalMemory } from "./memory.ts"

/** An echo message, a request, a file's chunk. */
const SIZES = [64, 512, 16_384]
const BUFFER_BYTES = 1 << 20

export function bytesBenches(): void {
  const external = externalMemory(BUFFER_BYTES)
  const whole = new Uint8Array(external)
  const wholeBuffer = Buffer.from(external, 0, BUFFER_BYTES)
  whole.fill(97)
  for (const size of SIZES) {
    // A place that moves: a view of one place could be hoisted.
    let at = 0
    const next = () => {
      at = (at + 4096) & (BUFFER_BYTES / 2 - 1)
      return at
    }
    group(`lend ${size} B`, () => {
      summary(() => {
        bench(`lend ${size}: Buffer.from(ab, offset, length)`, () =>
          do_not_optimize(Buffer.from(external, next(), size)),
        )
        bench(`lend ${size}: new Uint8Array(ab, offset, length)`, () =>
          do_not_optimize(new Uint8Array(external, next(), size)),
        )
        bench(`lend ${size}: buffer.subarray`, () => {
          const start = next()
          do_not_optimize(wholeBuffer.subarray(start, start + size))
        })
      })
    })
    group(`copy ${size} B`, () => {
      summary(() => {
        bench(`copy ${size}: Uint8Array.slice`, () => {
          const start = next()
          do_not_optimize(whole.slice(start, start + size))
        })
        bench(`copy ${size}: Uint8Array.prototype.slice of a Buffer`, () => {
          const start = next()
          do_not_optimize(Uint8Array.prototype.slice.call(wholeBuffer, start, start + size))
        })
        bench(`copy ${size}: Buffer.from(ab.slice)`, () => {
          const start = next()
          do_not_optimize(Buffer.from(external.slice(start, start + size)))
        })
        bench(`copy ${size}: Buffer.copyBytesFrom`, () =>
          do_not_optimize(Buffer.copyBytesFrom(whole, next(), size)),
        )
        bench(`copy ${size}: Buffer.allocUnsafe, copy`, () => {
          const start = next()
          const copy = Buffer.allocUnsafe(size)
          wholeBuffer.copy(copy, 0, start, start + size)
          do_not_optimize(copy)
        })
        bench(`copy ${size}: Buffer.allocUnsafeSlow, set(subarray)`, () => {
          const start = next()
          const copy = Buffer.allocUnsafeSlow(size)
          copy.set(whole.subarray(start, start + size))
          do_not_optimize(copy)
        })
        bench(`copy ${size}: Buffer.alloc, set(subarray)`, () => {
          const start = next()
          const copy = Buffer.alloc(size)
          copy.set(whole.subarray(start, start + size))
          do_not_optimize(copy)
        })
      })
    })
  }
}
