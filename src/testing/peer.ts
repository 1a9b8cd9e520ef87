/**
 * A simulated peer: the other end of a connection, which is no program of the reactor. It takes what arrives at once unless
 * paused, and sends as its window allows. Its handlers run inside the simulated kernel, in the middle of a tick: they must
 * not touch the reactor.
 */
import { type StreamSocket, WRITABLE } from "./stream_socket.ts"

const EAGAIN = 11
const READ_BYTES = 65_536

export interface PeerHandlers {
  /** The connection stands. */
  onOpen?(peer: SimulatedPeer): void
  /** It did not come about; a negated errno. */
  onRefused?(result: number): void
  /** Bytes have arrived. They are the handler's own. */
  onData?(bytes: Uint8Array): void
  /** The reactor has ended its side. */
  onEnd?(): void
  /** The connection was reset. */
  onReset?(): void
  /** All that was given to `send` has been taken by the network. */
  onDrain?(): void
}

export class SimulatedPeer {
  readonly socket: StreamSocket
  private readonly handlers: PeerHandlers
  private readonly queue: Uint8Array[] = []
  private isPaused = false
  private isEnding = false
  private isClosing = false
  private isOver = false
  private hasSeenEnd = false

  constructor(socket: StreamSocket, handlers: PeerHandlers) {
    this.socket = socket
    this.handlers = handlers
  }

  /** The connection stands: from now on it reads. */
  opened(): void {
    this.socket.onChange = (events) => this.changed(events)
    this.handlers.onOpen?.(this)
    this.changed(WRITABLE)
  }

  get isClosed(): boolean {
    return this.isOver
  }

  /** Sends bytes, behind those that wait already. They are copied when they leave. */
  send(bytes: Uint8Array): void {
    this.queue.push(bytes)
    this.flush()
  }

  /** Ends this side once all is sent; reading goes on. */
  end(): void {
    this.isEnding = true
    this.flush()
  }

  /** Takes no more part, and closes once all is sent. Bytes that arrive later are answered with a reset. */
  close(): void {
    this.isClosing = true
    this.flush()
  }

  /** Ends the connection with a reset. */
  reset(): void {
    this.isOver = true
    this.socket.resetsOnClose = true
    this.socket.close()
  }

  /** Stops reading: the window fills. */
  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.read()
  }

  private changed(events: number): void {
    if (events & WRITABLE) this.flush()
    this.read()
  }

  private flush(): void {
    while (!this.isOver && this.queue.length > 0) {
      const bytes = this.queue[0]
      const count = this.socket.write(bytes)
      if (count === -EAGAIN) return
      if (count < 0) {
        this.broken()
        return
      }
      if (count === bytes.length) this.queue.shift()
      else this.queue[0] = bytes.subarray(count)
      if (this.queue.length === 0) this.handlers.onDrain?.()
    }
    if (this.isOver || this.queue.length > 0) return
    if (this.isClosing) {
      this.isOver = true
      this.socket.close()
    } else if (this.isEnding) this.socket.shutdown(1)
  }

  private read(): void {
    while (!this.isOver && !this.isClosing && !this.isPaused && !this.hasSeenEnd) {
      const bytes = new Uint8Array(READ_BYTES)
      const count = this.socket.read(bytes)
      if (count === -EAGAIN) return
      if (count > 0) this.handlers.onData?.(bytes.subarray(0, count))
      else if (count < 0) this.broken()
      else {
        this.hasSeenEnd = true
        this.handlers.onEnd?.()
      }
    }
  }

  private broken(): void {
    if (this.isOver) return
    this.isOver = true
    this.socket.close()
    if (!this.isClosing) this.handlers.onReset?.()
  }
}
