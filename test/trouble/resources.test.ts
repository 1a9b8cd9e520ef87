// Descriptors and memory that run out: no spinning, no crash, clear errors, and all is well when there is some again.

import { afterEach, expect, test } from "bun:test"
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import { type Child, startChild } from "../support/child.ts"
import { onReactor, pause, until } from "../support/harness.ts"
import { startPeer } from "../support/peers.ts"

/** A server that can be told to take all descriptors and to give them back, and reports. */
const SERVER = `
  import { openSync, closeSync } from "node:fs"
  import { Reactor } from "SRC/index.ts"
  import { echoListener } from "SRC/../test/support/echo.ts"
  const r = Reactor.open(JSON.parse(process.env.OPTIONS))
  const listener = echoListener(r)
  const taken = []
  const steps = {
    take() { try { for (;;) taken.push(openSync("/dev/null", "r")) } catch {} },
    give() { for (const fd of taken.splice(0)) closeSync(fd) },
    async dial() {
      try { (await r.connect({ hostname: "127.0.0.1", port: listener.port })).destroy(); return "connected" }
      catch (error) { return error.code + " " + error.syscall }
    },
    ticks() { const { ticks, acceptPauses } = r.stats(); return [ticks, acceptPauses].join(" ") },
  }
  const order = Object.keys(steps)
  process.on("SIGUSR1", () => steps.take())
  process.on("SIGUSR2", () => steps.give())
  // Every 50 ms a line: no descriptor is needed for it.
  let number = 0
  setInterval(async () => console.log([number++, steps.ticks(), await steps.dial()].join(" ")), 50)
  console.log("port " + listener.port + ".")
`

interface Line {
  number: number
  ticks: number
  acceptPauses: number
  dial: string
}

/** The next line that the server prints for which `wanted` holds. */
async function nextLine(child: Child, wanted: (line: Line) => boolean): Promise<Line> {
  const seen = lines(child).length
  const ends = performance.now() + 8_000
  for (;;) {
    const found = lines(child).slice(seen).find(wanted)
    if (found !== undefined) return found
    if (child.isOver) throw new Error(`the server is gone: ${JSON.stringify(await child.exited)}`)
    if (performance.now() > ends) throw new Error(`it never came: ${child.stdout().slice(-300)}`)
    await Bun.sleep(5)
  }
}

function lines(child: Child): Line[] {
  return [...child.stdout().matchAll(/^(\d+) (\d+) (\d+) (.*)$/gm)].map(
    ([, number, ticks, pauses, dial]) => ({
      number: Number(number),
      ticks: Number(ticks),
      acceptPauses: Number(pauses),
      dial,
    }),
  )
}

onReactor(
  "no descriptors: accepting pauses, dials say EMFILE, next to no ticks; and everything goes on",
  async (r) => {
    const child = startChild(SERVER, { OPTIONS: "{}" }, "-n 200")
    await child.until(".\n")
    const port = Number(/port (\d+)/.exec(child.stdout())?.[1])
    await nextLine(child, ({ dial }) => dial === "connected")
    child.signal("SIGUSR1")
    await nextLine(child, ({ dial }) => dial === "EMFILE socket")
    // These wait in the kernel's queue.
    const peer = startPeer("echo", port, { count: 20, bytes: 10_000 })
    const first = await nextLine(child, ({ acceptPauses }) => acceptPauses > 0)
    const last = await nextLine(child, ({ number }) => number >= first.number + 16)
    // 16 lines, a timer's turn and a write each, and an accept every 100 ms: some ticks for each of these, and none for
    // the connections that wait. A loop that spins makes a hundred thousand.
    expect(last.ticks - first.ticks).toBeLessThan(2_000)
    expect(last.acceptPauses - first.acceptPauses).toBeLessThan(40)
    child.signal("SIGUSR2")
    expect(await peer.verdict(r)).toBe("ok 20")
    await nextLine(child, ({ dial }) => dial === "connected")
    child.signal("SIGKILL")
    expect((await child.exited).stderr).toBe("")
  },
  { host: "hosted" },
)

// ---- memory ----

/** The memory controller's folder for new groups, its file with the limit, and the one that moves a process. */
function memoryController(): { root: string; limit: string } | undefined {
  const v1 = "/sys/fs/cgroup/memory"
  if (existsSync(`${v1}/memory.limit_in_bytes`)) return { root: v1, limit: "memory.limit_in_bytes" }
  const v2 = "/sys/fs/cgroup"
  try {
    const hasMemory = readFileSync(`${v2}/cgroup.subtree_control`, "utf8").includes("memory")
    return hasMemory ? { root: v2, limit: "memory.max" } : undefined
  } catch {
    return undefined
  }
}

const groups: string[] = []
afterEach(async () => {
  for (const group of groups.splice(0)) {
    // It is busy until the last process has gone.
    for (let attempt = 0; attempt < 100; attempt++) {
      try {
        rmdirSync(group)
        break
      } catch {
        await Bun.sleep(20)
      }
    }
  }
})

/** A group with a limit, or why there is none. */
function makeGroup(bytes: number): { path: string } | { why: string } {
  const controller = memoryController()
  if (controller === undefined) return { why: "no memory controller of cgroups here" }
  const path = `${controller.root}/uringloop-trouble-${process.pid}-${groups.length}`
  try {
    mkdirSync(path)
    groups.push(path)
    writeFileSync(`${path}/${controller.limit}`, String(bytes))
    return { path }
  } catch (error) {
    return { why: `no cgroup can be made: ${(error as Error).message}` }
  }
}

const LIMIT_BYTES = 200 * 1024 * 1024
const NAME =
  "a server with 200 MiB of memory and 400 peers that do not read: its limits hold, others are served"

const probe = makeGroup(LIMIT_BYTES)
if ("why" in probe) test(NAME, () => console.log(`not tested: ${probe.why}`))
else {
  onReactor(
    NAME,
    async (r) => {
      const group = makeGroup(LIMIT_BYTES)
      if ("why" in group) throw new Error(group.why)
      // 400 peers would take 800 MiB of queues; the arena says how much they get.
      const child = startChild(
        `
        import { writeFileSync } from "node:fs"
        writeFileSync(process.env.GROUP + "/cgroup.procs", String(process.pid))
        ${SERVER}`,
        { GROUP: group.path, OPTIONS: JSON.stringify({ sendArenaBytes: 32 * 1024 * 1024 }) },
      )
      await child.until(".\n")
      const port = Number(/port (\d+)/.exec(child.stdout())?.[1])
      const greedy = startPeer("hold", port, { count: 400, bytes: 60_000 })
      await pause(r, 300)
      const polite = startPeer("echo", port, { count: 10, bytes: 200_000 })
      expect(await polite.verdict(r)).toBe("ok 10")
      expect(child.isOver).toBe(false)
      const line = await nextLine(child, ({ dial }) => dial === "connected")
      expect(line.acceptPauses).toBe(0)
      greedy.kill()
      await nextLine(child, ({ number }) => number > line.number + 4)
      child.signal("SIGKILL")
      expect((await child.exited).stderr).toBe("")
    },
    { host: "hosted" },
  )

  onReactor(
    "a server over its memory is killed: its peers see the end, and nothing hangs",
    async (r) => {
      const group = makeGroup(90 * 1024 * 1024)
      if ("why" in group) throw new Error(group.why)
      const child = startChild(
        `
        import { writeFileSync } from "node:fs"
        import { Reactor } from "SRC/index.ts"
        const r = Reactor.open()
        const kept = []
        const listener = r.listen({
          hostname: "127.0.0.1", port: 0,
          socket: { data(socket, chunk) { kept.push(chunk); socket.write("more") } }, // keeps all it gets
        })
        console.log("port " + listener.port + ".")
        writeFileSync(process.env.GROUP + "/cgroup.procs", String(process.pid))
        console.log("limited")`,
        { GROUP: group.path },
      )
      await child.until("limited")
      const port = Number(/port (\d+)/.exec(child.stdout())?.[1])
      const connection = await r.connect({ hostname: "127.0.0.1", port })
      let code = ""
      try {
        for (;;) {
          await connection.write(new Uint8Array(1_000_000).fill(1))
          if ((await connection.read()) === undefined) break
        }
      } catch (error) {
        code = (error as { code: string }).code
      }
      expect(code).toMatch(/^(|ECONNRESET|EPIPE)$/)
      await connection.close()
      expect((await child.exited).signal).toBe("SIGKILL")
      await until(r, "nothing is left", () => r.stats().socketsOpen === 0)
    },
    { host: "hosted" },
  )
}
