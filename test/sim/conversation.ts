// One connection of a simulated run as the checkers see it: what each side has sent and received, byte for byte, how each
// has ended, and whether that is how it should have been.

import { Violation } from "../../src/testing/index.ts"
import { pattern } from "../support/random.ts"
import type { ConversationPlan, SidePlan } from "./plan.ts"

/** Codes that a program may be shown because of limits or its own deadlines, whatever the network does. */
export const OWN_CODES = new Set([
  "LIMIT_OPERATIONS",
  "LIMIT_SEND_MEMORY",
  "CONNECTION_CLOSED",
  "REACTOR_CLOSED",
])

export class Side {
  readonly plan: SidePlan
  readonly conversation: Conversation
  /** Bytes given to the connection, and those that came out of it. */
  sent = 0
  received = 0
  /** The other side's end has arrived. */
  hasSeenEnd = false
  /** It takes no more part. */
  isOver = false
  /** It gave up by itself: deadlines, its plan. */
  gaveUp = false
  /** What it was told went wrong. */
  failure: string | undefined
  /** The other side's end came before all of its bytes. */
  missing: string | undefined
  /** Echo: received and not sent back yet. */
  private readonly owed: Uint8Array[] = []

  constructor(conversation: Conversation, plan: SidePlan) {
    this.conversation = conversation
    this.plan = plan
  }

  get name(): string {
    const { conversation, plan } = this
    return `conversation ${conversation.plan.id}, ${this === conversation.dialer ? "dialling" : "answering"} ${plan.form}`
  }

  get other(): Side {
    const { dialer, answerer } = this.conversation
    return this === dialer ? answerer : dialer
  }

  /** Bytes that this side is to send. */
  get total(): number {
    return this.plan.isEcho ? this.other.plan.total : this.plan.total
  }

  get hasSentAll(): boolean {
    return this.plan.isEcho ? this.hasSeenEnd && this.owed.length === 0 : this.sent >= this.plan.total
  }

  /** Leaves now, as planned. */
  get isToLeave(): boolean {
    const { leaves } = this.plan
    return leaves !== undefined && !this.gaveUp && this.sent + this.received >= leaves.afterBytes
  }

  get isToStall(): boolean {
    return this.plan.stallsAfter !== undefined && this.received >= this.plan.stallsAfter
  }

  /** The next bytes to send, at most `chunkBytes`; undefined when there are none now. */
  next(): Uint8Array | undefined {
    if (this.plan.isEcho) return this.owed[0]
    const count = Math.min(this.plan.chunkBytes, this.plan.total - this.sent)
    return count > 0 ? pattern(this.plan.stream, this.sent, count) : undefined
  }

  /** So many of the bytes that `next` gave have been taken. */
  took(count: number): void {
    this.sent += count
    if (!this.plan.isEcho) return
    const chunk = this.owed[0]
    if (count === chunk.length) this.owed.shift()
    else this.owed[0] = chunk.subarray(count)
  }

  /** Bytes have arrived. @throws Violation when they are not those that were sent, in order */
  take(chunk: Uint8Array): void {
    if (this.isOver) throw new Violation(`${this.name}: bytes after the end`)
    if (this.hasSeenEnd) throw new Violation(`${this.name}: bytes after the other side's end`)
    if (chunk.length === 0) throw new Violation(`${this.name}: an empty chunk`)
    const { other } = this
    const stream = other.plan.isEcho ? this.plan.stream : other.plan.stream
    const wanted = pattern(stream, this.received, chunk.length)
    if (Buffer.compare(wanted, chunk) !== 0) {
      const at = chunk.findIndex((byte, i) => byte !== wanted[i])
      throw new Violation(`${this.name}: byte ${this.received + at} is ${chunk[at]}, wanted ${wanted[at]}`)
    }
    this.received += chunk.length
    if (this.received > other.sent) throw new Violation(`${this.name}: more bytes than were sent`)
    if (this.plan.isEcho) this.owed.push(new Uint8Array(chunk)) // a copy: it may be borrowed
  }

  /** The other side has ended. Whether bytes are missing is judged at the end: its program may not know yet why. */
  end(): void {
    if (this.hasSeenEnd) throw new Violation(`${this.name}: two ends`)
    this.hasSeenEnd = true
    if (this.received !== this.other.sent)
      this.missing = `ended after ${this.received} of ${this.other.sent} bytes`
  }

  over(failure?: unknown): void {
    this.isOver = true
    this.failure ??=
      failure === undefined ? undefined : String((failure as { code?: string }).code ?? failure)
  }
}

export class Conversation {
  readonly plan: ConversationPlan
  readonly dialer: Side
  readonly answerer: Side
  /** Errnos that the network has shown on this connection; undefined until it stands. */
  causes: Set<string> | undefined
  /** Its answering side has been told of it. */
  hasOpened = false
  /** The listener has stopped: it may never be. */
  mayNotOpen = false

  constructor(plan: ConversationPlan) {
    this.plan = plan
    this.dialer = new Side(this, plan.dialer)
    this.answerer = new Side(this, plan.answerer)
  }

  get sides(): Side[] {
    return [this.dialer, this.answerer]
  }

  /** No program takes part in it any more. */
  get hasNoProgram(): boolean {
    const isUnopened = this.mayNotOpen && !this.hasOpened
    return this.sides.every(
      (side) => side.isOver || side.plan.form === "peer" || (isUnopened && side === this.answerer),
    )
  }

  /** Somebody gave up, was told of an error, or the network broke it: nothing is promised any more but order. */
  get isTroubled(): boolean {
    return (
      (this.causes?.size ?? 0) > 0 || this.sides.some((side) => side.gaveUp || side.failure !== undefined)
    )
  }

  /** Nobody stops in the middle for ever. */
  get endsByItself(): boolean {
    return this.sides.every((side) => side.plan.stallsAfter === undefined && side.plan.leaves === undefined)
  }

  /** Must come to its end by itself, with every byte. */
  get isToComplete(): boolean {
    return this.plan.fate === "stands" && this.endsByItself && !this.isTroubled
  }

  /** @throws Violation when it has not ended as it should */
  checkEnd(): void {
    if (this.isTroubled) return
    for (const side of this.sides) {
      if (side.missing !== undefined) throw new Violation(`${side.name}: ${side.missing}`)
      if (!this.isToComplete) continue
      if (!side.isOver) throw new Violation(`${side.name}: has not come to its end (${this.describe()})`)
      if (!side.hasSeenEnd || side.received !== side.other.total || side.sent !== side.total) {
        throw new Violation(`${side.name}: ended too early (${this.describe()})`)
      }
    }
  }

  describe(): string {
    return this.sides
      .map(
        (side) =>
          `${side.plan.form}: sent ${side.sent}/${side.total}, received ${side.received}, end ${side.hasSeenEnd}`,
      )
      .concat([...(this.causes ?? [])])
      .join("; ")
  }
}
