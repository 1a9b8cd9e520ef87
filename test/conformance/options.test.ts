// Every wrong option is refused at once, with its name and what is allowed, before any descriptor exists: none of the
// process is left, and none was opened meanwhile.

import { expect, test } from "bun:test"
import { Reactor } from "../../src/index.ts"
import { ENGINE, HOST, onReactor, openDescriptors, rejection, thrown } from "../support/harness.ts"

/** A wrong set of options, the error's class, and what its message has to say. */
type Wrong = [options: unknown, kind: "type" | "range", ...says: string[]]

/** What is wrong with the refusals of `call`: a list that ought to be empty. */
function complaints(call: (options: unknown) => unknown, all: readonly Wrong[]): string[] {
  return all.flatMap(([options, kind, ...says]) => {
    const shown = Bun.inspect(options, { depth: 3 }).replace(/\s+/g, " ")
    let error: Error & { code?: string }
    try {
      error = thrown(() => {
        const result = call(options)
        if (result instanceof Promise) result.catch(() => undefined)
        if (result instanceof Reactor) void result.close()
      })
    } catch (caught) {
      return [`${shown}: ${(caught as Error).message}`]
    }
    const wanted = kind === "type" ? "TypeError ERR_INVALID_ARG_TYPE" : "RangeError ERR_OUT_OF_RANGE"
    const missing = says.filter((part) => !error.message.includes(part))
    if (`${error.name} ${error.code}` === wanted && missing.length === 0) return []
    return [`${shown}: ${error.name} ${error.code}: ${error.message} (wanted ${wanted}: ${says.join(", ")})`]
  })
}

const socket = { data() {} }

/** Wrong for `listen` and `connect` alike. */
const COMMON: Wrong[] = [
  [undefined, "type"],
  [null, "type"],
  ["127.0.0.1:80", "type", "options must be an object"],
  [{ port: 1 }, "type", '"hostname"', '"unix"'],
  [{ hostname: 5, port: 1 }, "type", "hostname must be a string"],
  [{ hostname: "", port: 1 }, "range", "hostname must be an address or a name"],
  [{ hostname: "127.0.0.1", port: -1 }, "range", "port must be an integer from 0 to 65535", "-1"],
  [{ hostname: "127.0.0.1", port: 65_536 }, "range", "port must be an integer from 0 to 65535", "65536"],
  [{ hostname: "127.0.0.1", port: 1.5 }, "range", "port must be"],
  [{ hostname: "127.0.0.1", port: Number.NaN }, "range", "port must be"],
  [{ hostname: "127.0.0.1", port: "http" }, "range", "port must be"],
  [{ hostname: "127.0.0.1", port: "" }, "type", "port must be a number"],
  [{ hostname: "127.0.0.1", port: {} }, "type", "port must be a number"],
  [
    { hostname: "127.0.0.1", port: 1, allowHalfOpen: "yes" },
    "type",
    "allowHalfOpen must be a boolean",
    '"yes"',
  ],
  [{ hostname: "127.0.0.1", port: 1, allowHalfOpen: 1 }, "type", "allowHalfOpen must be a boolean"],
  [{ hostname: "127.0.0.1", port: 1, hostName: "x" }, "range", '"hostName"', "hostname, port, unix"],
  [{ hostname: "127.0.0.1", port: 1, tls: true }, "range", '"tls"'],
  [{ hostname: "127.0.0.1", port: 1, fd: 3 }, "range", '"fd"'],
  [{ unix: 5 }, "type", "unix must be a string"],
  [{ unix: "" }, "range", "unix must be a path of 1 to 107 bytes"],
  [{ unix: "x".repeat(108) }, "range", "unix must be a path of 1 to 107 bytes"],
  [{ unix: "ä".repeat(54) }, "range", "unix must be a path of 1 to 107 bytes"],
  [{ unix: "/tmp/a\0b" }, "range", "unix must be a path without NUL bytes"],
  [{ unix: "/tmp/x", port: 1 }, "range", "unix must be given without hostname and port"],
  [{ unix: "/tmp/x", hostname: "127.0.0.1" }, "range", "unix must be given without hostname and port"],
  [{ hostname: "127.0.0.1", port: 1, socket: null }, "type", "socket"],
  [{ hostname: "127.0.0.1", port: 1, socket: "x" }, "type", "socket"],
  [{ hostname: "127.0.0.1", port: 1, socket: {} }, "type", '"data"', '"drain"'],
  [{ hostname: "127.0.0.1", port: 1, socket: { data: 5 } }, "type", "socket.data must be a function"],
  ...["open", "drain", "close", "error", "end", "timeout", "connectError"].map(
    (name): Wrong => [
      { hostname: "127.0.0.1", port: 1, socket: { ...socket, [name]: "x" } },
      "type",
      `socket.${name} must be a function`,
      '"x"',
    ],
  ),
  [
    { hostname: "127.0.0.1", port: 1, socket: { ...socket, handshake() {} } },
    "range",
    "socket.handshake",
    "TLS",
  ],
  [
    { hostname: "127.0.0.1", port: 1, socket: { ...socket, binaryType: "blob" } },
    "range",
    "socket.binaryType must be one of buffer, uint8array, arraybuffer",
    '"blob"',
  ],
  [{ hostname: "127.0.0.1", port: 1, socket: { ...socket, binaryType: 5 } }, "type", "socket.binaryType"],
  [{ hostname: "127.0.0.1", port: 1, socket, borrow: 1 }, "type", "borrow must be a boolean"],
]

const LISTEN: Wrong[] = [
  ...["reusePort", "ipv6Only", "exclusive"].map(
    (name): Wrong => [{ hostname: "::1", port: 0, [name]: 1 }, "type", `${name} must be a boolean`],
  ),
  [{ hostname: "127.0.0.1", port: 0, backlog: 0 }, "range", "backlog must be an integer from 1 to"],
  [{ hostname: "127.0.0.1", port: 0, backlog: 2 ** 31 }, "range", "backlog must be an integer from 1 to"],
  [{ hostname: "127.0.0.1", port: 0, backlog: "512" }, "type", "backlog must be a number"],
  [{ hostname: "127.0.0.1", port: 0, signal: AbortSignal.abort() }, "range", '"signal"'],
  [{ hostname: "127.0.0.1", port: 0, timeoutMs: 1 }, "range", '"timeoutMs"'],
]

const CONNECT: Wrong[] = [
  [{ hostname: "127.0.0.1" }, "type", "port must be a number"],
  [{ hostname: "127.0.0.1", port: 1, backlog: 5 }, "range", '"backlog"'],
  [{ hostname: "127.0.0.1", port: 1, signal: 5 }, "type", "signal must be an AbortSignal"],
  [{ hostname: "127.0.0.1", port: 1, signal: null }, "type", "signal must be an AbortSignal"],
  ...[0, -1, 1.5, 2 ** 31, Number.NaN, Number.POSITIVE_INFINITY].map(
    (timeoutMs): Wrong => [
      { hostname: "127.0.0.1", port: 1, timeoutMs },
      "range",
      "timeoutMs must be an integer from 1 to 2147483647",
    ],
  ),
  [{ hostname: "127.0.0.1", port: 1, timeoutMs: "5" }, "type", "timeoutMs must be a number"],
]

const POWERS = ["receiveBuffers", "receiveBufferBytes", "submissionEntries", "completionEntries"]
const OPEN: Wrong[] = [
  [null, "type", "options must be an object"],
  [5, "type", "options must be an object"],
  [{ engines: "uring" }, "range", '"engines"', "engine, host, maxOperations"],
  [{ engine: "kqueue" }, "range", "engine must be one of auto, uring, poll, epoll", '"kqueue"'],
  [{ engine: 5 }, "type", "engine must be a string"],
  [{ host: "guest" }, "range", "host must be one of hosted, owned"],
  [{ host: null }, "type", "host must be a string"],
  [{ maxOperations: 15 }, "range", "maxOperations must be an integer from 16 to"],
  [{ maxOperations: 2 ** 40 }, "range", "maxOperations must be an integer from 16 to"],
  [{ maxOperations: "64" }, "type", "maxOperations must be a number"],
  [{ sendArenaBytes: 1024 * 1024 + 1 }, "range", "sendArenaBytes must be a multiple of 1048576"],
  [{ sendArenaBytes: 0 }, "range", "sendArenaBytes must be an integer from 1048576 to"],
  [{ sendArenaBytes: 2 ** 31 }, "range", "sendArenaBytes must be an integer from 1048576 to 1073741824"],
  ...POWERS.flatMap((name): Wrong[] => [
    [{ [name]: 100 }, "range", `${name} must be a power of two`, "100"],
    [{ [name]: 0 }, "range", `${name} must be an integer from`],
    [{ [name]: 2 ** 30 }, "range", `${name} must be an integer from`],
    [{ [name]: 64.5 }, "range", `${name} must be an integer from`],
    [{ [name]: "64" }, "type", `${name} must be a number`],
  ]),
  [{ stayMicroseconds: -1 }, "range", "stayMicroseconds must be an integer from 0 to"],
  [{ stayMicroseconds: 2 ** 31 }, "range", "stayMicroseconds must be an integer from 0 to"],
  [{ stayMicroseconds: "fast" }, "type", "stayMicroseconds must be a number"],
  [{ disable: ["multishot"] }, "range", "disable", "multishot_recv", '"multishot"'],
  [{ disable: ["toString"] }, "range", "disable", "multishot_recv"],
  [{ disable: "multishot_recv" }, "type", "disable must be an array"],
  [{ disable: 5 }, "type", "disable must be an array"],
]

for (const [call, wrong] of [
  ["listen", [...COMMON, ...LISTEN]],
  ["connect", [...COMMON, ...CONNECT]],
] as const) {
  onReactor(`${call}: every wrong option`, async (r) => {
    const before = openDescriptors()
    const { descriptorsOpened, operationsInFlight } = r.stats()
    const use =
      call === "listen" ? (o: unknown) => r.listen(o as never) : (o: unknown) => r.connect(o as never)
    expect(complaints(use, wrong)).toEqual([])
    expect(openDescriptors()).toEqual(before)
    expect(r.stats().descriptorsOpened).toBe(descriptorsOpened)
    expect(r.stats().operationsInFlight).toBe(operationsInFlight)
  })
}

test("Reactor.open: every wrong option", () => {
  const before = openDescriptors().size
  const open = (options: unknown) =>
    Reactor.open(
      typeof options === "object" && options !== null
        ? { engine: ENGINE, host: HOST, ...options }
        : (options as never),
    )
  expect(complaints(open, OPEN)).toEqual([])
  expect(openDescriptors().size).toBe(before)
})

test("an unknown name in the environment is refused, with the variable's name", () => {
  for (const [variable, allowed] of [
    ["URINGLOOP_ENGINE", "one of auto, uring, poll, epoll"],
    ["URINGLOOP_HOST", "one of hosted, owned"],
  ] as const) {
    const was = process.env[variable]
    process.env[variable] = "wrong"
    try {
      expect(
        complaints((options) => Reactor.open(options as object), [[{}, "range", variable, allowed]]),
      ).toEqual([])
    } finally {
      if (was === undefined) delete process.env[variable]
      else process.env[variable] = was
    }
  }
})

onReactor("every wrong option of read, write and accept", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  const server = (await listener.accept())!
  const bad = (value: unknown) => value as never
  for (const timeoutMs of [0, -1, 1.5, Number.NaN, 2 ** 31, bad("5")]) {
    for (const call of [() => client.read({ timeoutMs }), () => client.write("x", { timeoutMs })]) {
      const error = await refusalOf(call)
      expect(error.message).toContain("timeoutMs must be")
    }
  }
  for (const call of [
    () => client.read({ signal: bad(5) }),
    () => client.write("x", { signal: bad({}) }),
    () => listener.accept({ signal: bad("x") }),
  ]) {
    expect((await refusalOf(call)).message).toContain("signal must be an AbortSignal")
  }
  for (const data of [5, null, {}, [1]]) {
    expect((await refusalOf(() => client.write(bad(data)))).message).toContain("data must be a string")
  }
  // Nothing of it was written, and nobody waits.
  await client.write("right")
  expect(Buffer.from((await server.read())!).toString()).toBe("right")
  await Promise.all([client.close(), server.close()])
  listener.close()
})

onReactor("every wrong argument of a socket", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port!, socket })
  const bad = (value: unknown) => value as never
  for (const seconds of [-1, Number.NaN, Number.POSITIVE_INFINITY, bad("5"), bad(undefined)]) {
    expect(thrown(() => client.timeout(seconds)).message).toContain("seconds must be")
  }
  for (const handlers of [undefined, null, 5, {}, { socket: {} }, { socket: { data: 5 } }]) {
    expect(thrown(() => client.reload(bad(handlers))).code).toBe("ERR_INVALID_ARG_TYPE")
  }
  expect(client.readyState).toBe(1)
  client.end()
  listener.close()
})

async function refusalOf(call: () => Promise<unknown>): Promise<Error> {
  try {
    return await rejection(call())
  } catch (error) {
    return error as Error
  }
}
