/**
 * Debug mode: the stack that began each operation, deadline and open socket, and a report of what hangs. Asked for with
 * `Reactor.open({ debug: true })` or `URINGLOOP_DEBUG=1`.
 *
 * It puts methods of its own in front of some of the reactor's, once, when that is opened: without debug mode there is no
 * trace of it, not even a question. With it each operation costs a few microseconds.
 */
import * as abi from "../../ffi/abi.ts"
import type { ReactorCore } from "./core.ts"
import type { Deadline } from "./deadlines.ts"
import type { DebugSettings } from "./debug_options.ts"
import { describePending, nameOf, type PendingItem } from "./pending.ts"

interface Begun {
  sinceMs: number
  movedMs: number
  /** Made into text only when somebody asks: that is what costs. */
  stack: Error
  isReported: boolean
}

interface BegunOperation extends Begun {
  generation: number
  op: number
  fd: number
  owner: unknown
}

const OP_NAMES = [
  "",
  "NOP",
  "ACCEPT",
  "CONNECT",
  "RECV",
  "SEND",
  "POLL",
  "TIMEOUT",
  "CANCEL",
  "SHUTDOWN",
  "CLOSE",
]
/** Frames kept of a stack: the reactor's own are among them. */
const STACK_FRAMES = 24

export class DebugTracker {
  private readonly core: ReactorCore
  private readonly settings: DebugSettings
  /** By slot; of the past when the generation is another. */
  private readonly operations: BegunOperation[] = []
  private readonly deadlines = new Map<Deadline, Begun>()
  private readonly sockets = new Map<number, Begun>()
  /** Stacks of those that asked to be flushed: what they send began there, not in the flush. */
  private readonly asked = new WeakMap<object, Error>()
  private nextScanMs: number

  constructor(core: ReactorCore, settings: DebugSettings) {
    this.core = core
    this.settings = settings
    this.nextScanMs = core.clock() + settings.scanMs
    this.watchOperations()
    this.watchDeadlines()
    this.watchSockets()
    if (core.hostName === "owned") this.watchRounds()
    else this.scanLater()
  }

  /** Everything that is under way now. */
  list(isWanted: (owner: unknown) => boolean): PendingItem[] {
    const { core } = this
    const items: PendingItem[] = []
    core.slots.forEachInFlight((slot, _, owner) => {
      if (isWanted(owner)) items.push(this.operationItem(this.operations[slot]))
    })
    core.deadlines.forEachArmed((deadline) => {
      if (isWanted(deadline.owner)) items.push(this.deadlineItem(deadline))
    })
    core.descriptors.forEachOpen((fd, owner) => {
      if (isWanted(owner)) items.push(this.socketItem(fd, owner))
    })
    return items
  }

  // ---- what is written down ----

  private begun(stack = stackHere()): Begun {
    const nowMs = this.core.clock()
    return { sinceMs: nowMs, movedMs: nowMs, stack, isReported: false }
  }

  private watchOperations(): void {
    const { core, operations, asked } = this
    const submit = core.submit.bind(core)
    core.submit = (op, flags, fd, kind, owner, offset, length) => {
      const slot = submit(op, flags, fd, kind, owner, offset, length)
      if (slot < 0) return slot
      const isFlushed = op === abi.OP_SEND || op === abi.OP_SHUTDOWN || op === abi.OP_CLOSE
      const generation = core.slots.generationOf(slot)
      operations[slot] = {
        ...this.begun(isFlushed ? asked.get(owner) : undefined),
        generation,
        op,
        fd,
        owner,
      }
      return slot
    }
    const markDirty = core.markDirty.bind(core)
    core.markDirty = (owner) => {
      asked.set(owner, stackHere())
      markDirty(owner)
    }
    const { slots } = core
    const admit = slots.admit.bind(slots)
    slots.admit = (slot, generation) => {
      const isAdmitted = admit(slot, generation)
      if (isAdmitted) this.moved(operations[slot])
      return isAdmitted
    }
  }

  private moved(operation: BegunOperation): void {
    operation.movedMs = this.core.now
    operation.isReported = false
    const socket = this.sockets.get(operation.fd)
    if (socket !== undefined) {
      socket.movedMs = this.core.now
      socket.isReported = false
    }
  }

  private watchDeadlines(): void {
    const { core, deadlines } = this
    const arm = core.arm.bind(core)
    core.arm = (deadline, afterMs) => {
      deadlines.set(deadline, this.begun())
      arm(deadline, afterMs)
    }
  }

  private watchSockets(): void {
    const { descriptors } = this.core
    const add = descriptors.add.bind(descriptors)
    descriptors.add = (fd, owner) => {
      this.sockets.set(fd, this.begun())
      add(fd, owner)
    }
    const remove = descriptors.remove.bind(descriptors)
    descriptors.remove = (fd) => {
      this.sockets.delete(fd)
      remove(fd)
    }
  }

  // ---- scans ----

  private scanLater(): void {
    this.core.loop.setTimer(
      () => {
        if (!this.core.isOpen) return
        this.scan()
        this.scanLater()
      },
      this.settings.scanMs,
      false,
    )
  }

  /** The runtime's timers do not run while a reactor blocks: the rounds end in time for the next scan. */
  private watchRounds(): void {
    const { core } = this
    const round = core.round.bind(core)
    core.round = (waitNs) => {
      const untilScanNs = Math.max(0, this.nextScanMs - core.clock()) * 1e6
      const count = round(Math.min(waitNs, untilScanNs))
      if (core.isOpen && core.clock() >= this.nextScanMs) this.scan()
      return count
    }
  }

  /** Reports what hangs and has not been reported since it last moved. */
  private scan(): void {
    const { core, settings, deadlines } = this
    const nowMs = core.clock()
    this.nextScanMs = nowMs + settings.scanMs
    for (const deadline of deadlines.keys()) if (!deadline.isArmed) deadlines.delete(deadline)
    const found: PendingItem[] = []
    const isHanging = (begun: Begun | undefined): boolean => {
      if (begun === undefined || begun.isReported || nowMs - begun.movedMs < settings.boundMs) return false
      begun.isReported = true
      return true
    }
    // A listener may wait for ever, and what is said of a receive need not be said of its socket.
    const told = new Set<number>()
    core.slots.forEachInFlight((slot) => {
      const operation = this.operations[slot]
      told.add(operation.fd)
      if (operation.op !== abi.OP_ACCEPT && isHanging(operation)) found.push(this.operationItem(operation))
    })
    core.deadlines.forEachArmed((deadline) => {
      if (isHanging(deadlines.get(deadline))) found.push(this.deadlineItem(deadline))
    })
    core.descriptors.forEachOpen((fd, owner) => {
      if (!told.has(fd) && isHanging(this.sockets.get(fd))) found.push(this.socketItem(fd, owner))
    })
    if (found.length === 0) return
    core.counters.hangsReported += found.length
    try {
      settings.report(found)
    } catch (error) {
      core.reportUncaught(error)
    }
  }

  // ---- items ----

  private operationItem(operation: BegunOperation): PendingItem {
    const { op, fd, owner } = operation
    return { kind: "operation", what: OP_NAMES[op], owner: nameOf(owner), fd, ...this.agesOf(operation) }
  }

  private deadlineItem(deadline: Deadline): PendingItem {
    const { core } = this
    const dueMs = Math.round(core.deadlines.dueAtMs(deadline) - core.clock())
    const owner = nameOf(deadline.owner)
    const ages = this.agesOf(this.deadlines.get(deadline))
    return { kind: "deadline", what: `due in ${dueMs} ms`, owner, fd: -1, ...ages }
  }

  private socketItem(fd: number, owner: unknown): PendingItem {
    return { kind: "socket", what: "open", owner: nameOf(owner), fd, ...this.agesOf(this.sockets.get(fd)) }
  }

  private agesOf(begun: Begun | undefined): Pick<PendingItem, "ageMs" | "idleMs" | "stack"> {
    const nowMs = this.core.clock()
    return {
      ageMs: begun && nowMs - begun.sinceMs,
      idleMs: begun && nowMs - begun.movedMs,
      stack: begun && framesOf(begun.stack),
    }
  }
}

/** The report when no other is given: a warning on stderr. */
export function warnOfHangs(items: PendingItem[]): void {
  console.warn(`uringloop: ${items.length} hanging:\n${items.map(describePending).join("\n")}`)
}

function stackHere(): Error {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = STACK_FRAMES
  const here = new Error("here")
  Error.stackTraceLimit = limit
  return here
}

/** The calls that led there, without this file's. */
function framesOf({ stack = "" }: Error): string {
  const frames = stack.split("\n").filter((line) => line.trimStart().startsWith("at "))
  return frames.filter((line) => !line.includes("reactor/debug.ts")).join("\n")
}
