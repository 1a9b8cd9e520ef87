import { expect, test } from "bun:test"
import { VirtualClock } from "./clock.ts"
import { Random } from "./random.ts"

test("events run in order of time, those of one moment in the order asked for", () => {
  const clock = new VirtualClock()
  const random = new Random(1)
  const start = clock.nowNs
  const ran: { dueNs: number; order: number; nowNs: number }[] = []
  for (let order = 0; order < 1000; order++) {
    const dueNs = start + random.integer(0, 50)
    clock.at(dueNs, () => ran.push({ dueNs, order, nowNs: clock.nowNs }))
  }
  clock.moveTo(start + 100)
  expect(ran).toHaveLength(1000)
  for (const { dueNs, nowNs } of ran) expect(nowNs).toBe(dueNs)
  expect(ran).toEqual(ran.toSorted((a, b) => a.dueNs - b.dueNs || a.order - b.order))
  expect(clock.nowNs).toBe(start + 100)
  expect(clock.nextNs).toBe(Number.POSITIVE_INFINITY)
})

test("what an event asks for within the time runs, too; the past runs now", () => {
  const clock = new VirtualClock()
  const ran: string[] = []
  clock.after(10, () => {
    ran.push("first")
    clock.after(5, () => ran.push("second"))
    clock.at(0, () => ran.push("late"))
    clock.after(50, () => ran.push("never"))
  })
  clock.moveTo(clock.nowNs + 20)
  expect(ran).toEqual(["first", "late", "second"])
})
