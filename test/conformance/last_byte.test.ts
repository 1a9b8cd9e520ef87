// What is written while a send is under way, down to a single byte, goes out before the end of the stream.

import { expect } from "bun:test"
import type { Connection, Socket } from "../../src/index.ts"
import { onReactor, pause } from "../support/harness.ts"
import { pattern, StreamCheck } from "../support/random.ts"

const BLOCK = 1_048_576

/** Writes until the peer's and our kernel take no more: then a send is in flight, and nothing is queued behind it. */
async function stall(r: Parameters<Parameters<typeof onReactor>[1]>[0], socket: Socket): Promise<number> {
  const { pendingBytes } = Object.getOwnPropertyDescriptors(
    Object.getPrototypeOf(Object.getPrototypeOf(socket)),
  )
  let written = 0
  do {
    expect(socket.write(pattern(9, written, BLOCK))).toBe(BLOCK)
    written += BLOCK
    await pause(r, 30)
  } while ((pendingBytes.get!.call(socket) as number) === 0)
  return written
}

for (const halfOpen of [true, false]) {
  for (const rest of [1, 2, 1000]) {
    onReactor(
      `${rest} bytes behind a send that is stuck, then end, ${halfOpen ? "half-open" : "not half-open"}: all arrive`,
      async (r) => {
        const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
        const socket = await r.connect({
          hostname: "127.0.0.1",
          port: listener.port!,
          allowHalfOpen: halfOpen,
          socket: { data() {} },
        })
        const peer = (await listener.accept()) as Connection
        const written = await stall(r, socket)
        expect(socket.write(pattern(9, written, rest))).toBe(rest)
        socket.end()
        const check = new StreamCheck(9)
        for await (const chunk of peer) check.take(chunk)
        check.expect(written + rest)
        await peer.close()
        listener.close()
      },
      { reactor: { sendArenaBytes: 8 * BLOCK } },
    )
  }
}
