// The owned host alone: a core whose rounds are scripted. When `run` goes on, when it ends, how long its rounds may sleep,
// and that it refuses to wait for what can never happen.

import { describe, expect, test } from "bun:test"
import { UringloopError } from "../errors.ts"
import type { ReactorCore } from "./core.ts"
import { OwnedHost } from "./owned.ts"

/** More rounds than any test needs: `run` would not come back. */
const ROUNDS_MAX = 100

class FakeCore {
  isClosed = false
  isOpen = true
  hasHolds = true
  hasWork = false
  now = 5000
  readonly slots = { inFlight: 1 }
  readonly deadlines = { armed: 0, nextDueInMs: (_nowMs: number) => 0 }
  /** `waitNs` of each round and "drain" for each drain of microtasks, in order. */
  log: (number | "drain")[] = []
  /** What each round does; after the last one the test has failed. */
  script: (() => void)[] = []
  readonly loop = {
    drainMicrotasks: () => {
      this.log.push("drain")
      this.onDrain?.()
    },
  }
  /** Promise reactions of the test. */
  onDrain: (() => void) | undefined

  clock(): number {
    return this.now
  }

  round(waitNs: number): number {
    this.log.push(waitNs)
    if (this.log.length > ROUNDS_MAX) throw new Error("run() does not end")
    this.script.shift()?.()
    return 1
  }

  get waits(): number[] {
    return this.log.filter((entry) => entry !== "drain")
  }
}

function setUp(change: (core: FakeCore) => void = () => {}) {
  const core = new FakeCore()
  change(core)
  return { core, host: new OwnedHost(core as unknown as ReactorCore) }
}

/** A promise that the test settles from inside of a round, without any loop: its reactions run at once. */
class FakePromise {
  private settled: (() => void) | undefined
  private rejected: (() => void) | undefined
  // biome-ignore lint/suspicious/noThenProperty: it stands in for a promise, whose reactions a test cannot run by itself
  then(settled: () => void, rejected: () => void): void {
    this.settled = settled
    this.rejected = rejected
  }
  resolve(): void {
    this.settled?.()
  }
  reject(): void {
    this.rejected?.()
  }
  get asPromise(): Promise<unknown> {
    return this as unknown as Promise<unknown>
  }
}

function thrown(call: () => unknown): UringloopError {
  try {
    call()
  } catch (error) {
    expect(error).toBeInstanceOf(UringloopError)
    return error as UringloopError
  }
  throw new Error("nothing was thrown")
}

const nothing = () => {}

describe("run()", () => {
  test("returns at once when nothing holds the reactor", () => {
    const { core, host } = setUp((core) => {
      core.hasHolds = false
    })
    host.run(undefined)
    expect(core.waits).toEqual([])
  })

  test("runs rounds until the last hold is gone", () => {
    const { core, host } = setUp()
    core.script = [
      nothing,
      nothing,
      () => {
        core.hasHolds = false
      },
    ]
    host.run(undefined)
    expect(core.waits).toHaveLength(3)
  })

  test("runs what promises wait for before the first round and after the last", () => {
    const { core, host } = setUp()
    core.script = [
      () => {
        core.hasHolds = false
      },
    ]
    host.run(undefined)
    expect(core.log).toEqual(["drain", Number.POSITIVE_INFINITY, "drain"])
  })

  test("a hold that comes from a waiting promise counts", () => {
    const { core, host } = setUp((core) => {
      core.hasHolds = false
    })
    core.onDrain = () => {
      core.onDrain = undefined
      core.hasHolds = true
    }
    core.script = [
      () => {
        core.hasHolds = false
      },
    ]
    host.run(undefined)
    expect(core.waits).toHaveLength(1)
  })

  test("ends when the reactor is closed", () => {
    const { core, host } = setUp()
    core.script = [
      nothing,
      () => {
        core.isClosed = true
      },
    ]
    host.run(undefined)
    expect(core.waits).toHaveLength(2)
    host.run(undefined)
    expect(core.waits).toHaveLength(2)
  })
})

describe("run(promise)", () => {
  test("runs until it is resolved, though something still holds the reactor", () => {
    const { core, host } = setUp()
    const promise = new FakePromise()
    core.script = [nothing, () => promise.resolve()]
    host.run(promise.asPromise)
    expect(core.waits).toHaveLength(2)
    expect(core.hasHolds).toBe(true)
  })

  test("or rejected, which is for whoever has the promise", () => {
    const { core, host } = setUp()
    const promise = new FakePromise()
    core.script = [() => promise.reject()]
    host.run(promise.asPromise)
    expect(core.waits).toHaveLength(1)
  })

  test("goes on without any hold", () => {
    const { core, host } = setUp((core) => {
      core.hasHolds = false
    })
    const promise = new FakePromise()
    core.script = [nothing, nothing, () => promise.resolve()]
    host.run(promise.asPromise)
    expect(core.waits).toHaveLength(3)
  })

  test("needs no round when it is settled by what waits already", () => {
    const { core, host } = setUp()
    const promise = new FakePromise()
    core.onDrain = () => promise.resolve()
    host.run(promise.asPromise)
    expect(core.waits).toEqual([])
  })

  test("ends when the reactor is closed, settled or not", () => {
    const { core, host } = setUp()
    core.script = [
      () => {
        core.isClosed = true
      },
    ]
    host.run(new FakePromise().asPromise)
    expect(core.waits).toHaveLength(1)
  })
})

describe("how long a round may sleep", () => {
  test("for ever when no deadline is armed", () => {
    const { core, host } = setUp()
    core.script = [
      () => {
        core.hasHolds = false
      },
    ]
    host.run(undefined)
    expect(core.waits).toEqual([Number.POSITIVE_INFINITY])
  })

  test("until the next deadline, in nanoseconds, asked anew before each round", () => {
    const { core, host } = setUp()
    const dueMs = [2.5, 0, 1000]
    core.deadlines.armed = 1
    core.deadlines.nextDueInMs = () => dueMs.shift() as number
    core.script = [
      nothing,
      nothing,
      () => {
        core.hasHolds = false
      },
    ]
    host.run(undefined)
    expect(core.waits).toEqual([2_500_000, 0, 1_000_000_000])
  })

  test("not at all when it is closing and has only to notice that nothing is left", () => {
    const { core, host } = setUp((core) => {
      core.isOpen = false
      core.slots.inFlight = 0
    })
    core.script = [
      () => {
        core.isClosed = true
      },
    ]
    host.run(undefined)
    expect(core.waits).toEqual([0])
  })

  test("closing, it waits for what is in flight", () => {
    const { core, host } = setUp((core) => {
      core.isOpen = false
    })
    core.script = [
      () => {
        core.isClosed = true
      },
    ]
    host.run(undefined)
    expect(core.waits).toEqual([Number.POSITIVE_INFINITY])
  })
})

describe("what can never happen", () => {
  test("nothing in flight, no work, no deadline: refused instead of sleeping for ever", () => {
    for (const until of [undefined, new FakePromise().asPromise]) {
      const { core, host } = setUp((core) => {
        core.slots.inFlight = 0
      })
      const error = thrown(() => host.run(until))
      expect(error.code).toBe("ERR_INVALID_STATE")
      expect(error.message).toBe("run(): nothing is in flight, so nothing can happen any more")
      expect(core.waits).toEqual([])
    }
  })

  test("also when that is so only later", () => {
    const { core, host } = setUp()
    core.script = [
      nothing,
      () => {
        core.slots.inFlight = 0
      },
    ]
    expect(thrown(() => host.run(undefined)).code).toBe("ERR_INVALID_STATE")
    expect(core.waits).toHaveLength(2)
  })

  test("work that waits, or a deadline, is enough to go on", () => {
    const working = setUp((core) => {
      core.slots.inFlight = 0
      core.hasWork = true
    })
    working.core.script = [
      () => {
        working.core.hasHolds = false
      },
    ]
    working.host.run(undefined)
    expect(working.core.waits).toHaveLength(1)
    const due = setUp((core) => {
      core.slots.inFlight = 0
      core.deadlines.armed = 1
    })
    due.core.script = [
      () => {
        due.core.hasHolds = false
      },
    ]
    due.host.run(undefined)
    expect(due.core.waits).toHaveLength(1)
  })
})

describe("one run at a time", () => {
  test("run inside of run is refused, and the outer one goes on", () => {
    const { core, host } = setUp()
    let inner: UringloopError | undefined
    core.script = [
      () => {
        inner = thrown(() => host.run(undefined))
      },
      () => {
        core.hasHolds = false
      },
    ]
    host.run(undefined)
    expect(inner?.code).toBe("ERR_INVALID_STATE")
    expect(inner?.message).toBe("run() is running already")
    expect(core.waits).toHaveLength(2)
  })

  test("after a run another may follow, also after one that threw", () => {
    const { core, host } = setUp()
    core.script = [
      () => {
        throw new Error("the ring is gone")
      },
    ]
    expect(() => host.run(undefined)).toThrow("the ring is gone")
    core.script = [
      () => {
        core.hasHolds = false
      },
    ]
    host.run(undefined)
    host.run(undefined)
    expect(core.waits).toHaveLength(2)
  })
})

test("the next round takes whatever is asked for: the host has nothing to do for it", () => {
  const { core, host } = setUp()
  host.schedule()
  host.holdsChanged()
  host.dispose()
  expect(core.log).toEqual([])
})
