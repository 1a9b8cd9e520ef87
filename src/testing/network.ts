/**
 * The simulated network: which ports listen, how a connection comes to be, and what the lines between are like. One host
 * with the reactor's listeners on it (127.0.0.1), and services of simulated peers anywhere else.
 */
import type { VirtualClock } from "./clock.ts"
import type { Random } from "./random.ts"
import { type Line, type Place, READABLE, StreamSocket } from "./stream_socket.ts"

const ECONNREFUSED = 111
const ETIMEDOUT = 110
const ENETUNREACH = 101
const EADDRINUSE = 98

const FIRST_EPHEMERAL_PORT = 32_768
/** A SYN that got no answer is sent again after this long, a second one after twice as long, and so on. */
const SYN_RETRY_NS = 1e9
const SYN_ATTEMPTS = 7

/** Bounds of what lines are like. */
export interface NetworkShape {
  /** Nanoseconds, one way. */
  latencyNs: [least: number, most: number]
  jitterNs: [least: number, most: number]
  windowBytes: [least: number, most: number]
  segmentBytes: [least: number, most: number]
}

export class ListeningSocket {
  readonly place: Place
  readonly backlog: number
  /** Connections that wait to be accepted. */
  readonly queue: StreamSocket[] = []
  /** Told when there is one more. Whoever accepts sets it. */
  onChange: (events: number) => void = () => {}
  private readonly network: Network

  constructor(network: Network, place: Place, backlog: number) {
    this.network = network
    this.place = place
    this.backlog = backlog
  }

  /** Those that wait are reset. */
  close(): void {
    this.onChange = () => {}
    this.network.forget(this)
    for (const socket of this.queue.splice(0)) socket.reset()
  }
}

/** How a connect ends: 0 or a negated errno. */
export type Connected = (result: number) => void

/** What answers at an address of a simulated peer: takes the connection, or answers with a negated errno. */
export type Service = (socket: StreamSocket) => number

export class Network {
  private readonly clock: VirtualClock
  private readonly random: Random
  private readonly shape: NetworkShape
  private readonly listeners = new Map<number, ListeningSocket>()
  private readonly services = new Map<number, Service>()
  private nextPort = FIRST_EPHEMERAL_PORT

  constructor(clock: VirtualClock, random: Random, shape: NetworkShape) {
    this.clock = clock
    this.random = random
    this.shape = shape
  }

  /** An unconnected end. */
  socket(): StreamSocket {
    const draw = ([least, most]: [number, number]) => this.random.skewed(least, most)
    const line: Line = {
      latencyNs: draw(this.shape.latencyNs),
      jitterNs: draw(this.shape.jitterNs),
      windowBytes: draw(this.shape.windowBytes),
      segmentBytes: draw(this.shape.segmentBytes),
      draw: () => this.random.next(),
      causes: new Set(),
    }
    return new StreamSocket(this.clock, line)
  }

  /** Listens on a port of the reactor's host; 0 picks one. Returns a negated errno when it is taken. */
  listen(place: Place, backlog: number): ListeningSocket | number {
    const port = place.port === 0 ? this.ephemeralPort() : place.port
    if (this.listeners.has(port)) return -EADDRINUSE
    const listener = new ListeningSocket(this, { address: place.address, port }, backlog)
    this.listeners.set(port, listener)
    return listener
  }

  forget(listener: ListeningSocket): void {
    if (this.listeners.get(listener.place.port) === listener) this.listeners.delete(listener.place.port)
  }

  /** Answers connects to this port on any host but the reactor's. */
  serve(port: number, service: Service): void {
    this.services.set(port, service)
  }

  /** Connects an end. `connected` is called later, unless the socket has been closed by then. */
  connect(socket: StreamSocket, place: Place, connected: Connected): void {
    const isLocal = place.address.startsWith("127.") || place.address === "::1"
    socket.local = { address: isLocal ? place.address : "10.0.0.1", port: this.ephemeralPort() }
    socket.remote = place
    this.attempt(socket, isLocal, connected, 1)
  }

  private attempt(socket: StreamSocket, isLocal: boolean, connected: Connected, count: number): void {
    const { latencyNs } = socket.line
    this.clock.after(latencyNs, () => {
      if (socket.isClosed) return
      const result = isLocal ? this.reachListener(socket) : this.reachService(socket)
      if (result !== -ETIMEDOUT) this.clock.after(latencyNs, () => connected(result))
      else if (count === SYN_ATTEMPTS) connected(result)
      else {
        const retryNs = SYN_RETRY_NS * 2 ** (count - 1)
        this.clock.after(retryNs, () => this.attempt(socket, isLocal, connected, count + 1))
      }
    })
  }

  private reachListener(socket: StreamSocket): number {
    const listener = this.listeners.get(socket.remote.port)
    if (listener === undefined) return -ECONNREFUSED
    if (listener.queue.length > listener.backlog) return -ETIMEDOUT // the SYN is dropped
    listener.queue.push(this.otherEnd(socket))
    listener.onChange(READABLE)
    return 0
  }

  private reachService(socket: StreamSocket): number {
    const service = this.services.get(socket.remote.port)
    if (service === undefined) return -ENETUNREACH
    const result = service(this.otherEnd(socket))
    if (result < 0) socket.other = undefined
    return result
  }

  private otherEnd(socket: StreamSocket): StreamSocket {
    const other = new StreamSocket(this.clock, socket.line)
    other.local = socket.remote
    other.remote = socket.local
    StreamSocket.join(socket, other)
    return other
  }

  private ephemeralPort(): number {
    return this.nextPort++
  }
}
