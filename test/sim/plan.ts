// What a simulated run does, drawn from its seed: the kernel's shape, the faults, and conversations. A conversation is one
// connection; each of its two sides is a program on the reactor (with handlers, or with promises) or a simulated peer.

import {
  drawRates,
  type FaultRates,
  type KernelShape,
  type NetworkShape,
  Random,
} from "../../src/testing/index.ts"

/** Who plays a side. */
export type Form = "peer" | "callback" | "promise"

export interface SidePlan {
  form: Form
  /** Which stream of bytes it sends (test/support/random.ts, `pattern`). */
  stream: number
  /** Bytes that it sends, unless it echoes. */
  total: number
  /** Sends back what it gets instead. Never both sides. */
  isEcho: boolean
  /** Bytes per write, at most. */
  chunkBytes: number
  /** Pause between writes, milliseconds at most; 0: none. */
  thinkMs: number
  /** Probability, per chunk received, of not reading on for up to `pauseMs`. */
  pauseChance: number
  pauseMs: number
  /** Gives up after so many bytes sent and received. */
  leaves: { afterBytes: number; how: "reset" | "close" } | undefined
  /** A peer resets the connection then, whatever goes on, milliseconds. */
  resetsAtMs: number | undefined
  /** Programs: the other side's end does not end this one. */
  isHalfOpen: boolean
  /** Reads nothing more after so many bytes, and never gives up. */
  stallsAfter: number | undefined
  /** A program's deadline for each wait, milliseconds; then it goes on waiting, or gives up when `givesUp`. */
  patienceMs: number | undefined
  givesUp: boolean
}

export interface ConversationPlan {
  id: number
  /** When the dialling side begins, milliseconds. */
  startMs: number
  /** Where it dials to does not answer, or refuses. */
  fate: "stands" | "refused" | "silent"
  /** The program's deadline for connecting. */
  connectMs: number | undefined
  dialer: SidePlan
  answerer: SidePlan
}

export interface RunPlan {
  seed: number
  host: "owned" | "hosted"
  maxOperations: number
  receiveBuffers: number
  receiveBufferBytes: number
  submissionEntries: number
  completionEntries: number
  stayMicroseconds: number
  kernel: KernelShape
  network: NetworkShape
  faults: FaultRates
  conversations: ConversationPlan[]
  /** Single operations with promises run beside them, and connections made of such. */
  rawOperations: number
  rawConnections: number
  /** Somebody takes all of the send memory for a while. */
  hasHog: boolean
  /** Handlers get views of the receive buffers. */
  borrow: boolean
  /** The reactor is closed then, whatever is under way, milliseconds; undefined: when all is over. */
  cutAtMs: number | undefined
  /** The listeners are stopped then. */
  stopListeningAtMs: number | undefined
}

/** What a run is about. */
interface Shape {
  /** Conversations. */
  count: number
  /** Bytes that a side sends, at most. */
  mostBytes: number
  /** One conversation without pauses: nothing else wakes the reactor by accident. */
  isLone: boolean
  /** More than the small buffers of the other runs are made for. */
  isHeavy: boolean
  /** Programs send more than the send memory holds. */
  isHoard: boolean
  /** Peers send more than a program's queue of unread bytes holds. */
  isFlood: boolean
  /** Many small conversations, and now and then few operations for them. */
  isCrowd: boolean
  /** There are few descriptors. */
  isShort: boolean
}

function drawShape(random: Random): Shape {
  const shape: Shape = {
    count: random.integer(1, 8),
    mostBytes: random.pick([200, 2_000, 2_000, 20_000]),
    isLone: false,
    isHeavy: false,
    isHoard: false,
    isFlood: false,
    isCrowd: false,
    isShort: false,
  }
  const kind = random.next()
  if (kind < 0.25) return { ...shape, isLone: true, count: 1 }
  if (kind < 0.28) return { ...shape, isHeavy: true, count: random.integer(1, 4), mostBytes: 400_000 }
  if (kind < 0.3) return { ...shape, isHeavy: true, isHoard: true, count: random.integer(14, 22) }
  if (kind < 0.31) return { ...shape, isHeavy: true, isFlood: true, count: random.integer(1, 2) }
  if (kind < 0.35) return { ...shape, isCrowd: true, count: random.integer(15, 40), mostBytes: 300 }
  if (kind < 0.45) return { ...shape, isShort: true }
  return shape
}

export function drawPlan(seed: number): RunPlan {
  const random = new Random(seed).fork("plan")
  const shape = drawShape(random)
  const isTight = random.chance(shape.isCrowd ? 0.5 : 0.15)
  const conversations: ConversationPlan[] = []
  for (let id = 1; id <= shape.count; id++) conversations.push(drawConversation(random, id, shape))
  const cutAtMs = random.chance(0.15) ? random.skewed(0, 5_000) : undefined
  return {
    seed,
    host: random.chance(0.5) ? "owned" : "hosted",
    maxOperations: isTight ? random.integer(16, 20) : 256,
    receiveBuffers: random.pick([1, 2, 4, 8]),
    receiveBufferBytes: shape.isHeavy ? 16_384 : random.pick([64, 256, 1024, 4096, 16_384]),
    submissionEntries: random.pick([8, 16, 64]),
    completionEntries: random.pick([16, 16, 32, 256]),
    stayMicroseconds: random.pick([0, 50, 1000, 1000]),
    kernel: {
      fdLimit: shape.isShort ? random.integer(6, 9) : 100,
      commandCapacity: random.pick([8, 16, 64]),
      completionCapacity: random.pick([8, 16, 64]),
      isIncremental: random.chance(0.6),
    },
    network: drawNetwork(random, shape),
    faults: drawRates(random),
    conversations,
    rawOperations: random.chance(0.2) ? random.integer(1, 12) : 0,
    rawConnections: random.chance(0.1) && !shape.isShort && cutAtMs === undefined ? random.integer(1, 3) : 0,
    hasHog: random.chance(0.04) && !shape.isShort && !isTight && cutAtMs === undefined,
    borrow: random.chance(0.3),
    cutAtMs,
    stopListeningAtMs: random.chance(0.1) ? random.skewed(0, 2_000) : undefined,
  }
}

function drawNetwork(random: Random, { isHeavy }: Shape): NetworkShape {
  return {
    latencyNs: random.pick([
      [1_000, 20_000],
      [20_000, 500_000],
      [1_000_000, 40_000_000],
    ]),
    jitterNs: random.pick([
      [0, 0],
      [0, 2_000_000],
    ]),
    windowBytes: random.pick([
      isHeavy ? [16_000, 64_000] : [600, 8_000],
      isHeavy ? [32_000, 64_000] : [4_000, 64_000],
      [64_000, 256_000],
    ]),
    segmentBytes: random.pick([
      [60, 1_400],
      [1_400, 65_536],
    ]),
  }
}

function drawConversation(random: Random, id: number, shape: Shape): ConversationPlan {
  const program = (): Form => (random.chance(0.5) ? "callback" : "promise")
  const ways: (() => [Form, Form])[] = [
    () => ["peer", program()],
    () => ["peer", program()],
    () => [program(), "peer"],
    () => [program(), program()],
  ]
  // With few descriptors, programs that dial each other could take them all before anybody accepts.
  // And with little send memory, those who do not read until they have written could wait for each other.
  const [dials, answers] = (
    shape.isShort ? ways[0] : shape.isHoard ? random.pick(ways.slice(1, 3)) : random.pick(ways)
  )()
  const dialer = drawSide(random, dials, 2 * id, shape)
  const answerer = drawSide(random, answers, 2 * id + 1, shape)
  const role = random.pick(["echo", "echo", "sink", "source", "duplex"])
  if (role === "echo") answerer.isEcho = true
  if (role === "sink") answerer.total = 0
  if (role === "source") dialer.total = 0
  if (role === "sink" && answers === "callback" && !shape.isShort) answerer.isHalfOpen = random.chance(0.5)
  // Who never gives up keeps its descriptor, and with few of them the others would wait for ever.
  trouble(random, dialer, answerer, !shape.isShort)
  if (random.chance(0.5)) trouble(random, answerer, dialer, !shape.isShort)
  if (shape.isHoard) hoard(random, dialer, answerer)
  if (shape.isFlood) flood(random, dialer, answerer)
  const isOut = answers === "peer"
  return {
    id,
    startMs: shape.isLone ? 0 : random.skewed(0, 60),
    fate: isOut && random.chance(0.1) ? random.pick(["refused", "silent"]) : "stands",
    connectMs: isOut && random.chance(0.3) ? random.integer(1, 2_000) : undefined,
    dialer,
    answerer,
  }
}

function drawSide(random: Random, form: Form, stream: number, { mostBytes, isLone }: Shape): SidePlan {
  const isSlow = !isLone && random.chance(0.3)
  return {
    form,
    stream,
    total: random.skewed(0, mostBytes),
    isEcho: false,
    chunkBytes: random.skewed(1, mostBytes) + (isSlow ? Math.ceil(mostBytes / 60) + 40 : 40),
    thinkMs: isSlow ? random.skewed(1, 200) : 0,
    pauseChance: !isLone && random.chance(0.3) ? random.next() * 0.5 : 0,
    pauseMs: random.skewed(0, 100),
    leaves: undefined,
    resetsAtMs: form === "peer" && random.chance(0.06) ? random.skewed(0, 400) : undefined,
    isHalfOpen: true,
    stallsAfter: undefined,
    patienceMs: random.chance(0.2) ? random.integer(1, 300) : undefined,
    givesUp: false,
  }
}

/** One side breaks off, or stops reading; the other may have a deadline for that. */
function trouble(random: Random, side: SidePlan, other: SidePlan, mayStall: boolean): void {
  if (random.chance(0.12)) {
    side.leaves = { afterBytes: random.skewed(0, 3_000), how: random.pick(["reset", "close"]) }
  } else if (random.chance(0.06) && mayStall) {
    side.stallsAfter = random.skewed(0, 1_000)
    other.total = Math.max(other.total, 4_000)
    other.patienceMs = random.integer(10, 3_000)
    other.givesUp = random.chance(0.7)
  }
}

/** Programs write as fast as they can; peers read slowly. */
function hoard(random: Random, ...sides: SidePlan[]): void {
  for (const side of sides) {
    if (side.form === "peer") {
      side.isEcho = false
      side.total = random.skewed(0, 100)
      side.pauseChance = 0.3
      side.pauseMs = random.integer(1, 60)
    } else {
      if (!side.isEcho) side.total = random.integer(60_000, 300_000)
      side.chunkBytes = random.integer(50_000, 500_000)
      side.thinkMs = 0
      side.isHalfOpen = true
    }
  }
}

/** One side sends all that it has at once; the other reads slowly. */
function flood(random: Random, dialer: SidePlan, answerer: SidePlan): void {
  dialer.total = dialer.chunkBytes = random.integer(300_000, 700_000)
  dialer.isEcho = false
  dialer.thinkMs = 0
  answerer.pauseChance = 0.3
  answerer.pauseMs = random.integer(10, 60)
}
