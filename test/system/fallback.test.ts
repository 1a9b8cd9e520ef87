// What a reactor does where io_uring is not allowed: `auto` goes on with epoll and says why, once; `uring` refuses, naming
// the cause. Each case is a fresh Bun process under the restriction, as the restriction is for life.

import { afterAll, describe, expect, test } from "bun:test"
import { type Outcome, removeProgram, runBun } from "./restrict/restricted.ts"

afterAll(removeProgram)

const HEAD = `import { Reactor, UringloopError } from "./src/index.ts"
const say = (value: unknown) => console.log(JSON.stringify(value))\n`

/** Runs a program that imports from the repository's root. */
function program(restrictions: string[], code: string, env: Record<string, string> = {}): Promise<Outcome> {
  return runBun(restrictions, ["-e", HEAD + code], env)
}

async function answer(
  restrictions: string[],
  code: string,
  env?: Record<string, string>,
): Promise<unknown[]> {
  const { stdout, stderr, exitCode } = await program(restrictions, code, env)
  expect({ exitCode, stderr: exitCode === 0 ? "" : stderr }).toEqual({ exitCode: 0, stderr: "" })
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line))
}

const OPEN_AUTO = `const r = Reactor.open({ engine: "auto" })
say({ engine: r.engine, reason: r.fallbackReason ?? null })
await r.close()`

describe.each(["EPERM", "ENOSYS"])("io_uring_setup answers %s", (errno) => {
  test('"auto" falls back to epoll and keeps the reason', async () => {
    const [opened] = await answer([errno], OPEN_AUTO)
    expect(opened).toEqual({ engine: "epoll", reason: expect.stringContaining(errno) })
    expect(opened).toEqual({ engine: "epoll", reason: expect.stringContaining("seccomp") })
  })

  test("it is told once, whatever the number of reactors", async () => {
    const { stderr, stdout } = await program([errno], `{ ${OPEN_AUTO} }\n{ ${OPEN_AUTO} }`)
    const told = stderr.split("\n").filter((line) => line.includes("uringloop"))
    expect(told).toEqual([expect.stringMatching(new RegExp(`${errno}.*epoll`))])
    expect(stdout.trim().split("\n")).toHaveLength(2)
  })

  test.each(["uring", "poll"])('"%s" refuses and names the cause', async (engine) => {
    const [error] = await answer(
      [errno],
      `try { Reactor.open({ engine: "${engine}" }); say("opened") } catch (error) {
        say({ ours: error instanceof UringloopError, code: error.code, message: error.message })
      }`,
    )
    expect(error).toEqual({
      ours: true,
      code: "ENGINE_UNAVAILABLE",
      message: expect.stringMatching(new RegExp(`"${engine}".*${errno}.*seccomp`)),
    })
  })

  test("a refused engine leaves no descriptor open", async () => {
    const [counts] = await answer(
      [errno],
      `import { readdirSync } from "node:fs"
      const open = () => readdirSync("/proc/self/fd").length
      const refused = () => { try { Reactor.open({ engine: "uring" }) } catch {} }
      refused()
      const before = open()
      for (let i = 0; i < 20; i++) refused()
      say([before, open()])`,
    )
    const [before, after] = counts as [number, number]
    expect(after).toBe(before)
  })

  test("an echo is served all the same", async () => {
    const [served] = await answer(
      [errno],
      `const r = Reactor.open({ engine: "auto" })
      const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
      const serve = (async () => {
        for await (const connection of listener) {
          for (let chunk = await connection.read(); chunk; chunk = await connection.read()) {
            await connection.write(chunk)
          }
          await connection.close()
        }
      })()
      const sent = new Uint8Array(300_000).map((_, i) => (i * 7) ^ (i >> 8))
      const hash = (bytes: Uint8Array) => Bun.hash(bytes).toString()
      const echoOnce = () => new Promise<boolean>((resolve, reject) => {
        const got: Uint8Array[] = []
        let length = 0
        let offset = 0
        const push = (socket: any) => {
          while (offset < sent.length) {
            const taken = socket.write(sent.subarray(offset))
            if (taken <= 0) return
            offset += taken
          }
        }
        void Bun.connect({ hostname: "127.0.0.1", port: listener.port!, socket: {
          open: push,
          drain: push,
          data(socket, bytes) {
            got.push(new Uint8Array(bytes))
            length += bytes.length
            if (length < sent.length) return
            resolve(hash(Buffer.concat(got)) === hash(sent))
            socket.end()
          },
          error: (_, error) => reject(error),
          connectError: (_, error) => reject(error),
        } })
      })
      const same = await Promise.all(Array.from({ length: 8 }, echoOnce))
      listener.close()
      await serve
      await r.close()
      say({ engine: r.engine, same })`,
    )
    expect(served).toEqual({ engine: "epoll", same: new Array(8).fill(true) })
  })
})

test("URINGLOOP_ENGINE=uring refuses too: it was asked for by name", async () => {
  const { exitCode, stderr } = await program(["EPERM"], "Reactor.open()", { URINGLOOP_ENGINE: "uring" })
  expect(exitCode).not.toBe(0)
  expect(stderr).toContain("ENGINE_UNAVAILABLE")
})

test("without a restriction there is no fallback and nothing is told", async () => {
  const { stdout, stderr } = await program([], OPEN_AUTO)
  const opened = JSON.parse(stdout)
  if (opened.engine === "uring")
    expect({ opened, stderr }).toEqual({ opened: { engine: "uring", reason: null }, stderr: "" })
  else expect(opened.reason).not.toBeNull() // this machine has no io_uring: then it must say so
})
