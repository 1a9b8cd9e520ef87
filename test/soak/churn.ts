// The soak's peers: churn.c, compiled at first use, one process each.

import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const SOURCE = join(import.meta.dir, "churn.c")

export interface ChurnReport {
  over: boolean
  open: number
  opened: number
  lost: number
  bytes: number
  openedBy: Record<string, number>
  completedBy: Record<string, number>
  lostBy: Record<string, number>
}

function churnBinary(): string {
  const name = `churn-${Bun.hash(readFileSync(SOURCE)).toString(36)}`
  const folder = join(tmpdir(), "uringloop-test")
  const path = join(folder, name)
  if (existsSync(path)) return path
  mkdirSync(folder, { recursive: true })
  const fresh = `${path}.${process.pid}`
  const built = Bun.spawnSync([
    "gcc",
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-o",
    fresh,
    SOURCE,
  ])
  if (built.exitCode !== 0) throw new Error(`churn.c does not compile: ${built.stderr}`)
  renameSync(fresh, path)
  return path
}

export class Churn {
  readonly pid: number
  /** Resolves when it has printed its last report, or died. */
  readonly exited: Promise<void>
  /** The last that it has reported. */
  report: ChurnReport | undefined
  /** What it complained of. */
  complaints = ""
  private readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">

  constructor(ports: readonly number[], settings: Record<string, number>) {
    this.child = Bun.spawn(
      [
        churnBinary(),
        ...ports.map(String),
        ...Object.entries(settings).map(([name, value]) => `${name}=${value}`),
      ],
      { stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    )
    this.pid = this.child.pid
    this.exited = Promise.all([this.readReports(), this.readComplaints(), this.child.exited]).then(() => {})
  }

  get exitCode(): number | null {
    return this.child.exitCode
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name)
  }

  private async readReports(): Promise<void> {
    const decoder = new TextDecoder()
    let rest = ""
    for await (const bytes of this.child.stdout) {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n")
      rest = lines.pop() ?? ""
      for (const line of lines) this.report = JSON.parse(line) as ChurnReport
    }
  }

  private async readComplaints(): Promise<void> {
    this.complaints = await new Response(this.child.stderr).text()
  }
}
