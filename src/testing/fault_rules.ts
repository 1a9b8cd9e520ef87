/**
 * Rules of a fault plan: which operations meet which trouble, and when. `FaultyRing` asks, once for each thing that happens;
 * with the same seed and the same course of things the answers are the same.
 */
import { constants } from "node:os"
import * as abi from "../../ffi/abi.ts"
import { integerOption, invalidType, outOfRange } from "../errors.ts"
import { Random } from "./random.ts"

/** Commands of the ring, and calls of the shim that answer at once. */
export const FAULT_OPERATIONS = {
  nop: abi.OP_NOP,
  accept: abi.OP_ACCEPT,
  connect: abi.OP_CONNECT,
  recv: abi.OP_RECV,
  send: abi.OP_SEND,
  poll: abi.OP_POLL,
  timeout: abi.OP_TIMEOUT,
  cancel: abi.OP_CANCEL,
  shutdown: abi.OP_SHUTDOWN,
  close: abi.OP_CLOSE,
  /** Opening a ring. */
  open: -1,
  /** Opening a socket to connect with. */
  socket: -2,
  /** Opening a listener. */
  listen: -3,
} as const

export type FaultOperation = keyof typeof FAULT_OPERATIONS

export interface FaultRule {
  operation: FaultOperation

  /** What happens: one of these, or `delayMs` with any. docs/testing.md says what each does to each operation. */

  /** The operation fails: an errno's name ("ECONNRESET", "ENOBUFS", "ECANCELED", ...). */
  error?: string
  /** recv: at most so many bytes per completion. send, with `error`: so many are sent before it fails. From 1. */
  bytes?: number
  /** accept, recv: the multishot operation ends with a good completion. */
  ends?: true
  /** The completion comes so much later, milliseconds. */
  delayMs?: number

  /** When: what matches is counted by each rule for itself. */

  /** So many go by first. Default 0. */
  after?: number
  /** Of those behind, every n-th. Default 1: each. */
  every?: number
  /** So often at most. Default: without end. */
  times?: number
  /** Of those left, this share, drawn from the plan's seed. Default 1. */
  probability?: number

  /** Where: all that are given must fit. */

  /** Descriptor. For accept the listener's. */
  fd?: number
  /** The n-th connection, from 1, in the order in which they were accepted or began to connect. */
  connection?: number
  /** Anything else. */
  match?: (event: FaultEvent) => boolean
}

/** Something that may meet trouble. */
export interface FaultEvent {
  readonly operation: FaultOperation
  /** -1 where there is none. */
  readonly fd: number
  /** Number of the connection; 0 where there is none. */
  readonly connection: number
  /** send: bytes asked for. recv: bytes that have arrived; 0 at the end of the stream. Otherwise 0. */
  readonly bytes: number
}

/** A rule, checked, with every choice made. */
export interface Fault {
  /** Negated errno, or 0. */
  readonly result: number
  /** 0: no limit. */
  readonly bytes: number
  readonly ends: boolean
  readonly delayNs: number
}

interface RuleState {
  readonly rule: FaultRule
  readonly op: number
  readonly fault: Fault
  readonly random: Random
  seen: number
  injected: number
}

const NAMES = new Set<string>([
  "operation",
  "error",
  "bytes",
  "ends",
  "delayMs",
  "after",
  "every",
  "times",
  "probability",
  "fd",
  "connection",
  "match",
])
const MOST = 2 ** 31 - 1

export class FaultRules {
  private readonly states: RuleState[]

  /** @throws TypeError, RangeError that names the rule, the option and what is allowed */
  constructor(rules: readonly FaultRule[], seed: number) {
    if (!Array.isArray(rules)) throw invalidType("rules", "an array", rules)
    const random = new Random(integerOption("seed", seed, 0, 2 ** 32 - 1))
    this.states = rules.map((rule, i) => ({
      rule,
      op: operationOf(rule, `rules[${i}]`),
      fault: faultOf(rule, `rules[${i}]`),
      random: random.fork(String(i)),
      seen: 0,
      injected: 0,
    }))
  }

  /** How often each rule has struck. */
  get counts(): number[] {
    return this.states.map((state) => state.injected)
  }

  /** What is to go wrong here and now: of the first rule that says so. Every rule that fits counts it. */
  decide(op: number, fd: number, connection: number, bytes: number): Fault | undefined {
    let struck: RuleState | undefined
    for (const state of this.states) {
      if (state.op === op && fits(state.rule, fd, connection, bytes) && isDue(state)) struck ??= state
    }
    if (struck === undefined) return undefined
    struck.injected++
    return struck.fault
  }
}

function fits(rule: FaultRule, fd: number, connection: number, bytes: number): boolean {
  if (rule.fd !== undefined && rule.fd !== fd) return false
  if (rule.connection !== undefined && rule.connection !== connection) return false
  return rule.match === undefined || rule.match({ operation: rule.operation, fd, connection, bytes })
}

function isDue(state: RuleState): boolean {
  const { after = 0, every = 1, times = MOST, probability = 1 } = state.rule
  const past = ++state.seen - after
  if (past <= 0 || past % every !== 0 || state.injected >= times) return false
  return state.random.chance(probability)
}

function operationOf(rule: FaultRule, name: string): number {
  if (typeof rule !== "object" || rule === null) throw invalidType(name, "an object", rule)
  for (const key of Object.keys(rule)) {
    if (!NAMES.has(key)) throw outOfRange(`${name}.${key}`, `one of ${[...NAMES].join(", ")}`, key)
  }
  if (!Object.hasOwn(FAULT_OPERATIONS, rule.operation)) {
    throw outOfRange(
      `${name}.operation`,
      `one of ${Object.keys(FAULT_OPERATIONS).join(", ")}`,
      rule.operation,
    )
  }
  return FAULT_OPERATIONS[rule.operation]
}

function faultOf(rule: FaultRule, name: string): Fault {
  const { operation, error, bytes, ends, delayMs, after, every, times, probability, match } = rule
  const check = (key: string, value: unknown, least: number, most = MOST) => {
    if (value !== undefined) integerOption(`${name}.${key}`, value, least, most)
  }
  check("bytes", bytes, 1)
  check("delayMs", delayMs, 1)
  check("after", after, 0)
  check("every", every, 1)
  check("times", times, 1)
  check("fd", rule.fd, 0)
  check("connection", rule.connection, 1)
  if (probability !== undefined && !(probability >= 0 && probability <= 1))
    throw outOfRange(`${name}.probability`, "from 0 to 1", probability)
  if (match !== undefined && typeof match !== "function")
    throw invalidType(`${name}.match`, "a function", match)
  if (error === undefined && bytes === undefined && ends === undefined && delayMs === undefined)
    throw outOfRange(name, "a rule with error, bytes, ends or delayMs", rule)
  if (bytes !== undefined && !(operation === "recv" && error === undefined) && !isCutSend(rule))
    throw outOfRange(`${name}.bytes`, "with recv alone, or with send and error", bytes)
  if (
    ends !== undefined &&
    (!["accept", "recv"].includes(operation) || error !== undefined || bytes !== undefined)
  )
    throw outOfRange(`${name}.ends`, "with accept or recv, without error and bytes", ends)
  if (delayMs !== undefined && FAULT_OPERATIONS[operation] < 0)
    throw outOfRange(`${name}.delayMs`, `absent: ${operation} answers at once`, delayMs)
  return {
    result: error === undefined ? 0 : -errnoOf(error, `${name}.error`),
    bytes: bytes ?? 0,
    ends: ends === true,
    delayNs: (delayMs ?? 0) * 1e6,
  }
}

function isCutSend(rule: FaultRule): boolean {
  return rule.operation === "send" && rule.error !== undefined
}

function errnoOf(code: string, name: string): number {
  const errno = (constants.errno as Record<string, number>)[code]
  if (errno === undefined) throw outOfRange(name, 'the name of an errno, such as "ECONNRESET"', code)
  return errno
}
