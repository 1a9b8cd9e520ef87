// A simulated run while it goes on: the simulation, the reactor, the conversations, and what their sides share.

import type { Reactor } from "../../src/index.ts"
import { Deadline } from "../../src/reactor/deadlines.ts"
import { Random, type Simulation, Violation } from "../../src/testing/index.ts"
import { Conversation, OWN_CODES, type Side } from "./conversation.ts"
import type { RunPlan } from "./plan.ts"

/** Port at which simulated peers answer. */
export const PEER_PORT = 80

export class World {
  readonly plan: RunPlan
  readonly simulation: Simulation
  readonly reactor: Reactor
  readonly random: Random
  readonly conversations: Conversation[]
  /** The reactor is being closed under the programs: they may be cut off anywhere. */
  isCut = false
  /** Deadlines of the programs' that are armed: they are not the reactor's. */
  ownDeadlines = 0
  /** Conversations on which everything had to arrive, and did. */
  completed = 0
  /** Writes that were cut short while the send memory was all but used up. */
  memoryRefusals = 0
  /** Programs that were told LIMIT_OPERATIONS. */
  operationRefusals = 0
  /** Connections that broke before their program had asked for them. */
  brokenUnopened = 0
  /** Raw connections that have come to their end. */
  rawOver = 0
  private failure: unknown
  private readonly finished: () => void
  /** Settles when no program takes part in anything any more, or when something was found. */
  readonly programsOver: Promise<void>

  constructor(plan: RunPlan, simulation: Simulation, reactor: Reactor) {
    this.plan = plan
    this.simulation = simulation
    this.reactor = reactor
    this.random = new Random(plan.seed).fork("programs")
    this.conversations = plan.conversations.map((conversation) => new Conversation(conversation))
    let finished = () => {}
    this.programsOver = new Promise((resolve) => {
      finished = resolve
    })
    this.finished = finished
  }

  /** Something does not hold. Handlers may not throw it: the first is kept. */
  found(violation: unknown): void {
    this.failure ??= violation
    this.finished()
  }

  /** Runs a handler; what it finds is kept. */
  guard(run: () => void): void {
    try {
      run()
    } catch (error) {
      this.found(error)
    }
  }

  /** @throws what was found */
  check(): void {
    if (this.failure !== undefined) throw this.failure
  }

  /** A program's side takes no more part. */
  over(side: Side, failure?: unknown): void {
    this.guard(() => {
      side.over(failure)
      if (side.failure !== undefined) this.checkFailure(side, side.failure)
    })
    this.checkFinished()
  }

  checkFinished(): void {
    if (this.conversations.every((conversation) => conversation.hasNoProgram)) this.finished()
  }

  /** A peer of a conversation that is to complete has not come to its end. */
  get isPeerWaited(): boolean {
    return this.conversations.some(
      (conversation) => conversation.isToComplete && conversation.sides.some((side) => !side.isOver),
    )
  }

  /** Whether there is a reason for what a program was told. */
  private checkFailure(side: Side, code: string): void {
    const { causes } = side.conversation
    if (this.isCut || causes?.has(code) || (OWN_CODES.has(code) && this.mayRefuse(side, code))) return
    if (side.gaveUp) return
    if (causes === undefined && code.startsWith("E")) return // it never stood: `connect` tells why
    throw new Violation(`${side.name}: was told ${code} without a reason`)
  }

  private mayRefuse(side: Side, code: string): boolean {
    if (code === "LIMIT_OPERATIONS") return this.operationRefusals++ >= 0 && this.plan.maxOperations < 64
    return code !== "CONNECTION_CLOSED" || side.conversation.isTroubled
  }

  /** The conversation of an address 127.0.x.y or 10.1.x.y. */
  at(address: string | undefined): Conversation {
    const id = Number(address?.split(".").at(-1))
    const found = this.conversations.find((conversation) => conversation.plan.id === id)
    if (found === undefined) throw new Violation(`there is no conversation at ${address}`)
    return found
  }

  noteRefusal(): void {
    if (this.reactor.arena.freeBytes < this.reactor.arena.sizeBytes / 4) this.memoryRefusals++
  }

  /** An answering program has been told of its connection. */
  opened(fd: number, address: string | undefined): Conversation {
    const conversation = this.at(address)
    if (conversation.hasOpened) throw new Violation(`conversation ${conversation.plan.id}: opened twice`)
    conversation.hasOpened = true
    conversation.causes ??= this.causesOf(fd)
    return conversation
  }

  /** What the network has shown on the connection behind a descriptor. */
  causesOf(fd: number): Set<string> | undefined {
    return this.simulation.kernel.files.get(fd)?.socket?.line.causes
  }

  /** Calls back later, in one of the ways in which a program comes to its turn. */
  later(ms: number, run: () => void): void {
    const { reactor, random, simulation } = this
    const guarded = () => this.guard(run)
    const way = reactor.hostName === "owned" ? 0 : random.integer(0, 3)
    if (way === 0 && reactor.isOpen) {
      this.ownDeadlines++
      const onDeadline = () => {
        this.ownDeadlines--
        guarded()
      }
      reactor.arm(new Deadline({ onDeadline }, 0), ms)
    } else if (way === 1) simulation.loop.setTimer(guarded, ms, true)
    else if (way === 2) simulation.time.after(ms * 1e6, () => simulation.loop.receiveIo(guarded))
    else
      simulation.time.after(ms * 1e6, () =>
        simulation.loop.receiveIo(() => simulation.loop.nextTurn(guarded, true)),
      )
  }

  /** Waits for the end of the run: without a deadline of the reactor's where there is another way. */
  end(ms: number): Promise<void> {
    const { reactor, simulation } = this
    if (reactor.hostName === "owned") return this.pause(ms)
    return new Promise((resolve) => simulation.loop.setTimer(resolve, ms, true))
  }

  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.later(ms, resolve))
  }
}
