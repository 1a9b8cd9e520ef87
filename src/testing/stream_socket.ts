/**
 * One end of a simulated stream connection, as TCP's are on Linux: bytes arrive after a latency, in order; a window bounds
 * what is under way; each side ends on its own; a reset lets what has arrived be read, then tells ECONNRESET once.
 *
 * Data of one direction: write() -> under way -> `received` of the other end -> read(). `unreadBytes` of the receiving end
 * counts both, so it is what the sender's window is measured against.
 */
import type { VirtualClock } from "./clock.ts"

export const READABLE = 1
export const WRITABLE = 4

const EPIPE = 32
const EAGAIN = 11
const ECONNRESET = 104
const ENOTCONN = 107

/** An address and a port. */
export interface Place {
  address: string
  port: number
}

const NOWHERE: Place = { address: "0.0.0.0", port: 0 }

/** What a connection is like: drawn once for both its ends. */
export interface Line {
  /** One way, nanoseconds. */
  latencyNs: number
  /** Most bytes written and not yet read, each way. */
  windowBytes: number
  /** Extra latency of a segment, nanoseconds at most. */
  jitterNs: number
  /** Bytes of a segment, at most: what is written at once arrives in pieces of this. */
  segmentBytes: number
  /** In [0, 1): the next jitter. */
  draw: () => number
  /** Errnos that this connection may show to programs, by name; why, for the checkers. */
  causes: Set<string>
}

export class StreamSocket {
  readonly line: Line
  private readonly clock: VirtualClock
  /** The other end; undefined until connected. */
  other: StreamSocket | undefined
  /** Told what has become possible: READABLE, WRITABLE. Whoever uses this end sets it. */
  onChange: (events: number) => void = nothing
  /** SO_LINGER with time 0: close sends a reset. */
  resetsOnClose = false
  local: Place = NOWHERE
  remote: Place = NOWHERE

  private received: Uint8Array[] = []
  /** Index of the first chunk that is not read to its end, and the bytes read of it. */
  private head = 0
  private headBytes = 0
  private receivedBytes = 0
  /** Received or under way to here. */
  private unreadBytes = 0
  private finArrived = false
  private pendingError = 0
  /** The connection is over: reset, by whichever side. */
  private isDead = false
  private hasClosed = false
  private readEnded = false
  private writeEnded = false
  /** Nothing that this end sends may arrive before this. */
  private lastArrivalNs = 0
  /** The sender found no room: it is told when there is some. */
  private senderWaits = false

  constructor(clock: VirtualClock, line: Line) {
    this.clock = clock
    this.line = line
  }

  /** Makes two ends one connection. */
  static join(a: StreamSocket, b: StreamSocket): void {
    a.other = b
    b.other = a
  }

  get isReadable(): boolean {
    return this.receivedBytes > 0 || this.hasReadEnded || this.pendingError !== 0
  }

  get isWritable(): boolean {
    return this.isDead || this.writeEnded || this.pendingError !== 0 || this.room > 0
  }

  get hasHungUp(): boolean {
    return this.isDead || (this.finArrived && this.writeEnded)
  }

  get isClosed(): boolean {
    return this.hasClosed
  }

  get isConnected(): boolean {
    return this.other !== undefined && !this.isDead
  }

  private get hasReadEnded(): boolean {
    return this.finArrived || this.readEnded || this.isDead
  }

  /** Bytes that the window has room for. */
  private get room(): number {
    return this.other === undefined ? 0 : Math.max(0, this.line.windowBytes - this.other.unreadBytes)
  }

  /** Takes bytes to send. Returns how many, or a negated errno: EAGAIN without room. */
  write(bytes: Uint8Array): number {
    if (this.pendingError !== 0) return this.takeError()
    if (this.writeEnded || this.isDead) return -EPIPE
    if (this.other === undefined) return -ENOTCONN
    const count = Math.min(bytes.length, this.room)
    if (count === 0) {
      this.other.senderWaits = true
      return -EAGAIN
    }
    this.other.unreadBytes += count
    for (let start = 0; start < count; start += this.line.segmentBytes) {
      this.send(bytes.slice(start, Math.min(count, start + this.line.segmentBytes)))
    }
    return count
  }

  /** Reads what has arrived. Returns how many bytes, 0 at the end, or a negated errno: EAGAIN when there are none yet. */
  read(into: Uint8Array): number {
    if (this.receivedBytes === 0) {
      if (this.pendingError !== 0) return this.takeError()
      return this.hasReadEnded ? 0 : -EAGAIN
    }
    let count = 0
    while (count < into.length && this.head < this.received.length) {
      const chunk = this.received[this.head]
      const part = chunk.subarray(this.headBytes, this.headBytes + into.length - count)
      into.set(part, count)
      count += part.length
      this.headBytes += part.length
      if (this.headBytes < chunk.length) break
      this.head++
      this.headBytes = 0
    }
    if (this.head === this.received.length) {
      this.received = []
      this.head = 0
    }
    this.receivedBytes -= count
    this.unreadBytes -= count
    if (
      this.senderWaits &&
      this.line.windowBytes - this.unreadBytes >= Math.min(count, this.line.windowBytes / 2)
    ) {
      this.senderWaits = false
      this.clock.after(this.line.latencyNs, () => this.other?.onChange(WRITABLE))
    }
    return count
  }

  /** shutdown(2): 0 reading, 1 writing, 2 both. Returns 0 or a negated errno. */
  shutdown(how: number): number {
    if (!this.isConnected) return -ENOTCONN
    if (how !== 0) this.endWriting()
    if (how !== 1 && !this.readEnded) {
      this.readEnded = true
      this.onChange(READABLE)
    }
    return 0
  }

  /** close(2): the rest is still sent, unless bytes are unread or linger says so: then a reset. */
  close(): void {
    if (this.hasClosed) return
    this.hasClosed = true
    this.onChange = nothing
    if (this.isDead || this.other === undefined) return
    if (this.resetsOnClose || this.receivedBytes > 0) this.reset()
    else this.endWriting()
  }

  /** Ends the connection at once; the other side is told. */
  reset(): void {
    if (this.isDead) return
    this.isDead = true
    const { other } = this
    if (other !== undefined) {
      this.line.causes.add("ECONNRESET").add("EPIPE")
      this.arrive(() => other.onReset(ECONNRESET))
    }
    this.onChange(READABLE | WRITABLE)
  }

  /** The network breaks the connection: both sides find out at once. */
  fail(errno: number): void {
    this.line.causes.add("ECONNRESET").add("EPIPE")
    this.other?.onReset(ECONNRESET)
    this.onReset(errno)
  }

  private endWriting(): void {
    const { other } = this
    if (this.writeEnded || this.isDead || other === undefined) return
    this.writeEnded = true
    this.arrive(() => {
      other.finArrived = true
      other.onChange(READABLE)
    })
    this.onChange(WRITABLE)
  }

  private send(segment: Uint8Array): void {
    const other = this.other as StreamSocket
    this.arrive(() => {
      if (other.isDead) return
      if (other.hasClosed) {
        other.reset() // data for nobody
        return
      }
      other.received.push(segment)
      other.receivedBytes += segment.length
      other.onChange(READABLE)
    })
  }

  /** In order with everything that this end has sent before. */
  private arrive(run: () => void): void {
    const { latencyNs, jitterNs, draw } = this.line
    const dueNs = Math.max(
      this.clock.nowNs + latencyNs + (jitterNs > 0 ? draw() * jitterNs : 0),
      this.lastArrivalNs,
    )
    this.lastArrivalNs = dueNs
    this.clock.at(dueNs, run)
  }

  private onReset(errno: number): void {
    if (this.isDead) return
    this.isDead = true
    if (!this.hasClosed) this.pendingError = errno
    this.onChange(READABLE | WRITABLE)
  }

  private takeError(): number {
    const errno = this.pendingError
    this.pendingError = 0
    return -errno
  }
}

function nothing(): void {}
