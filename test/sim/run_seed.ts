// One seed: a reactor on a simulated machine, the programs of its plan, and everything that must hold at the end.

import type { Native } from "../../ffi/native.ts"
import { Reactor, type ReactorStats } from "../../src/index.ts"
import { type FaultKind, type SimulatedNative, Simulation, Violation } from "../../src/testing/index.ts"
import { drawPlan, type RunPlan } from "./plan.ts"
import { playAll } from "./programs.ts"
import { World } from "./world.ts"

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
  /** Limits that were reached. */
  limits: { sendMemory: number; operations: number; lingers: number; acceptPauses: number }
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
  simulation.drive(reactor, playAll(world))
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
    limits: {
      sendMemory: world.memoryRefusals,
      operations: world.operationRefusals,
      lingers: stats.lingersExpired,
      acceptPauses: stats.acceptPauses,
    },
  }
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
