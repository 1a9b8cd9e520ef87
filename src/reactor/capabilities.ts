/**
 * What this kernel and this process are allowed, with the likely cause of each thing that is not. The shim tries every
 * feature by doing it and reports errnos (liburing-shim/probe.c); here they meet what is known about the process, and
 * become words. Everything but `readCircumstances` is pure.
 */
import { readFileSync } from "node:fs"
import { release } from "node:os"
import type { EngineName } from "./options.ts"

/** The shape is also that of `uringloop doctor --json` (docs/doctor.md): names stay, new ones may come. */
export interface Capabilities {
  kernel: string
  /** Whether io_uring can be used at all; errno and cause are "" when it can. */
  io_uring: { ok: boolean; errno: string; cause: string }
  /** 0: allowed; 1: for the privileged; 2: for nobody; null: this kernel has no such sysctl (it came with 6.6). */
  sysctl_io_uring_disabled: number | null
  /** Group that may use io_uring when the sysctl above is 1; -1: none. */
  sysctl_io_uring_group: number | null
  /** RLIMIT_MEMLOCK; null: unlimited. */
  memlock_bytes: number | null
  /** RLIMIT_NOFILE; null: unlimited. */
  nofile: number | null
  /** 0: none; 1: strict; 2: a filter; null: unknown. */
  seccomp_mode: number | null
  features: Capability[]
}

export interface Capability {
  name: string
  /** First kernel with it. */
  since: string
  ok: boolean
  /** Errno and likely cause; "" when ok. */
  why: string
}

/** What explains failures. Numbers are null where they are not known, limits also where there is none. */
export interface Circumstances {
  kernel: string
  ioUringDisabled: number | null
  ioUringGroup: number | null
  seccompMode: number | null
  /** CAP_SYS_ADMIN is effective. */
  isAdmin: boolean
  memlockBytes: number | null
  nofile: number | null
}

export interface EngineChoice {
  engine: EngineName
  reason: string
}

/** One entry of what ul_probe writes. At most one of `errno` and `wrong` is not "". */
interface Verdict {
  name: string
  since: string
  ok: boolean
  errno: string
  /** What a self-test found. */
  wrong: string
}

/** Without these the uring engine cannot be opened; the others only make it faster. */
const NEEDED_BY_URING = ["io_uring_setup", "eventfd", "buffer_ring"]
const SECCOMP_FILTER = 2
const CAP_SYS_ADMIN = 21n

/**
 * @param text what `Native.probe()` returned
 * @throws SyntaxError, TypeError when that is not what the shim writes
 */
export function parseCapabilities(text: string, circumstances: Circumstances): Capabilities {
  const { features: verdicts } = JSON.parse(text) as { features: Verdict[] }
  if (!Array.isArray(verdicts) || verdicts[0]?.name !== "io_uring_setup") {
    throw new TypeError("the shim's probe does not begin with io_uring_setup")
  }
  const setup = verdicts[0]
  const features = verdicts.map((verdict) => {
    const { name, since, ok } = verdict
    // Everything else that needs a ring repeats the errno of the first.
    const isEcho = !setup.ok && verdict !== setup && !name.startsWith("epoll")
    const why = ok ? "" : isEcho ? "needs io_uring_setup" : whyOf(verdict, circumstances)
    return { name, since, ok, why }
  })
  const cause = setup.ok ? "" : causeOf(setup, circumstances)
  return {
    kernel: circumstances.kernel,
    io_uring: { ok: setup.ok, errno: setup.errno, cause },
    sysctl_io_uring_disabled: circumstances.ioUringDisabled,
    sysctl_io_uring_group: circumstances.ioUringGroup,
    memlock_bytes: circumstances.memlockBytes,
    nofile: circumstances.nofile,
    seccomp_mode: circumstances.seccompMode,
    features,
  }
}

/** What `engine: "auto"` comes to, as far as the capabilities tell. */
export function automaticEngine(capabilities: Capabilities): EngineChoice {
  const { io_uring, features } = capabilities
  if (!io_uring.ok) return { engine: "epoll", reason: `${io_uring.errno || "io_uring"}: ${io_uring.cause}` }
  const missing = features.find(({ name, ok }) => !ok && NEEDED_BY_URING.includes(name))
  if (missing !== undefined) return { engine: "epoll", reason: `no ${missing.name}: ${missing.why}` }
  return { engine: "uring", reason: "io_uring works here" }
}

/** For people: what `auto` chooses and why, then a line per feature: yes or no, name, first kernel, why not. */
export function describeCapabilities(
  capabilities: Capabilities,
  choice: EngineChoice = automaticEngine(capabilities),
): string {
  const { kernel, io_uring, features } = capabilities
  const width = Math.max(...features.map(({ name }) => name.length))
  const usable = io_uring.ok ? "works" : `does not work (${io_uring.errno || "self-test"})`
  const lines = [
    `engine    auto is ${choice.engine}: ${choice.reason}`,
    `io_uring  ${usable}`,
    `kernel    ${kernel}${restrictionsOf(capabilities)}`,
    "",
    ...features.map(({ name, since, ok, why }) =>
      `  ${ok ? "yes" : "no "}  ${name.padEnd(width)}  ${since.padEnd(4)}  ${why}`.trimEnd(),
    ),
  ]
  return `${lines.join("\n")}\n`
}

function restrictionsOf(capabilities: Capabilities): string {
  const { sysctl_io_uring_disabled: disabled, seccomp_mode: mode } = capabilities
  const sysctl = disabled === null ? "" : `, kernel.io_uring_disabled=${disabled}`
  return `${sysctl}, ${mode === null ? "seccomp unknown" : mode === 0 ? "no seccomp" : "a seccomp filter"}`
}

function whyOf(verdict: Verdict, circumstances: Circumstances): string {
  const cause = causeOf(verdict, circumstances)
  return verdict.errno === "" ? cause : `${verdict.errno}: ${cause}`
}

/** The likely cause of a failure: what is certain from the circumstances first, what can only be guessed last. */
function causeOf(verdict: Verdict, circumstances: Circumstances): string {
  const { name, since, errno, wrong } = verdict
  const { kernel, memlockBytes, nofile, ioUringGroup } = circumstances
  const isFiltered = circumstances.seccompMode === SECCOMP_FILTER
  switch (errno) {
    case "":
      return `self-test failed: ${wrong || "it did not do what it should"}`
    case "ENOMEM":
    case "ENOBUFS":
      if (memlockBytes === null) return "out of memory, or the memory cgroup is full"
      return `RLIMIT_MEMLOCK is ${memlockBytes} bytes (ulimit -l), or the memory cgroup is full`
    case "EMFILE":
      return `RLIMIT_NOFILE is ${nofile ?? "unlimited"} (ulimit -n), and that many descriptors are open`
    case "ENFILE":
      return "the whole system has too many files open (sysctl fs.file-max)"
    case "ENETUNREACH":
      return "it could not be tried: the loopback interface is down"
    case "ETIME":
      return "no completion came within its time"
    case "EPERM":
      if (name !== "io_uring_setup") break
      if (circumstances.ioUringDisabled === 2) {
        return "sysctl kernel.io_uring_disabled=2 forbids io_uring to every process"
      }
      // With the capability the sysctl does not apply, and a filter is the likelier cause.
      if (circumstances.ioUringDisabled === 1 && !(circumstances.isAdmin && isFiltered)) {
        return (
          "sysctl kernel.io_uring_disabled=1 forbids io_uring to processes without CAP_SYS_ADMIN " +
          `that are not in the group of sysctl kernel.io_uring_group (${ioUringGroup ?? "unknown"})`
        )
      }
  }
  if (isOlder(kernel, since)) return `kernel ${kernel} is older than ${since}`
  if (errno === "EPERM" || errno === "EACCES") {
    return isFiltered
      ? "a seccomp filter forbids it, as the default profiles of Docker and containerd do"
      : "a security module (SELinux, AppArmor) forbids it"
  }
  if (errno === "ENOSYS") {
    return isFiltered
      ? `a seccomp filter hides it: kernel ${kernel} is new enough to have it`
      : "this kernel was built without it"
  }
  return "this kernel refuses it, although it is new enough"
}

/** `release` is as of uname: "6.1.0-18-amd64". */
function isOlder(release: string, since: string): boolean {
  const [major = 0, minor = 0] = release.split(/[^0-9]+/, 2).map(Number)
  const [sinceMajor = 0, sinceMinor = 0] = since.split(".").map(Number)
  return major < sinceMajor || (major === sinceMajor && minor < sinceMinor)
}

/** Of this process, now. */
export function readCircumstances(): Circumstances {
  const status = textOf("/proc/self/status")
  const limits = textOf("/proc/self/limits")
  const capabilities = /^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0"
  return {
    kernel: release(),
    ioUringDisabled: numberIn(textOf("/proc/sys/kernel/io_uring_disabled"), /^(\d+)/),
    ioUringGroup: numberIn(textOf("/proc/sys/kernel/io_uring_group"), /^(-?\d+)/),
    seccompMode: numberIn(status, /^Seccomp:\s*(\d+)/m),
    isAdmin: ((BigInt(`0x${capabilities}`) >> CAP_SYS_ADMIN) & 1n) === 1n,
    memlockBytes: numberIn(limits, /^Max locked memory\s+(\d+)/m),
    nofile: numberIn(limits, /^Max open files\s+(\d+)/m),
  }
}

function numberIn(text: string, pattern: RegExp): number | null {
  const found = pattern.exec(text)?.[1]
  return found === undefined ? null : Number(found)
}

/** "" where it cannot be read: no /proc, or an older kernel. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1")
  } catch {
    return ""
  }
}
