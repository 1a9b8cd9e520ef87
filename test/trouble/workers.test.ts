// A Worker that is terminated with a reactor inside: its descriptors close, its peers see the end, nobody's memory is touched.

import { expect } from "bun:test"
import { onReactor, openDescriptors, until } from "../support/harness.ts"

const WORKER = new URL("./left_worker.ts", import.meta.url).href

for (const state of ["idle", "busy", "flooding"] as const) {
  onReactor(
    `a Worker terminated while its reactor is ${state}: peers see the end, nothing stays open`,
    async (r) => {
      await r.nop()
      let before = 0
      for (let i = 0; i < 5; i++) {
        const worker = new Worker(WORKER)
        const port = await new Promise<number>((resolve, reject) => {
          worker.onmessage = (event) => resolve(event.data as number)
          worker.onerror = (event) => reject(new Error(event.message))
          worker.postMessage({ engine: r.engine, state })
        })
        let ends = 0
        let wrong = 0
        const clients = await Promise.all(
          Array.from({ length: 10 }, () =>
            Bun.connect({
              hostname: "127.0.0.1",
              port,
              socket: {
                data(socket, chunk) {
                  if (state === "busy") socket.write(chunk)
                  // What was under way when the memory went back must not show.
                  if (chunk.some((byte) => byte !== 0x55)) wrong++
                },
                end: (socket) => void socket.end(),
                close: () => void ends++,
                error() {},
              },
            }),
          ),
        )
        for (const client of clients) client.write(new Uint8Array(1000).fill(0x55))
        await Bun.sleep(20)
        worker.terminate()
        await until(r, "all peers have seen the end", () => ends === clients.length)
        expect(wrong).toBe(0)
        const refused = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } }).then(
          () => "connected",
          (error) => error.code,
        )
        expect(refused).toBe("ECONNREFUSED")
        // The first Worker opens descriptors that the runtime keeps; after that each must leave none.
        if (i === 0) {
          await Bun.sleep(100)
          before = openDescriptors().size
        }
      }
      await until(r, "descriptors are back", () => openDescriptors().size <= before)
      await r.nop()
    },
    { host: "hosted" },
  )
}
