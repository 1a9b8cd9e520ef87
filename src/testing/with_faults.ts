/**
 * Fault plans: a platform whose operations go wrong by rules, over the real engines or over a simulated one.
 *
 *     const platform = withFaults(undefined, [
 *       { operation: "accept", error: "EMFILE", times: 3 },
 *       { operation: "recv", bytes: 1, connection: 2 },
 *       { operation: "send", error: "EPIPE", after: 10, probability: 0.01 },
 *     ], 42)
 *     const reactor = Reactor.open({}, platform)
 *
 * docs/testing.md says what each rule does to each operation.
 */
import * as abi from "../../ffi/abi.ts"
import type { Native, Platform, RuntimeLoop } from "../../ffi/native.ts"
import { runtimePlatform } from "../reactor/engine.ts"
import { FAULT_OPERATIONS, type FaultRule, FaultRules } from "./fault_rules.ts"
import { FaultyRing } from "./faulty_ring.ts"
import { OWN_SLOTS } from "./own_commands.ts"
import { PassThrough } from "./pass_through.ts"

/** For `Reactor.open(options, platform)`. Serves one reactor or several, one after the other or at once. */
export interface FaultyPlatform extends Platform {
  readonly native: FaultyNative
  /** How often each rule has struck, in the order of the rules. */
  readonly faultCounts: readonly number[]
}

/**
 * A platform on which operations go wrong as the rules say; where several rules fit, the first that is due.
 * @param platform what it stands on; undefined: the kernel and the runtime
 * @param seed of the probabilities, 0 to 2^32 - 1: the same seed and the same course of things meet the same faults
 * @throws TypeError, RangeError that names the rule and the option; UringloopError SHIM_UNAVAILABLE
 */
export function withFaults(
  platform: Platform | undefined,
  rules: readonly FaultRule[],
  seed = 1,
): FaultyPlatform {
  return new PlatformWithFaults(platform ?? runtimePlatform(), new FaultRules(rules, seed))
}

class PlatformWithFaults implements FaultyPlatform {
  readonly native: FaultyNative
  readonly loop: RuntimeLoop
  readonly clock: () => number
  private readonly rules: FaultRules

  constructor({ native, loop, clock }: Platform, rules: FaultRules) {
    this.native = new FaultyNative(native, rules)
    this.loop = loop
    this.clock = clock
    this.rules = rules
  }

  get faultCounts(): readonly number[] {
    return this.rules.counts
  }
}

/** The shim's exports, with a `FaultyRing` around each ring. */
export class FaultyNative extends PassThrough {
  private readonly rules: FaultRules
  private readonly rings = new Map<number, FaultyRing>()

  constructor(inner: Native, rules: FaultRules) {
    super(inner)
    this.rules = rules
  }

  // Taken out of the object by its users: bound.
  override readonly tick = (ring: number, count: number, waitNs: number): number => {
    const faulty = this.rings.get(ring)
    return faulty === undefined ? this.inner.tick(ring, count, waitNs) : faulty.tick(count, waitNs)
  }

  override open(config: Uint8Array): number {
    const failure = this.failureOf(FAULT_OPERATIONS.open)
    if (failure < 0) return failure
    const view = new DataView(config.buffer, config.byteOffset)
    const slots = view.getUint32(abi.CONFIG_SLOT_CAPACITY, true)
    view.setUint32(abi.CONFIG_SLOT_CAPACITY, Math.min(slots + OWN_SLOTS, abi.MAX_SLOTS), true)
    const ring = this.inner.open(config)
    if (ring >= 0) this.rings.set(ring, new FaultyRing(this.inner, ring, this.rules))
    return ring
  }

  override close(ring: number): number {
    const faulty = this.rings.get(ring)
    if (faulty?.isBusy) return -EBUSY
    const result = this.inner.close(ring)
    if (result >= 0) faulty?.clear()
    if (result >= 0) this.rings.delete(ring)
    return result
  }

  override region(ring: number, offset: number, length: number): ArrayBuffer {
    return this.rings.get(ring)?.region(offset, length) ?? this.inner.region(ring, offset, length)
  }

  override listen(ring: number, address: Uint8Array, backlog: number, flags: number): number {
    const failure = this.failureOf(FAULT_OPERATIONS.listen)
    return failure < 0 ? failure : this.counted(ring, this.inner.listen(ring, address, backlog, flags))
  }
  override socket(ring: number, family: number): number {
    const failure = this.failureOf(FAULT_OPERATIONS.socket)
    return failure < 0 ? failure : this.counted(ring, this.inner.socket(ring, family))
  }
  override adopt(ring: number, fd: number): number {
    return this.counted(ring, this.inner.adopt(ring, fd))
  }

  private failureOf(op: number): number {
    return this.rules.decide(op, -1, 0, 0)?.result ?? 0
  }

  /** A descriptor has been opened between two ticks: the header knows. */
  private counted(ring: number, fd: number): number {
    this.rings.get(ring)?.copyHeader()
    return fd
  }
}

const EBUSY = 16
