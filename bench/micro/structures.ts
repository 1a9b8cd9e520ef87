// What is done once or more for each operation or connection in plain TypeScript: slots, blocks of send memory, deadlines.

import { do_not_optimize } from "mitata"
import { Arena } from "../../src/reactor/arena.ts"
import { Deadline, DeadlineWheel } from "../../src/reactor/deadlines.ts"
import { SlotTable } from "../../src/reactor/slots.ts"
import type { Cost, Group } from "./table.ts"

const MANY = 10_000
const ARENA_BYTES = 64 << 20
const IDLE_MS = 60_000
/** A busy server's: 100,000 re-arms a second. */
const STEP_MS = 0.01
/** Re-arms between two looks at the wheel. */
const ROUND = 1024

export function structureGroups(): Group[] {
  return [
    { name: "slots", open: slotCosts },
    { name: "send arena", open: arenaCosts },
    { name: "deadlines", open: deadlineCosts },
  ]
}

function slotCosts(): Cost[] {
  const owner = {}
  const empty = new SlotTable<object>(1 << 20)
  const crowded = new SlotTable<object>(1 << 20)
  for (let i = 0; i < MANY; i++) crowded.acquire(1, owner)
  const cycle = (table: SlotTable<object>) => () => {
    const slot = table.acquire(1, owner)
    do_not_optimize(table.generationOf(slot))
    table.release(slot)
  }
  const admitted = crowded.acquire(1, owner)
  const generation = crowded.generationOf(admitted)
  return [
    { name: "acquire, release", call: cycle(empty) },
    { name: `acquire, release, ${MANY} in flight`, call: cycle(crowded) },
    { name: "admit", call: () => do_not_optimize(crowded.admit(admitted, generation)) },
  ]
}

function arenaCosts(): Cost[] {
  const arena = new Arena(ARENA_BYTES)
  return [64, 16_384, 1 << 20].map((bytes) => ({
    name: `alloc, free of ${bytes} B`,
    call() {
      const block = arena.alloc(bytes)
      do_not_optimize(block)
      arena.free(block)
    },
  }))
}

function deadlineCosts(): Cost[] {
  const owner = { onDeadline() {} }
  let now = 0
  let calls = 0
  const wheel = new DeadlineWheel(now)
  const deadlines = Array.from({ length: MANY }, () => new Deadline(owner, 0))
  for (const deadline of deadlines) wheel.arm(deadline, now, IDLE_MS)
  const single = new Deadline(owner, 0)
  /** The clock goes on, and now and then the wheel looks at it. */
  const step = () => {
    now += STEP_MS
    if (++calls % ROUND === 0) wheel.advance(now)
  }
  return [
    {
      name: `re-arm one of ${MANY}, in turn`,
      call() {
        step()
        wheel.arm(deadlines[calls % MANY], now, IDLE_MS)
      },
    },
    {
      name: "re-arm the same one",
      call() {
        step()
        wheel.arm(single, now, IDLE_MS)
      },
    },
    {
      name: "arm, clear",
      call() {
        step()
        wheel.arm(single, now, IDLE_MS)
        wheel.clear(single)
      },
    },
    {
      name: "next due",
      call: () => do_not_optimize(wheel.nextDueInMs(now)),
    },
  ]
}
