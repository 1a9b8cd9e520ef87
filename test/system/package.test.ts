// The package as others import it: by its own name, through the exports of package.json, and the programs of the README.

import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"

const ROOT = join(import.meta.dir, "../..")
const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"))
const readme = readFileSync(join(ROOT, "README.md"), "utf8")

describe("exports", () => {
  for (const path of Object.keys(manifest.exports)) {
    const name = path === "." ? "uringloop" : `uringloop/${path.slice(2)}`
    test(`${name} is there`, async () => {
      expect(Object.keys(await import(name)).length).toBeGreaterThan(0)
    })
  }

  test("uringloop/reactor has the Reactor that the README opens", async () => {
    const name = "uringloop/reactor"
    expect((await import(name)).Reactor).toBe((await import("../../src/index.ts")).Reactor)
  })
})

test("the programs of the README: what they import is exported", async () => {
  const imports = [...readme.matchAll(/^import \{ ([\w, ]+) \} from "(uringloop[\w/]*)"/gm)]
  expect(imports.length).toBeGreaterThanOrEqual(2)
  for (const [, names, from] of imports) {
    const module = await import(from!)
    for (const name of names!.split(", ")) expect(module[name], `${name} of ${from}`).toBeFunction()
  }
})
