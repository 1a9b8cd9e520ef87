// `uringloop doctor` on machines that differ in what they allow. The differences are made here: a seccomp filter, another
// user, limits, and the real sysctl where this process may set it.

import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { writeFileSync } from "node:fs"
import type { Report } from "../../cli/doctor.ts"
import {
  canSetSysctl,
  type Outcome,
  removeProgram,
  runBun,
  sysctlValue,
  unprivileged,
} from "./restrict/restricted.ts"

afterAll(removeProgram)

const DOCTOR = ["cli/uringloop.ts", "doctor"]
const SECCOMP_EPERM = "a seccomp filter forbids it, as the default profiles of Docker and containerd do"
const SYSCTL_1 = "sysctl kernel.io_uring_disabled=1 forbids io_uring to processes without CAP_SYS_ADMIN"
const SYSCTL_2 = "sysctl kernel.io_uring_disabled=2 forbids io_uring to every process"

async function report(restrictions: string[], env: Record<string, string> = {}): Promise<Report> {
  const outcome = await runBun(restrictions, [...DOCTOR, "--json"], env)
  expect(outcome.stderr).toBe("")
  expect(outcome.exitCode).toBe(0)
  return JSON.parse(outcome.stdout)
}

const text = (restrictions: string[]): Promise<Outcome> => runBun(restrictions, DOCTOR)

/** What every report without io_uring has in common. */
function expectBlocked(found: Report, errno: string, cause: string): void {
  expect(found.capabilities.io_uring).toEqual({ ok: false, errno, cause: expect.stringContaining(cause) })
  expect(found.auto).toEqual({ engine: "epoll", reason: expect.stringContaining(`${errno}: ${cause}`) })
  for (const { name, ok, reason } of found.engines) {
    expect({ name, ok }).toEqual({ name, ok: name === "epoll" })
    if (!ok) expect(reason).toContain(cause)
  }
  const features = new Map(found.capabilities.features.map((feature) => [feature.name, feature]))
  expect(features.get("io_uring_setup")?.why).toContain(`${errno}: ${cause}`)
  expect(features.get("multishot_recv")).toEqual({
    name: "multishot_recv",
    since: "6.0",
    ok: false,
    why: "needs io_uring_setup",
  })
  expect(features.get("epoll")?.ok).toBe(true)
}

describe("as this machine is", () => {
  test("the report is whole", async () => {
    const found = await report([])
    expect(found.uringloop).toMatch(/^\d+\.\d+\.\d+/)
    expect(found.runtime).toEqual({ name: "bun", version: Bun.version })
    expect(found.shim).toEqual({ path: expect.stringContaining("libshim.so"), abi: expect.any(Number) })
    expect(found.engines.map(({ name }) => name)).toEqual(["uring", "poll", "epoll"])
    expect(found.environment_engine).toBeNull()
    expect(found.capabilities.features.length).toBeGreaterThan(20)
    for (const { name, ok, since, why } of found.capabilities.features) {
      expect(name).toMatch(/^[a-z0-9_]+$/)
      expect(since).toMatch(/^\d+\.\d+$/)
      expect(why === "").toBe(ok)
    }
  })

  test("auto is what opens", async () => {
    const found = await report([])
    const uring = found.engines.find(({ name }) => name === "uring")
    expect(found.auto.engine).toBe(uring?.ok ? "uring" : "epoll")
    expect(found.auto.reason).not.toBe("")
  })

  test("the text has a line for each feature, and the limits", async () => {
    const { stdout, stderr, exitCode } = await text([])
    expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 })
    expect(stdout).toMatch(/^engine {4}auto is (uring|epoll): \S/m)
    expect(stdout).toMatch(/^ {2}(yes|no ) {2}buffer_ring +5\.19/m)
    expect(stdout).toMatch(/^descriptors {2}\S+ \(RLIMIT_NOFILE\)/m)
    expect(stdout).toMatch(/^memlock .*RLIMIT_MEMLOCK/m)
    expect(stdout).toContain("net.core.somaxconn")
    expect(stdout).toContain("net.ipv4.tcp_congestion_control")
    for (const line of stdout.split("\n")) expect(line).toBe(line.trimEnd())
  })

  test("URINGLOOP_ENGINE is named: it goes before auto", async () => {
    expect((await report([], { URINGLOOP_ENGINE: "poll" })).environment_engine).toBe("poll")
    expect((await runBun([], DOCTOR, { URINGLOOP_ENGINE: "poll" })).stdout).toContain("URINGLOOP_ENGINE=poll")
  })
})

describe("behind a seccomp filter", () => {
  test("that answers EPERM", async () => {
    const found = await report(["EPERM"])
    expectBlocked(found, "EPERM", SECCOMP_EPERM)
    expect(found.capabilities.seccomp_mode).toBe(2)
    const { stdout, exitCode } = await text(["EPERM"])
    expect(exitCode).toBe(0)
    expect(stdout).toContain(`engine    auto is epoll: EPERM: ${SECCOMP_EPERM}`)
    expect(stdout).toMatch(/^ {2}no {3}defer_taskrun +6\.1 +needs io_uring_setup$/m)
    expect(stdout).toMatch(/^ {2}yes {2}epoll /m)
  })

  test("that answers ENOSYS, as if the kernel were too old", async () => {
    expectBlocked(await report(["ENOSYS"]), "ENOSYS", "a seccomp filter hides it: kernel")
    expect((await text(["ENOSYS"])).stdout).toContain("auto is epoll: ENOSYS: a seccomp filter hides it")
  })
})

describe("kernel.io_uring_disabled", () => {
  const before = sysctlValue()
  let isSettable = false
  let asNobody: string[] = []

  beforeAll(async () => {
    isSettable = await canSetSysctl()
    asNobody = await unprivileged()
    if (!isSettable) {
      const why = before === undefined ? "this kernel has no such sysctl" : "it cannot be written here"
      console.warn(`kernel.io_uring_disabled: ${why}; checking what doctor says of its present value`)
    }
  })
  // restrict.c puts it back itself; this is for the case that it was killed.
  afterAll(() => {
    if (isSettable && before !== undefined && sysctlValue() !== before) {
      writeFileSync("/proc/sys/kernel/io_uring_disabled", before)
    }
  })

  /** Where the sysctl cannot be set: the report must still tell its value, and blame it for nothing it has not done. */
  async function expectUnblamed(): Promise<void> {
    const found = await report([])
    expect(found.capabilities.sysctl_io_uring_disabled).toBe(before === undefined ? null : Number(before))
    if (before !== "1" && before !== "2") expect(found.capabilities.io_uring.cause).not.toContain("sysctl")
  }

  test("1 keeps out who is not privileged", async () => {
    if (!isSettable) return expectUnblamed()
    const found = await report(["sysctl=1", ...asNobody])
    expectBlocked(found, "EPERM", SYSCTL_1)
    expect(found.capabilities.io_uring.cause).toContain("kernel.io_uring_group (-1)")
    expect(found.capabilities.sysctl_io_uring_disabled).toBe(1)
    expect(sysctlValue()).toBe(before)
  })

  test("1 lets root in; a filter that keeps root out is not taken for the sysctl", async () => {
    if (!isSettable) return expectUnblamed()
    const allowed = await report(["sysctl=1"])
    expect(allowed.capabilities.io_uring.ok).toBe(true)
    expect(allowed.auto.engine).toBe("uring")
    expectBlocked(await report(["sysctl=1", "EPERM"]), "EPERM", SECCOMP_EPERM)
    expect(sysctlValue()).toBe(before)
  })

  test("2 keeps out everybody", async () => {
    if (!isSettable) return expectUnblamed()
    const found = await report(["sysctl=2"])
    expectBlocked(found, "EPERM", SYSCTL_2)
    expect(found.capabilities.sysctl_io_uring_disabled).toBe(2)
    expect(sysctlValue()).toBe(before)
  })
})

describe("limits", () => {
  test("a user without locked memory gets epoll and the reason", async () => {
    const found = await report(["memlock=0", ...(await unprivileged())])
    expect(found.capabilities.memlock_bytes).toBe(0)
    // Whether the ring itself counts against the limit differs between kernels (6.18: yes).
    const { ok, errno, cause } = found.capabilities.io_uring
    if (!ok)
      expect({ errno, cause }).toEqual({
        errno: "ENOMEM",
        cause: expect.stringContaining("RLIMIT_MEMLOCK is 0 bytes"),
      })
    expect(found.auto.engine).toBe(ok && found.engines[0].ok ? "uring" : "epoll")
  })

  test("with memory for a small ring only, auto says what really happens", async () => {
    const found = await report(["memlock=65536", ...(await unprivileged())])
    const uring = found.engines[0]
    expect(found.auto.engine).toBe(uring.ok ? "uring" : "epoll")
    if (!uring.ok) expect(found.auto.reason).toContain("RLIMIT_MEMLOCK")
  })

  test("few descriptors are pointed out", async () => {
    expect((await report(["nofile=64"])).capabilities.nofile).toBe(64)
    expect((await text(["nofile=64"])).stdout).toMatch(/^descriptors {2}64 .*ulimit -n/m)
  })
})

describe("called wrongly, or too early", () => {
  test.each([
    [["nonsense"], 'unknown command "nonsense": it must be one of doctor, help, version'],
    [[], "no command given: it must be one of doctor, help, version"],
    [["doctor", "--yaml"], 'unknown option "--yaml": doctor takes --json'],
    [["version", "--json"], 'unknown option "--json": version takes none'],
    [["constructor"], 'unknown command "constructor"'],
  ])("%p", async (args, message) => {
    const { exitCode, stdout, stderr } = await runBun([], ["cli/uringloop.ts", ...args])
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" })
    expect(stderr).toContain(`uringloop: ${message}`)
  })

  test("help and version", async () => {
    for (const word of ["help", "--help", "-h"]) {
      const { exitCode, stdout } = await runBun([], ["cli/uringloop.ts", word])
      expect(exitCode).toBe(0)
      for (const command of ["doctor", "help", "version"]) expect(stdout).toContain(`  ${command}`)
    }
    expect((await runBun([], ["cli/uringloop.ts", "version"])).stdout).toMatch(/^\d+\.\d+\.\d+\S*\n$/)
  })

  test("without the shim it says how to build it", async () => {
    const env = { URINGLOOP_SHIM: "liburing-shim/build/none.so" }
    const asText = await runBun([], DOCTOR, env)
    expect(asText.exitCode).toBe(1)
    expect(asText.stderr).toContain("make shim")
    const asJson = await runBun([], [...DOCTOR, "--json"], env)
    expect(asJson.exitCode).toBe(1)
    expect(JSON.parse(asJson.stdout).error).toContain("make shim")
  })
})
