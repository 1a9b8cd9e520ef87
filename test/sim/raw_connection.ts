// A connection made of single operations: socket, connect, send, recv, poll, each with cancellations that race it. A peer
// sends everything back; not a byte may be lost to a receive that was cancelled.

import { POLLIN, POLLOUT } from "../../src/index.ts"
import { type SimulatedPeer, Violation } from "../../src/testing/index.ts"
import { pattern } from "../support/random.ts"
import type { World } from "./world.ts"

const RAW_PORT = 81
const ADDRESS = "10.2.0.1"
const CHUNKS = 6
/** Streams that no conversation uses. */
const FIRST_STREAM = 1_000

/** Answers raw connections. */
export function serveRaw(world: World): void {
  world.simulation.serve(RAW_PORT, () => {
    let self: SimulatedPeer
    return {
      onOpen(peer) {
        self = peer
      },
      onData: (bytes) => self.send(bytes),
      onEnd: () => self.close(),
    }
  })
}

export async function playRawConnection(world: World): Promise<void> {
  let fd = -1
  try {
    fd = world.reactor.socket("IPv4")
    await world.reactor.connectDescriptor(fd, { hostname: ADDRESS, port: RAW_PORT })
    await echo(world, fd, FIRST_STREAM + fd)
  } catch (error) {
    if (error instanceof Violation) world.found(error)
    else if (!/^(E|LIMIT_)/.test((error as { code?: string }).code ?? "")) world.found(error)
  }
  for (let attempt = 0; fd >= 0 && attempt < 1000; attempt++) {
    try {
      await world.reactor.closeDescriptor(fd)
      break
    } catch (error) {
      if ((error as { code?: string }).code !== "LIMIT_OPERATIONS") {
        world.found(error)
        break
      }
      await world.pause(10)
    }
  }
  world.rawOver++
}

async function echo(world: World, fd: number, stream: number): Promise<void> {
  const { reactor, random } = world
  const causes = world.causesOf(fd)
  let sent = 0
  let received = 0
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    const bytes = pattern(stream, sent, 1 + random.skewed(0, 3_000))
    const sending = reactor.send(fd, bytes)
    let refusal: unknown
    const outcome = sending.catch((error: unknown) => {
      refusal = error
    })
    sent += bytes.length
    try {
      await reactor.nop() // one that is refused at once is known by then
      if (refusal !== undefined) throw refusal
      while (received < sent) {
        if (random.chance(0.2)) await poll(world, fd)
        const part = await receive(world, fd)
        if (part === undefined) continue
        if (part.length === 0 && causes !== undefined && causes.size > 0) return
        if (part.length === 0) throw new Violation("raw: the end came before the bytes")
        if (Buffer.compare(part, pattern(stream, received, part.length)) !== 0) {
          throw new Violation(
            `raw: bytes ${received} to ${received + part.length} are not those that were sent`,
          )
        }
        received += part.length
      }
    } finally {
      // Nothing may be in flight on the descriptor when it is closed.
      if (received < sent) await reactor.cancel(sending)
      await outcome
    }
    if ((await sending) !== bytes.length) throw new Violation("raw: a send did not take all of its bytes")
  }
}

/** One receive; undefined when it was cancelled, and then it has taken nothing. */
async function receive(world: World, fd: number): Promise<Uint8Array | undefined> {
  const { reactor, random } = world
  const operation = reactor.recv(fd)
  const settled = operation.then(
    (bytes) => bytes,
    (error: unknown) => error as Error & { code: string },
  )
  let wasStopped: boolean | undefined
  if (random.chance(0.5)) {
    if (random.chance(0.5)) await world.pause(random.next() * 2)
    wasStopped = await reactor.cancel(operation)
  }
  const outcome = await settled
  if (!(outcome instanceof Error)) return outcome
  if (outcome.code === "ENOBUFS") return undefined
  if (outcome.code !== "ECANCELED") throw outcome
  if (wasStopped === undefined) throw new Violation("raw: a receive was cancelled by nobody")
  return undefined
}

async function poll(world: World, fd: number): Promise<void> {
  const { reactor, random } = world
  const operation = reactor.pollAdd(fd, random.chance(0.5) ? POLLOUT : POLLIN)
  const settled = operation.then(
    () => undefined,
    (error: unknown) => error as Error & { code: string },
  )
  await world.pause(random.next() * 2)
  await reactor.cancel(operation)
  const error = await settled
  if (error !== undefined && error.code !== "ECANCELED") throw error
}
