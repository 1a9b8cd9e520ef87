/**
 * A simulated machine to run reactors on: kernel, network, peers, the runtime's loop, and time, all from one seed. The same
 * seed and the same program give the same run, to the last completion.
 */
import { bunLoop } from "../../ffi/bun.ts"
import type { Native, Platform } from "../../ffi/native.ts"
import { BorderChecker } from "./border_checker.ts"
import { VirtualClock } from "./clock.ts"
import { FaultPlan, type FaultRates } from "./faults.ts"
import { SimulatedLoop } from "./loop.ts"
import { Network, type NetworkShape } from "./network.ts"
import { type PeerHandlers, SimulatedPeer } from "./peer.ts"
import { Random } from "./random.ts"
import { type KernelShape, SimulatedNative } from "./simulated_native.ts"
import { Violation } from "./violation.ts"

export interface SimulationOptions {
  /** Any integer: all chance comes from it. */
  seed: number
  /** Probability of each fault at each step at which it could happen. Default: none. */
  faults?: FaultRates
  kernel?: Partial<KernelShape>
  network?: Partial<NetworkShape>
  /** Called before each tick. */
  beforeTick?: (waitNs: number) => void
  /** Told of each tick, command and completion, as a line. */
  trace?: (line: string) => void
  /** Between the checker and the simulated kernel: for tests that show what the checkers find. */
  tamper?: (native: Native) => Native
}

const KERNEL: KernelShape = {
  fdLimit: 1024,
  commandCapacity: 4096,
  completionCapacity: 4096,
  isIncremental: true,
}

const NETWORK: NetworkShape = {
  latencyNs: [20_000, 200_000],
  jitterNs: [0, 0],
  windowBytes: [65_536, 262_144],
  segmentBytes: [65_536, 65_536],
}

/** What `drive` needs of a reactor. */
export interface Driven {
  readonly hostName: "hosted" | "owned"
  readonly hasHolds: boolean
  run(until: Promise<unknown>): void
}

/**
 * What a reactor stands on in a simulated run: `Reactor.open({ engine: "uring", host: "owned" }, simulation)`. Nothing of it
 * may be awaited outside of `drive`: virtual time moves only there.
 */
export class Simulation implements Platform {
  readonly seed: number
  readonly time = new VirtualClock()
  readonly faults: FaultPlan
  readonly network: Network
  readonly loop: SimulatedLoop
  readonly kernel: SimulatedNative
  /** The kernel, watched by the checkers. */
  readonly native: Native
  /** Virtual milliseconds. */
  readonly clock = (): number => this.time.nowMs

  /** What `until` waits for. */
  private condition: (() => boolean) | undefined

  constructor(options: SimulationOptions) {
    this.seed = options.seed
    const random = new Random(options.seed)
    this.faults = new FaultPlan(options.faults ?? {}, random.fork("faults"))
    this.network = new Network(this.time, random.fork("network"), { ...NETWORK, ...options.network })
    this.loop = new SimulatedLoop(this.time, random.fork("loop"))
    this.kernel = new SimulatedNative({
      clock: this.time,
      random: random.fork("kernel"),
      faults: this.faults,
      network: this.network,
      loop: this.loop,
      isOver: () => this.condition?.() === true,
      shape: { ...KERNEL, ...options.kernel },
    })
    const inner = options.tamper?.(this.kernel) ?? this.kernel
    const { trace, beforeTick } = options
    this.loop.onIdle = (isHeld) => {
      if (isHeld && this.kernel.isUnheard) throw new Violation("a wake-up is lost: the eventfd is silent")
    }
    this.native = new BorderChecker(inner, {
      staleAllowed: () => this.faults.counts.staleRecord ?? 0,
      beforeTick,
      afterTick: (ring) => this.afterTick(ring),
      trace: trace && ((line) => trace(`${this.time.nowMs.toFixed(3)} ${line}`)),
    })
  }

  /** A peer that connects to a listener of a reactor, at any address of the reactor's host (127.x.x.x). */
  connect(port: number, handlers: PeerHandlers, address = "127.0.0.1"): SimulatedPeer {
    const socket = this.network.socket()
    const peer = new SimulatedPeer(socket, handlers)
    this.network.connect(socket, { address, port }, (result) => {
      if (result === 0) peer.opened()
      else handlers.onRefused?.(result)
    })
    return peer
  }

  /**
   * Answers connects of reactors to this port, on any address of another host. `accept` is told the address, and gives the
   * handlers of the peer or a negated errno to refuse with; -ETIMEDOUT (-110) lets the connect wait for an answer.
   */
  serve(port: number, accept: (address: string) => PeerHandlers | number): void {
    this.network.serve(port, (socket) => {
      const handlers = accept(socket.local.address)
      if (typeof handlers === "number") return handlers
      // Not yet: the other end must know of the connection first.
      const peer = new SimulatedPeer(socket, handlers)
      this.time.after(0, () => peer.opened())
      return 0
    })
  }

  /**
   * Runs reactors and virtual time until a promise settles; returns what it settled with.
   * @throws what the promise rejected with; Violation; SimulationStuck when it can never settle
   */
  drive<T>(reactor: Driven, promise: Promise<T>): T {
    let outcome: { value: T } | { error: unknown } | undefined
    promise.then(
      (value) => {
        outcome = { value }
      },
      (error) => {
        outcome = { error }
      },
    )
    if (reactor.hostName === "hosted") {
      this.loop.run(
        () => outcome !== undefined,
        () => reactor.hasHolds,
      )
    } else {
      reactor.run(promise)
      this.loop.flushTurns()
    }
    bunLoop.drainMicrotasks()
    if (outcome === undefined) throw new Violation("the reactor stopped although a promise waits")
    if ("error" in outcome) throw outcome.error
    return outcome.value
  }

  /**
   * Runs until a condition holds, which is looked at whenever time has passed: what peers have seen.
   * @throws as `drive`
   */
  until(reactor: Driven, condition: () => boolean): void {
    const holds = new Promise<void>((resolve) => {
      this.condition = () => {
        if (!condition()) return false
        resolve()
        return true
      }
    })
    try {
      this.drive(reactor, holds)
    } finally {
      this.condition = undefined
    }
  }

  private afterTick(ring: number): void {
    this.checkKernel(ring)
    if (this.condition?.()) bunLoop.drainMicrotasks()
  }

  /** Buffers: in the ring, lent, or in completions under way. Descriptors: owned, or in completions under way. */
  private checkKernel(handle: number): void {
    const { buffers, descriptors } = this.kernel.account(handle)
    if (buffers !== 0) throw new Violation(`${buffers} receive buffers are missing`)
    if (descriptors !== 0) throw new Violation(`${descriptors} open descriptors belong to nobody`)
  }
}
