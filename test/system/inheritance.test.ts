// A program that a server starts gets none of the server's descriptors. The child is started by libc's system(), which only
// forks and executes: Bun.spawn might close descriptors of its own accord, and hide what is missing.

import { afterAll, expect, test } from "bun:test"
import { removeProgram, runBun } from "./restrict/restricted.ts"

afterAll(removeProgram)

const PROGRAM = `
import { dlopen, FFIType } from "bun:ffi"
import { readdirSync, readlinkSync } from "node:fs"
import { Reactor } from "./src/index.ts"
const libc = dlopen("libc.so.6", { system: { args: [FFIType.cstring], returns: FFIType.i32 } })
const r = Reactor.open({ engine: process.env.ENGINE })
const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
const unix = r.listen({ unix: "\\0uringloop-inheritance-" + process.pid })
const client = await r.connect({ hostname: "127.0.0.1", port: listener.port })
const server = await listener.accept()
const path = await r.connect({ unix: "\\0uringloop-inheritance-" + process.pid })
await client.write("asleep and awake")
await server.read()
await Bun.sleep(20)
const open = () => readdirSync("/proc/self/fd").filter((fd) => {
  try { return /socket|anon_inode/.test(readlinkSync("/proc/self/fd/" + fd)) } catch { return false }
})
console.log(JSON.stringify({ ours: open().length, features: r.features() }))
const status = libc.symbols.system(Buffer.from("ls -l /proc/self/fd\\0"))
console.log("status " + status)
for (const one of [client, server, path]) await one.close()
await r.close()
`

test.each(["uring", "poll", "epoll"])("a child of a server on %s inherits nothing", async (engine) => {
  const { stdout, stderr, exitCode } = await runBun([], ["-e", PROGRAM], { ENGINE: engine })
  expect({ exitCode, stderr: exitCode === 0 ? "" : stderr }).toEqual({ exitCode: 0, stderr: "" })
  const { ours } = JSON.parse(stdout.slice(0, stdout.indexOf("\n")))
  expect(ours).toBeGreaterThan(7) // the ring, eventfd, two listeners, four ends, and Bun's own
  expect(stdout).toContain("status 0")
  const inherited = stdout.split("\n").filter((line) => line.includes(" -> "))
  expect(inherited.length).toBeGreaterThanOrEqual(3) // its own 0, 1, 2
  // Sockets that the harness gave as 0, 1, 2 are not ours; ours have higher numbers.
  const taken = inherited.filter((line) => {
    const [, fd, target] = / (\d+) -> (.*)$/.exec(line) ?? []
    return Number(fd) > 2 && /socket|anon_inode/.test(target ?? "")
  })
  expect(taken).toEqual([])
})
