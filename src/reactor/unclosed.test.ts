import { expect, test } from "bun:test"
import type { Flushable } from "./core.ts"
import { Unclosed } from "./unclosed.ts"

function setUp(free: number) {
  const closed: number[] = []
  const waiting: Flushable[] = []
  const table = { free }
  const unclosed = new Unclosed(
    (fd) => {
      if (table.free === 0) return false
      table.free--
      closed.push(fd)
      return true
    },
    (owner) => void waiting.push(owner),
  )
  return { closed, waiting, table, unclosed }
}

test("with an operation free the CLOSE is asked for at once", () => {
  const { closed, waiting, unclosed } = setUp(1)
  unclosed.add(5)
  expect(closed).toEqual([5])
  expect(waiting).toEqual([])
  expect(unclosed.isEmpty).toBe(true)
})

test("without one it waits, and asks for as many as there come to be", () => {
  const { closed, waiting, table, unclosed } = setUp(0)
  for (const fd of [5, 6, 7]) unclosed.add(fd)
  expect(unclosed.isEmpty).toBe(false)
  expect(new Set(waiting)).toEqual(new Set([unclosed]))
  table.free = 2
  unclosed.flushCommands()
  expect(closed).toHaveLength(2)
  table.free = 1
  unclosed.flushCommands()
  expect(new Set(closed)).toEqual(new Set([5, 6, 7]))
  expect(unclosed.isEmpty).toBe(true)
})
