// Clocks that jump. Deadlines run on CLOCK_MONOTONIC alone, so the date may be set to anything at any time; and its origin
// does not matter, so a process may live in a time namespace (time_namespaces(7)) where it is another one.

import { afterAll, expect } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { startChild } from "../support/child.ts"
import { onReactor } from "../support/harness.ts"

const folder = mkdtempSync(join(tmpdir(), "uringloop-clock-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Every kind of deadline, each with how long it took by the monotonic clock. */
const PROGRAM = `
  import { Reactor } from "SRC/index.ts"
  const r = Reactor.open()
  const dates = Array.from({ length: 20 }, () => Date.now())
  console.log("dates differ by " + Math.round((Math.max(...dates) - Math.min(...dates)) / 86_400_000) + " days")
  const took = async (name, start) => {
    const began = performance.now()
    await start()
    const ms = performance.now() - began
    console.log(name + (ms >= 99 && ms < 60_000 ? " in time" : " took " + ms + " ms"))
  }
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const idle = Promise.withResolvers()
  const idling = r.listen({
    hostname: "127.0.0.1", port: 0, socket: { data() {}, timeout(socket) { socket.timeout(0); idle.resolve() } },
  })
  const connection = await r.connect({ hostname: "127.0.0.1", port: listener.port })
  await took("read", () => connection.read({ timeoutMs: 100 }).catch(() => {}))
  await took("timeout", () => r.timeout(100))
  await took("write", () => connection.write(new Uint8Array(64_000_000), { timeoutMs: 100 }).catch(() => {}))
  const socket = await r.connect({
    hostname: "127.0.0.1", port: idling.port, socket: { data() {}, timeout() { socket.timeout(0); idle.resolve() } },
  })
  await took("idle", () => { socket.timeout(0.1); return idle.promise })
  await r.close()
`

const IN_TIME = ["read in time", "timeout in time", "write in time", "idle in time"]

onReactor(
  "the date jumps by days with every look: every deadline is in time, and the shim does not look",
  async () => {
    const library = join(folder, "clock.so")
    const source = join(import.meta.dir, "clock.c")
    const built = Bun.spawnSync(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source])
    expect(built.stderr.toString()).toBe("")
    const outcome = await startChild(PROGRAM, { LD_PRELOAD: library }).exited
    const [dates, ...rest] = outcome.stdout.trim().split("\n")
    expect(Number(/by (\d+) days/.exec(dates)?.[1])).toBeGreaterThan(0) // the lie is believed
    expect({ rest, stderr: outcome.stderr, exitCode: outcome.exitCode }).toEqual({
      rest: IN_TIME,
      stderr: "",
      exitCode: 0,
    })
  },
  { host: "hosted" },
)

for (const offset of ["1000000000", "-600"]) {
  onReactor(
    `a time namespace whose monotonic clock is ${offset} s off: every deadline is in time`,
    async () => {
      const wrapper = ["unshare", "--time", `--monotonic=${offset}`, "--fork", "--kill-child", "--"]
      if (Bun.spawnSync([...wrapper, "true"]).exitCode !== 0) {
        console.log("no time namespaces here (CONFIG_TIME_NS, root, and an offset before boot): not tested")
        return
      }
      const outcome = await startChild(PROGRAM, {}, undefined, wrapper).exited
      expect({ lines: outcome.stdout.trim().split("\n").slice(1), exitCode: outcome.exitCode }).toEqual({
        lines: IN_TIME,
        exitCode: 0,
      })
    },
    { host: "hosted" },
  )
}
