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
  /** Single operations with promises run beside them. */
  rawOperations: number
  /** The reactor is closed then, whatever is under way, milliseconds; undefined: when all is over. */
  cutAtMs: number | undefined
  /** The listeners are stopped then. */
  stopListeningAtMs: number | undefined
}

export function drawPlan(seed: number): RunPlan {
  const random = new Random(seed).fork("plan")
  const isHeavy = random.chance(0.03)
  const isLone = random.chance(0.25)
  const most = isHeavy ? 400_000 : random.pick([200, 2_000, 2_000, 20_000])
  const isTight = random.chance(0.15)
  // With few descriptors, programs that dial each other could take them all before anybody accepts.
  const isShort = random.chance(0.12)
  const conversations: ConversationPlan[] = []
  const count = isLone ? 1 : random.integer(1, isHeavy ? 4 : 8)
  for (let id = 1; id <= count; id++) conversations.push(drawConversation(random, id, most, isLone, isShort))
  return {
    seed,
    host: random.chance(0.5) ? "owned" : "hosted",
    maxOperations: isTight ? random.integer(16, 20) : 256,
    receiveBuffers: random.pick([1, 2, 4, 8]),
    receiveBufferBytes: isHeavy ? 16_384 : random.pick([64, 256, 1024, 4096, 16_384]),
    submissionEntries: random.pick([8, 16, 64]),
    completionEntries: random.pick([16, 16, 32, 256]),
    stayMicroseconds: random.pick([0, 50, 1000, 1000]),
    kernel: {
      fdLimit: isShort ? random.integer(6, 9) : 64,
      commandCapacity: random.pick([8, 16, 64]),
      completionCapacity: random.pick([8, 16, 64]),
      isIncremental: random.chance(0.6),
    },
    network: {
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
        [4_000, 64_000],
        [64_000, 256_000],
      ]),
      segmentBytes: random.pick([
        [60, 1_400],
        [1_400, 65_536],
      ]),
    },
    faults: drawRates(random),
    conversations,
    rawOperations: random.chance(0.2) ? random.integer(1, 12) : 0,
    cutAtMs: random.chance(0.15) ? random.skewed(0, 5_000) : undefined,
    stopListeningAtMs: random.chance(0.1) ? random.skewed(0, 2_000) : undefined,
  }
}

function drawConversation(
  random: Random,
  id: number,
  most: number,
  isLone: boolean,
  isShort: boolean,
): ConversationPlan {
  const program = (): Form => (random.chance(0.5) ? "callback" : "promise")
  const ways: (() => [Form, Form])[] = [
    () => ["peer", program()],
    () => ["peer", program()],
    () => [program(), "peer"],
    () => [program(), program()],
  ]
  const [dials, answers] = (isShort ? ways[0] : random.pick(ways))()
  const dialer = drawSide(random, dials, 2 * id, most, isLone)
  const answerer = drawSide(random, answers, 2 * id + 1, most, isLone)
  const role = random.pick(["echo", "echo", "sink", "source", "duplex"])
  if (role === "echo") answerer.isEcho = true
  if (role === "sink") answerer.total = 0
  if (role === "source") dialer.total = 0
  // Who never gives up keeps its descriptor, and with few of them the others would wait for ever.
  trouble(random, dialer, answerer, !isShort)
  if (random.chance(0.5)) trouble(random, answerer, dialer, !isShort)
  const isOut = answers === "peer"
  return {
    id,
    startMs: isLone ? 0 : random.skewed(0, 60),
    fate: isOut && random.chance(0.1) ? random.pick(["refused", "silent"]) : "stands",
    connectMs: isOut && random.chance(0.3) ? random.integer(1, 2_000) : undefined,
    dialer,
    answerer,
  }
}

function drawSide(random: Random, form: Form, stream: number, most: number, isLone: boolean): SidePlan {
  const isSlow = !isLone && random.chance(0.3)
  return {
    form,
    stream,
    total: random.skewed(0, most),
    isEcho: false,
    chunkBytes: random.skewed(1, Math.max(1, most)) + 40,
    thinkMs: isSlow ? random.skewed(1, 200) : 0,
    pauseChance: !isLone && random.chance(0.3) ? random.next() * 0.5 : 0,
    pauseMs: random.skewed(0, 100),
    leaves: undefined,
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
