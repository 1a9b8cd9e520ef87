import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { checkFiles, FILE_LINES_MAX, README_LINES_MAX, readRepository, SHIM_LINES_MAX } from "./style.ts"

const HEADER = "// What this file is, told in one paragraph that is long enough.\n"
const lines = (count: number) => HEADER + "\n".repeat(count - 1)

/** The breaches of one file, with the header in place so that only the rule under test speaks. */
function breachesOf(path: string, text = "", longFiles: Record<string, string> = {}): string[] {
  return checkFiles([{ path, text: HEADER + text }], longFiles)
}

const imports = (importer: string, specifier: string) =>
  breachesOf(importer, `import { x } from "${specifier}"\n`)

describe("names", () => {
  test.each(["src/net/utils.ts", "src/helpers/a.ts", "ffi/common.ts", "src/slot-manager.ts", "cli/data2.ts"])(
    "%s fails",
    (path) => {
      expect(breachesOf(path)).toEqual([expect.stringContaining("does not say what is inside")])
    },
  )

  test("a word that only contains one passes", () => {
    expect(breachesOf("src/net/commonplace.ts")).toEqual([])
  })
})

describe("layers", () => {
  test.each([
    ["src/reactor/a.ts", "../net/b.ts"],
    ["src/net/a.ts", "../http/b.ts"],
    ["src/http/a.ts", "../ws/b.ts"],
    ["src/ws/a.ts", "../bun/b.ts"],
    ["src/bun/a.ts", "../node/b.ts"],
    ["ffi/a.ts", "../src/reactor/b.ts"],
    ["src/errors.ts", "../ffi/abi.ts"],
    ["src/net/a.ts", "../index.ts"],
    ["src/net/a.test.ts", "../http/b.ts"],
    ["src/testing/sim.ts", "../net/a.ts"],
  ])("%s may not import %s", (importer, specifier) => {
    expect(imports(importer, specifier)).toEqual([expect.stringMatching(/:2: imports .*(layers|may know)/)])
  })

  test.each(["../../cli/a.ts", "../../bench/a.ts", "../../test/a.ts", "../../examples/a.ts"])(
    "src may not import %s",
    (specifier) => {
      expect(imports("src/net/a.ts", specifier)).toEqual([expect.stringContaining("know nothing of cli")])
    },
  )

  test.each([
    ["src/net/a.ts", "../testing/sim.ts"],
    ["src/index.ts", "./testing/sim.ts"],
    ["cli/uringloop.ts", "../src/testing/sim.ts"],
    ["bench/run.ts", "../src/testing/sim.ts"],
  ])("%s may not import %s", (importer, specifier) => {
    expect(imports(importer, specifier)).toEqual([expect.stringContaining("for tests alone")])
  })

  test.each([
    ["src/bun/a.ts", "../http/b.ts"],
    ["src/bun/a.ts", "../../ffi/abi.ts"],
    ["src/net/a.ts", "./b.ts"],
    ["src/net/a.ts", "../errors.ts"],
    ["ffi/a.ts", "../src/errors.ts"],
    ["src/index.ts", "./bun/a.ts"],
    ["src/testing/sim.ts", "../../ffi/native.ts"],
    ["src/net/a.test.ts", "../testing/sim.ts"],
    ["src/net/a.test.ts", "../../test/conformance/ports.ts"],
    ["test/conformance/a.test.ts", "../../src/testing/sim.ts"],
    ["cli/uringloop.ts", "../bench/run.ts"],
  ])("%s may import %s", (importer, specifier) => {
    expect(imports(importer, specifier)).toEqual([])
  })

  test("every form of import is seen", () => {
    const forms = [
      'import "../net/a.ts"',
      'import type { X } from "../net/a.ts"',
      'export * from "../net/a.ts"',
      'const a = await import("../net/a.ts")',
      'type X = import("../net/a.ts").X',
      'import {\n  x,\n} from "../net/a.ts"',
    ]
    for (const form of forms) expect(breachesOf("src/reactor/a.ts", `${form}\n`)).toHaveLength(1)
  })

  test("an import in a comment is not one", () => {
    expect(breachesOf("src/reactor/a.ts", '// import "../net/a.ts"\n/* from "../net/a.ts" */\n')).toEqual([])
  })
})

test("a relative import without .ts fails", () => {
  expect(imports("src/net/a.ts", "./b")).toEqual([expect.stringContaining("needs its .ts")])
  expect(imports("src/net/a.ts", "./b.js")).toEqual([expect.stringContaining("needs its .ts")])
  expect(imports("src/net/a.ts", "node:net")).toEqual([])
})

describe("lengths", () => {
  test("a file over the limit fails, at the limit it passes", () => {
    expect(checkFiles([{ path: "src/net/a.ts", text: lines(FILE_LINES_MAX) }], {})).toEqual([])
    expect(checkFiles([{ path: "src/net/a.ts", text: lines(FILE_LINES_MAX + 1) }], {})).toHaveLength(1)
    expect(checkFiles([{ path: "liburing-shim/a.c", text: lines(FILE_LINES_MAX + 1) }], {})).toHaveLength(1)
  })

  test("tests and generated files may be long", () => {
    for (const path of [
      "src/net/a.test.ts",
      "test/conformance/a.ts",
      "ffi/abi.ts",
      "liburing-shim/test/a.c",
    ]) {
      expect(checkFiles([{ path, text: lines(FILE_LINES_MAX + 1) }], {})).toEqual([])
    }
  })

  test("the allow list takes a reason, and no entry that is not needed", () => {
    const long = [{ path: "src/net/a.ts", text: lines(FILE_LINES_MAX + 1) }]
    const short = [{ path: "src/net/a.ts", text: lines(10) }]
    expect(checkFiles(long, { "src/net/a.ts": "one table, read as a whole" })).toEqual([])
    expect(checkFiles(long, { "src/net/a.ts": "" })).toEqual([expect.stringContaining("without a reason")])
    expect(checkFiles(short, { "src/net/a.ts": "one table, read as a whole" })).toHaveLength(1)
  })

  test("a README over its limit fails", () => {
    expect(checkFiles([{ path: "README.md", text: lines(README_LINES_MAX) }], {})).toEqual([])
    expect(checkFiles([{ path: "README.md", text: lines(README_LINES_MAX + 1) }], {})).toHaveLength(1)
  })

  test("the shim's files together have a budget", () => {
    const count = Math.ceil(SHIM_LINES_MAX / 400)
    const files = Array.from({ length: count }, (_, i) => ({
      path: `liburing-shim/a${i}.c`,
      text: lines(400),
    }))
    expect(checkFiles(files, {})).toEqual([expect.stringContaining("the budget is")])
    expect(checkFiles(files.slice(1), {})).toEqual([])
  })
})

describe("words", () => {
  test.each([
    ["src/net/a.ts", "// TODO later"],
    ["liburing-shim/a.c", "/* FIXME */"],
    ["src/net/a.ts", "// XXX"],
    ["src/net/a.ts", 'throw new Error("Not implemented")'],
    ["src/net/a.ts", "const a = b as any"],
    ["src/net/a.ts", "// @ts-ignore"],
    ["src/net/a.test.ts", 'test.skip("a", () => {})'],
    ["test/conformance/a.test.ts", 'test.todo("a")'],
    ["Makefile", "# TODO"],
    [".ci/run", "# FIXME"],
  ])("%s: %s fails", (path, text) => {
    expect(breachesOf(path, text)).toEqual([expect.stringContaining("must not stay")])
  })

  test.each([
    ["src/http/a.ts", "reader.skip(4)"],
    ["src/net/a.ts", "// as any other socket"],
    ["liburing-shim/a.c", 'char path[] = "/tmp/aXXXXXX";'],
  ])("%s: %s passes", (path, text) => {
    expect(breachesOf(path, text)).toEqual([])
  })
})

describe("headers", () => {
  test.each(["src/net/a.ts", "ffi/a.ts", "liburing-shim/a.c", "liburing-shim/a.h", "liburing-shim/test/a.c"])(
    "%s needs one",
    (path) => {
      expect(checkFiles([{ path, text: "int x;\n" }], {})).toEqual([expect.stringContaining("paragraph")])
      expect(checkFiles([{ path, text: "// x\n" }], {})).toHaveLength(1)
      expect(checkFiles([{ path, text: `/* ${"word ".repeat(10)} */\nint x;\n` }], {})).toEqual([])
    },
  )

  test("tests and other folders do not", () => {
    for (const path of ["src/net/a.test.ts", "examples/a.ts"])
      expect(checkFiles([{ path, text: "" }], {})).toEqual([])
  })
})

test("a path of one machine fails", () => {
  for (const path of [`/${"work"}/main/x`, `/${"root"}/x`, "/home/someone/x"]) {
    expect(breachesOf("docs/a.md", `see ${path}\n`)).toEqual([expect.stringContaining("one machine")])
  }
  expect(breachesOf("docs/a.md", `src/work/a and https://x.org/${"root"}/a and /tmp/x\n`)).toEqual([])
})

test("a lock file with addresses fails", () => {
  expect(checkFiles([{ path: "package-lock.json", text: '{"resolved": "x"}' }], {})).toHaveLength(1)
})

test("what is built or installed is not read", async () => {
  const paths = (await readRepository(join(import.meta.dir, "../.."))).map(({ path }) => path)
  expect(paths).toContain("package.json")
  expect(paths).toContain("test/check/style.ts")
  expect(paths.filter((path) => /node_modules|\/build\//.test(path))).toEqual([])
})
