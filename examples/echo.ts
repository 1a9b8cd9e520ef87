/**
 * An echo server. PORT picks the port (0: any), URINGLOOP_ENGINE the engine.
 */
import { defaultReactor, listen, type Socket } from "../src/index.ts"

/** What the peer has not taken yet: kept until `drain`, while reading pauses. */
type Rest = Uint8Array | undefined

function send(socket: Socket<Rest>, bytes: Uint8Array): void {
  const taken = socket.write(bytes)
  if (taken >= bytes.length || taken < 0) return
  socket.data = bytes.subarray(taken)
  socket.pause()
}

const listener = listen<Rest>({
  hostname: process.env.HOST ?? "127.0.0.1",
  port: Number(process.env.PORT ?? 7000),
  socket: {
    data: send,
    drain(socket) {
      const rest = socket.data
      socket.data = undefined
      if (rest !== undefined) send(socket, rest)
      if (socket.data === undefined) socket.resume()
    },
  },
})

console.log(`echo (engine ${defaultReactor().engine}) listening on ${listener.hostname}:${listener.port}`)
if (defaultReactor().hostName === "owned") defaultReactor().run()
