// Listeners and their options as with Bun's own: `data`, `binaryType`, `reload`, `stop`, the members of a listener.

import { type ParitySocket, pair, parity } from "../support/parity.ts"

const HERE = { hostname: "127.0.0.1" }

parity("data of the listener, of a socket, of a dial", async (world, log) => {
  const shared = { is: "the listener's" }
  const { listener, client } = await pair(
    world,
    log,
    {
      open: (socket) => {
        log.add("server", `data ${JSON.stringify(socket.data)} same ${socket.data === shared}`)
        socket.data = "its own"
      },
      close: (socket) => log.add("server", `still ${socket.data}`),
    },
    {},
    { data: shared },
  )
  log.add("server", `listener ${listener.data === shared}`)
  log.add("client", `dialled ${client.data === shared}`)
  listener.data = "another"
  const second = await world.connect({ ...HERE, port: listener.port, data: 7, socket: { data() {} } })
  log.add("client", `dialled ${second.data}`)
  await log.until("server", 'data "another" same false')
  client.end()
  second.end()
  await log.until("server", "still its own")
  listener.stop(true)
})

parity("without data it is undefined", async (world, log) => {
  const { listener, client, server } = await pair(world, log, {})
  log.add("data", `${listener.data} ${client.data} ${server.data}`)
  client.end()
  await log.until("server", "close without error")
  listener.stop()
})

for (const binaryType of [undefined, "buffer", "uint8array", "arraybuffer"] as const) {
  parity(`binaryType ${binaryType}`, async (world, log) => {
    const listener = world.listen({
      ...HERE,
      port: 0,
      socket: {
        ...(binaryType === undefined ? {} : { binaryType }),
        data(_: ParitySocket, chunk: Uint8Array | ArrayBuffer) {
          log.add("server", `${chunk.constructor.name} ${chunk.byteLength}`)
          if (chunk instanceof Uint8Array) log.add("server", `${chunk.byteOffset} ${chunk.buffer.byteLength}`)
          log.add("server", Buffer.from(chunk as Uint8Array).toString())
        },
      },
    })
    const client = await world.connect({ ...HERE, port: listener.port, socket: { data() {} } })
    client.write("hello")
    await log.until("server", "hello")
    client.end()
    listener.stop()
  })
}

parity("socket.reload", async (world, log) => {
  const { listener, client, server } = await pair(world, log, {})
  client.write("old")
  await log.until("server", "data old")
  log.add("server", `reload ${server.reload({ socket: log.handlers("reloaded") })}`)
  client.write("new")
  await log.until("reloaded", "data new")
  client.end()
  await log.until("reloaded", "close without error")
  listener.stop()
})

parity("listener.reload reaches open sockets, and those to come", async (world, log) => {
  const { listener, client } = await pair(world, log, {})
  client.write("old")
  await log.until("server", "data old")
  log.add("server", `reload ${listener.reload({ socket: log.handlers("reloaded") })}`)
  const second = await world.connect({ ...HERE, port: listener.port, socket: { data() {} } })
  second.write("second")
  await log.until("reloaded", "data second")
  client.write("first")
  await Bun.sleep(30)
  client.end()
  second.end()
  await Bun.sleep(30)
  listener.stop(true)
})

parity("stop: connections go on, new ones are refused", async (world, log) => {
  const { listener, client } = await pair(world, log, {
    data: (socket) => void socket.write("answer"),
  })
  const { port } = listener
  log.add("server", `stop ${listener.stop()}`)
  await Bun.sleep(50) // the ring keeps a closed listener for a moment
  const refused = await world.connect({ ...HERE, port, socket: { data() {} } }).then(
    () => "connected",
    (error) => error.code,
  )
  log.add("client", `dialling ${refused}`)
  client.write("still there")
  await log.until("client", "data answer")
  client.end()
  await log.until("server", "close without error")
})

parity("stop(true) closes the connections", async (world, log) => {
  const { listener } = await pair(world, log, {})
  log.add("server", `stop ${listener.stop(true)}`)
  await log.until("server", "close without error")
  const ends = performance.now() + 3_000
  while (!log.lines.client.some((line) => line.startsWith("close")) && performance.now() < ends)
    await Bun.sleep(1)
  log.add("server", `again ${listener.stop(true)} ${listener.stop()}`)
})

parity("what a listener says of itself", async (world, log) => {
  const listener = world.listen({ ...HERE, port: 0, socket: { data() {} } })
  log.add("listener", `${listener.hostname} ${typeof listener.port} ${listener.port > 0} ${listener.unix}`)
  log.add("listener", `fd ${listener.fd >= 0} ref ${listener.ref()} unref ${listener.unref()}`)
  listener.stop(true)
  log.add("listener", `stopped ${listener.hostname} ${typeof listener.port}`)
})

parity("a listener on a path", async (world, log) => {
  const unix = `/tmp/uringloop-parity-${process.pid}-${world.isOurs}`
  const { listener, client, server } = await pair(
    world,
    log,
    {},
    {},
    { unix, hostname: undefined, port: undefined },
  )
  log.add("listener", `${listener.hostname} ${listener.port} ${listener.unix === unix}`)
  for (const socket of [client, server]) {
    log.add("addresses", `${socket.remoteAddress} ${socket.remotePort} ${socket.remoteFamily}`)
    log.add("addresses", `${socket.localAddress} ${socket.localPort} ${socket.localFamily}`)
  }
  client.write("over a path")
  await log.until("server", "data over a path")
  client.end()
  await log.until("server", "close without error")
  listener.stop(true)
})
