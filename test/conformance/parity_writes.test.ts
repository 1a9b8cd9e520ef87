// Writing as with Bun's own sockets: what `write` and `end` take, what they return, what they throw, and `drain` after a
// write that was cut.

import { type Difference, outcome, type ParitySocket, pair, parity } from "../support/parity.ts"

const REST = "a start without a length means the rest; Bun takes the length of the whole and refuses"
const BY_DESIGN: Difference[] = [
  ...[
    ["bytes from", "6"],
    ["bytes from the end", "0"],
    ["ArrayBuffer from", "3"],
    ["Uint16Array from", "2"],
    ["text from", "6"],
  ].map(([name, ours]) => ({
    scenario: `write: ${name}`,
    bun: `${name}: throws RangeError ERR_OUT_OF_RANGE`,
    ours: `${name}: ${ours}`,
    why: REST,
  })),
  ...["a fraction", "not a number"].map((name) => ({
    scenario: `write: ${name}`,
    bun: `${name}: throws TypeError ERR_INVALID_ARG_TYPE`,
    ours: `${name}: throws RangeError ERR_OUT_OF_RANGE`,
    why: "a number that is not allowed is a RangeError throughout this library",
  })),
  {
    scenario: "write: text as from",
    bun: "text as from: 10",
    ours: "text as from: throws TypeError ERR_INVALID_ARG_TYPE",
    why: "Bun takes it for an encoding, which its types do not have; here it is what it is, a wrong number",
  },
]

const bytes = new TextEncoder().encode("0123456789")

for (const [name, ...given] of [
  ["nothing"],
  ["undefined", undefined],
  ["empty text", ""],
  ["text", "plain"],
  ["multibyte text", "ä€😀"],
  ["a lone surrogate", "\ud800"],
  ["bytes", bytes],
  ["no bytes", new Uint8Array(0)],
  ["bytes from", bytes, 4],
  ["bytes from and length", bytes, 2, 3],
  ["bytes from the end", bytes, 10],
  ["bytes from, no length", bytes, 2, 0],
  ["ArrayBuffer", bytes.slice().buffer],
  ["ArrayBuffer from", bytes.slice().buffer, 7],
  ["ArrayBuffer from and length", bytes.slice().buffer, 7, 2],
  ["DataView", new DataView(bytes.buffer, 3, 2)],
  ["DataView from and length", new DataView(bytes.buffer, 3, 4), 1, 2],
  ["Uint16Array", new Uint16Array([0x6261, 0x6463])],
  ["Uint16Array from", new Uint16Array([0x6261, 0x6463]), 2],
  ["Uint16Array from and length", new Uint16Array([0x6261, 0x6463]), 1, 2],
  ["subarray", bytes.subarray(5, 8)],
  ["SharedArrayBuffer", new SharedArrayBuffer(3)],
  ["text from", "0123456789", 4],
  ["text from and length", "0123456789", 2, 3],
  ["a number", 5],
  ["null", null],
  ["an object", {}],
  ["an array", [1, 2]],
  ["from behind the end", bytes, 11],
  ["length behind the end", bytes, 5, 6],
  ["a negative from", bytes, -1],
  ["a negative length", bytes, 0, -1],
  ["a fraction", bytes, 1.5],
  ["not a number", bytes, Number.NaN],
  ["text as from", bytes, "1"],
  ["null as from", bytes, null],
] as [string, ...unknown[]][]) {
  parity(
    `write: ${name}`,
    async (world, log) => {
      const { listener, server } = await pair(world, log, {})
      log.add("server", `${name}: ${outcome(() => server.write(...given))}`)
      const isDesigned = BY_DESIGN.some(({ scenario }) => scenario === `write: ${name}`)
      if (!isDesigned) log.add("server", `bytesWritten ${server.bytesWritten}`)
      server.end()
      await log.until("client", "close without error")
      if (isDesigned) delete log.lines.client
      listener.stop()
    },
    BY_DESIGN,
  )
}

parity("end takes what write takes", async (world, log) => {
  for (const given of [["text"], [bytes, 2, 3], [new DataView(bytes.buffer, 3, 2)], [""], [undefined], []]) {
    const { listener, client, server } = await pair(world, log, {})
    log.add("server", `end ${outcome(() => server.end(...given))} state ${server.readyState}`)
    while (client.readyState !== -1) await Bun.sleep(1)
    listener.stop()
  }
})

parity("end with something that cannot be written", async (world, log) => {
  const { listener, client, server } = await pair(world, log, {})
  log.add("server", `end ${outcome(() => server.end(5))} state ${server.readyState}`)
  client.end()
  await log.until("server", "close without error")
  listener.stop()
})

parity("the array may be reused at once", async (world, log) => {
  const { listener, server } = await pair(world, log, {})
  const array = Buffer.from("first ")
  server.write(array)
  array.write("second")
  server.write(array)
  array.fill(0)
  server.end()
  await log.until("client", "close without error")
  listener.stop()
})

parity("a write that is cut is followed by drain", async (world, log) => {
  const big = new Uint8Array(16_000_000)
  let sent = 0
  let received = 0
  let drains = 0
  const listener = world.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(socket: ParitySocket) {
        sent = socket.write(big)
        log.add("server", `cut ${sent > 0 && sent < big.length}`)
      },
      drain(socket: ParitySocket) {
        drains++
        if (sent === big.length) return
        sent += socket.write(big.subarray(sent))
        if (sent === big.length) log.add("server", `end ${socket.end()}`)
      },
      data() {},
    },
  })
  await world.connect({
    hostname: "127.0.0.1",
    port: listener.port,
    socket: {
      data: (_: ParitySocket, chunk: Buffer) => {
        received += chunk.length
      },
      close: () => log.add("client", `received ${received}`),
    },
  })
  await log.until("client", `received ${big.length}`)
  log.add("server", `drained ${drains > 0}`)
  listener.stop()
})
