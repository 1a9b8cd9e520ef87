// Handing received bytes to a user: the ways there are to make a view of memory that the kernel wrote to, or a copy. Which of
// them won is in traffic.ts.

import { do_not_optimize } from "mitata"
import { externalMemory } from "./memory.ts"
import type { Cost, Group } from "./table.ts"

/** An echo message, a request, a file's chunk. */
const SIZES = [64, 512, 16_384]
const BUFFER_BYTES = 1 << 20

export function bytesGroups(): Group[] {
  return [
    { name: "ways to lend", open: () => SIZES.flatMap(lendCosts) },
    { name: "ways to copy", open: () => SIZES.flatMap(copyCosts) },
  ]
}

/** Memory, and a place in it that moves: a view of one place could be hoisted. */
function source() {
  const external = externalMemory(BUFFER_BYTES)
  const whole = new Uint8Array(external)
  const wholeBuffer = Buffer.from(external, 0, BUFFER_BYTES)
  whole.fill(97)
  let at = 0
  const next = () => {
    at = (at + 4096) & (BUFFER_BYTES / 2 - 1)
    return at
  }
  return { external, whole, wholeBuffer, next }
}

function lendCosts(size: number): Cost[] {
  const { external, wholeBuffer, next } = source()
  return [
    {
      name: `${size} B: Buffer.from(ab, offset, length)`,
      call: () => do_not_optimize(Buffer.from(external, next(), size)),
    },
    {
      name: `${size} B: new Uint8Array(ab, offset, length)`,
      call: () => do_not_optimize(new Uint8Array(external, next(), size)),
    },
    {
      name: `${size} B: buffer.subarray`,
      call() {
        const start = next()
        do_not_optimize(wholeBuffer.subarray(start, start + size))
      },
    },
  ]
}

function copyCosts(size: number): Cost[] {
  const { external, whole, wholeBuffer, next } = source()
  return [
    {
      name: `${size} B: Uint8Array.slice`,
      call() {
        const start = next()
        do_not_optimize(whole.slice(start, start + size))
      },
    },
    {
      name: `${size} B: Uint8Array.prototype.slice of a Buffer`,
      call() {
        const start = next()
        do_not_optimize(Uint8Array.prototype.slice.call(wholeBuffer, start, start + size))
      },
    },
    {
      name: `${size} B: Buffer.from(ab.slice)`,
      call() {
        const start = next()
        do_not_optimize(Buffer.from(external.slice(start, start + size)))
      },
    },
    {
      name: `${size} B: Buffer.copyBytesFrom`,
      call: () => do_not_optimize(Buffer.copyBytesFrom(whole, next(), size)),
    },
    {
      name: `${size} B: Buffer.allocUnsafe, copy`,
      call() {
        const start = next()
        const copy = Buffer.allocUnsafe(size)
        wholeBuffer.copy(copy, 0, start, start + size)
        do_not_optimize(copy)
      },
    },
    {
      name: `${size} B: Buffer.allocUnsafeSlow, copy`,
      call() {
        const start = next()
        const copy = Buffer.allocUnsafeSlow(size)
        wholeBuffer.copy(copy, 0, start, start + size)
        do_not_optimize(copy)
      },
    },
    {
      name: `${size} B: Buffer.allocUnsafeSlow, set(subarray)`,
      call() {
        const start = next()
        const copy = Buffer.allocUnsafeSlow(size)
        copy.set(whole.subarray(start, start + size))
        do_not_optimize(copy)
      },
    },
    {
      name: `${size} B: Buffer.alloc, set(subarray)`,
      call() {
        const start = next()
        const copy = Buffer.alloc(size)
        copy.set(whole.subarray(start, start + size))
        do_not_optimize(copy)
      },
    },
  ]
}
