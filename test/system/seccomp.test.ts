// docs/seccomp/uringloop.json at work: a filter made of it, and real programs under it. Without the system calls of io_uring
// it is as Docker's default: the reactor falls back and says why.

import { afterAll, describe, expect, test } from "bun:test"
import profileFile from "../../docs/seccomp/uringloop.json"
import { type Profile, removeProfiles, systemCallNumbers, writeProfile } from "./restrict/profile.ts"
import { removeProgram, runBun } from "./restrict/restricted.ts"

const REGISTER_RESTRICTIONS = 11
const REGISTER_ENABLE_RINGS = 12
const RING_CALLS = ["io_uring_setup", "io_uring_enter", "io_uring_register"]

const profile = profileFile as Profile

afterAll(() => {
  removeProgram()
  removeProfiles()
})

function without(names: string[]): Profile {
  const syscalls = profile.syscalls.map((rule) => ({
    ...rule,
    names: rule.names.filter((name) => !names.includes(name)),
  }))
  return { ...profile, syscalls }
}

const ECHO = `
import { Reactor } from "./src/index.ts"
const r = Reactor.open({ engine: "auto" })
const listeners = [
  r.listen({ hostname: "127.0.0.1", port: 0, socket: { data: (socket, bytes) => void socket.write(bytes) } }),
  r.listen({ unix: "\\0uringloop-seccomp-" + process.pid, socket: { data: (socket, bytes) => void socket.write(bytes) } }),
]
const isRestricted = r.features().includes("restrictions")
const echoes = []
for (const to of [{ hostname: "localhost", port: listeners[0].port }, { unix: "\\0uringloop-seccomp-" + process.pid }]) {
  const client = await r.connect(to)
  await client.write("through the filter")
  echoes.push(Buffer.from(await client.read()).toString())
  await client.close()
}
await Bun.sleep(5)
for (const listener of listeners) listener.stop(true)
await r.close()
console.log(JSON.stringify({ engine: r.engine, reason: r.fallbackReason ?? null, isRestricted, echoes }))
`
/** What else a server's program does: files, a worker, Bun's own sockets and resolver, a child. */
const THE_REST = `
const path = "/tmp/uringloop-seccomp-" + process.pid
await Bun.write(path, "a file")
const file = await Bun.file(path).text()
await Bun.file(path).delete()
const worker = new Worker(URL.createObjectURL(new Blob(["postMessage('a worker')"])))
const message = await new Promise((resolve) => { worker.onmessage = (event) => resolve(event.data) })
worker.terminate()
const server = Bun.serve({ port: 0, fetch: () => new Response("a reply") })
const reply = await (await fetch("http://localhost:" + server.port)).text()
server.stop(true)
const child = new Response(Bun.spawn(["echo", "a child"]).stdout)
console.log(JSON.stringify([file, message, reply, (await child.text()).trim()]))
process.exit(0)
`

async function under(some: Profile, code: string): Promise<unknown> {
  const { stdout, stderr, exitCode } = await runBun([`profile=${writeProfile(some)}`], ["-e", code])
  expect({ exitCode, stderr: exitCode === 0 ? "" : stderr }).toEqual({ exitCode: 0, stderr: "" })
  return JSON.parse(stdout)
}

const ECHOED = ["through the filter", "through the filter"]
const SERVED = { engine: "uring", reason: null, isRestricted: true, echoes: ECHOED }

test("an echo server runs on uring", async () => {
  expect(await under(profile, ECHO)).toEqual(SERVED)
})

test("and so does what else Bun does in a server", async () => {
  expect(await under(profile, THE_REST)).toEqual(["a file", "a worker", "a reply", "a child"])
})

test.each([[RING_CALLS], ...RING_CALLS.map((name) => [[name]])])(
  "without %p it goes on with epoll and says why",
  async (names) => {
    const answer = await under(without(names), ECHO)
    const reason = expect.stringContaining("EPERM")
    expect(answer).toEqual({ engine: "epoll", reason, isRestricted: false, echoes: ECHOED })
  },
)

/** One register opcode answers EINVAL, as on a kernel that does not know it. */
function withoutRegistering(opcode: number): Profile {
  const args = [{ index: 1, value: opcode, op: "SCMP_CMP_EQ" }]
  const rule = { comment: "", names: ["io_uring_register"], action: "SCMP_ACT_ERRNO", errnoRet: 22, args }
  return { ...profile, syscalls: [rule, ...profile.syscalls] }
}

test("where restrictions cannot be set the ring goes without, and tells so", async () => {
  const answer = await under(withoutRegistering(REGISTER_RESTRICTIONS), ECHO)
  expect(answer).toEqual({ ...SERVED, isRestricted: false })
})

test("a ring that cannot be enabled is no ring", async () => {
  const answer = await under(withoutRegistering(REGISTER_ENABLE_RINGS), ECHO)
  const reason = expect.stringContaining("io_uring_enable_rings failed with EINVAL")
  expect(answer).toEqual({ engine: "epoll", reason, isRestricted: false, echoes: ECHOED })
})

describe("what the profile keeps out", () => {
  const allowed = new Set(profile.syscalls.flatMap(({ names }) => names))

  test.each([
    "bpf",
    "init_module",
    "kexec_load",
    "keyctl",
    "mount",
    "open_by_handle_at",
    "perf_event_open",
    "pivot_root",
    "process_vm_readv",
    "ptrace",
    "reboot",
    "setns",
    "unshare",
    "userfaultfd",
  ])("%s", (name) => {
    expect(systemCallNumbers().has(name)).toBe(true)
    expect(allowed.has(name)).toBe(false)
  })

  test("it does refuse: a packet socket, a new namespace", async () => {
    const code = `
    const { dlopen, FFIType } = await import("bun:ffi")
    const { i32 } = FFIType
    const libc = dlopen("libc.so.6", {
      socket: { args: [i32, i32, i32], returns: i32 },
      unshare: { args: [i32], returns: i32 },
    })
    const inet = libc.symbols.socket(2, 1, 0)
    console.log(JSON.stringify([inet >= 0, libc.symbols.socket(17, 3, 0), libc.symbols.unshare(0x10000000)]))`
    expect(await under(profile, code)).toEqual([true, -1, -1])
  })
})
