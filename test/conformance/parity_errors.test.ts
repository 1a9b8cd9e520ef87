// Errors as with Bun's own sockets: where an exception of a handler goes, what a failed connect and a failed listen say,
// and which wrong options are a TypeError and which a RangeError.

import { expect } from "bun:test"
import { runChild } from "../support/child.ts"
import { ENGINE, onReactor } from "../support/harness.ts"
import {
  type Difference,
  describeError,
  outcome,
  type ParitySocket,
  pair,
  parity,
} from "../support/parity.ts"

const TYPE = "throws TypeError ERR_INVALID_ARG_TYPE"
const RANGE = "throws RangeError ERR_OUT_OF_RANGE"
const NOT_ALLOWED =
  "a value of the right type that is not allowed is a RangeError, one of a wrong type a TypeError"
const PROMISES = "without handlers, connections are asked for with promises"

/** Where we differ on purpose. */
const BY_DESIGN: Difference[] = [
  {
    scenario: "a port in use",
    bun: "EADDRINUSE listen 98 true",
    ours: "EADDRINUSE listen -98 true",
    why: "errno is negative in all of node's system errors, Bun's own connect errors among them",
  },
  { scenario: "listen: no socket", bun: TYPE, ours: "promise form", why: PROMISES },
  { scenario: "connect: no socket", bun: TYPE, ours: "rejects ECONNREFUSED", why: PROMISES },
]
for (const call of ["listen", "connect"]) {
  for (const name of ["an unknown binaryType", "hostname is empty", "unix is empty"]) {
    BY_DESIGN.push({ scenario: `${call}: ${name}`, bun: TYPE, ours: RANGE, why: NOT_ALLOWED })
  }
  BY_DESIGN.push({ scenario: `${call}: port is an object`, bun: RANGE, ours: TYPE, why: NOT_ALLOWED })
}
BY_DESIGN.push({
  scenario: "listen: hostname is a number",
  bun: "throws Error EADDRNOTAVAIL",
  ours: TYPE,
  why: NOT_ALLOWED,
})

for (const handler of ["open", "data", "end", "close", "drain"] as const) {
  parity(`an exception in ${handler} goes to error`, async (world, log) => {
    const boom = new Error(`boom in ${handler}`)
    const { listener, client } = await pair(world, log, {
      [handler]: () => {
        throw boom
      },
      ...(handler === "drain" ? { open: (socket: ParitySocket) => cutWrite(socket) } : {}),
      error: (socket: ParitySocket, error: unknown) => {
        log.add("server", `the same ${error === boom} state ${socket.readyState}`)
        if (handler === "drain") socket.end()
      },
    })
    if (handler !== "drain") {
      client.write("x")
      await Bun.sleep(10)
      client.end()
    }
    await log.until("server", "close without error")
    await log.until("client", "close without error")
    // Of a cut write it is not said how much of it goes out.
    if (handler === "drain") delete log.lines.client
    listener.stop()
  })
}

function cutWrite(socket: ParitySocket): void {
  while (socket.write(new Uint8Array(1_000_000)) === 1_000_000) {
    // The peer's buffers and ours fill.
  }
}

parity("what is thrown may be anything", async (world, log) => {
  const things = [undefined, null, 5, "text", { an: "object" }]
  const { listener, client } = await pair(world, log, {
    data: () => {
      throw things[0]
    },
    error: (_, thing) => log.add("server", `got ${JSON.stringify(thing) ?? "undefined"} ${typeof thing}`),
  })
  while (things.length > 0) {
    const before = log.lines.server.length
    client.write("x")
    while (log.lines.server.length < before + 3) await Bun.sleep(1)
    things.shift()
  }
  client.end()
  await log.until("server", "close without error")
  listener.stop()
})

parity("connect refused: connectError, then the rejection; no other handler", async (world, log) => {
  const listener = world.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
  const { port } = listener
  listener.stop(true)
  await Bun.sleep(30) // the ring keeps a closed listener for a moment
  const handlers = log.handlers("client", {
    connectError: (socket: ParitySocket | undefined, error) => {
      log.add("client", `connectError ${describeError(error)}`)
      log.add("client", `socket ${typeof socket} data ${socket?.data} state ${socket?.readyState}`)
    },
  })
  for (const socket of [handlers, { data() {} }]) {
    try {
      await world.connect({ hostname: "127.0.0.1", port, data: "mine", socket })
      log.add("client", "connected")
    } catch (error) {
      log.add("client", `rejected ${describeError(error)} ${error instanceof Error}`)
    }
  }
})

parity("a path where nobody listens", async (world, log) => {
  try {
    await world.connect({ unix: "/tmp/uringloop-nobody-listens-here", socket: { data() {} } })
  } catch (error) {
    const { code, syscall } = error as { code?: string; syscall?: string }
    log.add("client", `${code} ${syscall}`)
  }
})

parity(
  "a port in use",
  async (world, log) => {
    const other = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    try {
      world.listen({ hostname: "127.0.0.1", port: other.port, socket: { data() {} } })
    } catch (error) {
      log.add("server", `${describeError(error)} ${error instanceof Error}`)
    }
    other.stop(true)
  },
  BY_DESIGN,
)

const socket = { data() {} }
const HERE = { hostname: "127.0.0.1", port: 0 }
const WRONG: [string, unknown][] = [
  ["nothing", undefined],
  ["null", null],
  ["a number", 5],
  ["no socket", HERE],
  ["socket is text", { ...HERE, socket: "x" }],
  ["socket is null", { ...HERE, socket: null }],
  ["no handlers", { ...HERE, socket: {} }],
  ["data is no function", { ...HERE, socket: { data: 5 } }],
  ["open is no function", { ...HERE, socket: { data() {}, open: "x" } }],
  ["drain alone", { ...HERE, socket: { drain() {} } }],
  ["open alone", { ...HERE, socket: { open() {} } }],
  ["an unknown binaryType", { ...HERE, socket: { data() {}, binaryType: "blob" } }],
  ["binaryType is a number", { ...HERE, socket: { data() {}, binaryType: 5 } }],
  ["no hostname", { port: 0, socket }],
  ["hostname is a number", { hostname: 5, port: 0, socket }],
  ["hostname is empty", { hostname: "", port: 0, socket }],
  ["port is negative", { hostname: "127.0.0.1", port: -1, socket }],
  ["port is too large", { hostname: "127.0.0.1", port: 65_536, socket }],
  ["port is a fraction", { hostname: "127.0.0.1", port: 1.5, socket }],
  ["port is text", { hostname: "127.0.0.1", port: "x", socket }],
  ["port is an object", { hostname: "127.0.0.1", port: {}, socket }],
  ["unix is a number", { unix: 5, socket }],
  ["unix is empty", { unix: "", socket }],
]
for (const [name, options] of WRONG) {
  parity(
    `listen: ${name}`,
    async (world, log) => {
      const line = outcome(() => {
        const listener = world.listen(options)
        if (listener.stop !== undefined) return listener.stop(true)
        ;(listener as unknown as { close(): void }).close()
        return "promise form"
      })
      log.add("server", line)
    },
    BY_DESIGN,
  )

  // Port 0 stands for one where nobody listens. Bun makes a name of a number, and an attempt to connect to it.
  if (name === "hostname is a number") continue
  parity(
    `connect: ${name}`,
    async (world, log) => {
      let dialled: Promise<unknown> | undefined
      const line = outcome(() => {
        dialled = world.connect(options)
        dialled.catch(() => undefined)
      })
      if (dialled === undefined) log.add("client", line)
      else log.add("client", await dialled.then(String, ({ code }) => `rejects ${code}`))
    },
    BY_DESIGN,
  )
}

/** A program whose handler throws and that has no `error` handler. */
const UNCAUGHT = `
  const listener = listen({ hostname: "127.0.0.1", port: 0, socket: { data() { throw new Error("boom") } } })
  process.on("uncaughtException", (error) => { console.log("uncaught", error.message) })
  process.on("unhandledRejection", (error) => { console.log("rejected", error.message) })
  const client = await connect({ hostname: "127.0.0.1", port: listener.port, socket: { data() {} } })
  client.write("x")
  await Bun.sleep(50)
  listener.reload({ socket: { async data() { throw new Error("later boom") } } })
  const second = await connect({ hostname: "127.0.0.1", port: listener.port, socket: { data() {} } })
  second.write("x")
  await Bun.sleep(50)
  process.exit(0)
`

onReactor(
  "parity: without an error handler an exception is uncaught, and a rejection unhandled",
  async () => {
    const [bun, ours] = await Promise.all([
      runChild(`import { connect, listen } from "bun"\n${UNCAUGHT}`),
      runChild(`import { connect, listen } from "SRC/index.ts"\n${UNCAUGHT}`, { URINGLOOP_ENGINE: ENGINE }),
    ])
    expect(ours).toEqual(bun)
    expect(ours.stdout).toBe("uncaught boom\nrejected later boom\n")
  },
  { host: "hosted" },
)
