/**
 * What a reactor has under way: operations in flight, armed deadlines, open sockets. With debug mode (debug.ts) each has its
 * age and the stack that began it; without, what can be told without having written anything down.
 */
import type { ReactorCore } from "./core.ts"

export interface PendingItem {
  kind: "operation" | "deadline" | "socket"
  /** Operation: its name ("RECV") in debug mode, otherwise the owner's number for it. Deadline: when it is due. */
  what: string
  /** Class of the object that it belongs to: "Socket", "SocketListener", "RawOperation". */
  owner: string
  /** Descriptor, or -1 where there is none or it is being closed. */
  fd: number
  /** Debug mode: milliseconds since it began. */
  ageMs: number | undefined
  /** Debug mode: milliseconds since something last completed on it. */
  idleMs: number | undefined
  /** Debug mode: the calls that began it, one a line. */
  stack: string | undefined
}

/** Everything that is under way now, operations first. @param isWanted asked for each owner; default: all */
export function listPending(
  core: ReactorCore,
  isWanted: (owner: unknown) => boolean = always,
): PendingItem[] {
  return core.debug === undefined ? listPlain(core, isWanted) : core.debug.list(isWanted)
}

function always(): boolean {
  return true
}

function listPlain(core: ReactorCore, isWanted: (owner: unknown) => boolean): PendingItem[] {
  const items: PendingItem[] = []
  const add = (kind: PendingItem["kind"], what: string, owner: unknown, fd: number) =>
    isWanted(owner) &&
    items.push({
      kind,
      what,
      owner: nameOf(owner),
      fd,
      ageMs: undefined,
      idleMs: undefined,
      stack: undefined,
    })
  core.slots.forEachInFlight((_, kind, owner) => add("operation", `operation ${kind}`, owner, fdOf(owner)))
  core.deadlines.forEachArmed((deadline) => {
    add("deadline", `deadline ${deadline.kind}`, deadline.owner, fdOf(deadline.owner))
  })
  core.descriptors.forEachOpen((fd, owner) => add("socket", "open", owner, fd))
  return items
}

/** Class of an owner. */
export function nameOf(owner: unknown): string {
  const name = (owner as object | undefined)?.constructor?.name
  return name === undefined || name === "Object" ? "reactor" : name
}

export function fdOf(owner: unknown): number {
  const fd = (owner as { fd?: unknown } | undefined)?.fd
  return typeof fd === "number" ? fd : -1
}

/** For people: a line, and the stack below it. */
export function describePending({ kind, what, owner, fd, ageMs, idleMs, stack }: PendingItem): string {
  const where = fd >= 0 ? ` fd ${fd}` : ""
  const age = ageMs === undefined ? "" : `, for ${seconds(ageMs)}`
  const idle = idleMs === undefined || idleMs === ageMs ? "" : `, still for ${seconds(idleMs)}`
  const line = `${kind} ${what} of ${owner}${where}${age}${idle}`
  return stack === undefined || stack === "" ? line : `${line}\n${stack}`
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
