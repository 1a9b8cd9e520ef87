import { expect, test } from "bun:test"
import * as abi from "../../ffi/abi.ts"
import { type FaultRule, FaultRules } from "./fault_rules.ts"

const RECV = abi.OP_RECV

/** Which of `count` events in a row are struck. */
function struck(rules: FaultRules, count: number, fd = 5, connection = 1): number[] {
  const hits: number[] = []
  for (let i = 1; i <= count; i++) if (rules.decide(RECV, fd, connection, 10) !== undefined) hits.push(i)
  return hits
}

function one(rule: Partial<FaultRule>, seed = 1): FaultRules {
  return new FaultRules([{ operation: "recv", error: "EIO", ...rule }], seed)
}

test("after, every and times", () => {
  expect(struck(one({}), 3)).toEqual([1, 2, 3])
  expect(struck(one({ after: 2 }), 5)).toEqual([3, 4, 5])
  expect(struck(one({ every: 3 }), 9)).toEqual([3, 6, 9])
  expect(struck(one({ after: 1, every: 2, times: 2 }), 12)).toEqual([3, 5])
})

test("fd, connection, match and operation", () => {
  expect(struck(one({ fd: 5 }), 1)).toEqual([1])
  expect(struck(one({ fd: 6 }), 1)).toEqual([])
  expect(struck(one({ connection: 2 }), 1)).toEqual([])
  expect(struck(one({ connection: 2 }), 1, 5, 2)).toEqual([1])
  expect(struck(one({ match: ({ bytes, fd }) => bytes === 10 && fd === 5 }), 1)).toEqual([1])
  expect(struck(one({ operation: "send" }), 1)).toEqual([])
})

test("probability: the seed decides", () => {
  const hits = struck(one({ probability: 0.25 }, 9), 1000)
  expect(hits.length).toBeGreaterThan(200)
  expect(hits.length).toBeLessThan(300)
  expect(struck(one({ probability: 0.25 }, 9), 1000)).toEqual(hits)
  expect(struck(one({ probability: 0.25 }, 10), 1000)).not.toEqual(hits)
  expect(struck(one({ probability: 0 }), 10)).toEqual([])
})

test("the first rule that is due strikes; each counts for itself", () => {
  const rules = new FaultRules(
    [
      { operation: "recv", error: "EIO", every: 2 },
      { operation: "recv", error: "ENOBUFS", every: 3 },
    ],
    1,
  )
  const results = Array.from({ length: 6 }, () => rules.decide(RECV, 1, 0, 1)?.result ?? 0)
  expect(results).toEqual([0, -5, -105, -5, 0, -5])
  expect(rules.counts).toEqual([3, 1])
})

test.each([
  [{ operation: "read", error: "EIO" }, "rules[0].operation"],
  [{ operation: "recv" }, "rules[0] must be a rule with error, bytes, ends or delayMs"],
  [{ operation: "recv", error: "EWHAT" }, "rules[0].error"],
  [{ operation: "recv", error: "EIO", each: 3 }, "rules[0].each"],
  [{ operation: "recv", error: "EIO", every: 0 }, "rules[0].every"],
  [{ operation: "recv", error: "EIO", bytes: 3 }, "rules[0].bytes"],
  [{ operation: "send", bytes: 3 }, "rules[0].bytes"],
  [{ operation: "send", ends: true }, "rules[0].ends"],
  [{ operation: "socket", delayMs: 1 }, "rules[0].delayMs"],
  [{ operation: "recv", error: "EIO", probability: 2 }, "rules[0].probability"],
] as [FaultRule, string][])("a wrong rule is refused by name: %j", (rule, name) => {
  expect(() => new FaultRules([rule], 1)).toThrow(name)
})
