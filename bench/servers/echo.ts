// An echo server whose handlers are the same on either loop, so that a difference in cost is the loop's.
//
//   CONTESTANT=bun|uringloop PORT=0 bun bench/servers/echo.ts      prints `listening on 127.0.0.1:PORT`

import { type ServedSocket, serveSockets } from "./contestant.ts"

/** What the socket did not take yet, in order. Undefined most of the time: then a write goes straight out. */
type Unsent = Uint8Array[] | undefined

/** Writes, and returns what the socket did not take. A closed socket takes nothing and wants nothing kept. */
function write(socket: ServedSocket<Unsent>, bytes: Uint8Array): Uint8Array | undefined {
  const taken = socket.write(bytes)
  return taken >= bytes.length || taken < 0 ? undefined : bytes.subarray(taken)
}

await serveSockets<Unsent>({
  open(socket) {
    socket.data = undefined
  },
  data(socket, bytes) {
    if (socket.data !== undefined) {
      socket.data.push(bytes)
      return
    }
    const rest = write(socket, bytes)
    if (rest !== undefined) socket.data = [rest]
  },
  drain(socket) {
    const unsent = socket.data
    if (unsent === undefined) return
    for (let i = 0; i < unsent.length; i++) {
      const rest = write(socket, unsent[i]!)
      if (rest === undefined) continue
      socket.data = [rest, ...unsent.slice(i + 1)]
      return
    }
    socket.data = undefined
  },
})
