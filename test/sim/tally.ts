// What a series of seeds has come to: counts for people, and for results/sim.json.

import { FAULT_KINDS, type FaultKind } from "../../src/testing/index.ts"
import type { Outcome } from "./run_seed.ts"

export class Tally {
  readonly failures: number[] = []
  private readonly startedMs = performance.now()
  private readonly faults: Partial<Record<FaultKind, number>> = {}
  private readonly limits: Outcome["limits"] = { sendMemory: 0, operations: 0, lingers: 0, acceptPauses: 0 }
  private seeds = 0
  private operations = 0
  private ticks = 0
  private connections = 0
  private completed = 0
  private bytes = 0

  add(outcome: Outcome): void {
    this.seeds++
    this.operations += outcome.operations
    this.ticks += outcome.ticks
    this.connections += outcome.connections
    this.completed += outcome.completed
    this.bytes += outcome.bytesReceived + outcome.bytesSent
    for (const name of Object.keys(this.limits) as (keyof Outcome["limits"])[]) {
      this.limits[name] += outcome.limits[name]
    }
    for (const kind of FAULT_KINDS) this.faults[kind] = (this.faults[kind] ?? 0) + (outcome.faults[kind] ?? 0)
  }

  summary(): string {
    const seconds = (performance.now() - this.startedMs) / 1000
    const rate = Math.round((this.operations / seconds) * 60)
    return `${this.operations} operations, ${this.connections} connections (${this.completed} had to complete) in ${seconds.toFixed(1)} s (${rate} operations a minute)`
  }

  faultLines(): string {
    const counts = [
      ...FAULT_KINDS.map((kind) => [kind, this.faults[kind] ?? 0]),
      ...Object.entries(this.limits),
    ]
    return counts.map(([name, count]) => `  ${String(name).padEnd(22)} ${count}`).join("\n")
  }

  asRecord() {
    return {
      seeds: this.seeds + this.failures.length,
      passed: this.seeds,
      failed: this.failures,
      seconds: Math.round((performance.now() - this.startedMs) / 100) / 10,
      operations: this.operations,
      ticks: this.ticks,
      connections: this.connections,
      completed: this.completed,
      bytes: this.bytes,
      faults: this.faults,
      limits: this.limits,
    }
  }
}
