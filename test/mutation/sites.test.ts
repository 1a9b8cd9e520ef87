import { expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { findMutations } from "./sites.ts"

const ROOT = join(import.meta.dir, "../..")

test("mutations are found where there is code, and only there", async () => {
  const path = "src/reactor/slots.ts"
  const text = readFileSync(join(ROOT, path), "utf8")
  const found = await findMutations(ROOT, [path])
  expect(found.length).toBeGreaterThan(40)
  for (const { start, end, from, to, line } of found) {
    expect(text.slice(start, end)).toBe(from)
    expect(to).not.toBe(from)
    expect(text.split("\n")[line - 1]).not.toMatch(/^\s*(\/\/|\*|import )/)
  }
  expect(new Set(found.map(({ kind }) => kind))).toEqual(
    new Set(["operator", "constant", "condition", "statement"]),
  )
  // An example of each.
  const has = (from: string, to: string) => found.some((one) => one.from === from && one.to === to)
  expect(has("this.inFlightCount += 1", ";")).toBe(true)
  expect(has("+=", "-=")).toBe(true)
  expect(has("slot !== NO_SLOT", "!(slot !== NO_SLOT)")).toBe(true)
  expect(has("1024", "1025")).toBe(true)
})
