// A network of two: this namespace and one made for a test, joined by a veth pair. What is needed (root, ip, nft, ss) is
// asked for once; where it is missing the tests that need it say so and do nothing.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

let networksMade = 0

function run(command: string[], input?: string): string {
  const done = Bun.spawnSync(command, { stdin: input === undefined ? "ignore" : Buffer.from(input) })
  if (done.exitCode !== 0) throw new Error(`${command.join(" ")}: ${done.stderr}`)
  return done.stdout.toString()
}

/** Why namespaces cannot be had here, or "". */
export const missing: string = (() => {
  for (const tool of ["ip", "nft", "ss"]) {
    if (Bun.which(tool) === null) return `${tool} is not installed`
  }
  const name = `uringloop-probe-${process.pid}`
  try {
    run(["ip", "netns", "add", name])
  } catch (error) {
    return `no network namespaces: ${(error as Error).message.trim()}`
  }
  try {
    run(["ip", "netns", "exec", name, "nft", "add", "table", "inet", "probe"])
    return ""
  } catch (error) {
    return `no nftables in a namespace: ${(error as Error).message.trim()}`
  } finally {
    run(["ip", "netns", "del", name])
  }
})()

export class Network implements Disposable {
  /** Of this side. */
  readonly here: string
  /** Of the namespace. */
  readonly there: string
  /** In the same subnet, and nobody's. */
  readonly nowhere: string
  private readonly name: string
  private readonly link: string
  private readonly peers: NetworkPeer[] = []

  constructor() {
    const id = `${process.pid}x${networksMade++}`
    // Of the addresses set aside for testing networks (RFC 2544). Not the same twice: a link goes a moment after its namespace.
    const subnet = `198.18.${(process.pid * 16 + networksMade) % 256}`
    this.here = `${subnet}.1`
    this.there = `${subnet}.2`
    this.nowhere = `${subnet}.77`
    this.name = `uringloop-${id}`
    this.link = `ul${id}`
    run(["ip", "netns", "add", this.name])
    try {
      run(["ip", "link", "add", this.link, "type", "veth", "peer", "name", "there", "netns", this.name])
      run(["ip", "addr", "add", `${this.here}/24`, "dev", this.link])
      run(["ip", "link", "set", this.link, "up"])
      this.ip("addr", "add", `${this.there}/24`, "dev", "there")
      this.ip("link", "set", "there", "up")
      this.ip("link", "set", "lo", "up")
    } catch (error) {
      this[Symbol.dispose]()
      throw error
    }
  }

  private ip(...args: string[]): void {
    run(["ip", "-n", this.name, ...args])
  }

  /** A rule of nft(8) for what arrives in the namespace; it replaces the one before. */
  filter(rule: string): void {
    const table = [
      "table inet trouble {",
      "chain input {",
      "type filter hook input priority 0;",
      rule,
      "}",
      "}",
    ]
    run(["ip", "netns", "exec", this.name, "nft", "-f", "-"], `flush ruleset\n${table.join("\n")}\n`)
  }

  /** The cable: down, nothing arrives on either side. The addresses of this side stay. */
  cable(isIn: boolean): void {
    this.ip("link", "set", "there", isIn ? "up" : "down")
  }

  /** Starts a program in the namespace. `HERE` and `THERE` in its environment are the addresses. */
  start(program: string): NetworkPeer {
    const peer = new NetworkPeer(this.name, program, { HERE: this.here, THERE: this.there })
    this.peers.push(peer)
    return peer
  }

  [Symbol.dispose](): void {
    for (const peer of this.peers) peer.kill()
    run(["ip", "netns", "del", this.name]) // the veth pair goes with it
  }
}

export class NetworkPeer {
  private readonly child: Bun.Subprocess<"ignore", "pipe", "inherit">
  private readonly folder = mkdtempSync(join(tmpdir(), "uringloop-network-"))
  private printed = ""

  constructor(namespace: string, program: string, env: Record<string, string>) {
    const file = join(this.folder, "program.ts")
    writeFileSync(file, program)
    const child = Bun.spawn(["ip", "netns", "exec", namespace, process.execPath, file], {
      env: { ...process.env, NODE_ENV: "", ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    })
    this.child = child
    void (async () => {
      const decoder = new TextDecoder()
      for await (const chunk of child.stdout) this.printed += decoder.decode(chunk, { stream: true })
    })()
  }

  get stdout(): string {
    return this.printed
  }

  /** Waits until it has printed `text`. */
  async until(text: string): Promise<void> {
    const ends = performance.now() + 10_000
    while (!this.printed.includes(text)) {
      if (performance.now() > ends)
        throw new Error(`"${text}" never came, only ${JSON.stringify(this.printed)}`)
      await Bun.sleep(2)
    }
  }

  kill(): void {
    this.child.kill("SIGKILL")
    rmSync(this.folder, { recursive: true, force: true })
  }
}
