// Which lines the tests reach.
//
//   bun test/coverage/run.ts             a table; exit status 1 when a room is under 95 % of its lines
//   bun test/coverage/run.ts --missed    with the lines that nothing reached
//
// TypeScript by Bun's own coverage (lines and functions; Bun 1.4 does not measure branches) over the unit tests, 1,000 seeds of
// the simulation and conformance on every engine and host. C by clang's, lines and branches, over the C tests and the
// same conformance runs on an instrumented library. What runs in other processes and Workers does not count.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join, relative } from "node:path"
import { addLcov, type Coverage, missedLines, percent, type Share, share } from "./lcov.ts"

const ROOT = join(import.meta.dir, "../..")
const SHIM = join(ROOT, "liburing-shim")
const GOAL = 0.95
const BUN = process.execPath
const CLANG = process.env.CLANG ?? "clang"
/** The tools that belong to Debian's clang. */
const PROFDATA = Bun.which("llvm-profdata") ?? "llvm-profdata-14"
const COV = Bun.which("llvm-cov") ?? "llvm-cov-14"
const ROOMS = ["src/reactor", "src/net", "liburing-shim"]

const folder = mkdtempSync(join(tmpdir(), "uringloop-coverage-"))
const profiles = join(folder, "profiles")
mkdirSync(profiles)

function must(command: string[], options: { cwd?: string; env?: Record<string, string> } = {}): string {
  const done = Bun.spawnSync(command, {
    cwd: options.cwd ?? ROOT,
    env: { ...process.env, LLVM_PROFILE_FILE: join(profiles, "%p-%m.profraw"), ...options.env },
    maxBuffer: 256 * 1024 * 1024,
  })
  if (done.exitCode !== 0) {
    throw new Error(`${command.join(" ")} ended with ${done.exitCode}\n${done.stdout}\n${done.stderr}`)
  }
  return done.stdout.toString()
}

const FLAGS = [..."-std=gnu11 -O1 -g -fPIC -I.".split(" "), "-fprofile-instr-generate", "-fcoverage-mapping"]
const LIBS = ["-l:liburing.a", "-pthread"]
const sources = readdirSync(SHIM).filter((name) => name.endsWith(".c"))

function buildLibrary(): string {
  const out = join(folder, "libshim.so")
  const link = ["-shared", "-fvisibility=hidden", "-Wl,-z,nodelete", "-Wl,--exclude-libs,ALL"]
  must([CLANG, ...FLAGS, ...link, "-o", out, ...sources, ...LIBS], { cwd: SHIM })
  return out
}

/** Builds and runs the C tests. Returns the programs. */
function runCTests(): string[] {
  return readdirSync(join(SHIM, "test"))
    .filter((name) => name.endsWith(".c"))
    .map((name) => {
      const out = join(folder, basename(name, ".c"))
      must([CLANG, ...FLAGS, "-o", out, `test/${name}`, ...sources, ...LIBS], { cwd: SHIM })
      must([out])
      return out
    })
}

/** One run of `bun test`; its lines are added. */
function runBunTests(coverage: Coverage, paths: string[], env: Record<string, string>): void {
  const out = mkdtempSync(join(folder, "bun-"))
  must(
    [
      BUN,
      "test",
      "--timeout",
      "60000",
      "--coverage",
      "--coverage-reporter=lcov",
      `--coverage-dir=${out}`,
      ...paths,
    ],
    { env },
  )
  addLcov(coverage, readFileSync(join(out, "lcov.info"), "utf8"))
}

function addShim(coverage: Coverage, objects: string[]): void {
  const merged = join(folder, "merged.profdata")
  const raw = readdirSync(profiles).map((name) => join(profiles, name))
  must([PROFDATA, "merge", "-sparse", "-o", merged, ...raw])
  // Each program has a copy of the shim of its own: their lines add up here, not there.
  for (const object of objects) {
    addLcov(coverage, must([COV, "export", "-format=lcov", `-instr-profile=${merged}`, object]))
  }
}

interface Room {
  lines: Share
  functions: Share
  branches: Share
}

function plus(a: Share, b: Share): Share {
  return { hit: a.hit + b.hit, all: a.all + b.all }
}

function print(coverage: Coverage, showMissed: boolean): boolean {
  const files = [...coverage]
    .map(([path, file]) => [relative(ROOT, join(ROOT, relative(ROOT, path))), file] as const)
    .filter(
      ([path]) => ROOMS.some((room) => path.startsWith(`${room}/`)) && !/\.test\.ts$|\/test\//.test(path),
    )
    .sort(([a], [b]) => (a < b ? -1 : 1))
  const none = (): Room => ({
    lines: { hit: 0, all: 0 },
    functions: { hit: 0, all: 0 },
    branches: { hit: 0, all: 0 },
  })
  const rooms = new Map(ROOMS.map((room) => [room, none()]))
  const row = (name: string, { lines, functions, branches }: Room) =>
    console.log(
      name.padEnd(36),
      percent(lines).padStart(8),
      percent(functions).padStart(10),
      percent(branches).padStart(9),
    )
  console.log("".padEnd(36), "lines".padStart(8), "functions".padStart(10), "branches".padStart(9))
  for (const [path, file] of files) {
    const room = rooms.get(ROOMS.find((name) => path.startsWith(`${name}/`))!)!
    const counted = {
      lines: share(file.lines),
      functions: share(file.functions),
      branches: share(file.branches),
    }
    for (const key of ["lines", "functions", "branches"] as const) room[key] = plus(room[key], counted[key])
    row(path, counted)
    const missed = missedLines(file)
    if (showMissed && missed !== "") console.log(`    not reached: ${missed}`)
  }
  console.log("")
  for (const [name, room] of rooms) row(name, room)
  return [...rooms.values()].every(({ lines }) => lines.hit >= GOAL * lines.all)
}

const args = process.argv.slice(2)
if (args.some((arg) => arg !== "--missed")) throw new Error(`unknown argument: ${args.join(" ")}`)
let isGood = false
try {
  const coverage: Coverage = new Map()
  const library = buildLibrary()
  const programs = runCTests()
  const shim = { URINGLOOP_SHIM: library }
  runBunTests(coverage, ["./src", "./ffi", "./test/coverage/sim_seeds.ts"], shim)
  for (const engine of ["uring", "poll", "epoll"]) {
    for (const host of ["hosted", "owned"]) {
      const env = { ...shim, URINGLOOP_ENGINE: engine, URINGLOOP_TEST_HOST: host }
      runBunTests(coverage, ["./test/conformance"], env)
    }
  }
  addShim(coverage, [library, ...programs])
  isGood = print(coverage, args.includes("--missed"))
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exit(isGood ? 0 : 1)
