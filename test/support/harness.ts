// What all conformance tests stand on: `onReactor` opens a reactor with the engine and host of this pass, runs
// a test in it, closes it, and then checks what DESIGN.md says always holds.
//
// In the owned host a test runs inside `reactor.run()`: the runtime's own timers, fetch and child processes do
// not move until it returns. A test that is for both hosts therefore pauses with `pause`, not with a timer, and
// its peers are connections of the same reactor or processes that need no answer from Bun.

import { expect, test } from "bun:test"
import { readdirSync, readlinkSync } from "node:fs"
import { loadShim } from "../../ffi/bun.ts"
import type { Native, Platform } from "../../ffi/native.ts"
import {
  type EngineName,
  type HostName,
  Reactor,
  type ReactorOptions,
  type ReactorStats,
} from "../../src/index.ts"
import { Deadline } from "../../src/reactor/deadlines.ts"
import { killPeers } from "./peers.ts"
import { Random } from "./random.ts"

export const ENGINE = (process.env.URINGLOOP_ENGINE ?? "uring") as EngineName
export const HOST = (process.env.URINGLOOP_TEST_HOST ?? "hosted") as HostName
export const isHosted = HOST === "hosted"

/** A test that has not come to its end by then is stuck. Below the runner's 15 s, so that it can say why. */
const LIMIT_MS = 12_000
const CLOSE_LIMIT_MS = 10_000

export interface TestOptions {
  /** For `Reactor.open`, besides engine and host. */
  reactor?: ReactorOptions
  /** What the reactor stands on, when that is not the runtime itself: asked for once per run. */
  platform?: () => Platform
  /** Commands that the shim is to refuse. Default 0. */
  rejected?: number
  /** Raw descriptors that the test leaves to `close`. Default false: none is open when the ring is released. */
  leavesDescriptors?: boolean
  /** Run on these hosts alone; the test says why. */
  host?: HostName
  /** Bun's limit for this test, when the usual 15 s are too short. */
  limitMs?: number
}

export interface TestTools {
  random: Random
  seed: number
}

/** Declares a test on a reactor of this pass's engine and host. */
export function onReactor(
  name: string,
  body: (reactor: Reactor, tools: TestTools) => Promise<void>,
  options: TestOptions = {},
): void {
  if (options.host !== undefined && options.host !== HOST) return
  const limitMs = options.limitMs ?? LIMIT_MS
  test(name, () => runOnReactor(body, options, limitMs), limitMs + 15_000)
}

async function runOnReactor(
  body: (reactor: Reactor, tools: TestTools) => Promise<void>,
  options: TestOptions,
  limitMs: number,
): Promise<void> {
  const seed = process.env.TEST_SEED ? Number(process.env.TEST_SEED) : Math.floor(Math.random() * 2 ** 31)
  warmUp()
  const before = openDescriptors()
  const reactor = openReactor(options.reactor, options.platform?.())
  const last = watchClose(reactor)
  try {
    await drive(reactor, body(reactor, { random: new Random(seed), seed }), limitMs, "the test")
  } catch (error) {
    const note = `\n  [TEST_SEED=${seed} URINGLOOP_ENGINE=${ENGINE} URINGLOOP_TEST_HOST=${HOST}]`
    if (error instanceof Error) error.message += note
    await closeAfterFailure(reactor)
    await killPeers()
    throw error
  }
  await drive(reactor, reactor.close(), CLOSE_LIMIT_MS, "reactor.close()")
  await killPeers()
  checkEnd(last(), options)
  await checkDescriptors(before)
}

/** A reactor of this pass. The caller closes it, with `closeReactor`. */
export function openReactor(options: ReactorOptions = {}, platform?: Platform): Reactor {
  return Reactor.open({ engine: ENGINE, host: HOST, ...options }, platform)
}

export async function closeReactor(reactor: Reactor): Promise<void> {
  await drive(reactor, reactor.close(), CLOSE_LIMIT_MS, "reactor.close()")
}

/** Awaits a promise in whatever way the host wants, for at most `limitMs`. */
export async function drive<T>(
  reactor: Reactor,
  promise: Promise<T>,
  limitMs: number,
  what: string,
): Promise<T> {
  const stuck = () => new Error(`${what} is stuck after ${limitMs} ms: ${describe(reactor)}`)
  let giveUp: (() => void) | undefined
  const limit = new Promise<never>((_, reject) => {
    giveUp = () => reject(stuck())
  })
  const either = Promise.race([promise, limit])
  if (reactor.hostName === "hosted") {
    const timer = setTimeout(() => giveUp?.(), limitMs)
    try {
      return await either
    } finally {
      clearTimeout(timer)
    }
  }
  const deadline = new Deadline({ onDeadline: () => giveUp?.() }, 0)
  reactor.arm(deadline, limitMs)
  ownDeadlines++
  try {
    reactor.run(either)
    if (!reactor.isClosed) reactor.deadlines.clear(deadline)
  } finally {
    ownDeadlines--
  }
  return await either
}

async function closeAfterFailure(reactor: Reactor): Promise<void> {
  try {
    await drive(reactor, reactor.close(), 2_000, "reactor.close()")
  } catch {
    // The failure that came first is the one to show.
  }
}

/** The counters that tell what a stuck reactor waits for. */
function describe(reactor: Reactor): string {
  const s = reactor.stats()
  return JSON.stringify({
    operationsInFlight: s.operationsInFlight,
    commandsInFlight: s.commandsInFlight,
    descriptorsOpen: s.descriptorsOpen,
    socketsOpen: s.socketsOpen,
    deadlinesArmed: s.deadlinesArmed,
    sendBytesInUse: s.sendBytesInUse,
    rejected: s.rejected,
    stale: s.stale,
    noBuffers: s.noBuffers,
    overflows: s.overflows,
    bytesReceived: s.bytesReceived,
    bytesSent: s.bytesSent,
  })
}

// ---- what always holds ----

/** Deadlines of this file's that are armed: they are not the reactor's. */
let ownDeadlines = 0
const atClose = new Map<number, () => void>()
let isWatching = false

/** The counters as they were in the moment the ring was released: afterwards the memory is gone and reads zeros. */
export function watchClose(reactor: Reactor): () => ReactorStats {
  if (!isWatching) {
    isWatching = true
    const native = loadShim() as { -readonly [K in keyof Native]: Native[K] }
    const close = native.close
    native.close = (ring) => {
      atClose.get(ring)?.()
      return close(ring)
    }
  }
  let stats: ReactorStats | undefined
  atClose.set(reactor.ring, () => {
    stats = reactor.stats()
    stats.deadlinesArmed -= ownDeadlines
  })
  return () => {
    atClose.delete(reactor.ring)
    if (stats === undefined) throw new Error("the ring was never released")
    return stats
  }
}

/** Invariants of DESIGN.md, "What always holds", at the end of a reactor. */
export function checkEnd(stats: ReactorStats, options: TestOptions): void {
  expect({
    operationsInFlight: stats.operationsInFlight,
    commandsInFlight: stats.commandsInFlight,
    descriptorsUnaccounted: stats.descriptorsOpened - stats.descriptorsClosed - stats.descriptorsOpen,
    descriptorsOpen: options.leavesDescriptors ? 0 : stats.descriptorsOpen,
    socketsOpen: stats.socketsOpen,
    sendBytesInUse: stats.sendBytesInUse,
    deadlinesArmed: stats.deadlinesArmed,
    rejected: stats.rejected,
    uncaught: stats.uncaught,
    buffersLent: stats.buffersLent,
  }).toEqual({
    operationsInFlight: 0,
    commandsInFlight: 0,
    descriptorsUnaccounted: 0,
    descriptorsOpen: 0,
    socketsOpen: 0,
    sendBytesInUse: 0,
    deadlinesArmed: 0,
    rejected: options.rejected ?? 0,
    uncaught: 0,
    buffersLent: 0,
  })
}

/** This process's descriptors: number and what it is. */
export function openDescriptors(): Map<number, string> {
  const found = new Map<number, string>()
  for (const name of readdirSync("/proc/self/fd")) {
    try {
      found.set(Number(name), readlinkSync(`/proc/self/fd/${name}`))
    } catch {
      // The descriptor that read the folder.
    }
  }
  return found
}

async function checkDescriptors(before: Map<number, string>): Promise<void> {
  let left: string[] = []
  // A ring lets go of its files, and Bun of its children's pipes, a moment after the last reference.
  for (let attempt = 0; attempt < 200; attempt++) {
    left = [...openDescriptors()]
      .filter(([fd, what]) => before.get(fd) !== what)
      .map(([fd, what]) => `${fd} ${what}`)
    if (left.length === 0) return
    await Bun.sleep(10)
  }
  throw new Error(`descriptors left open: ${left.slice(0, 10).join(", ")}`)
}

let isWarm = false

/** Bun opens descriptors of its own when it first needs them; here, so that no test is blamed. */
function warmUp(): void {
  if (isWarm) return
  isWarm = true
  Bun.spawnSync(["true"])
  Bun.gc(true)
}

// ---- what tests are written with ----

/** Waits `ms` by the reactor's own clock, without an operation. */
export function pause(reactor: Reactor, ms: number): Promise<void> {
  return new Promise((resolve) => {
    reactor.arm(new Deadline({ onDeadline: () => resolve() }, 0), ms)
  })
}

/** Waits until `condition` holds. */
export async function until(
  reactor: Reactor,
  what: string,
  condition: () => boolean,
  limitMs = 9_000,
): Promise<void> {
  const ends = performance.now() + limitMs
  while (!condition()) {
    if (performance.now() > ends) throw new Error(`waited ${limitMs} ms in vain: ${what}`)
    await pause(reactor, 2)
  }
}

/** The error that a promise rejects with. (Bun's `expect().rejects` turns Bun's loop, which an owned host does not.) */
export async function rejection(
  promise: Promise<unknown>,
): Promise<Error & { code?: string; syscall?: string }> {
  let value: unknown
  try {
    value = await promise
  } catch (error) {
    return error as Error
  }
  throw new Error(`resolved with ${String(value)} where a rejection was wanted`)
}

/** The error that a call throws. */
export function thrown(call: () => unknown): Error & { code?: string } {
  let value: unknown
  try {
    value = call()
  } catch (error) {
    return error as Error
  }
  throw new Error(`returned ${String(value)} where an exception was wanted`)
}

/** A promise and its ends. */
export interface Signal<T = void> {
  promise: Promise<T>
  resolve(value: T): void
  reject(error: unknown): void
}

export function signal<T = void>(): Signal<T> {
  return Promise.withResolvers<T>() as Signal<T>
}
