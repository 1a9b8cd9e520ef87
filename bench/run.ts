// The benchmark: `make bench`, or `bun bench/run.ts --help`.
//
// Memory and idle CPU first; then repetitions, each with every core contestant; the others join every third. A
// contestant that cannot run here is left out with its reason. Writes latest.json and index.html, prints the tables.

import { mkdir } from "node:fs/promises"
import { join, resolve } from "node:path"
import { analyse, type Measured } from "./analysis.ts"
import { readEnvironment } from "./environment.ts"
import { measureIdle } from "./idle.ts"
import { LoadFailure } from "./load.ts"
import { BASELINE, type Contestant, LIMIT, PRODUCT, ROWS, SYSTEM_CALLS_ROW } from "./matrix.ts"
import { type Options, parseOptions, USAGE } from "./options.ts"
import { countSystemCalls, type LeaveOut, measureRows, withServers } from "./repetition.ts"
import { reportPage } from "./report_page.ts"
import { reportText } from "./report_text.ts"
import { ROOT, ServerFailure, stopAllServers } from "./server_process.ts"
import { type Random, seededRandom, shuffled } from "./statistics.ts"

const EXIT_FAILED = 1
const EXIT_USAGE = 2
const EXIT_INTERRUPTED = 130
/** Those that the main comparison does not rest on run in every third repetition. */
const SIDE_EVERY = 3
/** Contestants whose memory and idle CPU are taken. */
const IDLE_CONTESTANTS = [BASELINE, PRODUCT, LIMIT]
const SYSTEM_CALLS_KIND = ROWS.find(({ name }) => name === SYSTEM_CALLS_ROW)!.server

const say = (text: string) => process.stderr.write(`${text}\n`)
const secondsSince = (start: number) => (performance.now() - start) / 1000

async function bench(options: Options): Promise<number> {
  const start = performance.now()
  const random = seededRandom(options.seed)
  const measured: Measured = {
    seed: options.seed,
    seconds: options.seconds,
    wallSeconds: 0,
    environment: await readEnvironment(),
    contestants: options.contestants.map(({ name, title }) => ({ name, title })),
    rows: options.rows.map(({ name, title, target }) => ({
      name,
      title,
      ...(target === undefined ? {} : { target }),
    })),
    unavailable: {},
    runs: [],
    systemCallsPerRequest: {},
    idle: {},
  }
  say(`seed ${options.seed}`)
  await takeIdle(options.contestants, measured)
  await repeat(options, measured, random, start)
  const hasRun = ({ name }: { name: string }) => measured.runs.some(({ contestant }) => contestant === name)
  measured.contestants = measured.contestants.filter(hasRun)
  measured.wallSeconds = secondsSince(start)

  const report = analyse(measured)
  const folder = resolve(ROOT, options.out)
  await mkdir(folder, { recursive: true })
  await Bun.write(join(folder, "latest.json"), `${JSON.stringify(report, undefined, 1)}\n`)
  await Bun.write(join(folder, "index.html"), reportPage(report))
  console.log(reportText(report))
  say(`written: ${join(options.out, "latest.json")}, ${join(options.out, "index.html")}`)
  return measured.runs.length > 0 ? 0 : EXIT_FAILED
}

async function takeIdle(contestants: Contestant[], measured: Measured): Promise<void> {
  for (const contestant of contestants) {
    if (!IDLE_CONTESTANTS.includes(contestant.name)) continue
    say(`${contestant.title}: memory, idling`)
    try {
      measured.idle[contestant.name] = await measureIdle(contestant)
    } catch (error) {
      leaveOut(contestant, error, measured)
    }
  }
}

/** A contestant that fails is left out from here on; a mistake of the benchmark's own is not caught. */
function leaveOut({ name, title }: Contestant, error: unknown, measured: Measured): void {
  if (!(error instanceof ServerFailure || error instanceof LoadFailure)) throw error
  measured.unavailable[name] = error.message
  say(`${title} is left out: ${error.message}`)
}

async function repeat(options: Options, measured: Measured, random: Random, start: number): Promise<void> {
  /** Seconds that a repetition took, by the number of those that took part. */
  const cost = new Map<number, number>()
  for (let repetition = 0; repetition < options.repetitions; repetition++) {
    const taking = options.contestants.filter(
      ({ name, isCore }) => !(name in measured.unavailable) && (isCore || repetition % SIDE_EVERY === 0),
    )
    const expected = cost.get(taking.length) ?? Math.max(0, ...cost.values())
    if (secondsSince(start) + expected > options.budgetSeconds) break
    const begun = performance.now()
    await repeatOnce(options, taking, repetition, measured, random)
    cost.set(taking.length, secondsSince(begun))
    say(
      `repetition ${repetition + 1} of at most ${options.repetitions}, ${Math.round(secondsSince(start))} s`,
    )
  }
}

/** System calls are counted in the first, where the servers are warm anyway. */
async function repeatOnce(
  { rows, seconds }: Options,
  contestants: Contestant[],
  repetition: number,
  measured: Measured,
  random: Random,
): Promise<void> {
  const fail: LeaveOut = (contestant, error) => leaveOut(contestant, error, measured)
  for (const kind of shuffled([...new Set(rows.map(({ server }) => server))], random)) {
    const taking = contestants.filter(({ name }) => !(name in measured.unavailable))
    await withServers(shuffled(taking, random), kind, fail, async (servers) => {
      if (repetition === 0 && kind === SYSTEM_CALLS_KIND) {
        measured.systemCallsPerRequest = await countSystemCalls(servers, fail)
      }
      const ofKind = rows.filter(({ server }) => server === kind)
      measured.runs.push(...(await measureRows(servers, ofKind, repetition, seconds, random, fail)))
    })
  }
}

function onSignal(): void {
  stopAllServers()
  process.exit(EXIT_INTERRUPTED)
}

async function main(): Promise<number> {
  let options: Options | undefined
  try {
    options = parseOptions(process.argv.slice(2))
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof TypeError)) throw error
    say(`${error.message}\n(--help lists the options)`)
    return EXIT_USAGE
  }
  if (options === undefined) {
    process.stdout.write(USAGE)
    return 0
  }
  return bench(options)
}

process.on("SIGINT", onSignal)
process.on("SIGTERM", onSignal)
process.on("exit", stopAllServers)
process.exitCode = await main()
