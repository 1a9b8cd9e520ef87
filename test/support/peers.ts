// Peers that are processes of their own, so that nothing they do depends on the loop under test: peer.c,
// compiled at first use. A peer leaves its verdict in a file, which a test in either host can read without
// the help of Bun's loop.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Reactor } from "../../src/index.ts"
import { until } from "./harness.ts"

const SOURCE = join(import.meta.dir, "peer.c")

let binary: string | undefined
const running: Peer[] = []

/** The peer program; built when its source is new. */
export function peerBinary(): string {
  if (binary !== undefined) return binary
  const name = `peer-${Bun.hash(readFileSync(SOURCE)).toString(36)}`
  const folder = join(tmpdir(), "uringloop-test")
  const path = join(folder, name)
  if (!existsSync(path)) {
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
    if (built.exitCode !== 0) throw new Error(`peer.c does not compile: ${built.stderr}`)
    renameSync(fresh, path)
  }
  binary = path
  return path
}

export class Peer {
  private readonly child: Bun.Subprocess
  private readonly folder: string

  constructor(args: string[]) {
    this.folder = mkdtempSync(join(tmpdir(), "uringloop-peer-"))
    this.child = Bun.spawn([peerBinary(), this.file, ...args], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "inherit",
    })
    running.push(this)
  }

  private get file(): string {
    return join(this.folder, "verdict")
  }

  /** What the peer said at its end: "ok ..." or "fail ...". */
  async verdict(reactor: Reactor, limitMs = 11_000): Promise<string> {
    await until(reactor, "the peer's verdict", () => existsSync(this.file), limitMs)
    return readFileSync(this.file, "utf8")
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name)
  }

  /** Ends it; does not wait, because only Bun's loop would see the end, and an owned host does not run that. */
  kill(): void {
    this.child.kill("SIGKILL")
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Starts the peer in one of its modes (peer.c lists them) against 127.0.0.1:port. */
export function startPeer(mode: string, port: number, settings: Record<string, number> = {}): Peer {
  return new Peer([
    mode,
    String(port),
    ...Object.entries(settings).map(([name, value]) => `${name}=${value}`),
  ])
}

/** Ends all peers of the test that has just run. */
export async function killPeers(): Promise<void> {
  await Promise.all(running.splice(0).map((peer) => peer.kill()))
}
