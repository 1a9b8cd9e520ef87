// Takes all of the send memory for a while: raw sends to peers that do not read yet. Others then find none, with nothing of
// their own under way that would wake them.

import type { SimulatedPeer } from "../../src/testing/index.ts"
import type { World } from "./world.ts"

const HOG_PORT = 82
const ADDRESS = "10.3.0.1"
const LARGEST_BYTES = 512 * 1024
const SMALLEST_BYTES = 1024
const DESCRIPTORS = 16

/** Peers that begin to read when the hog lets go. */
export function serveHog(world: World): void {
  world.simulation.serve(HOG_PORT, () => ({
    onOpen(peer: SimulatedPeer) {
      peer.pause()
      world.simulation.time.after(world.random.integer(20, 300) * 1e6, () => peer.resume())
    },
    onEnd() {},
  }))
}

export async function playHog(world: World): Promise<void> {
  const { reactor } = world
  const dials = await Promise.all(Array.from({ length: DESCRIPTORS }, () => dial(world)))
  const fds = dials.filter((fd) => fd >= 0)
  const sends: Promise<unknown>[] = []
  for (let size = LARGEST_BYTES; size >= SMALLEST_BYTES && sends.length < fds.length; ) {
    if (reactor.arena.freeBytes < size) size >>= 1
    else
      sends.push(reactor.send(fds[sends.length], new Uint8Array(size)).catch((error) => check(world, error)))
  }
  await Promise.all(sends)
  for (const fd of fds) await reactor.closeDescriptor(fd).catch((error) => world.found(error))
  world.rawOver++
}

async function dial(world: World): Promise<number> {
  let fd = -1
  try {
    fd = world.reactor.socket("IPv4")
    await world.reactor.connectDescriptor(fd, { hostname: ADDRESS, port: HOG_PORT })
  } catch (error) {
    check(world, error)
  }
  return fd
}

/** Errors of the network and of limits are as they may be. */
function check(world: World, error: unknown): void {
  if (!/^(E|LIMIT_)/.test((error as { code?: string }).code ?? "")) world.found(error)
}
