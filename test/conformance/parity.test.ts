// What a program sees of a connection's life is what it sees with Bun's own sockets: the same handlers in the same
// order, the same return values, the same states. Each script runs against Bun.listen and Bun.connect and against ours.
// Bun also calls `drain` once without a cut write; ours only after one, so the scripts note `drain` where it is meant.

import { type Difference, outcome, type ParitySocket, pair, parity, plainPeer } from "../support/parity.ts"

/** Where we differ on purpose. */
const BY_DESIGN: Difference[] = [
  {
    scenario: "end() of a half-open socket",
    bun: "state -1",
    ours: "state 1",
    why: "end() ends our side; with allowHalfOpen the peer may still answer (src/net/socket.ts, end)",
  },
  {
    scenario: "addresses and options",
    bun: "closed 127.0.0.1 IPv4 IPv4 undefined",
    ours: "closed undefined undefined undefined undefined",
    why: "Bun keeps an address that was asked for before the close; ours is never of a closed socket",
  },
  ...["getTypeOfService", "setTypeOfService"].map((name) => ({
    scenario: "each member of Bun's socket is there",
    bun: `${name} true`,
    ours: `${name} false`,
    why: "not offered",
  })),
]

parity("end with data from inside data", async (world, log) => {
  const { listener, client } = await pair(world, log, {
    data(socket) {
      log.add("server", `end ${socket.end("bye")}`)
      log.add("server", `state ${socket.readyState}`)
      log.add("server", `write ${socket.write("late")} ${socket.write("")} ${socket.write(undefined)}`)
      log.add("server", `end ${socket.end("late")} ${socket.end()}`)
      log.add("server", `address ${socket.remoteAddress} ${socket.localAddress} ${socket.localPort}`)
    },
  })
  client.write("x")
  await log.until("client", "close without error")
  log.add("client", `state ${client.readyState} write ${client.write("late")} end ${client.end()}`)
  log.add("client", `address ${client.remoteAddress} ${client.remotePort} ${client.localPort}`)
  listener.stop()
})

parity("end without data from inside open", async (world, log) => {
  const { listener } = await pair(world, log, {
    open: (socket) => {
      log.add("server", `write ${socket.write("hello ")}`)
      log.add("server", `end ${outcome(() => socket.end())} state ${socket.readyState}`)
    },
  })
  await log.until("client", "close without error")
  listener.stop()
})

parity("the peer ends: end, then close", async (world, log) => {
  const { listener } = await plainPeer(world, log, {
    end: (socket) => {
      log.add("server", `state ${socket.readyState}`)
      log.add("server", `write ${socket.write("last words")}`)
    },
    close: (socket) => {
      log.add("server", `state ${socket.readyState} write ${socket.write("late")} end ${socket.end("late")}`)
    },
  })
  await log.until("server", "close without error")
  await log.until("peer", "end")
  listener.stop()
})

parity("the peer ends, half-open", async (world, log) => {
  const { listener } = await plainPeer(
    world,
    log,
    {
      end: (socket) => {
        log.add("server", `state ${socket.readyState} write ${socket.write("answer")}`)
        setTimeout(() => {
          log.add("server", `state ${socket.readyState} write ${socket.write(" and more")}`)
          log.add("server", `end ${socket.end(" at last")} state ${socket.readyState}`)
        }, 10)
      },
    },
    { allowHalfOpen: true },
  )
  await log.until("server", "close without error")
  await log.until("peer", "end")
  listener.stop()
})

parity(
  "end() of a half-open socket",
  async (world, log) => {
    const { listener, server, client } = await pair(world, log, {}, {}, { allowHalfOpen: true })
    server.end("x")
    log.add("state", `state ${server.readyState}`)
    log.add("state", `write ${server.write("late")}`)
    await log.until("client", "end")
    client.end()
    await log.until("server", "close without error")
    log.lines.server = log.lines.server.filter((line) => line !== "end")
    listener.stop()
  },
  BY_DESIGN,
)

parity("shutdown()", async (world, log) => {
  const { listener, client } = await pair(world, log, {
    data(socket) {
      log.add("server", `write ${socket.write("before ")} shutdown ${socket.shutdown()}`)
      log.add("server", `state ${socket.readyState} write ${socket.write("late")}`)
    },
  })
  client.write("x")
  await log.until("client", "close without error")
  await log.until("server", "close without error")
  listener.stop()
})

parity("shutdown(), half-open: our side ends, the peer's goes on", async (world, log) => {
  const { listener, client } = await pair(
    world,
    log,
    {
      data(socket) {
        if (log.has("server", "state 1 write -1")) return
        socket.write("before ")
        socket.shutdown()
        log.add("server", `state ${socket.readyState} write ${socket.write("late")}`)
      },
    },
    {
      end: (socket) => {
        log.add("client", `state ${socket.readyState} write ${socket.write("more")}`)
        setTimeout(() => socket.end(), 10)
      },
    },
    { allowHalfOpen: true },
  )
  client.write("x")
  await log.until("client", "close without error")
  await log.until("server", "close without error")
  listener.stop()
})

parity("shutdown(true) ends receiving, writing goes on", async (world, log) => {
  const { listener, client } = await pair(
    world,
    log,
    {
      data(socket) {
        socket.write("before ")
        socket.shutdown(true)
        log.add("server", `state ${socket.readyState} write ${socket.write("after")}`)
        setTimeout(() => socket.end(), 20)
      },
    },
    {},
    { allowHalfOpen: true },
  )
  client.write("x")
  await log.until("client", "data before after")
  await log.until("client", "end")
  client.end()
  listener.stop()
})

parity("the side that ended first hears of the other's end", async (world, log) => {
  const { listener, client } = await pair(
    world,
    log,
    { end: (socket) => void setTimeout(() => socket.end("answer"), 5) },
    {},
    { allowHalfOpen: true },
  )
  client.shutdown()
  await log.until("client", "close without error")
  listener.stop()
})

parity("terminate: the peer's close has the reset", async (world, log) => {
  const { listener, client } = await pair(world, log, {
    data(socket) {
      log.add("server", `terminate ${socket.terminate()}`)
      log.add("server", `state ${socket.readyState} write ${socket.write("late")}`)
    },
  })
  client.write("x")
  await log.until("client", "close ECONNRESET read -104")
  listener.stop()
})

parity("close()", async (world, log) => {
  const { listener, client } = await pair(world, log, {
    data(socket) {
      log.add("server", `write ${socket.write("before")} close ${socket.close()}`)
      log.add("server", `state ${socket.readyState} write ${socket.write("late")}`)
    },
  })
  client.write("x")
  await log.until("client", "close without error")
  listener.stop()
})

parity("pause and resume", async (world, log) => {
  const { listener, client, server } = await pair(world, log, {})
  server.pause()
  await Bun.sleep(10)
  client.write("one ")
  await Bun.sleep(30)
  log.add("server", "paused")
  client.write("two ")
  server.resume()
  await log.until("server", "data one two ")
  log.add("server", "resumed")
  server.pause()
  await Bun.sleep(10)
  client.end("three")
  await Bun.sleep(30)
  log.add("server", "paused again")
  server.resume()
  await log.until("server", "close without error")
  listener.stop()
})

parity(
  "addresses and options",
  async (world, log) => {
    const { listener, client, server } = await pair(world, log, {})
    for (const [side, socket, other] of [
      ["server", server, client],
      ["client", client, server],
    ] as const) {
      const { localAddress, localFamily, remoteAddress, remoteFamily } = socket
      log.add(side, `${localAddress} ${localFamily} ${remoteAddress} ${remoteFamily}`)
      log.add(side, `ports ${socket.localPort === other.remotePort} ${typeof socket.localPort}`)
      log.add(side, `listener ${socket.listener === listener} ${socket.listener === undefined}`)
      log.add(side, `options ${socket.setNoDelay(true)} ${socket.setNoDelay()}`)
      log.add(side, `keep alive ${socket.setKeepAlive(true, 1000)} ${socket.setKeepAlive()}`)
      log.add(side, `flush ${socket.flush()} timeout ${socket.timeout(0)}`)
    }
    client.end()
    await log.until("server", "close without error")
    const { localAddress, localFamily, remoteFamily, remotePort } = server
    log.add("server", `closed ${localAddress} ${localFamily} ${remoteFamily} ${remotePort}`)
    listener.stop()
  },
  BY_DESIGN,
)

parity("every call of a closed socket", async (world, log) => {
  const { listener, client, server } = await pair(world, log, {})
  client.end()
  await log.until("server", "close without error")
  for (const call of ["flush", "pause", "resume", "shutdown", "terminate", "close"] as const) {
    log.add("server", `${call} ${outcome(() => server[call]())}`)
  }
  log.add("server", `timeout ${outcome(() => server.timeout(1))}`)
  log.add("server", `options ${server.setNoDelay(true)} ${server.setKeepAlive(true)}`)
  log.add("server", `addresses ${server.localAddress} ${server.remoteAddress} ${server.remotePort}`)
  listener.stop()
})

parity("the timeout handler", async (world, log) => {
  const { listener, client, server } = await pair(world, log, {
    timeout: (socket) => {
      log.add("server", `state ${socket.readyState}`)
      socket.timeout(0)
    },
  })
  server.timeout(1)
  await log.until("server", "timeout")
  await log.until("server", "state 1")
  client.end()
  await log.until("server", "close without error")
  listener.stop()
})

/** Not about TCP: nothing here is offered without TLS. */
const TLS_MEMBERS =
  /alpn|authoriz|certificate|cipher|KeyInfo|servername|session|sigalgs|TLS|negotiat|Keying|SNI|KeyCert|SendFragment|VerifyMode/i

parity(
  "each member of Bun's socket is there",
  async (world, log) => {
    const { listener, client } = await pair(world, log, {})
    const names = membersOf(client)
    const wanted = world.isOurs ? membersOf(await bunSocket()) : names
    for (const name of [...wanted].sort()) {
      if (!TLS_MEMBERS.test(name)) log.add("members", `${name} ${names.has(name)}`)
    }
    client.end()
    await log.until("server", "close without error")
    listener.stop()
  },
  BY_DESIGN,
)

function membersOf(value: object): Set<string> {
  const names = new Set<string>()
  for (let at = value; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) names.add(name)
  }
  names.delete("constructor")
  return names
}

async function bunSocket(): Promise<ParitySocket> {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
  const socket = await Bun.connect({ hostname: "127.0.0.1", port: listener.port, socket: { data() {} } })
  socket.end()
  listener.stop(true)
  return socket as unknown as ParitySocket
}
