/**
 * The owned host: `run` blocks the thread in the ring. The runtime's timers, fetch, files and signal handlers do not run
 * meanwhile; promises and nextTick callbacks do. For benchmarks, and for threads that have nothing else to do.
 */
import { UringloopError } from "../errors.ts"
import type { ReactorCore } from "./core.ts"
import type { Host } from "./host.ts"

export class OwnedHost implements Host {
  private readonly core: ReactorCore
  private running = false

  constructor(core: ReactorCore) {
    this.core = core
  }

  // The next round of run() takes what has been asked for.
  schedule(): void {}
  holdsChanged(): void {}
  dispose(): void {}

  /**
   * Runs rounds until nothing referenced is left, or, given a promise, until that has settled.
   * @throws UringloopError ERR_INVALID_STATE when it runs already, or when the promise can never settle
   */
  run(until: Promise<unknown> | undefined): void {
    const core = this.core
    if (this.running) throw new UringloopError("ERR_INVALID_STATE", "run() is running already")
    let settled = false
    const settle = () => {
      settled = true
    }
    until?.then(settle, settle)
    this.running = true
    try {
      core.loop.drainMicrotasks()
      while (!core.isClosed && (until === undefined ? core.hasHolds : !settled)) {
        const isIdle = core.slots.inFlight === 0 && !core.hasWork
        if (isIdle && core.isOpen && core.deadlines.armed === 0) {
          throw new UringloopError(
            "ERR_INVALID_STATE",
            "run(): nothing is in flight, so nothing can happen any more",
          )
        }
        const dueMs =
          core.deadlines.armed > 0 ? core.deadlines.nextDueInMs(core.clock()) : Number.POSITIVE_INFINITY
        // A reactor that is closing with nothing in flight has only to notice it.
        core.round(isIdle && !core.isOpen ? 0 : dueMs * 1e6)
      }
      core.loop.drainMicrotasks()
    } finally {
      this.running = false
    }
  }
}
