// The shim serving real traffic under the address and undefined-behaviour sanitizers: an echo server in C (the sanitizers
// cannot be loaded into Bun), the load generator of the benchmark in front of it, every byte compared.

import { beforeAll, expect, test } from "bun:test"
import { join } from "node:path"

const ROOT = join(import.meta.dir, "../..")
const LOADGEN = join(ROOT, "bench/build/loadgen")

const LOADS = [
  ["--mode", "closed", "--connections", "40", "--size", "64", "--depth", "8"],
  ["--mode", "closed", "--connections", "10", "--size", "100000"],
  ["--mode", "short", "--connections", "20", "--size", "300"],
]

beforeAll(() => {
  for (const args of [
    ["-C", join(ROOT, "liburing-shim"), "build/server"],
    ["-C", join(ROOT, "bench")],
  ]) {
    const made = Bun.spawnSync(["make", "--no-print-directory", ...args])
    if (!made.success) throw new Error(`make ${args.join(" ")}: ${made.stderr}`)
  }
}, 120_000)

test.each(["uring", "poll", "epoll"])(
  "%s: nothing to report, and nothing left at the end",
  async (engine) => {
    const server = Bun.spawn([join(ROOT, "liburing-shim/build/server"), engine], {
      stdout: "pipe",
      stderr: "pipe",
      env: { ...process.env, ASAN_OPTIONS: "detect_leaks=1" },
    })
    const output = server.stdout.getReader()
    const port = new TextDecoder().decode((await output.read()).value).trim()
    expect(Number(port)).toBeGreaterThan(0)
    for (const load of LOADS) {
      const client = Bun.spawn([LOADGEN, "--port", port, "--seconds", "0.7", "--verify", ...load], {
        stdout: "pipe",
        stderr: "pipe",
      })
      const report = await new Response(client.stdout).text()
      const exitCode = await client.exited
      expect({ load, exitCode, report: exitCode === 0 ? "" : report }).toEqual({
        load,
        exitCode: 0,
        report: "",
      })
      const { requests, errors } = JSON.parse(report)
      expect(requests).toBeGreaterThan(20)
      expect(JSON.stringify(errors)).not.toMatch(/[1-9]/)
    }
    server.kill("SIGTERM")
    const told = await new Response(server.stderr).text()
    expect({ exitCode: await server.exited, told }).toEqual({ exitCode: 0, told: "" })
  },
)
