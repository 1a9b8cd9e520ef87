// Programs in a process of their own, for tests about how a process ends or what it may use up. A program is given as
// text; `SRC` in it stands for the sources under test. Hosted passes alone: the test waits with the runtime's loop.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ENGINE } from "./harness.ts"

const SOURCES = join(import.meta.dir, "../../src")
/** A program that has not ended by then is killed. */
const LIMIT_MS = 12_000

export interface Outcome {
  stdout: string
  stderr: string
  exitCode: number | null
  /** The signal that ended it, "SIGKILL" when it was over the limit. */
  signal: string | undefined
}

export interface Child {
  /** What it has printed so far. */
  stdout(): string
  /** Waits until it has printed `text`. */
  until(text: string): Promise<void>
  readonly isOver: boolean
  readonly exited: Promise<Outcome>
  signal(name: NodeJS.Signals): void
}

/** Runs a program to its end. */
export function runChild(program: string, env: Record<string, string> = {}): Promise<Outcome> {
  return startChild(program, env).exited
}

/** Starts a program. `limits` are for the shell's `ulimit`: "-n 64"; `wrapper` is a command that runs the rest of its line. */
export function startChild(
  program: string,
  env: Record<string, string> = {},
  limits?: string,
  wrapper: string[] = [],
): Child {
  const folder = mkdtempSync(join(tmpdir(), "uringloop-child-"))
  const file = join(folder, "program.ts")
  writeFileSync(file, program.replaceAll("SRC/", `${SOURCES}/`))
  const command = [...wrapper, process.execPath, file]
  const child = Bun.spawn(
    limits === undefined ? command : ["sh", "-c", `ulimit ${limits}; exec "$@"`, "sh", ...command],
    {
      // Without NODE_ENV=test, which `bun test` sets; the engine of this pass, whatever host this pass has.
      env: { ...process.env, URINGLOOP_ENGINE: ENGINE, URINGLOOP_HOST: "hosted", NODE_ENV: "", ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  )
  let printed = ""
  const reading = (async () => {
    const decoder = new TextDecoder()
    for await (const chunk of child.stdout) printed += decoder.decode(chunk, { stream: true })
  })()
  const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS)
  const exited = (async (): Promise<Outcome> => {
    const stderr = await new Response(child.stderr).text()
    await Promise.all([reading, child.exited])
    clearTimeout(timer)
    rmSync(folder, { recursive: true, force: true })
    return { stdout: printed, stderr, exitCode: child.exitCode, signal: child.signalCode?.toString() }
  })()
  let isOver = false
  void exited.then(() => {
    isOver = true
  })
  return {
    stdout: () => printed,
    get isOver() {
      return isOver
    },
    exited,
    signal: (name) => child.kill(name),
    async until(text) {
      while (!printed.includes(text)) {
        if (isOver) throw new Error(`the child ended without "${text}": ${JSON.stringify(await exited)}`)
        await Bun.sleep(2)
      }
    },
  }
}
