// A reactor in a Worker: echoes to itself, closes, and says what was left.

import { Reactor } from "../../src/index.ts"
import { checkEcho, echoListener } from "./echo.ts"
import { watchClose } from "./harness.ts"
import { Random } from "./random.ts"

declare const self: Worker

self.onmessage = async ({ data: { engine, host } }) => {
  const reactor = Reactor.open({ engine, host })
  const last = watchClose(reactor)
  const body = async () => {
    const listener = echoListener(reactor)
    const connection = await reactor.connect({ hostname: "127.0.0.1", port: listener.port! })
    await checkEcho(connection, new Random(1), 1, 300_000)
    const echoed = reactor.stats().bytesReceived / 2
    await reactor.close()
    return echoed
  }
  const result = body()
  if (host === "owned") reactor.run(result)
  const echoed = await result
  const stats = last()
  postMessage({
    echoed,
    open: stats.descriptorsOpen,
    inFlight: stats.operationsInFlight,
    closed: reactor.isClosed,
  })
}
