// That the checkers can fail: something is broken on purpose between the simulated kernel and the checkers, or in the kernel
// itself, and the run says so. Without the breach the same seeds pass (test/sim/run.ts).

import { describe, expect, test } from "bun:test"
import * as abi from "../../ffi/abi.ts"
import type { Native } from "../../ffi/native.ts"
import { drawPlan } from "../../test/sim/plan.ts"
import { runSeed } from "../../test/sim/run_seed.ts"
import type { SimulatedNative } from "./simulated_native.ts"

const WORDS = abi.COMPLETION_SIZE / 4
/** Seeds that are tried until the breach has come about. */
const SEEDS = 40

/** What the run of some seed has to say about a breach; undefined when nobody noticed. */
function verdict(tamper: (native: SimulatedNative) => Native, host?: "owned" | "hosted"): string | undefined {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const plan = drawPlan(seed)
    if (host !== undefined) plan.host = host
    plan.faults = {}
    plan.cutAtMs = undefined
    try {
      runSeed(seed, { plan, tamper })
    } catch (error) {
      return (error as Error).message
    }
  }
  return undefined
}

/** Changes the completions of each tick: gets the records, and returns how many there are now. */
function onCompletions(change: (records: Int32Array, count: number, native: SimulatedNative) => number) {
  return (native: SimulatedNative): Native => {
    const tick = native.tick
    return Object.assign(Object.create(native) as Native, {
      tick(ring: number, count: number, waitNs: number): number {
        const result = tick(ring, count, waitNs)
        return waitNs < 0 ? result : change(native.ringOf(ring)!.mapping.completions, result, native)
      },
    })
  }
}

/** The first record of an operation, or -1. */
function find(records: Int32Array, count: number, op: number): number {
  for (let i = 0; i < count; i++) if (records[i * WORDS + 5] === op) return i
  return -1
}

function counted(native: SimulatedNative, by: number): void {
  native.ringOf(0)!.mapping.count(abi.HEADER_COMPLETIONS, by)
}

describe("without a breach", () => {
  test("nothing is found", () => expect(verdict((native) => native)).toBeUndefined())
})

describe("completions", () => {
  test("one is lost", () => {
    const lose = onCompletions((records, count, native) => {
      const at = find(records, count, abi.OP_SEND)
      if (at < 0) return count
      records.copyWithin(at * WORDS, (at + 1) * WORDS, count * WORDS)
      counted(native, -1)
      return count - 1
    })
    expect(verdict(lose)).toMatch(/commands in flight: \d+ seen, the header says \d+/)
  })

  test("one comes twice", () => {
    const double = onCompletions((records, count, native) => {
      const at = find(records, count, abi.OP_CLOSE)
      if (at < 0) return count
      records.copyWithin(count * WORDS, at * WORDS, (at + 1) * WORDS)
      counted(native, 1)
      return count + 1
    })
    expect(verdict(double)).toMatch(/a completion for slot \d+\.\d+, which is not in flight/)
  })

  test("one is of a generation of the past", () => {
    const age = onCompletions((records, count) => {
      const at = find(records, count, abi.OP_RECV)
      if (at >= 0) records[at * WORDS + 1]--
      return count
    })
    expect(verdict(age)).toMatch(/a completion for slot \d+\.\d+, which is not in flight/)
  })

  test("one is of another operation", () => {
    const rename = onCompletions((records, count) => {
      const at = find(records, count, abi.OP_ACCEPT)
      if (at >= 0) records[at * WORDS + 5] = abi.OP_POLL
      return count
    })
    expect(verdict(rename)).toMatch(/ACCEPT completed as POLL/)
  })

  test("a stale record gets through to a program that takes it", () => {
    // The same as what the fault does, but not counted as made up.
    const repeat = onCompletions((records, count, native) => {
      if (count === 0) return count
      records.copyWithin(count * WORDS, 0, WORDS)
      records[count * WORDS + 1] -= 1
      counted(native, 1)
      return count + 1
    })
    expect(verdict(repeat)).toMatch(/which is not in flight/)
  })
})

describe("memory", () => {
  test("a received byte is wrong", () => {
    const corrupt = onCompletions((records, count, native) => {
      const at = find(records, count, abi.OP_RECV)
      if (at >= 0 && records[at * WORDS + 3] & abi.F_BUFFER) {
        native.ringOf(0)!.mapping.buffers[records[at * WORDS + 4]] ^= 1
      }
      return count
    })
    expect(verdict(corrupt)).toMatch(/byte \d+ is \d+, wanted \d+/)
  })

  test("received bytes lie where others lie", () => {
    const overlap = onCompletions((records, count) => {
      let first = -1
      for (let i = 0; i < count; i++) {
        if ((records[i * WORDS + 3] & abi.F_BUFFER) === 0) continue
        if (first >= 0) records[i * WORDS + 4] = first
        else first = records[i * WORDS + 4]
      }
      return count
    })
    expect(verdict(overlap)).toMatch(/same received bytes|wanted \d+/)
  })

  test("bytes of a send change while it is in flight", () => {
    const change = onCompletions((records, count, native) => {
      const at = find(records, count, abi.OP_SEND)
      if (at < 0) return count
      const slot = native.ringOf(0)!.tables.slotAt(records[at * WORDS])
      native.ringOf(0)!.mapping.arena(slot.offset, 1)[0] ^= 1
      return count
    })
    expect(verdict(change)).toMatch(/bytes of a send on descriptor \d+ changed/)
  })

  test("a receive buffer leaks", () => {
    const leak = (native: SimulatedNative) => {
      let ticks = 0
      return onCompletions((_records, count) => {
        if (++ticks === 3) native.ringOf(0)!.buffers.take(native.ringOf(0)!.buffers.sizeBytes)
        return count
      })(native)
    }
    expect(verdict(leak)).toMatch(/1 receive buffers are missing/)
  })
})

describe("descriptors", () => {
  test("one is closed behind the engine's back", () => {
    const steal = onCompletions((records, count, native) => {
      const at = find(records, count, abi.OP_ACCEPT)
      if (at >= 0 && records[at * WORDS + 2] >= 0) native.files.close(records[at * WORDS + 2])
      return count
    })
    expect(verdict(steal)).toMatch(/-1 open descriptors belong to nobody/)
  })

  test("one is counted as closed and is not", () => {
    const miscount = onCompletions((records, count, native) => {
      if (find(records, count, abi.OP_CLOSE) >= 0) native.ringOf(0)!.mapping.count(abi.HEADER_FDS_CLOSED)
      return count
    })
    expect(verdict(miscount)).toMatch(/descriptors open: \d+ seen, the header says \d+/)
  })
})

describe("wake-ups", () => {
  test("the eventfd stays silent", () => {
    const silence = (native: SimulatedNative) => {
      const { open } = native
      return Object.assign(Object.create(native) as Native, {
        open(config: Uint8Array): number {
          const ring = open.call(native, config)
          native.ringOf(ring)!.ring.onWork = () => {}
          return ring
        },
      })
    }
    expect(verdict(silence, "hosted")).toMatch(/a wake-up is lost/)
  })

  test("a send is never completed", () => {
    const swallow = onCompletions((records, count, native) => {
      const at = find(records, count, abi.OP_SEND)
      if (at < 0) return count
      const { mapping } = native.ringOf(0)!
      records.copyWithin(at * WORDS, (at + 1) * WORDS, count * WORDS)
      // With the counters put right: the program's own wait has to tell.
      counted(native, -1)
      mapping.set(abi.HEADER_IN_FLIGHT, mapping.get(abi.HEADER_IN_FLIGHT) + 1)
      return count - 1
    })
    expect(verdict(swallow)).toMatch(/not come to its end|nothing can happen any more|waits for ever/)
  })
})
