// The library as it was built, read with readelf, and the package as it would be installed.

import { expect, test } from "bun:test"
import { join } from "node:path"
import { shimPath } from "../../ffi/bun.ts"
import packageFile from "../../package.json"

const ROOT = join(import.meta.dir, "../..")

function readelf(...flags: string[]): string {
  const done = Bun.spawnSync(["readelf", "-W", ...flags, shimPath()])
  if (!done.success) throw new Error(`readelf: ${done.stderr}`)
  return done.stdout.toString()
}

test("what is relocated is read-only before the first call", () => {
  expect(readelf("-l")).toContain("GNU_RELRO")
  expect(readelf("-d")).toMatch(/BIND_NOW|\bNOW\b/)
})

test("neither stack nor any segment is both writable and executable", () => {
  const segments = readelf("-l")
  expect(/GNU_STACK +\S+ \S+ \S+ \S+ \S+ (\S+)/.exec(segments)?.[1]).toBe("RW")
  for (const [line] of segments.matchAll(/^ +LOAD .*$/gm)) expect(line).not.toMatch(/W *E/)
})

test("no relocation in the text, and no search path for libraries", () => {
  expect(readelf("-d")).not.toMatch(/TEXTREL|RPATH|RUNPATH/)
})

test("stack protector and checked string functions are in", () => {
  const symbols = readelf("--dyn-syms")
  expect(symbols).toContain("__stack_chk_fail")
  expect(symbols).toMatch(/__\w+_chk/)
})

test("it exports the functions of exports.h and nothing else, and needs the C library alone", async () => {
  const exported = [...readelf("--dyn-syms").matchAll(/ (?:GLOBAL|WEAK) +DEFAULT +\d+ (\S+)$/gm)].map(
    ([, name]) => name!,
  )
  const header = await Bun.file(join(ROOT, "liburing-shim/exports.h")).text()
  const declared = [...header.matchAll(/^UL_EXPORT .*?\b(ul_\w+)\(/gm)].map(([, name]) => name!)
  expect(declared.length).toBeGreaterThan(10)
  expect(exported.sort()).toEqual(declared.sort())
  const needed = [...readelf("-d").matchAll(/NEEDED.*\[(.*)\]/g)].map(([, name]) => name!)
  for (const name of needed) expect(name).toMatch(/^(libc\.so|ld-linux)/)
})

test("installing the package runs nothing and brings nothing along", () => {
  const scripts: Record<string, string> = packageFile.scripts
  for (const name of ["preinstall", "install", "postinstall", "prepare", "prepublish"])
    expect(scripts).not.toHaveProperty(name)
  expect(packageFile).not.toHaveProperty("dependencies")
  expect(packageFile).not.toHaveProperty("optionalDependencies")
  expect(packageFile).not.toHaveProperty("gypfile")
})
