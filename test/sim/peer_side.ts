// A side played by a simulated peer.

import type { PeerHandlers, SimulatedPeer } from "../../src/testing/index.ts"
import type { Side } from "./conversation.ts"
import type { World } from "./world.ts"

/** The handlers that play it. They run inside the simulated kernel, and never touch the reactor. */
export function playPeer(world: World, side: Side): PeerHandlers {
  const { plan } = side
  const { time } = world.simulation
  let isThinking = false

  const write = (peer: SimulatedPeer): void => {
    while (!isThinking && !side.isOver) {
      if (leave(peer)) return
      const chunk = side.next()
      if (chunk === undefined) break
      side.took(chunk.length)
      peer.send(chunk)
      if (plan.thinkMs > 0) {
        isThinking = true
        time.after(world.random.next() * plan.thinkMs * 1e6, () => {
          isThinking = false
          write(peer)
        })
      }
    }
    if (!isThinking && !side.isOver && side.hasSentAll) {
      peer.end()
      if (side.hasSeenEnd) finish(peer)
    }
  }

  const leave = (peer: SimulatedPeer): boolean => {
    if (!side.isToLeave) return false
    side.gaveUp = true
    side.over()
    if (plan.leaves?.how === "reset") peer.reset()
    else peer.close()
    return true
  }

  const breakOff = (peer: SimulatedPeer): void => {
    if (side.isOver) return
    side.gaveUp = true
    side.over()
    peer.reset()
  }

  const finish = (peer: SimulatedPeer): void => {
    side.over()
    peer.close()
  }

  let self: SimulatedPeer
  return {
    onOpen(peer) {
      self = peer
      side.conversation.causes ??= peer.socket.line.causes
      if (plan.resetsAtMs !== undefined) time.after(plan.resetsAtMs * 1e6, () => breakOff(peer))
      write(peer)
    },
    onRefused: (result) => side.over(`${result}`),
    onData: (bytes) =>
      world.guard(() => {
        side.take(bytes)
        if (leave(self)) return
        if (side.isToStall) self.pause()
        else if (world.random.chance(plan.pauseChance)) {
          self.pause()
          time.after(world.random.next() * plan.pauseMs * 1e6, () => self.resume())
        }
        if (plan.isEcho) write(self)
      }),
    onEnd: () =>
      world.guard(() => {
        side.end()
        write(self)
      }),
    onReset: () => side.over("ECONNRESET"),
  }
}
