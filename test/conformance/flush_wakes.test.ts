// A send that somebody waits for ends the sleep of a reactor that has nothing else to wake it: the peer is a process of its own,
// and says nothing.

import { expect } from "bun:test"
import type { Connection, Socket } from "../../src/index.ts"
import { onReactor, signal } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"

const SLOWLY = { bytes: 1, chunk: 200_000, delay: 1_000 }

onReactor("flush: it completes when the peer has taken all, although nothing else happens", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  for (const bytes of [10, 20_000_000]) {
    const peer = startPeer("slow", listener.port!, SLOWLY)
    const connection = (await listener.accept()) as Connection
    while ((await connection.read()) !== undefined) {} // it has ended its side: nothing more arrives
    await connection.write(new Uint8Array(bytes))
    await connection.flush()
    await connection.close()
    expect(await peer.verdict(r)).toStartWith(`ok ${bytes} `)
  }
  listener.close()
})

onReactor(
  "close: the last bytes go out and the descriptor closes, although nothing else happens",
  async (r) => {
    const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
    // Several times: something of the kernel's wakes a reactor after seconds, and the test's limit is for all of them.
    for (let i = 0; i < 5; i++) {
      startPeer("hold", listener.port!, { bytes: 1 })
      const connection = (await listener.accept()) as Connection
      await connection.read()
      await connection.write("bye")
      await connection.close()
    }
    listener.close()
  },
)

onReactor("end: the end of the stream follows the last bytes, although nothing else happens", async (r) => {
  const closed = signal()
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      data(socket: Socket) {
        socket.write("bye")
        socket.end()
      },
      close: () => closed.resolve(),
    },
  })
  // It ends when it has seen our end: then both sides have, and close is told.
  startPeer("reset", listener.port!, { bytes: 1, wait: 3 })
  await closed.promise
  listener.stop()
})

onReactor("drain: it is told when there is room, although nothing else happens", async (r) => {
  const drained = signal()
  const closed = signal()
  let drains = 0
  const block = new Uint8Array(3_000_000)
  const listener = r.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      data() {},
      end: (socket: Socket) => void socket.write(block),
      drain(socket: Socket) {
        if (++drains < 10) socket.write(block)
        else {
          socket.end()
          drained.resolve()
        }
      },
      close: () => closed.resolve(),
    },
  })
  startPeer("slow", listener.port!, SLOWLY)
  await drained.promise
  await closed.promise
  listener.stop()
})
