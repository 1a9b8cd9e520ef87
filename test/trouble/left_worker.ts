// A reactor in a Worker that somebody terminates: idle, echoing, or sending to peers that do not read.

import { Reactor, type Socket } from "../../src/index.ts"

declare const self: Worker

const BLOCK = new Uint8Array(100_000).fill(0x55)

function flood(socket: Socket): void {
  while (socket.write(BLOCK) === BLOCK.length) {}
}

self.onmessage = ({ data: { engine, state } }) => {
  const reactor = Reactor.open({ engine, host: "hosted" })
  const handlers =
    state === "flooding"
      ? { open: flood, drain: flood, data() {} }
      : {
          data(socket: Socket, chunk: Buffer) {
            if (state === "busy") socket.write(chunk)
          },
        }
  const listener = reactor.listen({ hostname: "127.0.0.1", port: 0, socket: handlers })
  void reactor.timeout(60_000).catch(() => undefined)
  postMessage(listener.port)
}
