// What the figures depend on besides the code: read once, printed, and stored beside them.

import { readFileSync } from "node:fs"
import { cpus, release, totalmem } from "node:os"
import { join } from "node:path"
import { run } from "./load.ts"
import { ROOT } from "./server_process.ts"

export interface Environment {
  date: string
  kernel: string
  cpu: string
  cores: number
  memoryBytes: number
  bun: string
  uringloop: string
  liburing: string
  /** Nanoseconds of the cheapest system call: how fast this machine enters its kernel. */
  nullSystemCallNs: number | undefined
  settings: Record<string, string>
  /** What both sides do alike, or do not. */
  conditions: Record<string, string>
}

const SETTINGS = [
  "net/core/somaxconn",
  "net/ipv4/tcp_congestion_control",
  "net/ipv4/tcp_rmem",
  "net/ipv4/tcp_tw_reuse",
  "kernel/io_uring_disabled",
  "kernel/perf_event_paranoid",
]

const CONDITIONS = {
  backlog: "Bun 512 (fixed), uringloop 4096, C 4096",
  TCP_NODELAY: "on, everywhere",
  "receive buffer": "Bun 512 KiB, uringloop and C io_uring: provided buffers, C epoll 256 KiB",
  server:
    "core 0, a fresh process and port per contestant and repetition, warm for 0.5 s each at messages and at short connections",
  client: "core 1, bench/loadgen, never sleeping (--spin), at least one check of every chunk received",
}

export async function readEnvironment(): Promise<Environment> {
  const manifest = (await Bun.file(join(ROOT, "package.json")).json()) as { version: string }
  return {
    date: new Date().toISOString(),
    kernel: release(),
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryBytes: totalmem(),
    bun: Bun.version,
    uringloop: manifest.version,
    liburing: await liburingVersion(),
    nullSystemCallNs: await nullSystemCall(),
    settings: {
      ...Object.fromEntries(SETTINGS.map((name) => [name.replaceAll("/", "."), sysctl(name)])),
      mitigations: bootSetting("mitigations") ?? "kernel's default",
    },
    conditions: CONDITIONS,
  }
}

function sysctl(name: string): string {
  return textOf(`/proc/sys/${name}`)?.trim().replaceAll("\t", " ") ?? "not on this kernel"
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}

/** A setting of the kernel's command line; the rest of that line is this machine's business. */
function bootSetting(name: string): string | undefined {
  return textOf("/proc/cmdline")
    ?.split(/\s+/)
    .find((word) => word.startsWith(`${name}=`))
    ?.slice(name.length + 1)
}

/** Of the headers and the static library that the C limits and the shim are built with. */
async function liburingVersion(): Promise<string> {
  const { status, output } = await run(["pkg-config", "--modversion", "liburing"]).catch(nothing)
  if (status === 0) return output.trim()
  const packaged = await run(["dpkg-query", "--status", "liburing-dev"]).catch(nothing)
  return /^Version: (.*)$/m.exec(packaged.output)?.[1] ?? "unknown"
}

const nothing = () => ({ status: 1, output: "", complaint: "" })

async function nullSystemCall(): Promise<number | undefined> {
  const { output } = await run([
    "perf",
    "bench",
    "--format",
    "simple",
    "syscall",
    "basic",
    "--loop",
    "1000000",
  ]).catch(nothing)
  const seconds = Number(output.trim())
  return seconds > 0 ? seconds * 1000 : undefined
}
