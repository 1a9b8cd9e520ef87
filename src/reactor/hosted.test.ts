// The hosted host alone: a core whose rounds are scripted and a runtime whose turns the test runs. Each test is one rule of
// the states asleep and busy, of when a round may sleep, and of what keeps the process alive.

import { describe, expect, test } from "bun:test"
import type { EventWatch, RuntimeLoop } from "../../ffi/native.ts"
import type { ReactorCore } from "./core.ts"
import { HostedHost } from "./hosted.ts"

const STAY_NS = 1_000_000
const RING = 7
const EVENT_FD = 42
/** As in hosted.ts. */
const SLEEP_AFTER = 4
const BUSY_COMPLETIONS = 16
const UNANSWERED_TURNS = 2
const BUSY_WAIT_STAYS = 8
const ROUNDS_PER_TURN = 64
const UNREFERENCED_LOOK_MS = 2
const DISCOVERY_ATTEMPTS = 16

/** What a round brings. */
interface News {
  count?: number
  deliveries?: number
  answers?: number
  hostReady?: boolean
  /** Time that it takes. */
  tookMs?: number
  /** What user code does in it. */
  run?: () => void
}

interface Turn {
  callback: () => void
  keepAlive: boolean
}

interface FakeTimer {
  callback: () => void
  afterMs: number
  keepAlive: boolean
}

class FakeWatch implements EventWatch {
  isOpen = false
  readonly onReadable: () => void
  constructor(onReadable: () => void) {
    this.onReadable = onReadable
  }
  open(): void {
    this.isOpen = true
  }
  close(): void {
    this.isOpen = false
  }
}

class FakeLoop implements RuntimeLoop {
  turns: Turn[] = []
  readonly timers = new Set<FakeTimer>()
  watch = new FakeWatch(() => {})
  watchedFd = -1
  /** What `loopDescriptor` answers, and how often it was asked. */
  descriptor = -1
  lookups = 0

  drainMicrotasks(): void {}
  nextTurn(callback: () => void, keepAlive: boolean): void {
    this.turns.push({ callback, keepAlive })
  }
  setTimer(callback: () => void, afterMs: number, keepAlive: boolean): FakeTimer {
    const timer = { callback, afterMs, keepAlive }
    this.timers.add(timer)
    return timer
  }
  clearTimer(timer: unknown): void {
    if (!this.timers.delete(timer as FakeTimer)) throw new Error("cleared a timer that is not set")
  }
  watchEvent(eventFd: number, onReadable: () => void): FakeWatch {
    this.watchedFd = eventFd
    this.watch = new FakeWatch(onReadable)
    return this.watch
  }
  loopDescriptor(eventFd: number): number {
    if (eventFd === EVENT_FD) this.lookups++
    return this.descriptor
  }

  /** The only timer that is set. */
  get timer(): FakeTimer {
    expect(this.timers.size).toBe(1)
    return [...this.timers][0]
  }
  /** The runtime's timer phase: the only timer fires. */
  fireTimer(): void {
    const timer = this.timer
    this.timers.delete(timer)
    timer.callback()
  }
  /** The runtime's immediate phase: runs what was queued before it began. */
  runTurn(): void {
    const turns = this.turns
    this.turns = []
    for (const { callback } of turns) callback()
  }
}

class FakeCore {
  readonly loop = new FakeLoop()
  readonly settings = { stayNs: STAY_NS }
  readonly ring = RING
  now = 5000
  isClosed = false
  hasHolds = false
  hasWork = false
  hasPending = false
  waitExpired = false
  hostReady = false
  deliveries = 0
  answers = 0
  /** Milliseconds until the next deadline, when one is armed. */
  dueMs: number | undefined
  /** `waitNs` of each round, and 1 or 0 for each notify, in order. */
  waits: number[] = []
  notified: number[] = []
  notifyResult = 0
  watchedFds: number[] = []
  /** Rounds to come; after them nothing happens any more. */
  script: News[] = []

  readonly native = {
    eventFd: (ring: number) => (ring === RING ? EVENT_FD : -9),
    notify: (ring: number, on: number) => {
      expect(ring).toBe(RING)
      this.notified.push(on)
      return this.notifyResult
    },
    watch: (_ring: number, fd: number) => this.watchedFds.push(fd),
  }

  readonly deadlines: { armed: number; nextDueInMs: (nowMs: number) => number }

  constructor() {
    const core = this
    this.deadlines = {
      get armed() {
        return core.dueMs === undefined ? 0 : 1
      },
      nextDueInMs: () => core.dueMs ?? Number.POSITIVE_INFINITY,
    }
  }

  clock(): number {
    return this.now
  }

  round(waitNs: number): number {
    this.waits.push(waitNs)
    const news = this.script.shift()
    this.waitExpired = news === undefined && waitNs > 0
    this.now += news === undefined ? waitNs / 1e6 : (news.tookMs ?? 0.01)
    this.hostReady = news?.hostReady === true
    this.deliveries = news?.deliveries ?? 0
    this.answers = news?.answers ?? 0
    news?.run?.()
    return news?.count ?? 0
  }

  /** The waits since it was asked last. */
  takeWaits(): number[] {
    return this.waits.splice(0)
  }
  takeNotified(): number[] {
    return this.notified.splice(0)
  }
}

function setUp(change: (core: FakeCore) => void = () => {}) {
  const core = new FakeCore()
  change(core)
  const host = new HostedHost(core as unknown as ReactorCore)
  return { core, host, loop: core.loop }
}

/** A host that is asleep after having been busy: with a notify of 0 behind it, and nothing queued. */
function setUpAsleep(change: (core: FakeCore) => void = () => {}) {
  const all = setUp(change)
  all.host.schedule()
  runUntilAsleep(all.core)
  all.core.takeWaits()
  all.core.takeNotified()
  return all
}

function runUntilAsleep(core: FakeCore): void {
  for (let i = 0; i < 1000 && core.loop.turns.length > 0; i++) core.loop.runTurn()
  if (core.loop.turns.length > 0) throw new Error("it never sleeps")
}

/** A host that has had its first turn: the next may sleep in the ring. */
function setUpBusy(change: (core: FakeCore) => void = () => {}) {
  const all = setUp(change)
  all.host.schedule()
  all.loop.runTurn()
  all.core.takeWaits()
  all.core.takeNotified()
  return all
}

const ANSWERED: News = { count: 1, deliveries: 1, answers: 1 }
const UNANSWERED: News = { count: 1, deliveries: 1, answers: 0 }

describe("at the start", () => {
  test("is asleep: nothing queued, no timer, the watch on the ring's eventfd is closed", () => {
    const { core, loop } = setUp()
    expect(loop.turns).toEqual([])
    expect(loop.timers.size).toBe(0)
    expect(loop.watchedFd).toBe(EVENT_FD)
    expect(loop.watch.isOpen).toBe(false)
    expect(core.waits).toEqual([])
  })

  test("schedule wakes it: the eventfd is turned off and one turn queued, however often it is called", () => {
    const { core, host, loop } = setUp()
    host.schedule()
    host.schedule()
    expect(loop.turns).toHaveLength(1)
    expect(core.notified).toEqual([0])
  })

  test("the turn keeps the process alive when something holds the reactor", () => {
    for (const hasHolds of [true, false]) {
      const { core, host, loop } = setUp()
      core.hasHolds = hasHolds
      host.schedule()
      expect(loop.turns.map((turn) => turn.keepAlive)).toEqual([hasHolds])
    }
  })
})

describe("a turn", () => {
  test("the first after waking does not sleep, because the runtime has not had its own; the second does", () => {
    const { core, host, loop } = setUp()
    host.schedule()
    loop.runTurn()
    expect(core.takeWaits()).toEqual([0])
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS])
  })

  test("queues the next one when it ends", () => {
    const { loop } = setUpBusy()
    expect(loop.turns).toHaveLength(1)
    loop.runTurn()
    expect(loop.turns).toHaveLength(1)
  })

  test("what is asked for inside of it queues no second one", () => {
    const { core, host, loop } = setUpBusy()
    core.script = [{ ...ANSWERED, run: () => host.schedule() }]
    loop.runTurn()
    expect(loop.turns).toHaveLength(1)
  })

  test("goes on, and may sleep again, when every delivery was answered", () => {
    const { core, loop } = setUpBusy()
    core.script = [ANSWERED, ANSWERED]
    loop.runTurn()
    // The third stay is without news, and its end is the turn's.
    expect(core.takeWaits()).toEqual([STAY_NS, STAY_NS, STAY_NS])
  })

  test("ends without sleeping after a delivery that was not answered", () => {
    const { core, loop } = setUpBusy()
    core.script = [ANSWERED, UNANSWERED, ANSWERED]
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS, STAY_NS])
    expect(core.script).toHaveLength(1)
  })

  test("after such a delivery the runtime has a few turns, for immediates that queue others", () => {
    const { core, loop } = setUpBusy()
    core.script = [UNANSWERED]
    for (let i = 0; i <= UNANSWERED_TURNS + 1; i++) loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS, ...Array(UNANSWERED_TURNS).fill(0), STAY_NS])
  })

  test("one answer does not stand for two deliveries", () => {
    const { core, loop } = setUpBusy()
    core.script = [{ count: 2, deliveries: 2, answers: 1 }, ANSWERED]
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS])
  })

  test("completions that delivered nothing to user code do not end it", () => {
    const { core, loop } = setUpBusy()
    core.script = [{ count: 3 }]
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS, STAY_NS])
  })

  test("ends when the runtime's own loop has something; the next turn begins without sleeping", () => {
    const { core, loop } = setUpBusy()
    core.script = [{ ...ANSWERED, hostReady: true }, ANSWERED]
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS])
    loop.runTurn()
    expect(core.takeWaits()).toEqual([0, STAY_NS])
  })

  test("ends when a stay is over without news", () => {
    const { core, loop } = setUpBusy()
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS])
  })

  test("ends without a stay when there was nothing to do", () => {
    const { core, host, loop } = setUp()
    host.schedule()
    loop.runTurn()
    expect(core.takeWaits()).toEqual([0])
  })

  test("takes another round for what waits, though nothing completed", () => {
    const { core, loop } = setUpBusy()
    core.hasWork = true
    core.script = [
      { run: () => {} },
      {
        run: () => {
          core.hasWork = false
        },
      },
    ]
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS, STAY_NS])
  })

  test("ends one stay after its first round, whatever comes in", () => {
    const { core, loop } = setUpBusy()
    core.script = Array.from({ length: 100 }, () => ({ ...ANSWERED, tookMs: 0.3 }))
    loop.runTurn()
    // The first sets the clock; 0.3, 0.6, 0.9, 1.2 ms later.
    expect(core.takeWaits()).toHaveLength(5)
  })

  test("ends after so many rounds, whatever the clock says", () => {
    const { core, loop } = setUpBusy()
    core.script = Array.from({ length: 1000 }, () => ({ ...ANSWERED, tookMs: 0 }))
    loop.runTurn()
    expect(core.takeWaits()).toHaveLength(ROUNDS_PER_TURN)
  })

  test("that closes the reactor is the last", () => {
    const { core, loop } = setUpBusy()
    core.script = [
      {
        ...ANSWERED,
        run: () => {
          core.isClosed = true
        },
      },
    ]
    loop.runTurn()
    expect(core.takeWaits()).toHaveLength(1)
    expect(loop.turns).toEqual([])
  })
})

describe("a busy turn", () => {
  /** A turn of two rounds with so many completions in all, over because its time is. */
  const busyScript = (completions: number): News[] => [
    { count: completions - 1, deliveries: 1, answers: 1 },
    { ...ANSWERED, tookMs: 1 },
  ]

  test("lengthens the waits of the next", () => {
    const { core, loop } = setUpBusy()
    core.script = busyScript(BUSY_COMPLETIONS)
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS, STAY_NS])
    core.script = busyScript(2)
    loop.runTurn()
    expect(core.takeWaits()).toEqual([BUSY_WAIT_STAYS * STAY_NS, BUSY_WAIT_STAYS * STAY_NS])
    // That was not a busy one.
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS])
  })

  test("is one with that many completions, not with fewer", () => {
    const { core, loop } = setUpBusy()
    core.script = busyScript(BUSY_COMPLETIONS - 1)
    loop.runTurn()
    loop.runTurn()
    expect(core.takeWaits().at(-1)).toBe(STAY_NS)
  })

  test("remains one through turns that are not to wait", () => {
    const { core, loop } = setUpBusy()
    core.script = [{ ...UNANSWERED, count: BUSY_COMPLETIONS }]
    for (let i = 0; i <= UNANSWERED_TURNS; i++) loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS, ...Array(UNANSWERED_TURNS).fill(0)])
    loop.runTurn()
    expect(core.takeWaits()).toEqual([BUSY_WAIT_STAYS * STAY_NS, 0])
  })

  test("its long wait counts as that many stays: without news it is the last before sleep", () => {
    const { core, loop } = setUpBusy()
    core.script = busyScript(BUSY_COMPLETIONS)
    loop.runTurn()
    core.takeWaits()
    loop.runTurn()
    expect(core.takeWaits()).toEqual([BUSY_WAIT_STAYS * STAY_NS, 0])
    expect(core.notified).toEqual([1])
    expect(loop.turns).toEqual([])
  })

  test("the turn itself is not longer", () => {
    const { core, loop } = setUpBusy()
    core.script = Array.from({ length: 100 }, () => ({ ...ANSWERED, tookMs: 0.1 }))
    loop.runTurn()
    const first = core.takeWaits().length
    loop.runTurn()
    expect(core.takeWaits()).toHaveLength(first)
  })
})

describe("falling asleep", () => {
  test("after so many stays without news: the eventfd is turned on, then one look that does not wait", () => {
    const { core, loop } = setUpBusy()
    for (let i = 1; i < SLEEP_AFTER; i++) {
      loop.runTurn()
      expect(core.takeWaits()).toEqual([STAY_NS])
      expect(core.notified).toEqual([])
      expect(loop.turns).toHaveLength(1)
    }
    loop.runTurn()
    expect(core.takeWaits()).toEqual([STAY_NS, 0])
    expect(core.notified).toEqual([1])
    expect(loop.turns).toEqual([])
  })

  test("the eventfd is on before the look, or what completes between them would be lost", () => {
    const { core, loop } = setUpBusy()
    const order: string[] = []
    const { notify } = core.native
    core.native.notify = (ring, on) => {
      order.push(`notify ${on}`)
      return notify(ring, on)
    }
    const round = core.round.bind(core)
    core.round = (waitNs) => {
      order.push(`round ${waitNs}`)
      return round(waitNs)
    }
    for (let i = 0; i < SLEEP_AFTER; i++) loop.runTurn()
    expect(order.slice(-3)).toEqual([`round ${STAY_NS}`, "notify 1", "round 0"])
  })

  test("news in between begin the count anew", () => {
    const { core, loop } = setUpBusy()
    for (let i = 1; i < SLEEP_AFTER; i++) loop.runTurn()
    core.script = [UNANSWERED]
    loop.runTurn()
    for (let i = 0; i < UNANSWERED_TURNS; i++) loop.runTurn()
    for (let i = 1; i < SLEEP_AFTER; i++) loop.runTurn()
    expect(core.notified).toEqual([])
    loop.runTurn()
    expect(core.notified).toEqual([1])
  })

  test("turns of the runtime's own are no stays: they do not send it to sleep", () => {
    const { core, loop } = setUpBusy()
    core.script = Array.from({ length: 50 }, () => ({ hostReady: true }))
    for (let i = 0; i < 50; i++) loop.runTurn()
    expect(core.notified).toEqual([])
    expect(loop.turns).toHaveLength(1)
  })

  test("not with work waiting", () => {
    const { core, loop } = setUpBusy()
    core.hasWork = true
    for (let i = 0; i < 3 * SLEEP_AFTER; i++) loop.runTurn()
    expect(core.notified).toEqual([])
    core.hasWork = false
    loop.runTurn()
    expect(core.notified).toEqual([1])
  })

  test.each([
    ["completed", { count: 1, deliveries: 1 }],
    ["was asked for", { run: undefined }],
  ] as const)("is given up when something %s during the last look", (what, news) => {
    const { core, host, loop } = setUpBusy()
    for (let i = 1; i < SLEEP_AFTER; i++) loop.runTurn()
    const round = core.round.bind(core)
    core.round = (waitNs) => {
      if (waitNs !== 0) return round(waitNs)
      const run = () => {
        if (what === "was asked for") core.hasWork = true
        host.schedule()
      }
      core.script = [{ ...news, run }]
      return round(waitNs)
    }
    loop.runTurn()
    expect(core.notified).toEqual([1, 0])
    expect(loop.turns).toHaveLength(1)
    expect(loop.watch.isOpen).toBe(false)
  })

  test("is given up when the eventfd cannot be turned on; it stays busy", () => {
    const { core, loop } = setUpBusy()
    core.notifyResult = -9
    for (let i = 0; i < 20; i++) loop.runTurn()
    expect(loop.turns).toHaveLength(1)
    expect(core.waits).not.toContain(0)
  })

  test("that closes the reactor ends there", () => {
    const { core, loop } = setUpBusy()
    for (let i = 1; i < SLEEP_AFTER; i++) loop.runTurn()
    const round = core.round.bind(core)
    core.round = (waitNs) => {
      if (waitNs === 0) core.isClosed = true
      return round(waitNs)
    }
    loop.runTurn()
    expect(loop.turns).toEqual([])
    expect(loop.timers.size).toBe(0)
    expect(core.notified).toEqual([1])
  })

  test("with stays of zero: after as many rounds without news", () => {
    const { core, host, loop } = setUp((core) => {
      core.settings.stayNs = 0
    })
    host.schedule()
    for (let i = 0; i < SLEEP_AFTER; i++) loop.runTurn()
    expect(core.waits).toEqual(Array(SLEEP_AFTER + 1).fill(0))
    expect(core.notified).toEqual([0, 1])
    expect(loop.turns).toEqual([])
  })
})

describe("asleep", () => {
  test("schedule wakes it and turns the eventfd off; the first turn does not wait", () => {
    const { core, host, loop } = setUpAsleep()
    host.schedule()
    expect(core.takeNotified()).toEqual([0])
    expect(loop.turns).toHaveLength(1)
    loop.runTurn()
    expect(core.takeWaits()).toEqual([0])
  })

  test("so does the eventfd", () => {
    const { core, loop } = setUpAsleep((core) => {
      core.hasHolds = true
    })
    loop.watch.onReadable()
    expect(core.takeNotified()).toEqual([0])
    expect(loop.turns).toHaveLength(1)
    // It may speak once more before it is off.
    loop.watch.onReadable()
    expect(loop.turns).toHaveLength(1)
    expect(core.takeNotified()).toEqual([])
  })

  test("what is scheduled while busy leaves the eventfd alone", () => {
    const { core, host, loop } = setUpBusy()
    loop.runTurn()
    host.schedule()
    expect(core.notified).toEqual([])
  })

  test("the watch is open while something holds the reactor", () => {
    expect(
      setUpAsleep((core) => {
        core.hasHolds = true
      }).loop.watch.isOpen,
    ).toBe(true)
    expect(setUpAsleep().loop.watch.isOpen).toBe(false)
  })

  test("holds that come and go open and close it", () => {
    const { core, host, loop } = setUpAsleep()
    core.hasHolds = true
    host.holdsChanged()
    expect(loop.watch.isOpen).toBe(true)
    core.hasHolds = false
    host.holdsChanged()
    expect(loop.watch.isOpen).toBe(false)
    expect(loop.turns).toEqual([])
  })

  test("held, it needs no timer: the eventfd tells", () => {
    const { loop } = setUpAsleep((core) => {
      core.hasHolds = true
      core.hasPending = true
    })
    expect(loop.timers.size).toBe(0)
  })

  test("with nothing pending it needs none either", () => {
    expect(setUpAsleep().loop.timers.size).toBe(0)
  })
})

describe("asleep with nothing but unreferenced sockets", () => {
  const unreferenced = (core: FakeCore) => {
    core.hasPending = true
  }

  test("looks every 2 ms, from a timer that does not keep the process alive", () => {
    const { core, loop } = setUpAsleep(unreferenced)
    for (let i = 0; i < 3; i++) {
      expect(loop.timer).toMatchObject({ afterMs: UNREFERENCED_LOOK_MS, keepAlive: false })
      expect(loop.watch.isOpen).toBe(false)
      loop.fireTimer()
      expect(core.takeWaits()).toEqual([0])
      expect(loop.turns).toEqual([])
    }
  })

  test("wakes when it sees something", () => {
    const { core, loop } = setUpAsleep(unreferenced)
    core.script = [UNANSWERED]
    loop.fireTimer()
    expect(loop.turns.map((turn) => turn.keepAlive)).toEqual([false])
    expect(core.takeNotified()).toEqual([0])
    expect(loop.timers.size).toBe(0)
  })

  test("wakes when a deadline of the look asked for something", () => {
    const { core, loop } = setUpAsleep(unreferenced)
    core.script = [
      {
        run: () => {
          core.hasWork = true
        },
      },
    ]
    loop.fireTimer()
    expect(loop.turns).toHaveLength(1)
  })

  test("stops looking when it is woken, and when something holds the reactor again", () => {
    const woken = setUpAsleep(unreferenced)
    woken.host.schedule()
    expect(woken.loop.timers.size).toBe(0)
    const held = setUpAsleep(unreferenced)
    held.core.hasHolds = true
    held.host.holdsChanged()
    expect(held.loop.timers.size).toBe(0)
    expect(held.loop.watch.isOpen).toBe(true)
  })

  test("begins to look when the last hold goes", () => {
    const { core, host, loop } = setUpAsleep((core) => {
      core.hasPending = true
      core.hasHolds = true
    })
    expect(loop.timers.size).toBe(0)
    core.hasHolds = false
    host.holdsChanged()
    expect(loop.timer).toMatchObject({ afterMs: UNREFERENCED_LOOK_MS, keepAlive: false })
  })

  test("a look that closes the reactor is the last", () => {
    const { core, loop } = setUpAsleep(unreferenced)
    core.script = [
      {
        run: () => {
          core.isClosed = true
        },
      },
    ]
    loop.fireTimer()
    expect(loop.timers.size).toBe(0)
    expect(loop.turns).toEqual([])
  })
})

describe("asleep with a deadline", () => {
  const due = (dueMs: number, hasHolds: boolean) =>
    setUpAsleep((core) => {
      core.dueMs = dueMs
      core.hasHolds = hasHolds
      core.hasPending = true
    })

  test("a timer looks when it is due, rounded up to whole milliseconds", () => {
    expect(due(12.3, true).loop.timer).toMatchObject({ afterMs: 13, keepAlive: true })
    expect(due(0, true).loop.timer).toMatchObject({ afterMs: 0, keepAlive: true })
  })

  test("unreferenced, the look every 2 ms does it", () => {
    expect(due(500, false).loop.timer).toMatchObject({ afterMs: UNREFERENCED_LOOK_MS, keepAlive: false })
    expect(due(0.5, false).loop.timer).toMatchObject({ afterMs: 1, keepAlive: false })
  })

  test("a deadline beyond what a timer can hold is looked at in between", () => {
    expect(due(1e12, true).loop.timer).toMatchObject({ afterMs: 2 ** 31 - 1 })
  })

  test("the look sets the next timer", () => {
    const { core, loop } = due(5, true)
    core.script = [
      {
        run: () => {
          core.dueMs = 70
        },
      },
    ]
    loop.fireTimer()
    expect(core.takeWaits()).toEqual([0])
    expect(loop.timer).toMatchObject({ afterMs: 70 })
    core.script = [
      {
        run: () => {
          core.dueMs = undefined
        },
      },
    ]
    loop.fireTimer()
    expect(loop.timers.size).toBe(0)
  })
})

describe("holds while busy", () => {
  test("a turn that was queued without keeping the process alive gets one beside it that does", () => {
    const { core, host, loop } = setUp()
    host.schedule()
    core.hasHolds = true
    host.holdsChanged()
    expect(loop.turns.map((turn) => turn.keepAlive)).toEqual([false, true])
    loop.runTurn()
    // The second was only there to be waited for.
    expect(core.takeWaits()).toEqual([0])
    expect(loop.turns.map((turn) => turn.keepAlive)).toEqual([true])
  })

  test("a hold that goes needs nothing", () => {
    const { core, host, loop } = setUpBusy((core) => {
      core.hasHolds = true
    })
    core.hasHolds = false
    host.holdsChanged()
    expect(loop.turns).toHaveLength(1)
    expect(loop.timers.size).toBe(0)
  })
})

describe("the descriptor of the runtime's loop", () => {
  test("is looked for once the watch is open, and given to the shim", () => {
    const { core, loop } = setUpAsleep((core) => {
      core.hasHolds = true
      core.loop.descriptor = 13
    })
    expect(loop.lookups).toBe(1)
    expect(core.watchedFds).toEqual([13])
  })

  test("is not looked for again when it was found", () => {
    const { core, host, loop } = setUpAsleep((core) => {
      core.hasHolds = true
      core.loop.descriptor = 13
    })
    host.schedule()
    runUntilAsleep(core)
    expect(loop.lookups).toBe(1)
    expect(core.watchedFds).toEqual([13])
  })

  test("is given up after some attempts", () => {
    const { core, host, loop } = setUpAsleep((core) => {
      core.hasHolds = true
    })
    for (let i = 0; i < 3 * DISCOVERY_ATTEMPTS; i++) {
      host.schedule()
      runUntilAsleep(core)
    }
    expect(loop.lookups).toBe(DISCOVERY_ATTEMPTS)
    expect(core.watchedFds).toEqual([])
  })

  test("is not needed where nothing is watched, or where there are no stays", () => {
    expect(setUpAsleep().loop.lookups).toBe(0)
    const { loop } = setUpAsleep((core) => {
      core.hasHolds = true
      core.settings.stayNs = 0
    })
    expect(loop.lookups).toBe(0)
  })
})

describe("closed", () => {
  test("dispose closes the watch and clears the timer", () => {
    const { core, host, loop } = setUpAsleep((core) => {
      core.hasHolds = true
      core.dueMs = 100
    })
    expect(loop.watch.isOpen).toBe(true)
    expect(loop.timers.size).toBe(1)
    core.isClosed = true
    host.dispose()
    host.dispose()
    expect(loop.watch.isOpen).toBe(false)
    expect(loop.timers.size).toBe(0)
  })

  test("nothing wakes it any more", () => {
    const { core, host, loop } = setUpAsleep()
    core.isClosed = true
    host.schedule()
    core.hasHolds = true
    host.holdsChanged()
    loop.watch.onReadable()
    expect(loop.turns).toEqual([])
    expect(loop.watch.isOpen).toBe(false)
    expect(core.notified).toEqual([])
  })
})
