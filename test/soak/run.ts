// The soak: one server process under churn, load and faults at once, for as long as one likes.
//
//   bun test/soak/run.ts                            ten minutes
//   bun test/soak/run.ts --seconds 60 --engine epoll --rate 3000 --seed 7
//   bun test/soak/run.ts --minutes 10 --record      appends the outcome to results/soak.json
//   bun test/soak/run.ts --seconds 20 --suite       for test/run.ts: the last line is `N passed, N failed`
//
// Who takes part: server.ts (three listeners and clients of its own on one reactor), two or more churn.c (peers of all kinds
// that compare each byte), and faults.ts (descriptors taken away, processes stopped and killed). Every second the server's
// memory, descriptors, operations, arena bytes, sockets and deadlines are read. In the end nothing may be lost, everything
// must be back where it was before the load, and no series may have risen by more than its bound.

import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { ReactorStats } from "../../src/index.ts"
import { Random } from "../support/random.ts"
import { Churn } from "./churn.ts"
import type { DialCounts } from "./dials.ts"
import { FaultInjector } from "./faults.ts"
import type { FromServer, ToServer } from "./messages.ts"
import { countDescriptors, openFiles, type Sample, type Slope, slopes, takeSample } from "./samples.ts"

const RESULTS = join(import.meta.dir, "../../results/soak.json")
/** Connections that the stoppable peer begins, of the whole rate. */
const SECOND_SHARE = 0.2
const COLLECT_EVERY_SECONDS = 2
/** Samples before it are warm-up: code is compiled, tables have grown to the load. */
const WARM_UP_SHARE = 0.25
const WARM_UP_MOST_SECONDS = 120
/** Shortest run that the bounds on slopes are made for; a shorter one has wider ones. */
const FULL_SECONDS = 600
/** For everything to come back to rest: a closed connection lingers for 60 s at most. */
const REST_LIMIT_MS = 120_000
/** Nothing timed decides: whoever stops the whole run for a while must not make it fail. */
const ANSWER_LIMIT_MS = 300_000
/** RLIMIT_NOFILE of the server: more than it needs, few enough to be taken away in no time. */
const DESCRIPTORS = 3_000

const SETTLE_MS = 500

interface Options {
  seconds: number
  engine: string
  rate: number
  seed: number
  isRecorded: boolean
  isSuite: boolean
}

function parse(args: string[]): Options {
  const options = { seconds: 600, engine: "uring", rate: 2500, seed: 1, isRecorded: false, isSuite: false }
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--minutes") options.seconds = 60 * Number(args[++i])
    else if (args[i] === "--seconds") options.seconds = Number(args[++i])
    else if (args[i] === "--engine") options.engine = args[++i]
    else if (args[i] === "--rate") options.rate = Number(args[++i])
    else if (args[i] === "--seed") options.seed = Number(args[++i])
    else if (args[i] === "--record") options.isRecorded = true
    else if (args[i] === "--suite") options.isSuite = true
    else throw new Error(`unknown argument ${args[i]}`)
  }
  if (!(options.seconds >= 5) || !(options.rate >= 1) || !Number.isInteger(options.seed)) {
    throw new Error("--seconds takes 5 or more, --rate 1 or more, --seed a whole number")
  }
  return options
}

/** The server process and the conversation with it. */
class Server {
  private readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">
  private readonly waiting = new Map<string, (message: FromServer) => void>()
  readonly exited: Promise<void>
  isOver = false
  output = ""

  constructor(engine: string, seed: number) {
    const command = [process.execPath, join(import.meta.dir, "server.ts")]
    const child = Bun.spawn(["prlimit", `--nofile=${DESCRIPTORS}`, ...command], {
      env: { ...process.env, URINGLOOP_ENGINE: engine, TEST_SEED: String(seed), NODE_ENV: "" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      ipc: (message: FromServer) => {
        this.waiting.get(message.say)?.(message)
        this.waiting.delete(message.say)
      },
    })
    this.child = child
    this.exited = (async () => {
      const texts = [new Response(child.stdout).text(), new Response(child.stderr).text()]
      this.output = (await Promise.all(texts)).join("")
      await child.exited
      this.isOver = true
    })()
  }

  get exitCode(): number | null {
    return this.child.exitCode
  }

  send(message: ToServer): void {
    this.child.send(message)
  }

  /** The next message of a kind. */
  async next<Kind extends FromServer["say"]>(kind: Kind): Promise<Extract<FromServer, { say: Kind }>> {
    const { promise, resolve, reject } = Promise.withResolvers<FromServer>()
    this.waiting.set(kind, resolve)
    const timer = setTimeout(() => reject(new Error(`the server does not say "${kind}"`)), ANSWER_LIMIT_MS)
    const gone = this.exited.then(() => Promise.reject(new Error(`the server is gone: ${this.output}`)))
    try {
      return (await Promise.race([promise, gone])) as Extract<FromServer, { say: Kind }>
    } finally {
      clearTimeout(timer)
    }
  }

  ask<Kind extends FromServer["say"]>(message: ToServer, kind: Kind) {
    const answer = this.next(kind)
    this.send(message)
    return answer
  }

  kill(): void {
    this.child.kill("SIGKILL")
  }
}

/** What must be the same before the load and after it. */
function atRest(pid: number, stats: ReactorStats): Record<string, number> {
  return {
    descriptors: countDescriptors(pid),
    operationsInFlight: stats.operationsInFlight,
    commandsInFlight: stats.commandsInFlight,
    descriptorsOpen: stats.descriptorsOpen,
    socketsOpen: stats.socketsOpen,
    deadlinesArmed: stats.deadlinesArmed,
    sendBytesInUse: stats.sendBytesInUse,
  }
}

function isSame(a: Record<string, number>, b: Record<string, number>): boolean {
  return Object.keys(a).every((key) => a[key] === b[key])
}

interface Outcome {
  when: string
  engine: string
  seconds: number
  seed: number
  connectionsOpened: number
  openedBy: Record<string, number>
  bytesChecked: number
  faults: number
  faultsBy: Record<string, number>
  lost: number
  /** Everything that was wrong, in words; empty when all is well. */
  troubles: string[]
  atRestBefore: Record<string, number>
  atRestAfter: Record<string, number>
  slopes: Slope[]
  /** Seconds, and anonymous memory after a full collection. */
  memory: [number, number][]
  counters: Record<string, number>
}

class Soak {
  private readonly options: Options
  private readonly server: Server
  private readonly samples: Sample[] = []
  private churns: Churn[] = []
  private pid = 0
  /** Open after the load and not before it. */
  private newFiles: string[] = []

  constructor(options: Options) {
    this.options = options
    this.server = new Server(options.engine, options.seed)
  }

  async run(): Promise<Outcome> {
    try {
      return await this.runGuarded()
    } finally {
      this.server.kill()
      for (const churn of this.churns) {
        churn.signal("SIGCONT")
        churn.signal("SIGKILL")
      }
    }
  }

  private async runGuarded(): Promise<Outcome> {
    const { options, server } = this
    const listening = await server.next("listening")
    this.pid = listening.pid
    // The first collection opens descriptors of the runtime's own, the first sleep one of the epoll engine's.
    await this.report(true)
    await Bun.sleep(SETTLE_MS)
    const first = await this.report(true)
    const before = atRest(this.pid, first.stats)
    const files = openFiles(this.pid)

    this.churns = [1 - SECOND_SHARE, SECOND_SHARE].map(
      (share, index) =>
        new Churn(listening.ports, {
          seconds: 1_000_000,
          rate: Math.ceil(options.rate * share),
          most: 1000,
          long: 40,
          seed: options.seed * 10 + index + 1,
        }),
    )
    server.send({ ask: "startDials" })
    const targets = {
      serverPid: this.pid,
      churns: this.churns,
      ports: listening.ports,
      send: (message: ToServer) => server.send(message),
    }
    const injector = new FaultInjector(targets, new Random(options.seed))
    const injecting = injector.run()
    await this.watch()
    injector.stop()
    await injecting
    await server.ask({ ask: "stopDials" }, "dialsStopped")
    for (const churn of this.churns) churn.signal("SIGTERM")
    await Promise.all(this.churns.map(({ exited }) => exited))
    const after = await this.comeToRest(before)
    this.newFiles = [...openFiles(this.pid)]
      .filter(([fd, what]) => files.get(fd) !== what)
      .map(([fd, what]) => `${fd} ${what}`)
    const closed = await server.ask({ ask: "close" }, "closed")
    await server.exited
    return this.judge(before, after, injector, closed.stats, closed.dials)
  }

  private report(collect: boolean) {
    return this.server.ask({ ask: "report", collect }, "report")
  }

  /** Samples once a second until the time is over. */
  private async watch(): Promise<void> {
    for (let second = 1; second <= this.options.seconds; second++) {
      await Bun.sleep(1_000)
      const collect = second % COLLECT_EVERY_SECONDS === 0
      const { stats, heapBytes, dials } = await this.report(collect)
      this.samples.push(takeSample(this.pid, second, stats, collect ? heapBytes : undefined))
      if (second % 10 === 0 && !this.options.isSuite) {
        const opened = this.churns.reduce((sum, { report }) => sum + (report?.opened ?? 0), 0)
        const lost = this.churns.reduce((sum, { report }) => sum + (report?.lost ?? 0), dials.lost)
        const { residentBytes, descriptors } = this.samples.at(-1)!
        console.log(
          `${String(second).padStart(5)} s  ${opened} connections, ${dials.tasks} dials, lost ${lost}; ` +
            `${(residentBytes / 1e6).toFixed(1)} MB resident, ${descriptors} descriptors, ` +
            `${stats.operationsInFlight} operations, ${(stats.sendBytesInUse / 1e6).toFixed(1)} MB to send`,
        )
      }
      if (this.churns.some(({ exitCode }) => exitCode !== null)) return // judge says why
    }
  }

  private async comeToRest(before: Record<string, number>): Promise<Record<string, number>> {
    const ends = performance.now() + REST_LIMIT_MS
    for (;;) {
      const now = atRest(this.pid, (await this.report(true)).stats)
      if (isSame(before, now) || performance.now() > ends) return now
      await Bun.sleep(200)
    }
  }

  private judge(
    before: Record<string, number>,
    after: Record<string, number>,
    injector: FaultInjector,
    last: ReactorStats,
    dials: DialCounts,
  ): Outcome {
    const { options, server, churns } = this
    const openedBy = sumOf(churns.map(({ report }) => report?.openedBy ?? {}))
    const completedBy = sumOf(churns.map(({ report }) => report?.completedBy ?? {}))
    const lost = churns.reduce((sum, { report }) => sum + (report?.lost ?? 0), 0) + dials.lost
    const warmUp = Math.min(options.seconds * WARM_UP_SHARE, WARM_UP_MOST_SECONDS)
    // A wobble of the same height is a steeper line in a shorter run.
    const found = slopes(this.samples, warmUp, Math.max(1, FULL_SECONDS / options.seconds) ** 2)
    const troubles = [
      ...churns.map(({ complaints }) => complaints),
      ...churns.map(({ exitCode, report }) =>
        exitCode === 0 && report?.over === true ? "" : `a churn ended with ${exitCode}`,
      ),
      ...injector.complaints,
      ...dials.troubles,
      server.output,
      server.exitCode === 0 ? "" : `the server ended with ${server.exitCode}`,
      isSame(before, after)
        ? ""
        : `not back at rest: ${JSON.stringify(before)} became ${JSON.stringify(after)}; new: ${this.newFiles.join(", ")}`,
      ...Object.entries(zeroAtEnd(last)).map(([name, value]) => (value === 0 ? "" : `${name} is ${value}`)),
      ...found.map(({ isOver, name, perTenMinutes, bound }) =>
        isOver
          ? `${name} rises by ${perTenMinutes.toFixed(0)} in ten minutes, bound ${bound.toFixed(0)}`
          : "",
      ),
    ].filter((text) => text !== "")
    const faultsBy = {
      resets: completedBy.reset ?? 0,
      droppedAtOnce: completedBy.drop ?? 0,
      silentPeers: completedBy.silent ?? 0,
      slowReaders: completedBy["slow reader"] ?? 0,
      slowWriters: completedBy["slow writer"] ?? 0,
      ...injector.counts,
      acceptPauses: last.acceptPauses,
      dialsWithoutDescriptor: dials.withoutDescriptor,
      readsGivenUp: dials.readsGivenUp,
      writesGivenUp: dials.writesGivenUp,
      dialsAborted: dials.dialsAborted,
      dialsTimedOut: dials.dialsTimedOut,
      dialsRefused: dials.dialsRefused,
      connectionsDestroyed: dials.connectionsDestroyed,
      operationsCancelled: dials.operationsCancelled,
    }
    return {
      when: new Date().toISOString(),
      engine: last.engine,
      seconds: options.seconds,
      seed: options.seed,
      connectionsOpened: Object.values(openedBy).reduce((sum, count) => sum + count, 0) + dials.tasks,
      openedBy,
      bytesChecked: churns.reduce((sum, { report }) => sum + (report?.bytes ?? 0), dials.bytesChecked),
      faults: Object.values(faultsBy).reduce((sum, count) => sum + count, 0),
      faultsBy,
      lost,
      troubles,
      atRestBefore: before,
      atRestAfter: after,
      slopes: found,
      memory: this.samples.flatMap(({ seconds, anonymousBytes }) =>
        anonymousBytes === undefined ? [] : [[seconds, anonymousBytes] as [number, number]],
      ),
      counters: Object.fromEntries(
        Object.entries(last).filter((entry): entry is [string, number] => typeof entry[1] === "number"),
      ),
    }
  }
}

/** Counters that must be zero when the reactor is closed. */
function zeroAtEnd(stats: ReactorStats): Record<string, number> {
  return {
    operationsInFlight: stats.operationsInFlight,
    commandsInFlight: stats.commandsInFlight,
    descriptorsOpen: stats.descriptorsOpen,
    "descriptors unaccounted for": stats.descriptorsOpened - stats.descriptorsClosed - stats.descriptorsOpen,
    socketsOpen: stats.socketsOpen,
    sendBytesInUse: stats.sendBytesInUse,
    deadlinesArmed: stats.deadlinesArmed,
    buffersLent: stats.buffersLent,
    rejected: stats.rejected,
    stale: stats.stale,
    uncaught: stats.uncaught,
    lingersExpired: stats.lingersExpired,
  }
}

function sumOf(all: Record<string, number>[]): Record<string, number> {
  const sum: Record<string, number> = {}
  for (const one of all) for (const [key, value] of Object.entries(one)) sum[key] = (sum[key] ?? 0) + value
  return sum
}

function print(outcome: Outcome): void {
  const list = (counts: Record<string, number>) =>
    Object.entries(counts)
      .map(([name, count]) => `${name} ${count}`)
      .join(", ")
  console.log(`
soak on ${outcome.engine}, ${outcome.seconds} s, seed ${outcome.seed}
connections opened  ${outcome.connectionsOpened} (${list(outcome.openedBy)})
bytes checked       ${outcome.bytesChecked}
faults injected     ${outcome.faults} (${list(outcome.faultsBy)})
lost                ${outcome.lost}
at rest             ${list(outcome.atRestAfter)}`)
  console.log("\nrise in ten minutes, by least squares ± standard error (bound), mean:")
  for (const { name, perTenMinutes, standardError, bound, isOver, mean, points } of outcome.slopes) {
    console.log(
      `${isOver ? "OVER" : "ok  "} ${name.padEnd(16)} ${perTenMinutes.toFixed(0).padStart(12)} ` +
        `± ${standardError.toFixed(0)} (${bound.toFixed(0)}), ${mean.toFixed(0)}, ${points} samples`,
    )
  }
  for (const trouble of outcome.troubles) console.log(`TROUBLE ${trouble}`)
}

function record(outcome: Outcome): void {
  let runs: Outcome[] = []
  try {
    runs = JSON.parse(readFileSync(RESULTS, "utf8")) as Outcome[]
  } catch {
    // The first run that is recorded.
  }
  runs.push(outcome)
  writeFileSync(RESULTS, `${JSON.stringify(runs, undefined, 1)}\n`)
}

const options = parse(process.argv.slice(2))
const outcome = await new Soak(options).run()
print(outcome)
if (options.isRecorded) record(outcome)
const isWell = outcome.lost === 0 && outcome.troubles.length === 0
console.log(isWell ? "1 passed, 0 failed" : "0 passed, 1 failed")
process.exit(isWell ? 0 : 1)
