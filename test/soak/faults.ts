// What the soak does to its server and peers while they are at it: one fault at a time, drawn from a seed.

import type { Random } from "../support/random.ts"
import { Churn } from "./churn.ts"
import type { ToServer } from "./messages.ts"

export interface FaultCounts {
  /** A second with no descriptor to be had. */
  emfilePhases: number
  peersStopped: number
  serverStopped: number
  /** Peer processes killed, and the connections that they had open. */
  peersKilled: number
  connectionsKilled: number
}

export interface Targets {
  serverPid: number
  /** The peers that may be stopped. */
  churns: Churn[]
  ports: readonly number[]
  send(message: ToServer): void
}

/** Descriptors left to the server in a phase of EMFILE, beyond those that it has already. */
const SPARE_DESCRIPTORS = 5

export class FaultInjector {
  readonly counts: FaultCounts = {
    emfilePhases: 0,
    peersStopped: 0,
    serverStopped: 0,
    peersKilled: 0,
    connectionsKilled: 0,
  }
  /** Peers that were killed must not have seen a wrong byte before. */
  readonly complaints: string[] = []
  private readonly targets: Targets
  private readonly random: Random
  private isStopping = false

  constructor(targets: Targets, random: Random) {
    this.targets = targets
    this.random = random
  }

  /** Injects until `stop`; leaves nothing behind that is stopped or limited. */
  async run(): Promise<void> {
    const faults = [
      () => this.emfile(),
      () => this.stopPeer(),
      () => this.stopServer(),
      () => this.killPeer(),
    ]
    for (let i = 0; !this.isStopping; i++) {
      // Each kind comes in turn, so that the shortest run has them all.
      await faults[i % faults.length]()
      await Bun.sleep(this.random.integer(300, 1_500))
    }
  }

  stop(): void {
    this.isStopping = true
  }

  private async emfile(): Promise<void> {
    // By taking them, not by lowering the limit: an accept of io_uring's keeps the limit that it was armed with.
    this.targets.send({ ask: "takeDescriptors", spare: SPARE_DESCRIPTORS })
    await Bun.sleep(this.random.integer(500, 1_000))
    this.targets.send({ ask: "giveDescriptors" })
    this.counts.emfilePhases++
  }

  private async stopPeer(): Promise<void> {
    const churn = this.random.pick(this.targets.churns)
    churn.signal("SIGSTOP")
    await Bun.sleep(this.random.integer(200, 2_000))
    churn.signal("SIGCONT")
    this.counts.peersStopped++
  }

  private async stopServer(): Promise<void> {
    process.kill(this.targets.serverPid, "SIGSTOP")
    await Bun.sleep(this.random.integer(50, 500))
    process.kill(this.targets.serverPid, "SIGCONT")
    this.counts.serverStopped++
  }

  /** A peer of its own that dies with everything in the middle. */
  private async killPeer(): Promise<void> {
    const victim = new Churn(this.targets.ports, {
      seconds: 60,
      rate: 200,
      most: 200,
      long: 40,
      seed: this.random.integer(1, 1e6),
    })
    await Bun.sleep(this.random.integer(1_100, 1_800))
    victim.signal("SIGKILL")
    await victim.exited
    this.counts.peersKilled++
    this.counts.connectionsKilled += victim.report?.open ?? 0
    if (victim.complaints !== "") this.complaints.push(victim.complaints)
  }
}
