// Runs commands under restrict.c, which is compiled when it is first needed. A test file that imports this also calls
// `afterAll(removeProgram)`.

import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export const ROOT = join(import.meta.dir, "../../..")
const SYSCTL = "/proc/sys/kernel/io_uring_disabled"
const LIMIT_MS = 20_000

export interface Outcome {
  exitCode: number
  stdout: string
  stderr: string
}

let folder: string | undefined

function program(): string {
  if (folder !== undefined) return join(folder, "restrict")
  folder = mkdtempSync(join(tmpdir(), "uringloop-restrict-"))
  const source = join(import.meta.dir, "restrict.c")
  const out = join(folder, "restrict")
  const built = Bun.spawnSync(["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", out, source])
  if (!built.success) throw new Error(`restrict.c: ${built.stderr}`)
  // Others than root run it as well.
  Bun.spawnSync(["chmod", "755", folder])
  return out
}

/** Removes the compiled program. */
export function removeProgram(): void {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  folder = undefined
}

/** Runs Bun with `args` in the repository under `restrictions` (restrict.c lists them). */
export async function runBun(
  restrictions: string[],
  args: string[],
  env: Record<string, string | undefined> = {},
): Promise<Outcome> {
  return run(restrictions, [process.execPath, ...args], env)
}

export async function run(
  restrictions: string[],
  command: string[],
  env: Record<string, string | undefined> = {},
): Promise<Outcome> {
  const child = Bun.spawn([program(), ...restrictions, ...command], {
    cwd: ROOT,
    // The engine is what these tests are about: none is set from outside.
    env: { ...process.env, URINGLOOP_ENGINE: undefined, URINGLOOP_HOST: undefined, NO_COLOR: "1", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: LIMIT_MS,
    killSignal: "SIGTERM",
  })
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  if (exitCode === 125) throw new Error(`restrict ${restrictions.join(" ")}: ${stderr}`)
  return { exitCode, stdout, stderr }
}

/** Value of kernel.io_uring_disabled; undefined where the kernel has none. */
export function sysctlValue(): string | undefined {
  try {
    return readFileSync(SYSCTL, "latin1").trim()
  } catch {
    return undefined
  }
}

/** Whether this process may set the sysctl: tried by writing what is there. */
export async function canSetSysctl(): Promise<boolean> {
  const value = sysctlValue()
  if (value === undefined) return false
  try {
    await Bun.write(SYSCTL, value)
    return true
  } catch {
    return false
  }
}

/** Restrictions that take CAP_SYS_ADMIN away and leave the repository readable; [] when this process has none. */
export async function unprivileged(): Promise<string[]> {
  if (process.getuid?.() !== 0) return []
  const asNobody = await run(["uid=65534"], [process.execPath, "--version"]).catch(() => undefined)
  const reads = await run(["uid=65534"], ["test", "-r", "cli/uringloop.ts"]).catch(() => undefined)
  if (asNobody?.exitCode === 0 && reads?.exitCode === 0) return ["uid=65534"]
  console.warn("uid 65534 cannot read this folder: root without CAP_SYS_ADMIN stands for it")
  return ["no-admin"]
}
