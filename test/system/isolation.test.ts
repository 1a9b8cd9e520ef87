// No memory of one connection reaches another's handler, and a view that was kept too long reads zeros.

import { describe, expect, test } from "bun:test"
import { Reactor } from "../../src/index.ts"

const ENGINES = ["uring", "poll", "epoll"] as const
const SECRET = "a secret of another connection"

/** Two connections: the first sends a secret, the second `hello`. What the handlers were given for the second. */
async function secondChunk(
  r: Reactor,
  borrow: boolean,
): Promise<{ chunk: Uint8Array; text: string; whole: Uint8Array }> {
  const { promise, resolve } = Promise.withResolvers<{ chunk: Uint8Array; text: string; whole: Uint8Array }>()
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    borrow,
    socket: {
      data(socket, chunk) {
        const text = Buffer.from(chunk).toString()
        if (text !== SECRET) resolve({ chunk, text, whole: new Uint8Array(chunk.buffer) })
        socket.write(chunk)
      },
    },
  })
  const [one, two] = await Promise.all(
    [0, 1].map(() => r.connect({ hostname: "127.0.0.1", port: listener.port! })),
  )
  await one!.write(SECRET)
  await one!.read()
  await two!.write("hello")
  const got = await promise
  await Promise.all([one!.close(), two!.close()])
  listener.stop(true)
  return got
}

describe.each([...ENGINES])("%s", (engine) => {
  test("without `borrow` a chunk's buffer holds its own bytes and no others", async () => {
    const r = Reactor.open({ engine })
    const { chunk, text } = await secondChunk(r, false)
    expect(text).toBe("hello")
    expect({ offset: chunk.byteOffset, bytes: chunk.buffer.byteLength }).toEqual({ offset: 0, bytes: 5 })
    expect(Buffer.from(chunk.buffer).toString()).toBe("hello")
    await r.close()
    expect(Buffer.from(chunk).toString()).toBe("hello") // it is the handler's for good
  })

  test("nor does what `read` gives", async () => {
    const r = Reactor.open({ engine })
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    const [a, b] = await Promise.all(
      [0, 1].map(() => r.connect({ hostname: "127.0.0.1", port: listener.port! })),
    )
    const [first, second] = [(await listener.accept())!, (await listener.accept())!]
    await a!.write(SECRET)
    await b!.write(SECRET)
    for (const connection of [first, second]) {
      const chunk = (await connection.read())!
      expect(Buffer.from(chunk.buffer).toString()).toBe(SECRET)
      expect(chunk.buffer.byteLength).toBe(SECRET.length)
    }
    for (const connection of [a!, b!, first, second]) await connection.close()
    listener.close()
    await r.close()
  })

  test("a borrowed view that was kept reads zeros after close, and may be written without harm", async () => {
    const r = Reactor.open({ engine })
    const { chunk, text, whole } = await secondChunk(r, true)
    expect(text).toBe("hello")
    // What docs/limits.md says of it: the buffer is the whole mapping, other connections' bytes included.
    expect(whole.length).toBeGreaterThan(1_000_000)
    await r.close()
    expect([...chunk]).toEqual([0, 0, 0, 0, 0])
    let used = 0
    for (let at = 0; at < whole.length; at += 64) used += whole[at]!
    expect(used).toBe(0)
    chunk.fill(7) // nobody's memory: not unmapped, not in use
    const next = Reactor.open({ engine }) // the mapping is used again
    expect((await secondChunk(next, false)).text).toBe("hello")
    await next.close()
  })
})
