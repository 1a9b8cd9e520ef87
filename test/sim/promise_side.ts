// A side played by a program with promises: one loop that reads, one that writes, deadlines and signals.

import type { Connection } from "../../src/index.ts"
import { Violation } from "../../src/testing/index.ts"
import type { Side } from "./conversation.ts"
import type { World } from "./world.ts"

export async function playPromises(world: World, side: Side, connection: Connection): Promise<void> {
  const player = new PromiseSide(world, side, connection)
  try {
    await player.play()
    world.over(side)
  } catch (error) {
    if (error instanceof Violation) world.found(error)
    connection.destroy()
    world.over(side, error)
  }
}

class PromiseSide {
  private readonly world: World
  private readonly side: Side
  private readonly connection: Connection

  constructor(world: World, side: Side, connection: Connection) {
    this.world = world
    this.side = side
    this.connection = connection
  }

  async play(): Promise<void> {
    const { connection, side } = this
    if (side.plan.isEcho) await this.read()
    else {
      const both = await Promise.allSettled([this.read(), this.write()])
      for (const one of both) if (one.status === "rejected") throw one.reason
    }
    await connection.close()
    if (connection.isOpen) throw new Violation(`${side.name}: open after close`)
  }

  private async read(): Promise<void> {
    const { connection, side, world } = this
    for (;;) {
      if (this.leave()) return
      const chunk = await this.readOnce()
      if (chunk === undefined) break
      side.take(chunk)
      if (side.isToStall) {
        side.gaveUp = true // not yet, but nothing is promised from here on
        await world.pause(100_000)
        return
      }
      if (world.random.chance(side.plan.pauseChance))
        await world.pause(world.random.next() * side.plan.pauseMs)
      if (side.plan.isEcho) await this.writeAll()
    }
    if (!side.gaveUp) side.end()
    if (side.plan.isEcho) await connection.shutdown()
  }

  /** One chunk, with the patience that the plan has. */
  private async readOnce(): Promise<Uint8Array | undefined> {
    const { connection, side, world } = this
    const { patienceMs } = side.plan
    for (;;) {
      const way = patienceMs === undefined ? 0 : world.random.integer(0, 2)
      const controller = new AbortController()
      if (way === 2) world.later(patienceMs ?? 0, () => controller.abort(IMPATIENT))
      try {
        if (way === 0) return await connection.read()
        return await connection.read(way === 1 ? { timeoutMs: patienceMs! } : { signal: controller.signal })
      } catch (error) {
        const isPatience =
          error === IMPATIENT || (way === 1 && (error as { code?: string }).code === "ETIMEDOUT")
        if (!isPatience) throw error
        if (!connection.isOpen) return undefined
        if (side.plan.givesUp) {
          side.gaveUp = true
          connection.destroy()
          return undefined
        }
        // It has taken nothing: go on waiting, without a deadline so that the run comes to its end.
        side.plan.patienceMs = undefined
      }
    }
  }

  private async write(): Promise<void> {
    await this.writeAll()
    if (this.side.gaveUp) return
    await this.connection.shutdown()
  }

  private async writeAll(): Promise<void> {
    const { connection, side, world } = this
    for (;;) {
      if (this.leave()) return
      const chunk = side.next()
      if (chunk === undefined) return
      side.took(chunk.length) // some of it may be on its way before the promise settles
      const { patienceMs, givesUp } = side.plan
      try {
        await connection.write(chunk, givesUp && patienceMs !== undefined ? { timeoutMs: patienceMs } : {})
      } catch (error) {
        if ((error as { code?: string }).code === "ETIMEDOUT") side.gaveUp = true
        throw error
      }
      if (world.random.chance(0.05)) await connection.flush()
      if (side.plan.thinkMs > 0) await world.pause(world.random.next() * side.plan.thinkMs)
    }
  }

  private leave(): boolean {
    const { side, connection } = this
    if (!side.isToLeave) return side.gaveUp
    side.gaveUp = true
    if (side.plan.leaves?.how === "reset") connection.destroy()
    else void connection.close()
    return true
  }
}

const IMPATIENT = new Error("impatient")
