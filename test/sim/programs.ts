// The programs of a run: listeners, dials, and when they begin and end.

import type { Connection, Socket } from "../../src/index.ts"
import { Violation } from "../../src/testing/index.ts"
import { CallbackSide, playCallbacks } from "./callback_side.ts"
import type { Conversation } from "./conversation.ts"
import { playHog, serveHog } from "./memory_hog.ts"
import { playPeer } from "./peer_side.ts"
import { playPromises } from "./promise_side.ts"
import { playRawConnection, serveRaw } from "./raw_connection.ts"
import { playRaw } from "./raw_program.ts"
import { PEER_PORT, type World } from "./world.ts"

/** By then everything has ended that ends by itself: longer than any linger, connect, SYN retry or slow line. */
const END_MS = 1_000_000
/** All of the plan's programs, from the first listener to the reactor's close. */
export async function playAll(world: World): Promise<void> {
  const { plan, reactor, simulation } = world
  const listen = (allowHalfOpen: boolean) =>
    reactor.listen<CallbackSide | undefined>({
      hostname: "0.0.0.0",
      port: 0,
      allowHalfOpen,
      borrow: plan.borrow,
      socket: playCallbacks(world, (socket) => new CallbackSide(world, answered(world, socket).answerer)),
    })
  const callbacks = listen(true)
  // Only where somebody needs it: it takes a descriptor.
  const closing = world.conversations.some(({ answerer }) => !answerer.plan.isHalfOpen)
    ? listen(false)
    : callbacks
  const promises = reactor.listen({ hostname: "0.0.0.0", port: 0 })
  void acceptAll(world, promises)
  simulation.serve(PEER_PORT, (address) => {
    const conversation = world.at(address)
    if (conversation.plan.fate === "refused") return -111
    if (conversation.plan.fate === "silent") return -110
    return playPeer(world, conversation.answerer)
  })
  for (const conversation of world.conversations) {
    const { form, isHalfOpen } = conversation.plan.answerer
    const listener = form !== "callback" ? promises : isHalfOpen ? callbacks : closing
    world.later(conversation.plan.startMs, () => begin(world, conversation, listener.port!))
  }
  if (plan.rawOperations > 0) void playRaw(world, plan.rawOperations)
  serveRaw(world)
  serveHog(world)
  const rawConnections = Array.from({ length: plan.rawConnections }, () => playRawConnection(world))
  if (plan.hasHog) rawConnections.push(playHog(world))
  const allOver = Promise.all([world.programsOver, ...rawConnections])
  if (plan.stopListeningAtMs !== undefined) {
    world.later(plan.stopListeningAtMs, () => {
      callbacks.stop()
      closing.stop()
      promises.close()
      for (const conversation of world.conversations) cutIfUnopened(conversation)
      world.checkFinished()
    })
  }
  const cut = plan.cutAtMs === undefined ? new Promise<void>(() => {}) : world.pause(plan.cutAtMs)
  const ended = Promise.race([allOver, world.end(END_MS).then(() => "late")])
  const how = (await Promise.race([ended, cut.then(() => "cut")])) as unknown
  // What is on its way to the peers arrives.
  for (let ms = 10; typeof how !== "string" && ms < END_MS && world.isPeerWaited; ms *= 2) await world.end(ms)
  world.check()
  if (how === "late" && rawConnections.length > world.rawOver)
    throw new Violation("a raw connection did not end")
  if (how !== "cut") for (const conversation of world.conversations) checkConversation(world, conversation)
  world.isCut = true
  for (const conversation of world.conversations) for (const side of conversation.sides) side.gaveUp = true
  callbacks.stop(world.random.chance(0.3))
  closing.stop(world.random.chance(0.3))
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
      if (connection.fd < 0) {
        void takeBroken(world, connection)
        return
      }
      void playPromises(world, world.opened(connection.fd, connection.localAddress).answerer, connection)
    })
  }
}

/** A connection that broke before it was asked for: which one it was cannot be told any more, but why it broke. */
async function takeBroken(world: World, connection: Connection): Promise<void> {
  world.brokenUnopened++
  try {
    while ((await connection.read()) !== undefined);
  } catch (error) {
    const code = (error as { code?: string }).code
    if (code !== "LIMIT_OPERATIONS" && code !== "ECONNRESET" && code !== "EPIPE") world.found(error)
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
  const options = { hostname: address, port, allowHalfOpen: true, ...patience(world, plan.connectMs) }
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

/** How a dial gives up, if it does: by its own deadline, or by a signal. */
function patience(world: World, ms: number | undefined): { timeoutMs?: number; signal?: AbortSignal } {
  if (ms === undefined) return {}
  if (world.random.chance(0.5)) return { timeoutMs: ms }
  const controller = new AbortController()
  world.later(ms, () => controller.abort(Object.assign(new Error("gave up"), { code: "EGAVEUP" })))
  return { signal: controller.signal }
}

function checkConversation(world: World, conversation: Conversation): void {
  const mayHaveBroken = !conversation.hasOpened && conversation.plan.answerer.form === "promise"
  try {
    conversation.checkEnd()
  } catch (violation) {
    if (!mayHaveBroken || world.brokenUnopened-- <= 0) throw violation
    return
  }
  if (conversation.isToComplete) world.completed++
}
