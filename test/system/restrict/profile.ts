// A seccomp profile in Docker's format as the lines that restrict.c makes a filter of. Only what our profile uses of the format:
// allow and errno, conditions on one argument (equal, masked equal); anything else is an error.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

export interface Profile {
  defaultAction: string
  defaultErrnoRet: number
  archMap: { architecture: string }[]
  syscalls: Rule[]
}

interface Rule {
  comment: string
  names: string[]
  action: string
  errnoRet?: number
  args?: { index: number; value: number; valueTwo?: number; op: string }[]
}

const EPERM = 1
const ALL_BITS = 0xffff_ffff

const folder = mkdtempSync(join(tmpdir(), "uringloop-profile-"))

export function removeProfiles(): void {
  rmSync(folder, { recursive: true, force: true })
}

/** Writes a profile for `restrict profile=FILE`. Returns the path. */
export function writeProfile(profile: Profile): string {
  if (profile.defaultAction !== "SCMP_ACT_ERRNO" || profile.defaultErrnoRet !== EPERM)
    throw new Error("the filter refuses by default, with EPERM")
  const numbers = systemCallNumbers()
  const lines = profile.syscalls.flatMap((rule) =>
    // A name that this machine does not know is another architecture's.
    rule.names.filter((name) => numbers.has(name)).map((name) => `${numbers.get(name)} ${conditionOf(rule)}`),
  )
  const path = join(folder, `${crypto.randomUUID()}.txt`)
  writeFileSync(path, `${lines.join("\n")}\n`)
  return path
}

function conditionOf(rule: Rule): string {
  const errno = rule.action === "SCMP_ACT_ALLOW" ? 0 : rule.errnoRet
  if (errno === undefined) throw new Error(`action ${rule.action} without an errno`)
  const [argument, ...more] = rule.args ?? []
  if (argument === undefined) return `${errno} -1 0 0`
  if (more.length > 0) throw new Error("one condition a rule")
  if (argument.op === "SCMP_CMP_EQ") return `${errno} ${argument.index} ${ALL_BITS} ${argument.value}`
  if (argument.op === "SCMP_CMP_MASKED_EQ")
    return `${errno} ${argument.index} ${argument.value} ${argument.valueTwo ?? 0}`
  throw new Error(`condition ${argument.op}`)
}

/** Of this machine, by name, as its C library has them. */
export function systemCallNumbers(): Map<string, number> {
  const done = Bun.spawnSync(["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-xc", "/dev/null"])
  if (!done.success) throw new Error(`gcc: ${done.stderr}`)
  const defined = done.stdout.toString().matchAll(/^#define __NR_(\w+) (\d+)$/gm)
  return new Map([...defined].map(([, name, number]) => [name!, Number(number)]))
}
