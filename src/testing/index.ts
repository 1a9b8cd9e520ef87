/**
 * uringloop/testing: a simulated kernel to run a reactor on, with faults, peers and virtual time from one seed.
 *
 *     const simulation = new Simulation({ seed: 1, faults: { shortSend: 0.1, reset: 0.01 } })
 *     const reactor = Reactor.open({ engine: "uring", host: "owned" }, simulation)
 *     const listener = reactor.listen({ hostname: "127.0.0.1", port: 0, socket: { data(socket, chunk) { ... } } })
 *     simulation.connect(listener.port, { onOpen: (peer) => peer.send(bytes), onData(bytes) { ... } })
 *     simulation.drive(reactor, somePromise)
 *     simulation.drive(reactor, reactor.close())
 *
 * docs/testing.md says what is simulated and what that cannot show.
 */
export { BorderChecker, type CheckOptions } from "./border_checker.ts"
export { expectNoLeaks, type NoLeaksOptions } from "./expect_no_leaks.ts"
export type { FaultEvent, FaultOperation, FaultRule } from "./fault_rules.ts"
export { drawRates, FAULT_KINDS, FAULTS, type FaultKind, FaultPlan, type FaultRates } from "./faults.ts"
export type { NetworkShape } from "./network.ts"
export { type PeerHandlers, SimulatedPeer } from "./peer.ts"
export { Random } from "./random.ts"
export { record } from "./recording.ts"
export { Divergence, Replay, ReplayEnded } from "./replay.ts"
export { SimulationStuck } from "./ring.ts"
export { type KernelShape, SimulatedNative } from "./simulated_native.ts"
export { type Driven, Simulation, type SimulationOptions } from "./simulation.ts"
export { Violation } from "./violation.ts"
export { type FaultyNative, type FaultyPlatform, withFaults } from "./with_faults.ts"
