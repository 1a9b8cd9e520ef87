// The benchmark: `make bench`, or `bun bench/run.ts --help`.
//
// Repetitions, each with every core contestant once, in a shuffled order; the others join every third. A contestant
// that cannot run here is left out with its reason. Writes latest.json and index.html, prints the tables.

import { mkdir } from "node:fs/promises"
import { join, resolve } from "node:path"
import { analyse, type Measured } from "./analysis.ts"
import { readEnvironment } from "./environment.ts"
import { LoadFailure } from "./load.ts"
import { BASELINE, type Contestant, LIMIT, PRODUCT } from "./matrix.ts"
import { measureContestant, measureIdle, measureSystemCalls } from "./measure.ts"
import { type Options, parseOptions, USAGE } from "./options.ts"
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
  const contestants = await takeOnce(options.contestants, measured)
  measured.contestants = contestants.map(({ name, title }) => ({ name, title }))
  await repeat(options, contestants, measured, random, start)
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

/** What is measured once: system calls, memory, idle CPU. Tells at the same time who can run at all. */
async function takeOnce(contestants: Contestant[], measured: Measured): Promise<Contestant[]> {
  const able: Contestant[] = []
  for (const contestant of contestants) {
    say(
      `${contestant.title}: system calls${IDLE_CONTESTANTS.includes(contestant.name) ? ", memory, idling" : ""}`,
    )
    try {
      const calls = await measureSystemCalls(contestant)
      if (calls !== undefined) measured.systemCallsPerRequest[contestant.name] = calls
      if (IDLE_CONTESTANTS.includes(contestant.name)) {
        measured.idle[contestant.name] = await measureIdle(contestant)
      }
      able.push(contestant)
    } catch (error) {
      leaveOut(contestant, error, measured)
    }
  }
  return able
}

/** A contestant that fails is left out from here on; a mistake of the benchmark's own is not caught. */
function leaveOut({ name, title }: Contestant, error: unknown, measured: Measured): void {
  if (!(error instanceof ServerFailure || error instanceof LoadFailure)) throw error
  measured.unavailable[name] = error.message
  say(`${title} is left out: ${error.message}`)
}

async function repeat(
  options: Options,
  contestants: Contestant[],
  measured: Measured,
  random: Random,
  start: number,
): Promise<void> {
  const cost = new Map<string, number>()
  for (let repetition = 0; repetition < options.repetitions; repetition++) {
    const taking = contestants.filter(
      ({ name, isCore }) => !(name in measured.unavailable) && (isCore || repetition % SIDE_EVERY === 0),
    )
    const expected = taking.reduce((sum, { name }) => sum + (cost.get(name) ?? 0), 0)
    if (secondsSince(start) + expected > options.budgetSeconds) break
    for (const contestant of shuffled(taking, random)) {
      const begun = performance.now()
      try {
        const { seconds, rows } = options
        measured.runs.push(...(await measureContestant(contestant, rows, repetition, seconds, random)))
      } catch (error) {
        leaveOut(contestant, error, measured)
      }
      cost.set(contestant.name, secondsSince(begun))
    }
    say(
      `repetition ${repetition + 1} of at most ${options.repetitions}, ${Math.round(secondsSince(start))} s`,
    )
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
