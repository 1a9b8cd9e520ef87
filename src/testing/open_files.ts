/**
 * The descriptors of the simulated process: numbers, what is behind each, and who waits for it. As in a kernel the lowest
 * free number is given out, so a descriptor is used again as soon as it is closed.
 */
import type { FaultPlan } from "./faults.ts"
import type { ListeningSocket } from "./network.ts"
import type { Request } from "./request.ts"
import { READABLE, type StreamSocket, WRITABLE } from "./stream_socket.ts"

/** Below are those that a process always has. */
const FIRST_FD = 3
const EMFILE = 24
/** A number that was closed less than this long ago counts as reused right away, in nanoseconds. */
const SOON_NS = 1e6

export const POLLIN = 1
export const POLLOUT = 4
export const POLLERR = 8
export const POLLHUP = 16
export const POLLRDHUP = 0x2000

/** What is behind a descriptor: a stream socket or a listener. */
export class OpenFile {
  readonly socket: StreamSocket | undefined
  readonly listener: ListeningSocket | undefined
  /** Requests that wait for the file. */
  readonly waiters: Request[] = []

  constructor(behind: StreamSocket | ListeningSocket, wake: (request: Request) => void) {
    this.socket = "line" in behind ? behind : undefined
    this.listener = "line" in behind ? undefined : behind
    behind.onChange = (events) => {
      for (const request of this.waiters) if (request.waitsFor & events) wake(request)
    }
  }

  /** What poll(2) would say. */
  get readiness(): number {
    const { socket, listener } = this
    if (listener !== undefined) return listener.queue.length > 0 ? POLLIN : 0
    if (socket === undefined) return POLLERR
    return (
      (socket.isReadable ? POLLIN : 0) |
      (socket.isWritable && socket.other !== undefined ? POLLOUT : 0) |
      (socket.hasHungUp ? POLLHUP : 0)
    )
  }

  close(): void {
    this.socket?.close()
    this.listener?.close()
  }
}

/** Events of a file that may change what poll(2) says of a mask. */
export function eventsOf(mask: number): number {
  return (mask & (POLLIN | POLLRDHUP) ? READABLE : 0) | (mask & POLLOUT ? WRITABLE : 0)
}

export class OpenFiles {
  private readonly limit: number
  private readonly faults: FaultPlan
  private readonly files: (OpenFile | undefined)[] = []
  private readonly closedAtNs: number[] = []
  private readonly nowNs: () => number
  /** Descriptors that are open. */
  count = 0

  /** @param limit as RLIMIT_NOFILE: every descriptor is below */
  constructor(limit: number, faults: FaultPlan, nowNs: () => number) {
    this.limit = limit
    this.faults = faults
    this.nowNs = nowNs
  }

  /** Returns the descriptor, or -EMFILE. */
  open(file: OpenFile): number {
    let fd = FIRST_FD
    while (this.files[fd] !== undefined) fd++
    if (fd >= this.limit) {
      this.faults.count("descriptorsExhausted")
      return -EMFILE
    }
    if (this.nowNs() - this.closedAtNs[fd] < SOON_NS) this.faults.count("descriptorReused")
    this.files[fd] = file
    this.count++
    return fd
  }

  get isFull(): boolean {
    return this.count >= this.limit - FIRST_FD
  }

  get(fd: number): OpenFile | undefined {
    return this.files[fd]
  }

  /** Returns false when it is not open. */
  close(fd: number): boolean {
    const file = this.files[fd]
    if (file === undefined) return false
    this.files[fd] = undefined
    this.closedAtNs[fd] = this.nowNs()
    this.count--
    file.close()
    return true
  }
}
