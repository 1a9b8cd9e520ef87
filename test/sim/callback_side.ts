// A side played by a program with handlers, and the rules of when which handler may be called.

import type { Socket, SocketHandlers } from "../../src/index.ts"
import { Violation } from "../../src/testing/index.ts"
import type { Side } from "./conversation.ts"
import type { World } from "./world.ts"

type Plays = CallbackSide | undefined

export class CallbackSide {
  private readonly world: World
  readonly side: Side
  private patienceMs = 0
  private isThinking = false
  private mayDrain = false
  private hasEnded = false

  constructor(world: World, side: Side) {
    this.world = world
    this.side = side
  }

  open(socket: Socket<Plays>): void {
    const { plan } = this.side
    this.patienceMs = plan.patienceMs ?? 0
    socket.timeout(this.patienceMs / 1000)
    // Of those that end by themselves: with only unreferenced sockets left, the reactor looks every 2 ms.
    if (this.side.conversation.endsByItself && this.world.random.chance(0.03)) socket.unref()
    this.write(socket)
  }

  data(socket: Socket<Plays>, chunk: Buffer): void {
    const { side, world } = this
    side.take(chunk)
    if (this.leave(socket)) return
    if (side.isToStall) socket.pause()
    else if (world.random.chance(side.plan.pauseChance)) {
      socket.pause()
      world.later(world.random.next() * side.plan.pauseMs, () => socket.resume())
    }
    if (side.plan.isEcho) this.write(socket)
  }

  drain(socket: Socket<Plays>): void {
    if (!this.mayDrain) throw new Violation(`${this.side.name}: drain although nothing was refused`)
    this.mayDrain = false
    this.write(socket)
  }

  end(socket: Socket<Plays>): void {
    this.side.end()
    this.write(socket)
  }

  timeout(socket: Socket<Plays>): void {
    const { side, world } = this
    if (side.plan.givesUp) {
      side.gaveUp = true
      if (world.random.chance(0.5)) socket.terminate()
      else socket.close()
    } else {
      this.patienceMs *= 2
      socket.timeout(this.patienceMs / 1000)
    }
  }

  close(socket: Socket<Plays>, error: Error | undefined): void {
    if (this.side.isOver) throw new Violation(`${this.side.name}: closed twice`)
    if (socket.readyState !== -1 || socket.write("late") !== -1)
      throw new Violation("a closed socket takes bytes")
    const { side } = this
    // As in Bun: when both sides have ended, `close` alone tells.
    if (error === undefined && this.hasEnded && !side.hasSeenEnd && !side.gaveUp && !this.world.isCut)
      side.end()
    this.world.over(side, error)
  }

  private write(socket: Socket<Plays>): void {
    const { side, world } = this
    while (!this.isThinking && !this.mayDrain && !side.isOver && !this.hasEnded) {
      if (this.leave(socket)) return
      const chunk = side.next()
      if (chunk === undefined) break
      const count = socket.write(chunk)
      if (count < 0) return
      if (count > 0) side.took(count)
      if (count < chunk.length) {
        this.mayDrain = true
        world.noteRefusal()
      } else if (side.plan.thinkMs > 0) {
        this.isThinking = true
        world.later(world.random.next() * side.plan.thinkMs, () => {
          this.isThinking = false
          this.write(socket)
        })
      } else if (world.random.chance(0.02)) socket.flush()
    }
    if (this.isThinking || this.hasEnded || side.isOver || !side.hasSentAll) return
    if (!side.plan.isHalfOpen && !side.hasSeenEnd) return // ending would close it
    this.hasEnded = true
    if (world.random.chance(0.5)) socket.end()
    else socket.shutdown()
  }

  private leave(socket: Socket<Plays>): boolean {
    const { side } = this
    if (!side.isToLeave) return false
    side.gaveUp = true
    if (side.plan.leaves?.how === "reset") socket.terminate()
    else socket.close()
    return true
  }
}

/** Handlers for a listener or a dial; `find` says which side a new socket plays. */
export function playCallbacks(
  world: World,
  find: (socket: Socket<Plays>) => CallbackSide,
): SocketHandlers<Plays> {
  const of = (socket: Socket<Plays>): CallbackSide => {
    if (socket.data === undefined) throw new Violation("a handler was called before open")
    return socket.data
  }
  return {
    open: (socket) =>
      world.guard(() => {
        socket.data = find(socket)
        socket.data.open(socket)
      }),
    data: (socket, chunk) => world.guard(() => of(socket).data(socket, chunk)),
    drain: (socket) => world.guard(() => of(socket).drain(socket)),
    end: (socket) => world.guard(() => of(socket).end(socket)),
    timeout: (socket) => world.guard(() => of(socket).timeout(socket)),
    close: (socket, error) => world.guard(() => of(socket).close(socket, error)),
    error: (_socket, error) => world.found(error),
  }
}
