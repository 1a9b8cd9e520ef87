// The raw operations: one kernel operation, one promise. They work on the reactor's descriptors and on those of others;
// what is wrong is refused with the name of the option, and only the reactor's own descriptors can be closed.

import { expect } from "bun:test"
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { POLLIN, POLLOUT, POLLPRI, POLLRDHUP, type Reactor } from "../../src/index.ts"
import { onReactor, pause, rejection, thrown, until } from "../support/harness.ts"

const POLLHUP = 0x10

/** Two connected descriptors of the reactor, by raw operations alone but for the listener. */
async function rawPair(r: Reactor): Promise<[number, number]> {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const internal = listener as unknown as { pauseAccepting(): void }
  internal.pauseAccepting()
  await pause(r, 2)
  const client = r.socket("IPv4")
  const [accepted] = await Promise.all([
    r.accept(listener.fd),
    r.connectDescriptor(client, { hostname: "127.0.0.1", port: listener.port! }),
  ])
  listener.close()
  return [client, accepted]
}

/** A FIFO, open for reading and writing. */
function openFifo(): { fd: number; close(): void } {
  const folder = mkdtempSync(join(tmpdir(), "uringloop-fifo-"))
  const path = join(folder, "fifo")
  if (Bun.spawnSync(["mkfifo", path]).exitCode !== 0) throw new Error("mkfifo failed")
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  return {
    fd,
    close() {
      closeSync(fd)
      rmSync(folder, { recursive: true })
    },
  }
}

/** Whether a promise has settled by now. */
function watched(promise: Promise<unknown>): { isSettled: boolean } {
  const state = { isSettled: false }
  const settle = () => {
    state.isSettled = true
  }
  promise.then(settle, settle)
  return state
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()

onReactor("send and recv both ways, then the end", async (r) => {
  const [a, b] = await rawPair(r)
  expect(await r.send(a, "hällo")).toBe(6)
  expect(text(await r.recv(b))).toBe("hällo")
  const bytes = new Uint8Array([1, 2, 3])
  const sending = r.send(b, bytes)
  bytes.fill(0) // what was given is a copy
  expect(await sending).toBe(3)
  expect([...(await r.recv(a))]).toEqual([1, 2, 3])
  const waiting = r.recv(a)
  const state = watched(waiting)
  await pause(r, 20)
  expect(state.isSettled).toBe(false)
  await r.send(b, "late")
  expect(text(await waiting)).toBe("late")
  await r.shutdown(b, 1)
  expect((await r.recv(a)).length).toBe(0)
  expect(await r.send(a, "the other way")).toBe(13)
  expect(text(await r.recv(b))).toBe("the other way")
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
  expect((await rejection(r.send(a, "x"))).code).toBe("EBADF")
})

onReactor("a mebibyte in one send", async (r) => {
  const [a, b] = await rawPair(r)
  const length = 1024 * 1024
  const sending = r.send(a, Buffer.alloc(length, "abc"))
  let received = 0
  while (received < length) {
    const chunk = await r.recv(b)
    for (let i = 0; i < chunk.length; i += 1001) expect(chunk[i]).toBe(97 + ((received + i) % 3))
    received += chunk.length
  }
  expect(await sending).toBe(length)
  expect(received).toBe(length)
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
})

onReactor("pollAdd on a socket", async (r) => {
  const [a, b] = await rawPair(r)
  expect((await r.pollAdd(a, POLLOUT)) & POLLOUT).toBe(POLLOUT)
  expect(await r.pollAdd(a, POLLIN | POLLOUT)).toBe(POLLOUT)
  const readable = r.pollAdd(a, POLLIN)
  const state = watched(readable)
  await pause(r, 20)
  expect(state.isSettled).toBe(false)
  await r.send(b, "x")
  expect(await readable).toBe(POLLIN)
  // Level, not edge: it is readable until it has been read.
  expect(await r.pollAdd(a, POLLIN)).toBe(POLLIN)
  expect(text(await r.recv(a))).toBe("x")
  const hangup = r.pollAdd(a, POLLRDHUP | POLLPRI)
  await r.shutdown(b, 1)
  expect((await hangup) & POLLRDHUP).toBe(POLLRDHUP)
  // POLLHUP is reported unasked, as in poll(2), when both sides have ended.
  await r.shutdown(a, 1)
  expect((await r.pollAdd(a, POLLPRI)) & POLLHUP).toBe(POLLHUP)
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
})

onReactor("two polls on one descriptor, for reading and for writing", async (r) => {
  const [a, b] = await rawPair(r)
  const readable = r.pollAdd(a, POLLIN)
  expect(await r.pollAdd(a, POLLOUT)).toBe(POLLOUT)
  const second = r.pollAdd(a, POLLIN)
  await r.send(b, "x")
  expect(await readable).toBe(POLLIN)
  expect(await second).toBe(POLLIN)
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
})

onReactor("pollAdd on a descriptor of somebody else: a FIFO", async (r) => {
  const fifo = openFifo()
  const readable = r.pollAdd(fifo.fd, POLLIN)
  const state = watched(readable)
  expect(await r.pollAdd(fifo.fd, POLLOUT)).toBe(POLLOUT)
  await pause(r, 20)
  expect(state.isSettled).toBe(false)
  writeSync(fifo.fd, "through the pipe")
  expect(await readable).toBe(POLLIN)
  const bytes = Buffer.alloc(100)
  expect(bytes.toString("latin1", 0, readSync(fifo.fd, bytes))).toBe("through the pipe")
  // It is the runtime's: the reactor polls it and never closes it.
  const error = thrown(() => r.closeDescriptor(fifo.fd))
  expect(error.code).toBe("ERR_OUT_OF_RANGE")
  expect(error.message).toContain("fd must be a descriptor of socket() or accept()")
  const cancelled = rejection(r.pollAdd(fifo.fd, POLLIN))
  await r.nop()
  expect(writeSync(fifo.fd, "still open")).toBe(10)
  await cancelled.catch(() => undefined) // it was readable after all
  fifo.close()
})

onReactor("pollAdd cancelled on a FIFO, which is closed after", async (r) => {
  const fifo = openFifo()
  for (let i = 0; i < 20; i++) {
    const waiting = r.pollAdd(fifo.fd, POLLIN)
    const error = rejection(waiting)
    if (i % 2 === 0) await r.nop()
    expect(await r.cancel(waiting)).toBe(true)
    expect((await error).code).toBe("ECANCELED")
  }
  fifo.close()
})

onReactor("a listener's and a connection's descriptor is not a raw one", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
  for (const fd of [listener.fd, client.fd, 0, 1, 2, 12_345]) {
    expect(thrown(() => r.closeDescriptor(fd)).message).toContain("fd must be a descriptor of socket()")
  }
  expect(client.isOpen).toBe(true)
  expect((await r.pollAdd(client.fd, POLLOUT)) & POLLOUT).toBe(POLLOUT)
  await client.close()
  listener.close()
})

onReactor("shutdown in each way, and of what is not connected", async (r) => {
  for (const how of [0, 1, 2] as const) {
    const [a, b] = await rawPair(r)
    await r.shutdown(a, how)
    if (how !== 1) expect((await r.recv(a)).length).toBe(0)
    if (how !== 0) {
      expect((await r.recv(b)).length).toBe(0)
      expect((await rejection(r.send(a, "x"))).code).toBe("EPIPE")
    }
    await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
  }
  const fd = r.socket("IPv4")
  const error = await rejection(r.shutdown(fd, 2))
  expect(error.code).toBe("ENOTCONN")
  expect(error.syscall).toBe("shutdown")
  await r.closeDescriptor(fd)
})

onReactor(
  "closeDescriptor while an operation is in flight: EBUSY, and it stays open",
  async (r) => {
    for (const start of [(fd: number) => r.recv(fd), (fd: number) => r.pollAdd(fd, POLLIN)] as ((
      fd: number,
    ) => Promise<unknown>)[]) {
      const [a, b] = await rawPair(r)
      const waiting = start(a)
      const ended = rejection(waiting)
      const error = await rejection(r.closeDescriptor(a))
      expect(error.code).toBe("EBUSY")
      expect(error.syscall).toBe("close")
      await r.cancel(waiting)
      expect((await ended).code).toBe("ECANCELED")
      await r.send(b, "still open")
      expect(text(await r.recv(a))).toBe("still open")
      await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
    }
    await until(r, "all is closed", () => r.stats().descriptorsOpen === 0)
  },
  { rejected: 2 },
)

onReactor(
  "a descriptor is closed once",
  async (r) => {
    const fd = r.socket("IPv6")
    const both = await Promise.allSettled([r.closeDescriptor(fd), r.closeDescriptor(fd)])
    expect(both[0].status).toBe("fulfilled")
    expect(both[1].status).toBe("rejected")
    expect(thrown(() => r.closeDescriptor(fd)).code).toBe("ERR_OUT_OF_RANGE")
    expect(r.stats().descriptorsOpen).toBe(0)
  },
  { rejected: 1 },
)

onReactor("what the kernel refuses has its code and the operation's name", async (r) => {
  const fd = r.socket("IPv4")
  const idle = [r.socket("IPv4"), r.socket("IPv4"), r.socket("IPv4")]
  const gone = r.listen({ hostname: "127.0.0.1", port: 0 })
  const port = gone.port!
  gone.close()
  await until(r, "the listener is closed", () => r.stats().descriptorsOpen === 4)
  await pause(r, 20) // the ring keeps a closed listener for a moment
  const cases: [() => Promise<unknown>, string, string][] = [
    [() => r.recv(idle[0]), "ENOTCONN", "recv"],
    [() => r.send(idle[1], "x"), "EPIPE|ENOTCONN", "send"],
    [() => r.accept(idle[2]), "EINVAL", "accept"],
    [() => r.connectDescriptor(fd, { hostname: "127.0.0.1", port }), "ECONNREFUSED", "connect"],
    [() => r.recv(19_999), "EBADF", "recv"],
    [() => r.send(19_999, "x"), "EBADF", "send"],
    [() => r.accept(19_999), "EBADF", "accept"],
    [() => r.pollAdd(19_999, POLLIN), "EBADF", "poll"],
    [() => r.shutdown(19_999, 1), "EBADF", "shutdown"],
  ]
  for (const [start, code, syscall] of cases) {
    const error = await rejection(start())
    expect(`${syscall}: ${error.code}`).toMatch(new RegExp(`^${syscall}: (${code})$`))
    expect(error.syscall).toBe(syscall)
    expect(error.message).toContain(error.code!)
  }
  for (const one of idle) await r.closeDescriptor(one)
  await r.closeDescriptor(fd)
})

onReactor("timeouts end in the order of their times, and none early", async (r) => {
  const started = performance.now()
  const ended: number[] = []
  await Promise.all(
    [30, 10, 20, 0, 5.5].map(async (ms) => {
      await r.timeout(ms)
      expect(performance.now() - started).toBeGreaterThanOrEqual(ms - 0.1)
      ended.push(ms)
    }),
  )
  expect(ended.toSorted((x, y) => x - y)).toEqual([0, 5.5, 10, 20, 30])
  expect(ended[0]).toBe(0)
  expect(ended.at(-1)).toBe(30)
})

onReactor("1,000 nops and their order", async (r) => {
  const order: number[] = []
  await Promise.all(Array.from({ length: 1_000 }, async (_, i) => r.nop().then(() => order.push(i))))
  expect(order.length).toBe(1_000)
  expect(r.stats().operationsInFlight).toBe(0)
})

onReactor("AbortSignal: before, during and after", async (r) => {
  const reason = new Error("enough")
  const [a, b] = await rawPair(r)
  const aborted = { signal: AbortSignal.abort(reason) }
  const before = r.stats().commands
  for (const operation of [
    r.recv(a, aborted),
    r.send(a, "x", aborted),
    r.pollAdd(a, POLLIN, aborted),
    r.timeout(1, aborted),
    r.accept(a, aborted),
    r.connectDescriptor(a, { hostname: "127.0.0.1", port: 1 }, aborted),
  ] as Promise<unknown>[]) {
    expect(await rejection(operation)).toBe(reason)
  }
  expect(r.stats().commands).toBe(before) // nothing reached the kernel
  const controller = new AbortController()
  const receiving = r.recv(a, { signal: controller.signal })
  await r.send(b, "in time")
  expect(text(await receiving)).toBe("in time")
  controller.abort(reason)
  await r.send(b, "after")
  expect(text(await r.recv(a))).toBe("after")
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
})

onReactor("unix sockets and IPv6 by raw operations", async (r) => {
  for (const [family, listening] of [
    ["unix", { unix: `\0uringloop-raw-${process.pid}` }],
    ["IPv6", { hostname: "::1", port: 0 }],
  ] as const) {
    const listener = r.listen(listening)
    const fd = r.socket(family)
    const address = "unix" in listening ? listening : { hostname: "::1", port: listener.port! }
    const [accepted] = await Promise.all([listener.accept(), r.connectDescriptor(fd, address)])
    await r.send(fd, "hello")
    expect(text((await accepted!.read())!)).toBe("hello")
    await accepted!.close()
    expect((await r.recv(fd)).length).toBe(0)
    await r.closeDescriptor(fd)
    listener.close()
  }
})

const bad = <T>(value: unknown) => value as T

/** What is wrong with how a wrong call is refused, or "". */
async function refusal(call: () => unknown, ...parts: string[]): Promise<string> {
  let error: Error & { code?: string }
  try {
    error = await rejection(Promise.resolve(call()))
  } catch (caught) {
    error = caught as Error
  }
  const said = `${error.name} ${error.code}: ${error.message}`
  return parts.every((part) => said.includes(part)) ? "" : `${call}: ${said}`
}

onReactor("what is wrong is refused before the kernel hears of it, with the option's name", async (r) => {
  const [a, b] = await rawPair(r)
  const before = r.stats().commands
  const refusals: Promise<string>[] = []
  const wrong = (call: () => unknown, ...parts: string[]) => void refusals.push(refusal(call, ...parts))
  for (const fd of [
    -1,
    1.5,
    Number.NaN,
    2 ** 31,
    bad<number>("5"),
    bad<number>(undefined),
    bad<number>(null),
  ]) {
    wrong(() => r.recv(fd), "ERR_", "fd must be", "from 0 to 2147483647")
    wrong(() => r.send(fd, "x"), "ERR_", "fd must be")
    wrong(() => r.accept(fd), "ERR_", "fd must be")
    wrong(() => r.pollAdd(fd, POLLIN), "ERR_", "fd must be")
    wrong(() => r.shutdown(fd, 1), "ERR_", "fd must be")
    wrong(() => r.closeDescriptor(fd), "ERR_", "fd must be")
    wrong(() => r.connectDescriptor(fd, { hostname: "127.0.0.1", port: 1 }), "ERR_", "fd must be")
  }
  for (const mask of [0, -1, 8, 0x10, 0x2000_0000, 1.5]) {
    wrong(() => r.pollAdd(a, mask), "ERR_OUT_OF_RANGE", "mask must be")
  }
  wrong(() => r.pollAdd(a, bad<number>("1")), "ERR_INVALID_ARG_TYPE", "mask must be")
  wrong(() => r.send(a, ""), "ERR_OUT_OF_RANGE", "data.length must be from 1 to 1048576")
  wrong(() => r.send(a, new Uint8Array(1024 * 1024 + 1)), "ERR_OUT_OF_RANGE", "data.length")
  wrong(() => r.send(a, bad<string>(5)), "ERR_INVALID_ARG_TYPE", "data must be a string or Uint8Array")
  for (const ms of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
    wrong(() => r.timeout(ms), "ERR_OUT_OF_RANGE", "ms must be from 0 to")
  }
  wrong(() => r.timeout(bad<number>("1")), "ERR_INVALID_ARG_TYPE", "ms must be a number")
  for (const how of [-1, 3, 0.5]) wrong(() => r.shutdown(a, bad<0>(how)), "ERR_OUT_OF_RANGE", "how must be")
  wrong(() => r.socket(bad<"IPv4">("IPv5")), "ERR_OUT_OF_RANGE", "family must be one of IPv4, IPv6, unix")
  wrong(() => r.socket(bad<"IPv4">(undefined)), "ERR_", "family must be")
  expect((await Promise.all(refusals)).filter(Boolean)).toEqual([])
  expect(r.stats().commands).toBe(before)
  await until(r, "nothing is in flight", () => r.stats().operationsInFlight === 0)
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
})

onReactor("a wrong address or signal is refused like any other option", async (r) => {
  const [a, b] = await rawPair(r)
  const before = r.stats().commands
  const to = (address: unknown) => () => r.connectDescriptor(a, bad<{ unix: string }>(address))
  // It has what is called of a signal, so that the reactor goes on when it takes it for one.
  const notASignal = bad<AbortSignal>({ addEventListener() {}, removeEventListener() {} })
  const refusals = [
    refusal(to({ hostname: "localhost", port: 1 }), "ERR_OUT_OF_RANGE", "must be an IPv4 or IPv6 address"),
    refusal(to({ hostname: "127.0.0.1", port: 65_536 }), "ERR_OUT_OF_RANGE", "port"),
    refusal(to({ hostname: "127.0.0.1", port: -1 }), "ERR_OUT_OF_RANGE", "port"),
    refusal(to({ hostname: "127.0.0.1" }), "ERR_INVALID_ARG_TYPE", "port"),
    refusal(to({ unix: "" }), "ERR_OUT_OF_RANGE", "unix must be a path of 1 to"),
    refusal(to({ unix: "x".repeat(200) }), "ERR_OUT_OF_RANGE", "unix must be a path of 1 to"),
    refusal(to(undefined), "ERR_INVALID_ARG_TYPE", "address"),
    refusal(
      () => r.timeout(1, { signal: notASignal }),
      "ERR_INVALID_ARG_TYPE",
      "signal must be an AbortSignal",
    ),
    refusal(() => r.timeout(1, bad<object>(null)), "ERR_INVALID_ARG_TYPE", "options"),
  ]
  expect((await Promise.all(refusals)).filter(Boolean)).toEqual([])
  expect(r.stats().commands).toBe(before)
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
})
