// Single operations with promises beside the conversations: timeouts, no-ops, and cancellations that race them. Each must
// settle exactly once, and cancel() must say true of exactly those that were stopped.

import { Violation } from "../../src/testing/index.ts"
import type { World } from "./world.ts"

export async function playRaw(world: World, count: number): Promise<void> {
  const { reactor, random } = world
  for (let i = 0; i < count && reactor.isOpen; i++) {
    const operation: Promise<void> = random.chance(0.3) ? reactor.nop() : reactor.timeout(random.next() * 20)
    const settled = operation.then(
      () => "done",
      (error: { code?: string }) => error.code ?? String(error),
    )
    if (random.chance(0.5)) await world.pause(random.next() * 20)
    if (!reactor.isOpen) return
    try {
      const wasStopped = random.chance(0.7) ? await reactor.cancel(operation) : undefined
      const how = await settled
      if (how !== "done" && how !== "ECANCELED" && how !== "LIMIT_OPERATIONS" && !world.isCut) {
        throw new Violation(`a raw operation ended with ${how}`)
      }
      if (wasStopped === true && how === "done")
        throw new Violation("cancel() said true of an operation that was done")
      // An operation that never got a submission entry is ended by the engine, and its cancellation then finds nothing.
      const wasKept = world.simulation.faults.counts.submissionFull !== undefined
      if (wasStopped === false && how === "ECANCELED" && !world.isCut && !wasKept) {
        throw new Violation("cancel() said false of an operation that was stopped")
      }
    } catch (error) {
      if (error instanceof Violation) world.found(error)
    }
  }
}
