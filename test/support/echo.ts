// Servers and clients that many tests share: an echo server with and without handlers, and a client that
// checks every byte.

import type { Connection, Reactor, ReactorStats, Socket, SocketListener } from "../../src/index.ts"
import { pattern, type Random, StreamCheck } from "./random.ts"

/** What an echo socket has still to write when the peer does not read. */
interface EchoState {
  backlog: Buffer[]
  hasEnded: boolean
}

/** An echo server with handlers. Answers half-closed clients to the last byte. */
export function echoListener(reactor: Reactor): SocketListener<EchoState | undefined> {
  return reactor.listen<EchoState | undefined>({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      open(socket) {
        socket.data = { backlog: [], hasEnded: false }
      },
      data(socket, chunk) {
        const state = socket.data as EchoState
        if (state.backlog.length > 0) {
          state.backlog.push(chunk)
          return
        }
        const count = socket.write(chunk)
        if (count < 0 || count === chunk.length) return
        state.backlog.push(chunk.subarray(count))
        socket.pause()
      },
      drain: writeBacklog,
      end(socket) {
        const state = socket.data as EchoState
        state.hasEnded = true
        if (state.backlog.length === 0) socket.end()
      },
    },
  })
}

function writeBacklog(socket: Socket<EchoState | undefined>): void {
  const state = socket.data as EchoState
  while (state.backlog.length > 0) {
    const chunk = state.backlog[0]
    const count = socket.write(chunk)
    if (count < chunk.length) {
      state.backlog[0] = chunk.subarray(Math.max(count, 0))
      return
    }
    state.backlog.shift()
  }
  socket.resume()
  if (state.hasEnded) socket.end()
}

/** Echoes one connection until its end. */
export async function echoConnection(connection: Connection): Promise<void> {
  try {
    for await (const chunk of connection) await connection.write(chunk)
    await connection.shutdown()
  } catch {
    // The peer is gone.
  }
  await connection.close()
}

/** Serves a listener of connections until it is closed; resolves then. */
export async function serveEcho(listener: AsyncIterable<Connection>): Promise<void> {
  const all: Promise<void>[] = []
  for await (const connection of listener) all.push(echoConnection(connection))
  await Promise.all(all)
}

/** Sends `total` bytes of the stream `seed` in random chunks, and checks that they come back, and then the end. */
export async function checkEcho(
  connection: Connection,
  random: Random,
  seed: number,
  total: number,
): Promise<void> {
  const check = new StreamCheck(seed)
  const sending = (async () => {
    for (let sent = 0; sent < total; ) {
      const count = Math.min(total - sent, 1 + random.size(100_000))
      await connection.write(pattern(seed, sent, count))
      sent += count
    }
    await connection.shutdown()
  })()
  for await (const chunk of connection) check.take(chunk)
  await sending
  check.expect(total)
  await connection.close()
}

/** Bytes received and sent by the reactor's own account. */
export function traffic(stats: ReactorStats): { received: number; sent: number } {
  return { received: stats.bytesReceived, sent: stats.bytesSent }
}
