// Mutations: a small wrong change at a time in a copy of the tree, and whether the tests notice.
//
//   bun test/mutation/run.ts --count 100 --seed 1            which 100 of all that there are is drawn from the seed
//   ... --path src/reactor/slots.ts                          of this file alone (again: of several)
//   ... --skip 40                                            goes on where a run was stopped
//   ... --record                                             appends the outcome to results/mutation.json
//
// Against each mutation run, until one fails: the unit tests of the reactor and net, 300 seeds of the simulation, and
// conformance on uring, owned and hosted. A survivor is printed with its change. equivalents.json lists, with the reason, those
// that change nothing that anybody could see. Exit status 1 when there are others.

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Random } from "../support/random.ts"
import { findMutations, type Mutation } from "./sites.ts"

const ROOT = join(import.meta.dir, "../..")
const RESULTS = join(ROOT, "results/mutation.json")
const EQUIVALENTS = join(import.meta.dir, "equivalents.json")

/** The core: what moves every byte. */
const CORE = [
  ...["core", "hosted", "slots", "arena", "deadlines", "operations"].map((name) => `src/reactor/${name}.ts`),
  ...["connection_core", "outgoing", "listener", "dial"].map((name) => `src/net/${name}.ts`),
]

interface Stage {
  name: string
  command: string[]
  env?: Record<string, string>
  limitSeconds: number
}

const BUN = process.execPath
/** Without the longest, which is about memory, not about what is done. */
const CONFORMANCE = readdirSync(join(ROOT, "test/conformance"))
  .filter((name) => name.endsWith(".test.ts") && name !== "churn.test.ts")
  .map((name) => `./test/conformance/${name}`)
const conformance = (host: string): Stage => ({
  name: `conformance ${host}`,
  command: [BUN, "test", "--bail", "--timeout", "15000", ...CONFORMANCE],
  env: { URINGLOOP_ENGINE: "uring", URINGLOOP_TEST_HOST: host },
  limitSeconds: 150,
})
const STAGES: Stage[] = [
  {
    name: "unit",
    command: [BUN, "test", "--bail", "--timeout", "10000", "./src/reactor", "./src/net"],
    limitSeconds: 40,
  },
  { name: "sim", command: [BUN, "test/sim/run.ts", "--seeds", "1..300"], limitSeconds: 60 },
  conformance("owned"),
  conformance("hosted"),
]

interface Equivalent {
  path: string
  /** The line as it is, without its indentation. */
  line: string
  from: string
  to: string
  reason: string
}

interface Verdict {
  mutation: Mutation
  /** The stage that noticed, or undefined. */
  killedBy: string | undefined
  equivalent: string | undefined
}

interface Options {
  count: number
  seed: number
  paths: string[]
  /** Of those drawn, so many were tried before. */
  skip: number
  isRecorded: boolean
}

function parse(args: string[]): Options {
  const options: Options = { count: 100, seed: 1, paths: [], skip: 0, isRecorded: false }
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--count") options.count = Number(args[++i])
    else if (args[i] === "--seed") options.seed = Number(args[++i])
    else if (args[i] === "--path") options.paths.push(args[++i])
    else if (args[i] === "--skip") options.skip = Number(args[++i])
    else if (args[i] === "--record") options.isRecorded = true
    else throw new Error(`unknown argument ${args[i]}`)
  }
  if (!(options.count >= 1) || !Number.isInteger(options.seed)) {
    throw new Error("--count takes 1 or more, --seed a whole number")
  }
  return options
}

/** Draws mutations: files in turn, so that a long one does not take all. */
function draw(all: Mutation[], count: number, random: Random): Mutation[] {
  const byPath = new Map<string, Mutation[]>()
  for (const mutation of all) {
    const list = byPath.get(mutation.path) ?? []
    list.push(mutation)
    byPath.set(mutation.path, list)
  }
  const lists = [...byPath.values()]
  const drawn: Mutation[] = []
  while (drawn.length < count && lists.some((list) => list.length > 0)) {
    for (const list of lists) {
      if (list.length > 0 && drawn.length < count)
        drawn.push(...list.splice(random.integer(0, list.length - 1), 1))
    }
  }
  return drawn
}

/** A copy of what the stages need. */
function copyTree(): string {
  const folder = mkdtempSync(join(tmpdir(), "uringloop-mutation-"))
  for (const part of ["src", "ffi", "cli", "test", "liburing-shim", "package.json", "tsconfig.json"]) {
    cpSync(join(ROOT, part), join(folder, part), { recursive: true })
  }
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"))
  return folder
}

/** Whether a stage is passed. One that is over its time is tried once more: the machine may have been busy. */
async function passes(stage: Stage, folder: string): Promise<boolean> {
  for (let attempt = 0; attempt < 2; attempt++) {
    const child = Bun.spawn(["timeout", "-k", "5", String(stage.limitSeconds), ...stage.command], {
      cwd: folder,
      env: { ...process.env, NO_COLOR: "1", ...stage.env },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    })
    const status = await child.exited
    if (status === 0) return true
    if (status !== 124 && status !== 137) return false
  }
  return false
}

/** The first stage that notices. */
async function killerOf(folder: string): Promise<string | undefined> {
  for (const stage of STAGES) if (!(await passes(stage, folder))) return stage.name
  return undefined
}

function lineOf({ path, line }: Mutation): string {
  return readFileSync(join(ROOT, path), "utf8").split("\n")[line - 1].trim()
}

function describe(mutation: Mutation): string {
  const flat = (text: string) => text.replaceAll(/\s+/g, " ")
  return `${mutation.path}:${mutation.line}: ${flat(mutation.from)} -> ${flat(mutation.to) || "(nothing)"}\n       ${lineOf(mutation)}`
}

function equivalence(mutation: Mutation, equivalents: Equivalent[]): string | undefined {
  return equivalents.find(
    ({ path, line, from, to }) =>
      path === mutation.path && line === lineOf(mutation) && from === mutation.from && to === mutation.to,
  )?.reason
}

async function main(options: Options): Promise<number> {
  const equivalents = JSON.parse(readFileSync(EQUIVALENTS, "utf8")) as Equivalent[]
  const all = await findMutations(ROOT, options.paths.length > 0 ? options.paths : CORE)
  const drawn = draw(all, options.count, new Random(options.seed))
  console.log(`${all.length} mutations are possible, ${drawn.length} drawn with seed ${options.seed}`)
  const folder = copyTree()
  const verdicts: Verdict[] = []
  try {
    const broken = await killerOf(folder)
    if (broken !== undefined) throw new Error(`without any mutation ${broken} fails`)
    for (const [index, mutation] of drawn.entries()) {
      if (index < options.skip) continue
      const file = join(folder, mutation.path)
      const text = readFileSync(join(ROOT, mutation.path), "utf8")
      writeFileSync(file, text.slice(0, mutation.start) + mutation.to + text.slice(mutation.end))
      const killedBy = await killerOf(folder)
      writeFileSync(file, text)
      const equivalent = killedBy === undefined ? equivalence(mutation, equivalents) : undefined
      verdicts.push({ mutation, killedBy, equivalent })
      const what = killedBy ?? (equivalent === undefined ? "SURVIVED" : `equivalent (${equivalent})`)
      console.log(`${String(index + 1).padStart(4)} ${what.padEnd(18)} ${describe(mutation)}`)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return report(options, verdicts)
}

function report(options: Options, verdicts: Verdict[]): number {
  const survivors = verdicts.filter(
    ({ killedBy, equivalent }) => killedBy === undefined && equivalent === undefined,
  )
  const equivalent = verdicts.filter(({ equivalent }) => equivalent !== undefined).length
  const by = Object.fromEntries(
    STAGES.map(({ name }) => [name, verdicts.filter(({ killedBy }) => killedBy === name).length]),
  )
  const killed = verdicts.length - survivors.length - equivalent
  console.log(
    `\n${verdicts.length} mutations: ${killed} killed (${Object.entries(by)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ")}), ${equivalent} equivalent, ${survivors.length} survived`,
  )
  for (const { mutation } of survivors) console.log(`SURVIVED ${describe(mutation)}`)
  if (options.isRecorded) {
    let runs: unknown[] = []
    try {
      runs = JSON.parse(readFileSync(RESULTS, "utf8")) as unknown[]
    } catch {
      // The first run that is recorded.
    }
    runs.push({
      when: new Date().toISOString(),
      seed: options.seed,
      skipped: options.skip,
      count: verdicts.length,
      killed,
      killedBy: by,
      equivalent,
      survived: survivors.map(({ mutation }) => ({
        path: mutation.path,
        line: lineOf(mutation),
        from: mutation.from,
        to: mutation.to,
      })),
    })
    writeFileSync(RESULTS, `${JSON.stringify(runs, undefined, 1)}\n`)
  }
  return survivors.length === 0 ? 0 : 1
}

process.exit(await main(parse(process.argv.slice(2))))
