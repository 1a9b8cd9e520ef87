// One seed: a reactor on a simulated machine, the programs of its plan, and everything that must hold at the end.

import type { Native } from "../../ffi/native.ts"
import { type Connection, Reactor, type ReactorStats, type Socket } from "../../src/index.ts"
import { type FaultKind, type SimulatedNative, Simulation, Violation } from "../../src/testing/index.ts"
import { CallbackSide, playCallbacks } from "./callback_side.ts"
import type { Conversation } from "./conversation.ts"
import { playPeer } from "./peer_side.ts"
import { drawPlan, type RunPlan } from "./plan.ts"
import { playPromises } from "./promise_side.ts"
import { playRaw } from "./raw_program.ts"
import { PEER_PORT, World } from "./world.ts"

/** By then everything has ended that ends by itself: longer than any linger, connect, SYN retry or slow line. */
const END_MS = 1_000_000
/** Ticks of one run at most: more is a loop that gets nowhere. */
const TICKS_MOST = 60_000

export interface Outcome {
  /** Commands that the kernel was given. */
  operations: number
  ticks: number
  virtualMs: number
  faults: Partial<Record<FaultKind, number>>
  bytesReceived: number
  bytesSent: number
  connections: number
  /** Connections on which everything had to arrive, and did. */
  completed: number
}

export interface SeedOptions {
  /** Told of all that passes the border of the kernel. */
  trace?: (line: string) => void
  /** Instead of the one that the seed gives. */
  plan?: RunPlan
  /** Between the checkers and the kernel: to see whether they find it. */
  tamper?: (native: SimulatedNative) => Native
}

/** @throws what does not hold */
export function runSeed(seed: number, { trace, plan = drawPlan(seed), tamper }: SeedOptions = {}): Outcome {
  let ticks = 0
  let reactor: Reactor | undefined
  const simulation = new Simulation({
    seed,
    faults: plan.faults,
    kernel: plan.kernel,
    network: plan.network,
    beforeTick(waitNs) {
      if (++ticks > TICKS_MOST) throw new Violation(`${ticks} ticks, and no end`)
      if (waitNs > 0 && reactor?.hasWork)
        throw new Violation("a tick may sleep although somebody has something to send")
    },
    ...(trace && { trace }),
    ...(tamper && { tamper: (native: Native) => tamper(native as SimulatedNative) }),
  })
  reactor = Reactor.open(
    {
      engine: "uring",
      host: plan.host,
      maxOperations: plan.maxOperations,
      sendArenaBytes: 1 << 20,
      receiveBuffers: plan.receiveBuffers,
      receiveBufferBytes: plan.receiveBufferBytes,
      submissionEntries: plan.submissionEntries,
      completionEntries: plan.completionEntries,
      stayMicroseconds: plan.stayMicroseconds,
    },
    simulation,
  )
  const world = new World(plan, simulation, reactor)
  simulation.drive(reactor, play(world))
  world.check()
  checkEnd(world, reactor.stats())
  const stats = reactor.stats()
  return {
    operations: stats.commands,
    ticks,
    virtualMs: simulation.time.nowMs,
    faults: simulation.faults.counts,
    bytesReceived: stats.bytesReceived,
    bytesSent: stats.bytesSent,
    connections: world.conversations.filter((conversation) => conversation.causes !== undefined).length,
    completed: world.completed,
  }
}

async function play(world: World): Promise<void> {
  const { plan, reactor, simulation } = world
  const callbacks = reactor.listen<CallbackSide | undefined>({
    hostname: "0.0.0.0",
    port: 0,
    allowHalfOpen: true,
    socket: playCallbacks(world, (socket) => new CallbackSide(world, answered(world, socket).answerer)),
  })
  const promises = reactor.listen({ hostname: "0.0.0.0", port: 0 })
  void acceptAll(world, promises)
  simulation.serve(PEER_PORT, (address) => {
    const conversation = world.at(address)
    if (conversation.plan.fate === "refused") return -111
    if (conversation.plan.fate === "silent") return -110
    return playPeer(world, conversation.answerer)
  })
  for (const conversation of world.conversations) {
    const isCallback = conversation.plan.answerer.form === "callback"
    world.later(conversation.plan.startMs, () =>
      begin(world, conversation, (isCallback ? callbacks : promises).port!),
    )
  }
  if (plan.rawOperations > 0) void playRaw(world, plan.rawOperations)
  if (plan.stopListeningAtMs !== undefined) {
    world.later(plan.stopListeningAtMs, () => {
      callbacks.stop()
      promises.close()
      for (const conversation of world.conversations) cutIfUnopened(conversation)
      world.checkFinished()
    })
  }
  const cut = plan.cutAtMs === undefined ? new Promise<void>(() => {}) : world.pause(plan.cutAtMs)
  const ended = Promise.race([world.programsOver, world.end(END_MS).then(() => "late")])
  const how = await Promise.race([ended, cut.then(() => "cut")])
  // What is on its way to the peers arrives.
  for (let ms = 10; how === undefined && ms < END_MS && world.isPeerWaited; ms *= 2) await world.end(ms)
  world.check()
  if (how !== "cut") for (const conversation of world.conversations) checkConversation(world, conversation)
  world.isCut = true
  for (const conversation of world.conversations) for (const side of conversation.sides) side.gaveUp = true
  callbacks.stop(world.random.chance(0.3))
  await reactor.close()
}

/** The listeners are gone: who was not taken by then is not taken any more. */
function cutIfUnopened(conversation: Conversation): void {
  if (conversation.hasOpened || conversation.answerer.plan.form === "peer") return
  conversation.mayNotOpen = true
  for (const side of conversation.sides) side.gaveUp = true
}

function answered(world: World, socket: Socket<CallbackSide | undefined>): Conversation {
  return world.opened(socket.fd, socket.localAddress)
}

async function acceptAll(world: World, listener: AsyncIterable<Connection>): Promise<void> {
  for await (const connection of listener) {
    world.guard(() => {
      if (connection.fd < 0) return // broken before it was asked for
      void playPromises(world, world.opened(connection.fd, connection.localAddress).answerer, connection)
    })
  }
}

function begin(world: World, conversation: Conversation, listenerPort: number): void {
  const { plan, dialer } = conversation
  if (!world.reactor.isOpen) return
  const isOut = plan.answerer.form === "peer"
  const address = isOut ? `10.1.0.${plan.id}` : `127.0.0.${plan.id}`
  const port = isOut ? PEER_PORT : listenerPort
  if (dialer.plan.form === "peer") {
    world.simulation.connect(port, playPeer(world, dialer), address)
    return
  }
  const options = {
    hostname: address,
    port,
    allowHalfOpen: true,
    ...(plan.connectMs !== undefined && { timeoutMs: plan.connectMs }),
  }
  const connecting =
    dialer.plan.form === "callback"
      ? world.reactor.connect<CallbackSide | undefined>({
          ...options,
          socket: playCallbacks(world, (socket) => {
            conversation.causes ??= world.causesOf(socket.fd)
            return new CallbackSide(world, dialer)
          }),
        })
      : world.reactor.connect(options).then((connection) => {
          conversation.causes ??= world.causesOf(connection.fd)
          void playPromises(world, dialer, connection)
        })
  connecting.catch((error: unknown) => {
    dialer.gaveUp = true
    world.over(dialer, error)
    if (plan.answerer.form === "peer" || !conversation.hasOpened) world.over(conversation.answerer)
  })
}

function checkConversation(world: World, conversation: Conversation): void {
  const { sides } = conversation
  if (!conversation.isToComplete && !sides.some((side) => side.isOver)) return
  if (conversation.isToComplete) {
    conversation.checkEnd()
    world.completed++
  }
  world.check()
}

/** Nothing is left: the same as test/support/harness.ts looks at after every test. */
function checkEnd(world: World, stats: ReactorStats): void {
  const left = {
    operationsInFlight: stats.operationsInFlight,
    commandsInFlight: stats.commandsInFlight,
    descriptorsOpen: stats.descriptorsOpen,
    socketsOpen: stats.socketsOpen,
    sendBytesInUse: stats.sendBytesInUse,
    deadlinesArmed: stats.deadlinesArmed - world.ownDeadlines,
    rejected: stats.rejected,
    uncaught: stats.uncaught,
    unaccounted: stats.descriptorsOpened - stats.descriptorsClosed - stats.descriptorsOpen,
    files: world.simulation.kernel.files.count,
    stale:
      stats.stale -
      (world.simulation.faults.counts.staleEntry ?? 0) -
      (world.simulation.faults.counts.staleRecord ?? 0),
    thrown: world.simulation.loop.uncaught.length,
  }
  const wrong = Object.entries(left).filter(([, value]) => value !== 0)
  if (wrong.length > 0)
    throw new Violation(`after close: ${wrong.map(([name, value]) => `${name} ${value}`).join(", ")}`)
}

export type { RunPlan }
