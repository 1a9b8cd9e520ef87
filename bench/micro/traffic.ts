// Bytes in and out as net/ does it, on a reactor's own memory: a received chunk copied (the default) or lent (`borrow`), and
// text written straight into the send arena or encoded first.

import { do_not_optimize } from "mitata"
import { Reactor } from "../../src/index.ts"
import { MAX_BLOCK_BYTES } from "../../src/reactor/arena.ts"
import type { Cost, Group } from "./table.ts"

/** An echo message, a request, a file's chunk. */
const SIZES = [64, 512, 16_384]
const PAGE = 4096

export function trafficGroups(): Group[] {
  let reactor: Reactor | undefined
  const group = (name: string, costs: (reactor: Reactor) => Cost[]): Group => ({
    name,
    open() {
      reactor = Reactor.open({ engine: "epoll", host: "owned" })
      return costs(reactor)
    },
    close() {
      reactor?.run(reactor.close())
    },
  })
  return [group("a received chunk, copied or lent", receivedCosts), group("text into send memory", textCosts)]
}

function receivedCosts(reactor: Reactor): Cost[] {
  const { memory } = reactor
  const bytes = memory.bufferBytes
  bytes.fill(97)
  // A place that moves: a view of one place could be hoisted.
  let at = 0
  const next = () => {
    at = (at + PAGE) & (bytes.length / 2 - 1)
    return at
  }
  return SIZES.flatMap((size) => [
    {
      name: `${size} B copied`,
      call: () => do_not_optimize(memory.copyOf(next(), size)),
    },
    {
      name: `${size} B copied, first byte read`,
      call: () => do_not_optimize(memory.copyOf(next(), size)[0]),
    },
    {
      name: `${size} B lent`,
      call: () => do_not_optimize(memory.viewOf(next(), size)),
    },
    {
      name: `${size} B lent, first byte read`,
      call: () => do_not_optimize(memory.viewOf(next(), size)[0]),
    },
  ])
}

function textCosts(reactor: Reactor): Cost[] {
  const piece = reactor.memory.pieceOf(reactor.arena.alloc(MAX_BLOCK_BYTES))
  const encoder = new TextEncoder()
  const texts = [
    ...SIZES.map((size) => ({ name: `${size} B of ASCII`, text: "x".repeat(size) })),
    { name: "512 characters, some not ASCII", text: "naïve – façade ".repeat(35).slice(0, 512) },
  ]
  let at = 0
  const next = () => {
    at = (at + PAGE) & (MAX_BLOCK_BYTES / 2 - 1)
    return at
  }
  return texts.flatMap(({ name, text }) => {
    const most = text.length * 3
    return [
      {
        name: `${name}: utf8Write in place`,
        call: () => do_not_optimize(piece.utf8Write(text, next(), most)),
      },
      {
        name: `${name}: Buffer.from, set`,
        call: () => piece.set(Buffer.from(text), next()),
      },
      {
        name: `${name}: TextEncoder.encodeInto(subarray)`,
        call() {
          const start = next()
          do_not_optimize(encoder.encodeInto(text, piece.subarray(start, start + most)).written)
        },
      },
    ]
  })
}
