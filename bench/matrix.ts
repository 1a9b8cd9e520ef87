// What is measured: the contestants, the workloads, and what is aimed at. Everything else follows from these
// tables.

export type ServerKind = "echo" | "http"

export interface Contestant {
  name: string
  title: string
  /** The command that serves a kind; run from the repository's root. */
  command(kind: ServerKind, bun: string): string[]
  env: Record<string, string>
  /** Runs on a JIT, which has to warm up before anything counts. */
  hasJit: boolean
  /** The comparison rests on it: it runs in every repetition. The others run in every third. */
  isCore: boolean
  /** Part of the default matrix. */
  byDefault: boolean
}

const typescript = (kind: ServerKind, bun: string) => [bun, `bench/servers/${kind}.ts`]

function uringloop(engine: string, host: string): Pick<Contestant, "command" | "env" | "hasJit"> {
  return {
    command: typescript,
    env: { CONTESTANT: "uringloop", URINGLOOP_ENGINE: engine, URINGLOOP_HOST: host },
    hasJit: true,
  }
}

function limit(binary: string): Pick<Contestant, "command" | "env" | "hasJit"> {
  return { command: (kind) => [`bench/build/${binary}`, kind], env: {}, hasJit: false }
}

/** The contestant that all others are divided by. */
export const BASELINE = "bun"
/** The contestant that the targets are about, and the limit it is held against. */
export const PRODUCT = "uring"
export const LIMIT = "c-uring"

export const CONTESTANTS: readonly Contestant[] = [
  {
    name: "bun",
    title: "Bun.listen",
    command: typescript,
    env: { CONTESTANT: "bun" },
    hasJit: true,
    isCore: true,
    byDefault: true,
  },
  { name: "uring", title: "uringloop uring", ...uringloop("uring", "hosted"), isCore: true, byDefault: true },
  { name: "poll", title: "uringloop poll", ...uringloop("poll", "hosted"), isCore: false, byDefault: true },
  {
    name: "epoll",
    title: "uringloop epoll",
    ...uringloop("epoll", "hosted"),
    isCore: false,
    byDefault: true,
  },
  { name: "c-uring", title: "C io_uring", ...limit("uring_echo"), isCore: true, byDefault: true },
  { name: "c-epoll", title: "C epoll", ...limit("epoll_echo"), isCore: false, byDefault: true },
  {
    name: "uring-plain",
    title: "uringloop uring, no gathering",
    command: typescript,
    env: { ...uringloop("uring", "hosted").env, DISABLE: "min_wait" },
    hasJit: true,
    isCore: true,
    byDefault: false,
  },
  {
    name: "uring-owned",
    title: "uringloop uring, owned thread",
    ...uringloop("uring", "owned"),
    isCore: false,
    byDefault: false,
  },
]

export interface Row {
  name: string
  title: string
  server: ServerKind
  /** For loadgen. */
  load: string[]
  /** Least ratio aimed at: Bun's CPU per request over uringloop's. */
  target?: number
  byDefault: boolean
}

const connections = (count: number) => ["--connections", String(count)]

export const ROWS: readonly Row[] = [
  row("echo-1", "echo 64 B × 1", connections(1), 1.1),
  row("echo-50", "echo 64 B × 50", connections(50), 1.15),
  row("echo-1000", "echo 64 B × 1000", connections(1000), 1.2),
  row("echo-50x16", "echo 64 B × 50, 16 deep", [...connections(50), "--depth", "16"], 1.2),
  row("echo-16k", "echo 16 KB × 50", [...connections(50), "--size", "16384"]),
  row("short", "short connections × 50", [...connections(50), "--mode", "short"], 1.1),
  { ...row("http-50", "HTTP fixed reply × 50", [...connections(50), "--kind", "http"]), server: "http" },
  open("open-50", 50_000),
  open("open-100", 100_000),
  open("open-120", 120_000),
]

function row(name: string, title: string, load: string[], target?: number): Row {
  const always = { name, title, load, server: "echo" as const, byDefault: true }
  return target === undefined ? always : { ...always, target }
}

function open(name: string, rate: number): Row {
  const title = `echo 64 B × 50, ${rate.toLocaleString("en")} a second`
  const load = [...connections(50), "--mode", "open", "--rate", String(rate)]
  return { ...row(name, title, load), byDefault: false }
}

/** The row whose system calls are counted. */
export const SYSTEM_CALLS_ROW = "echo-50"
export const TARGETS = {
  systemCallsPerRequest: 0.2,
  timesLimit: 1.1,
  baseMemoryOverBunBytes: 24 * 2 ** 20,
  idleConnectionBytes: 500,
} as const

/** Picks by name, in the order of the table. Throws a RangeError that names the option and what is allowed. */
export function pick<T extends { name: string; byDefault: boolean }>(
  option: string,
  names: readonly string[] | undefined,
  table: readonly T[],
): T[] {
  if (names === undefined) return table.filter((item) => item.byDefault)
  for (const name of names) {
    if (table.some((item) => item.name === name)) continue
    const allowed = table.map((item) => item.name).join(", ")
    throw new RangeError(`--${option} ${name}: must be one of ${allowed}`)
  }
  return table.filter((item) => names.includes(item.name))
}
