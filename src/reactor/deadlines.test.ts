// The deadline wheel against a model that has no structure at all (a map searched from end to end), and each
// promise of its docstrings by itself.

import { describe, expect, test } from "bun:test"
import { Deadline, type DeadlineOwner, DeadlineWheel } from "./deadlines.ts"

const DAY_MS = 86_400_000

/** mulberry32: uniform in [0, 1), the same sequence for the same seed. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Records what fires, in order, and then does what the test says. */
class Recorder implements DeadlineOwner {
  readonly kinds: number[] = []
  act: (deadline: Deadline) => void = () => {}

  onDeadline(kind: number, deadline: Deadline): void {
    this.kinds.push(kind)
    this.act(deadline)
  }
}

interface ModelRun {
  seed: number
  resolutionMs: number
  startMs: number
  operations: number
}

/**
 * Random operations from outside and from inside callbacks. Each firing is checked as it happens: it must be
 * armed in the model, at its due time, with no other one due earlier; and when `advance` returns, nothing due
 * may be left.
 */
function runAgainstModel({ seed, resolutionMs, startMs, operations }: ModelRun): number {
  const random = seeded(seed)
  const below = (limit: number) => Math.floor(random() * limit)
  const wheel = new DeadlineWheel(startMs, resolutionMs)
  const originMs = Math.floor(startMs)
  const model = new Map<Deadline, { tick: number; sinceOriginMs: number }>()
  const deadlines: Deadline[] = []
  const fail = (what: string): never => {
    throw new Error(`${what} (seed ${seed}, resolution ${resolutionMs}, start ${startMs}, now ${nowMs})`)
  }
  let nowMs = startMs
  let currentTick = 0
  let targetTick = 0
  let fired = 0

  const minimumTick = () => {
    let minimum = Number.POSITIVE_INFINITY
    for (const { tick } of model.values()) minimum = Math.min(minimum, tick)
    return minimum
  }
  const randomAfterMs = () => {
    const choice = below(10)
    if (choice === 0) return 0
    if (choice < 4) return below(20)
    if (choice < 5) return random() * 300
    return Math.exp(random() * Math.log(120 * DAY_MS))
  }
  const act = () => {
    const deadline = deadlines[below(deadlines.length)]
    if (below(3) === 0) {
      wheel.clear(deadline)
      model.delete(deadline)
    } else {
      const afterMs = randomAfterMs()
      wheel.arm(deadline, nowMs, afterMs)
      const sinceOriginMs = nowMs - originMs + afterMs
      // The definition, without the wheel's arithmetic: the first tick not before the due time, found by
      // stepping.
      let tick = Math.floor(sinceOriginMs / resolutionMs) - 1
      while (tick * resolutionMs < sinceOriginMs) tick += 1
      model.set(deadline, { tick: Math.max(tick, currentTick + 1), sinceOriginMs })
    }
    if (deadline.isArmed !== model.has(deadline)) fail("isArmed differs")
    if (wheel.armed !== model.size) fail("armed differs")
  }
  const owner: DeadlineOwner = {
    onDeadline(kind, deadline) {
      const due = model.get(deadline) ?? fail("fired, but not armed")
      if (deadlines[kind] !== deadline) fail("wrong kind")
      if (due.tick !== minimumTick()) fail("fired before an earlier one")
      if (due.tick > targetTick || due.sinceOriginMs > nowMs - originMs) fail("fired early")
      model.delete(deadline)
      currentTick = due.tick
      fired += 1
      for (let actions = below(3); actions > 0; actions--) act()
    },
  }
  for (let kind = 0; kind < 60; kind++) deadlines.push(new Deadline(owner, kind))

  for (let operation = 0; operation < operations; operation++) {
    if (below(3) !== 0) {
      act()
      continue
    }
    const choice = below(100)
    if (choice < 60) nowMs += random() * 10
    else if (choice < 90) nowMs += Math.exp(random() * Math.log(60_000))
    else if (choice < 93) nowMs += random() * 40 * DAY_MS
    else if (choice < 96 && model.size > 0) nowMs += wheel.nextDueInMs(nowMs)

    const firedBefore = fired
    targetTick = Math.floor((nowMs - originMs) / resolutionMs) + 1
    while (targetTick * resolutionMs > nowMs - originMs) targetTick -= 1
    if (wheel.advance(nowMs) !== fired - firedBefore) fail("wrong count of fired")
    currentTick = Math.max(currentTick, targetTick)
    if (minimumTick() <= targetTick) fail("something due did not fire")

    const inMs = wheel.nextDueInMs(nowMs)
    if (model.size === 0 ? inMs !== Number.POSITIVE_INFINITY : !(inMs >= 0)) fail("nextDueInMs is wrong")
    const wakeUpMs = originMs + minimumTick() * resolutionMs
    if (inMs > wakeUpMs - nowMs + Math.abs(wakeUpMs) * Number.EPSILON) fail("nextDueInMs is late")
  }
  return fired
}

describe("against the model", () => {
  const runs: ModelRun[] = [
    { seed: 1, resolutionMs: 4, startMs: 0, operations: 100_000 },
    { seed: 2, resolutionMs: 4, startMs: 1_763_722_800_123.456, operations: 30_000 },
    { seed: 3, resolutionMs: 1, startMs: 12_345.678, operations: 30_000 },
    { seed: 4, resolutionMs: 3, startMs: -777.25, operations: 30_000 },
    { seed: 5, resolutionMs: 7, startMs: 99.9, operations: 30_000 },
  ]
  for (const run of runs) {
    test(`seed ${run.seed}, resolution ${run.resolutionMs} ms, start ${run.startMs}`, () => {
      expect(runAgainstModel(run)).toBeGreaterThan(run.operations / 10)
    })
  }
})

describe("firing", () => {
  test("at the first tick at or after the due time, never early", () => {
    for (const startMs of [0, 3.5, 1000.999]) {
      for (const afterMs of [0.001, 1, 3.999, 4, 4.001, 127, 128, 129, 4095.5, 131_072, 4_194_304.25]) {
        const wheel = new DeadlineWheel(startMs, 4)
        const recorder = new Recorder()
        wheel.arm(new Deadline(recorder, 7), startMs, afterMs)
        const dueTickMs = Math.floor(startMs) + Math.ceil((startMs + afterMs - Math.floor(startMs)) / 4) * 4
        expect(wheel.advance(dueTickMs - 0.01)).toBe(0)
        expect(wheel.advance(dueTickMs)).toBe(1)
        expect(recorder.kinds).toEqual([7])
        expect(wheel.armed).toBe(0)
      }
    }
  })

  test("rounding does not make a deadline early or late by a hair", () => {
    for (const resolutionMs of [1, 3, 7, 10, 999, 1000]) {
      for (let tick = 1; tick < 3e9; tick = tick * 3 + 1) {
        const tickMs = tick * resolutionMs
        const lastPlaceMs = 2 ** (Math.floor(Math.log2(tickMs)) - 52)
        const wheel = new DeadlineWheel(0, resolutionMs)
        const deadline = new Deadline(new Recorder(), 0)
        wheel.arm(deadline, 0, tickMs + lastPlaceMs)
        expect(deadline.dueTick).toBe(tick + 1)
        wheel.arm(deadline, 0, tickMs)
        expect(deadline.dueTick).toBe(tick)
        expect(wheel.advance(tickMs - lastPlaceMs)).toBe(0)
        expect(wheel.advance(tickMs)).toBe(1)
      }
    }
  })

  test("in due order across all levels in one jump", () => {
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    const afterMs = [5 * 365 * DAY_MS, 60 * DAY_MS, 3 * DAY_MS, 3_600_000, 100_000, 500, 130, 40, 0]
    for (const [kind, ms] of afterMs.entries()) wheel.arm(new Deadline(recorder, kind), 0, ms)
    expect(wheel.advance(6 * 365 * DAY_MS)).toBe(afterMs.length)
    expect(recorder.kinds).toEqual([8, 7, 6, 5, 4, 3, 2, 1, 0])
  })

  test("a jump of a thousand days over a sparse wheel is not walked tick by tick", () => {
    const wheel = new DeadlineWheel(0, 1)
    const recorder = new Recorder()
    for (let kind = 0; kind < 1000; kind++) wheel.arm(new Deadline(recorder, kind), 0, (kind + 0.5) * DAY_MS)
    const startMs = performance.now()
    expect(wheel.advance(1000 * DAY_MS)).toBe(1000)
    // 86 thousand million ticks. A generous bound, far from what a walk would take.
    expect(performance.now() - startMs).toBeLessThan(1000)
    expect(recorder.kinds).toEqual(Array.from({ length: 1000 }, (_, kind) => kind))
  })

  test("a deadline of 25 days fires to the tick, whatever happens before", () => {
    for (const resolutionMs of [1, 4]) {
      const wheel = new DeadlineWheel(0, resolutionMs)
      wheel.arm(new Deadline(new Recorder(), 0), 0, 25 * DAY_MS)
      for (let day = 1; day <= 24; day++) expect(wheel.advance(day * DAY_MS)).toBe(0)
      expect(wheel.advance(25 * DAY_MS - 0.5)).toBe(0)
      expect(wheel.advance(25 * DAY_MS)).toBe(1)
    }
  })

  test("at the ends of epochs, and after a jump over many", () => {
    const epochMs = 4 * 2 ** 30
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    const dueTimesMs = [epochMs - 4, epochMs, epochMs + 4, 2 * epochMs - 4, 2 * epochMs]
    for (const [kind, dueMs] of dueTimesMs.entries()) wheel.arm(new Deadline(recorder, kind), 0, dueMs)
    for (const dueMs of dueTimesMs) {
      expect(wheel.advance(dueMs - 1)).toBe(0)
      expect(wheel.advance(dueMs)).toBe(1)
    }
    expect(recorder.kinds).toEqual([0, 1, 2, 3, 4])

    const laterMs = 100.5 * epochMs
    expect(wheel.advance(laterMs)).toBe(0)
    wheel.arm(new Deadline(recorder, 5), laterMs, 100)
    expect(wheel.nextDueInMs(laterMs)).toBe(100)
    expect(wheel.advance(laterMs + 100)).toBe(1)
  })

  test("the clock going backwards is ignored", () => {
    const wheel = new DeadlineWheel(1000, 4)
    const deadline = new Deadline(new Recorder(), 0)
    wheel.advance(2000)
    wheel.arm(deadline, 1500, 100)
    expect(wheel.advance(1600)).toBe(0)
    expect(wheel.advance(2096)).toBe(0)
    expect(wheel.advance(2100)).toBe(1)
  })

  test("sleeping for nextDueInMs each time reaches the deadline in at most one step a level", () => {
    for (const afterMs of [1, 100, 30_000, 3_600_000, 20 * DAY_MS, 300 * DAY_MS]) {
      const wheel = new DeadlineWheel(0, 4)
      wheel.arm(new Deadline(new Recorder(), 0), 0, afterMs)
      let nowMs = 0
      let steps = 0
      for (let fired = 0; fired === 0; steps++) {
        nowMs += wheel.nextDueInMs(nowMs)
        fired = wheel.advance(nowMs)
      }
      expect(nowMs).toBe(Math.ceil(afterMs / 4) * 4)
      expect(steps).toBeLessThanOrEqual(7 + Math.floor(afterMs / (4 * 2 ** 30)))
    }
  })
})

describe("arm and clear", () => {
  test("arming an armed deadline moves it, both ways", () => {
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    const deadline = new Deadline(recorder, 1)
    wheel.arm(deadline, 0, 100)
    wheel.arm(deadline, 0, 5000)
    expect(wheel.armed).toBe(1)
    expect(wheel.advance(4996)).toBe(0)
    wheel.arm(deadline, 4996, 60_000)
    wheel.arm(deadline, 4996, 8)
    expect(wheel.nextDueInMs(4996)).toBe(8)
    expect(wheel.advance(5004)).toBe(1)
    expect(recorder.kinds).toEqual([1])
  })

  test("moving within one slot of a higher level keeps the exact due time", () => {
    const wheel = new DeadlineWheel(0, 4)
    const deadline = new Deadline(new Recorder(), 1)
    wheel.arm(deadline, 0, 30_000)
    const { slot } = deadline
    wheel.arm(deadline, 0, 30_404)
    expect(deadline.slot).toBe(slot)
    expect(wheel.advance(30_400)).toBe(0)
    expect(wheel.advance(30_404)).toBe(1)
  })

  test("clearing is idempotent and empties the wheel", () => {
    const wheel = new DeadlineWheel(0)
    const deadline = new Deadline(new Recorder(), 0)
    wheel.clear(deadline)
    for (const afterMs of [1, 1000, 1e6, 1e9, 1e12]) {
      wheel.arm(deadline, 0, afterMs)
      expect(deadline.isArmed).toBe(true)
      wheel.clear(deadline)
      wheel.clear(deadline)
      expect(deadline.isArmed).toBe(false)
      expect(wheel.armed).toBe(0)
      expect(wheel.nextDueInMs(0)).toBe(Number.POSITIVE_INFINITY)
    }
    expect(wheel.advance(2e12)).toBe(0)
  })

  test("a cleared deadline holds none of its former neighbours", () => {
    const wheel = new DeadlineWheel(0)
    const recorder = new Recorder()
    const deadlines = [0, 1, 2].map((kind) => new Deadline(recorder, kind))
    for (const deadline of deadlines) wheel.arm(deadline, 0, 50)
    wheel.clear(deadlines[1])
    expect(deadlines[1].prev).toBe(deadlines[1])
    expect(deadlines[1].next).toBe(deadlines[1])
    wheel.advance(60)
    for (const deadline of deadlines) expect(deadline.next).toBe(deadline)
  })

  test("bad times are refused and change nothing", () => {
    const wheel = new DeadlineWheel(0)
    const deadline = new Deadline(new Recorder(), 0)
    wheel.arm(deadline, 0, 8)
    for (const afterMs of [-1, -0.001, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      const message = `afterMs must be a number from 0 to ${2 ** 53 - 1}, got ${afterMs}`
      expect(() => wheel.arm(deadline, 0, afterMs)).toThrow(new RangeError(message))
    }
    for (const nowMs of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => wheel.arm(deadline, nowMs, 1)).toThrow("nowMs must be")
      expect(() => wheel.advance(nowMs)).toThrow("nowMs must be")
      expect(() => new DeadlineWheel(nowMs)).toThrow("nowMs must be")
    }
    for (const resolutionMs of [0, 0.5, 2.5, -4, 1001, Number.NaN]) {
      expect(() => new DeadlineWheel(0, resolutionMs)).toThrow("resolutionMs must be a whole number")
    }
    expect(wheel.armed).toBe(1)
    expect(wheel.advance(8)).toBe(1)
  })
})

describe("callbacks", () => {
  test("re-arming itself makes an interval; zero does not loop within one call", () => {
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    recorder.act = (deadline) => wheel.arm(deadline, 0, deadline.kind)
    wheel.arm(new Deadline(recorder, 0), 0, 0)
    // Within a jump: once at its tick, once at the tick of the present time, and then not before the next.
    expect(wheel.advance(40)).toBe(2)
    expect(wheel.advance(44)).toBe(1)
    expect(wheel.advance(44)).toBe(0)
    expect(wheel.armed).toBe(1)
  })

  test("clearing siblings of the same slot, before and behind, keeps them from firing", () => {
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    const deadlines = [0, 1, 2, 3, 4].map((kind) => new Deadline(recorder, kind))
    for (const deadline of deadlines) wheel.arm(deadline, 0, 10)
    recorder.act = (deadline) => {
      if (deadline.kind !== 1) return
      for (const sibling of [0, 1, 2, 4]) wheel.clear(deadlines[sibling])
    }
    expect(wheel.advance(100)).toBe(3)
    expect(recorder.kinds).toEqual([0, 1, 3])
    expect(wheel.armed).toBe(0)
  })

  test("moving a sibling that is due now to a later tick of the same call", () => {
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    const deadlines = [0, 1, 2].map((kind) => new Deadline(recorder, kind))
    wheel.arm(deadlines[0], 0, 8)
    wheel.arm(deadlines[1], 0, 8)
    wheel.arm(deadlines[2], 0, 12)
    recorder.act = (deadline) => {
      if (deadline.kind === 0) wheel.arm(deadlines[1], 8, 8)
    }
    expect(wheel.advance(16)).toBe(2)
    expect(recorder.kinds).toEqual([0, 2])
    // Armed for 8 ms after the present time, which is 16.
    expect(wheel.advance(20)).toBe(0)
    expect(wheel.advance(24)).toBe(1)
  })

  test("an exception loses no other deadline; the first one is thrown at the end", () => {
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    recorder.act = (deadline) => {
      if (deadline.kind % 2 === 1) throw new Error(`from ${deadline.kind}`)
    }
    for (let kind = 0; kind < 6; kind++) wheel.arm(new Deadline(recorder, kind), 0, kind < 4 ? 10 : 10_000)
    expect(() => wheel.advance(20_000)).toThrow("from 1")
    expect(recorder.kinds).toEqual([0, 1, 2, 3, 4, 5])
    expect(wheel.armed).toBe(0)

    wheel.arm(new Deadline(recorder, 8), 20_000, 4)
    expect(wheel.advance(20_004)).toBe(1)
  })

  test("a thrown undefined is an exception too", () => {
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    recorder.act = () => {
      throw undefined
    }
    wheel.arm(new Deadline(recorder, 0), 0, 1)
    let hasThrown = false
    try {
      wheel.advance(100)
    } catch {
      hasThrown = true
    }
    expect(hasThrown).toBe(true)
  })

  test("advance from a callback does nothing", () => {
    const wheel = new DeadlineWheel(0, 4)
    const recorder = new Recorder()
    const nested: number[] = []
    recorder.act = () => nested.push(wheel.advance(1000))
    wheel.arm(new Deadline(recorder, 0), 0, 10)
    wheel.arm(new Deadline(recorder, 1), 0, 500)
    expect(wheel.advance(100)).toBe(1)
    expect(nested).toEqual([0])
    expect(wheel.advance(1000)).toBe(1)
  })
})
