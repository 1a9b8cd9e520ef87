/**
 * `uringloop doctor`: what this kernel and this process allow, and which engine `auto` takes. The features come from the
 * shim's probe; the engines are opened for real, because that is what a program will do. A machine without io_uring is
 * a report and no error: exit status 1 only when there is nothing to report with.
 */
import { readFileSync } from "node:fs"
import { loadShim, shimPath } from "../ffi/bun.ts"
import { type Native, ShimError } from "../ffi/native.ts"
import { errnoName } from "../src/errors.ts"
import {
  automaticEngine,
  type Capabilities,
  describeCapabilities,
  type EngineChoice,
  parseCapabilities,
  readCircumstances,
} from "../src/reactor/capabilities.ts"
import { type EngineName, reasonOf, setEngine, settle } from "../src/reactor/options.ts"
import { version } from "./version.ts"

/** What `--json` prints. docs/doctor.md is its reference: names stay, new ones may come. */
export interface Report {
  uringloop: string
  runtime: { name: "bun"; version: string }
  shim: { path: string; abi: number }
  auto: EngineChoice
  engines: Trial[]
  /** `URINGLOOP_ENGINE`, which goes before `auto`; null when it is not set. */
  environment_engine: string | null
  network: { somaxconn: number | null; tcp_congestion_control: string | null }
  capabilities: Capabilities
}

/** An engine, opened and closed again. */
interface Trial {
  name: EngineName
  ok: boolean
  /** Why it cannot be opened; "" when it can. */
  reason: string
}

/** Fewer descriptors than this, and a server meets the limit before it meets load. */
const FEW_DESCRIPTORS = 4096

/** Returns the exit status. */
export function doctor(asJson: boolean): number {
  let native: Native
  try {
    native = loadShim()
  } catch (error) {
    if (!(error instanceof ShimError)) throw error
    if (asJson) console.log(JSON.stringify({ uringloop: version, error: error.message }))
    else console.error(`uringloop doctor: ${error.message}`)
    return 1
  }
  const report = examine(native)
  process.stdout.write(asJson ? `${JSON.stringify(report, null, 2)}\n` : describe(report))
  return 0
}

function examine(native: Native): Report {
  const capabilities = parseCapabilities(native.probe(), readCircumstances())
  const engines = (["uring", "poll", "epoll"] as const).map((name) => tryEngine(native, name, capabilities))
  return {
    uringloop: version,
    runtime: { name: "bun", version: Bun.version },
    shim: { path: shimPath(), abi: native.abiVersion() },
    auto: choose(engines, capabilities),
    engines,
    environment_engine: process.env.URINGLOOP_ENGINE || null,
    network: {
      somaxconn: numberOrNull(sysctl("net/core/somaxconn")),
      tcp_congestion_control: sysctl("net/ipv4/tcp_congestion_control"),
    },
    capabilities,
  }
}

/** Opens an engine as a reactor with default options would. */
function tryEngine(native: Native, name: EngineName, capabilities: Capabilities): Trial {
  const { config } = settle({ engine: name, host: "hosted" })
  setEngine(config, name)
  const ring = native.open(config)
  if (ring >= 0) {
    native.close(ring)
    return { name, ok: true, reason: "" }
  }
  // The shim's own reason is for programs that have not probed: the probe knows the cause better.
  const { io_uring } = capabilities
  const isBlocked = name !== "epoll" && !io_uring.ok
  return {
    name,
    ok: false,
    reason: isBlocked ? automaticEngine(capabilities).reason : reasonOf(config) || errnoName(-ring),
  }
}

/** As the reactor does: uring, or else epoll. What really happened goes before what the probe foretells. */
function choose(engines: Trial[], capabilities: Capabilities): EngineChoice {
  const uring = engines.find(({ name }) => name === "uring")
  if (uring === undefined || uring.ok) return { engine: "uring", reason: "io_uring works here" }
  const foretold = automaticEngine(capabilities)
  return foretold.engine === "epoll" ? foretold : { engine: "epoll", reason: uring.reason }
}

function describe(report: Report): string {
  const { capabilities, engines, network, environment_engine: chosen } = report
  const unusable = engines.filter(({ ok, reason }) => !ok && reason !== report.auto.reason)
  const lines = [
    `uringloop ${report.uringloop} on Bun ${report.runtime.version}, shim ${report.shim.path}`,
    "",
    ...(chosen === null ? [] : [`URINGLOOP_ENGINE=${chosen} is set and goes before auto`]),
    describeCapabilities(capabilities, report.auto),
    ...unusable.map(({ name, reason }) => `engine ${name} cannot be opened: ${reason}`),
    ...(unusable.length > 0 ? [""] : []),
    `descriptors  ${limit(capabilities.nofile)} (RLIMIT_NOFILE)${descriptorHint(capabilities.nofile)}`,
    `memlock      ${limit(capabilities.memlock_bytes)} bytes (RLIMIT_MEMLOCK)`,
    `backlog      ${network.somaxconn ?? "unknown"} (net.core.somaxconn caps what listen asks for)`,
    `congestion   ${network.tcp_congestion_control ?? "unknown"} (net.ipv4.tcp_congestion_control)`,
  ]
  return `${lines.join("\n")}\n`
}

function limit(value: number | null): string {
  return value === null ? "unlimited" : String(value)
}

function descriptorHint(nofile: number | null): string {
  if (nofile === null || nofile >= FEW_DESCRIPTORS) return ""
  return ": one per connection, so raise it for a server (ulimit -n)"
}

function sysctl(name: string): string | null {
  try {
    return readFileSync(`/proc/sys/${name}`, "latin1").trim()
  } catch {
    return null // a network namespace may lack it
  }
}

function numberOrNull(text: string | null): number | null {
  return text === null ? null : Number(text)
}
