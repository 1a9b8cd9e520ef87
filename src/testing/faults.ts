/**
 * The faults that the simulated kernel can produce, how likely each is in a run, and how often each has happened.
 *
 * A rate is asked for at each step at which the fault could happen; the comment says which step that is. Kinds marked
 * `natural` are not drawn: they come about by sizes that are too small, and are only counted.
 */
import type { Random } from "./random.ts"

export const FAULTS = {
  /** A wait ends with EINTR, and nothing has happened. */
  enterInterrupted: "injected",
  /** io_uring_enter answers EBUSY, EAGAIN or ENOMEM: no entry is taken. */
  enterBusy: "injected",
  /** The kernel stops in the middle of the submission entries. */
  enterPartial: "injected",
  /** The submission queue is full and the kernel takes nothing: operations are kept aside. */
  submissionFull: "natural",
  /** More completion entries than the completion queue has places. */
  completionOverflow: "natural",
  /** More completions than the array that TypeScript reads has places: the rest comes with the next tick. */
  completionArrayFull: "natural",
  /** Deferred work of different operations runs in another order than it came up. */
  reordered: "injected",
  /** An operation that could go on is run up to some milliseconds later. */
  lateCompletion: "injected",
  /** A completion entry for an operation that ended long ago: the engine must drop it. */
  staleEntry: "injected",
  /** A completion record with a generation of the past: TypeScript must drop it. */
  staleRecord: "injected",
  /** A send takes fewer bytes than fit. */
  shortSend: "injected",
  /** A send that has to wait answers 0. */
  zeroSend: "injected",
  /** A send does not go out at once although there is room. */
  blockedSend: "injected",
  /** A receive gets fewer bytes than are there. */
  shortReceive: "injected",
  /** A receive finds no buffer although there are some. */
  noBuffers: "injected",
  /** A receive finds no buffer, and there is none. */
  buffersExhausted: "natural",
  /** A multishot operation ends by itself after a good completion. */
  lostMore: "injected",
  /** The connection breaks under a receive, a send, an accept or a connect: ECONNRESET on both sides. */
  reset: "injected",
  /** A send finds the pipe broken (EPIPE), and so does the other side. */
  brokenPipe: "injected",
  acceptEmfile: "injected",
  acceptEnfile: "injected",
  acceptEnomem: "injected",
  /** The connection has gone before it was accepted. */
  acceptAborted: "injected",
  /** No descriptor below the limit is free. */
  descriptorsExhausted: "natural",
  /** A descriptor is given out again that was closed a moment ago. */
  descriptorReused: "natural",
  connectRefused: "injected",
  connectTimedOut: "injected",
  connectUnreachable: "injected",
  /** A cancellation answers EALREADY; its target ends by itself, either way. */
  cancelAlready: "injected",
  /** A cancellation answers before its target does, instead of after it. */
  cancelAnswersFirst: "injected",
  /** A cancelled operation is found to have succeeded. */
  cancelLostRace: "injected",
  /** A cancellation finds nothing: its target ended first. */
  cancelNotFound: "natural",
  /** The thread does not run for up to some hundred milliseconds. */
  threadStalled: "injected",
} as const

export type FaultKind = keyof typeof FAULTS

export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[]

/** Probability of each kind at each step at which it could happen. What is absent does not happen. */
export type FaultRates = Partial<Record<FaultKind, number>>

/** Those that break a connection, or waste a lot of virtual time: more than a few leave nothing to watch. */
const GRAVE = new Set<FaultKind>([
  "reset",
  "brokenPipe",
  "zeroSend",
  "connectRefused",
  "connectTimedOut",
  "connectUnreachable",
  "acceptAborted",
  "threadStalled",
])

export class FaultPlan {
  readonly rates: FaultRates
  /** How often each kind has happened. */
  readonly counts: Partial<Record<FaultKind, number>> = {}
  private readonly random: Random

  constructor(rates: FaultRates, random: Random) {
    this.rates = rates
    this.random = random
  }

  /** Whether an injected fault happens here and now; counts it. */
  happens(kind: FaultKind): boolean {
    const rate = this.rates[kind]
    if (rate === undefined || !this.random.chance(rate)) return false
    this.count(kind)
    return true
  }

  count(kind: FaultKind): void {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
  }
}

/** Rates for one run: most runs have some kinds of faults and not others, some have all, some none. */
export function drawRates(random: Random): FaultRates {
  const rates: FaultRates = {}
  const share = random.pick([0, 0.15, 0.3, 0.3, 0.5, 1])
  for (const kind of FAULT_KINDS) {
    const most = GRAVE.has(kind) ? 0.02 : 0.4
    const isDrawn = random.chance(share)
    const rate = most * random.next() ** 2
    if (FAULTS[kind] === "injected" && isDrawn) rates[kind] = rate
  }
  return rates
}
