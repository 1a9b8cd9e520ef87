// Runs all suites of the project, each in a process of its own, and sums them up.
//
//   bun test/run.ts                       everything
//   bun test/run.ts unit uring/hosted     suites whose name has one of these as whole parts
//   bun test/run.ts --jobs 2              two suites at a time (default 1: timing tests share no CPU)
//   bun test/run.ts --list                the names alone
//
// Suites: `shim` builds the library, `c` runs liburing-shim/test, `unit` the *.test.ts beside the code,
// `conformance/ENGINE/HOST` the same tests on every engine and host, `sim` 10,000 seeds on the simulated kernel,
// counted by the thousand, `soak` twenty seconds of test/soak, `trouble/ENGINE` peers, processes and networks that fail in
// earnest, `system` the tests that start processes. A folder without tests has no suite. A suite that crashes, runs
// nothing, or is over its time counts as one failed. The last line is `N passed, N failed`; exit status 1 when anything failed.

import { join } from "node:path"
import { Glob } from "bun"

interface Suite {
  name: string
  command: string[]
  env?: Record<string, string>
  limitSeconds: number
  /** Reads what the suite did from what it printed. */
  count: (output: string) => Count
  /** A build step has nothing to count: it is fine when it ends with 0. */
  isBuild?: boolean
}

interface Count {
  passed: number
  failed: number
  skipped: number
}

interface Result extends Count {
  suite: Suite
  output: string
  seconds: number
  /** Why the suite as a whole failed, or "". */
  trouble: string
}

const ROOT = join(import.meta.dir, "..")
const BUN = process.execPath
const ENGINES = ["uring", "poll", "epoll"]
const HOSTS = ["hosted", "owned"]
const UNIT_FOLDERS = [
  "src",
  "ffi",
  "cli",
  "bench",
  "test/check",
  "test/soak",
  "test/mutation",
  "test/coverage",
]

/** The suites that have something to run, in the order in which they run. */
function findSuites(): Suite[] {
  const suites: Suite[] = []
  if (filesIn("liburing-shim", "*.c").length > 0) {
    suites.push({
      name: "shim",
      command: ["make", "--no-print-directory", "-C", "liburing-shim"],
      limitSeconds: 120,
      count: countNothing,
      isBuild: true,
    })
  }
  if (filesIn("liburing-shim/test", "*.c").length > 0) {
    suites.push({
      name: "c",
      command: ["make", "--no-print-directory", "-C", "liburing-shim", "ctest"],
      limitSeconds: 300,
      count: countTap,
    })
  }
  suites.push(...bunSuite("unit", UNIT_FOLDERS, 180))
  for (const engine of ENGINES) {
    for (const host of HOSTS) {
      const env = { URINGLOOP_ENGINE: engine, URINGLOOP_TEST_HOST: host }
      suites.push(...bunSuite(`conformance/${engine}/${host}`, ["test/conformance"], 300, env))
    }
  }
  if (filesIn("test/sim", "run.ts").length > 0) {
    suites.push({
      name: "sim",
      command: [BUN, "test/sim/run.ts", "--seeds", "1..10000"],
      limitSeconds: 120,
      count: countTotals,
    })
  }
  if (filesIn("test/soak", "run.ts").length > 0) {
    suites.push({
      name: "soak",
      command: [BUN, "test/soak/run.ts", "--seconds", "20", "--suite"],
      // Closing what peers have left takes its time; nothing in it decides by time.
      limitSeconds: 400,
      count: countTotals,
    })
  }
  for (const engine of ["uring", "epoll"]) {
    const env = { URINGLOOP_ENGINE: engine }
    suites.push(...bunSuite(`trouble/${engine}`, ["test/trouble"], 300, env, 60))
  }
  suites.push(...bunSuite("system", ["test/system"], 300, {}, 60))
  return suites
}

/** A suite of the *.test.ts in some folders, or none when there are none. */
function bunSuite(
  name: string,
  folders: string[],
  limitSeconds: number,
  env: Record<string, string> = {},
  testSeconds = 15,
): Suite[] {
  const files = folders.flatMap((folder) =>
    filesIn(folder, "**/*.test.ts").map((file) => `./${folder}/${file}`),
  )
  if (files.length === 0) return []
  const command = [BUN, "test", "--timeout", String(testSeconds * 1000), ...files]
  return [{ name, command, env, limitSeconds, count: countBunTest }]
}

function filesIn(folder: string, pattern: string): string[] {
  try {
    return [...new Glob(pattern).scanSync({ cwd: join(ROOT, folder), onlyFiles: true })].sort()
  } catch {
    return [] // the folder is not there
  }
}

/** `uring/hosted` picks conformance/uring/hosted; `c` picks c and not conformance. */
function isPicked(name: string, filters: string[]): boolean {
  return filters.length === 0 || filters.some((filter) => `/${name}/`.includes(`/${filter}/`))
}

async function runSuite(suite: Suite): Promise<Result> {
  const started = performance.now()
  // timeout(1) leads a process group of its own and ends all of it, grandchildren too.
  const child = Bun.spawn(["timeout", "-k", "5", String(suite.limitSeconds), ...suite.command], {
    cwd: ROOT,
    env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined, AGENT: undefined, ...suite.env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  })
  running.add(child)
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  running.delete(child)
  const output = stdout + stderr
  const count = suite.count(output)
  const trouble = troubleOf(suite, count, exitCode)
  if (trouble !== "" && count.failed === 0) count.failed = 1
  return { suite, output, trouble, seconds: (performance.now() - started) / 1000, ...count }
}

const running = new Set<Bun.Subprocess>()
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    for (const child of running) child.kill("SIGTERM")
    process.exit(130)
  })
}

function troubleOf(suite: Suite, count: Count, exitCode: number): string {
  if (exitCode === 124 || exitCode === 137) return `over its ${suite.limitSeconds} s, or killed`
  if (exitCode !== 0 && count.failed === 0) return `exit status ${exitCode}`
  if (!suite.isBuild && count.passed + count.failed === 0) return "ran no test"
  return ""
}

function countNothing(): Count {
  return { passed: 0, failed: 0, skipped: 0 }
}

function countTap(output: string): Count {
  const count = (pattern: RegExp) => output.match(pattern)?.length ?? 0
  return { passed: count(/^ok /gm), failed: count(/^not ok /gm), skipped: 0 }
}

/** The last line of a runner of our own: `N passed, N failed`. */
function countTotals(output: string): Count {
  const found = [...output.matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1)
  return { passed: Number(found?.[1] ?? 0), failed: Number(found?.[2] ?? 0), skipped: 0 }
}

/** Bun's summary is the last thing it prints; a test may print the like before, so the last match counts. */
function countBunTest(output: string): Count {
  const summary = (word: string) => {
    const found = [...output.matchAll(new RegExp(`^ *(\\d+) ${word}$`, "gm"))].at(-1)
    return found === undefined ? 0 : Number(found[1])
  }
  return {
    passed: summary("pass"),
    failed: Math.max(summary("fail"), summary("errors?")),
    skipped: summary("skip") + summary("todo"),
  }
}

function report(result: Result): void {
  const { suite, passed, failed, skipped, seconds, trouble } = result
  const counts = suite.isBuild && failed === 0 ? "built" : `${passed} passed, ${failed} failed`
  const notes = [skipped > 0 ? `${skipped} skipped` : "", trouble].filter(Boolean).join("; ")
  const line = `${failed > 0 ? "FAIL" : "ok  "} ${suite.name.padEnd(26)} ${counts}${notes && ` (${notes})`}`
  console.log(`${line.padEnd(64)} ${seconds.toFixed(1)} s`)
  if (failed > 0) {
    console.log(`---- output of ${suite.name} ----`)
    console.log(result.output.replace(/^(\(pass\)|ok ).*\n/gm, "").trimEnd())
    console.log(`---- end of ${suite.name} ----`)
  }
}

async function runAll(suites: Suite[], jobs: number): Promise<Result[]> {
  const results: Result[] = []
  const queue = [...suites]
  const worker = async () => {
    for (let suite = queue.shift(); suite !== undefined; suite = queue.shift()) {
      const result = await runSuite(suite)
      report(result)
      results.push(result)
    }
  }
  // Builds come first and alone: what follows uses what they make.
  while (queue[0]?.isBuild) {
    const result = await runSuite(queue.shift()!)
    report(result)
    results.push(result)
  }
  await Promise.all(Array.from({ length: jobs }, worker))
  return results
}

async function main(args: string[]): Promise<number> {
  const filters: string[] = []
  let jobs = 1
  let onlyList = false
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--jobs") jobs = Number(args[++i])
    else if (args[i] === "--list") onlyList = true
    else filters.push(args[i]!)
  }
  if (!Number.isInteger(jobs) || jobs < 1) throw new Error("--jobs takes a whole number, 1 or more")

  const all = findSuites()
  if (onlyList) {
    for (const suite of all) console.log(suite.name)
    return 0
  }
  // The library is always built anew if need be: every other suite may load it.
  const suites = all.filter((suite) => suite.isBuild || isPicked(suite.name, filters))
  const results = await runAll(suites, jobs)
  const passed = results.reduce((sum, result) => sum + result.passed, 0)
  let failed = results.reduce((sum, result) => sum + result.failed, 0)
  if (passed + failed === 0) {
    console.log(`no suite ran. There are: ${all.map((suite) => suite.name).join(" ") || "none"}`)
    failed = 1
  }
  console.log(`${passed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

process.exit(await main(process.argv.slice(2)))
