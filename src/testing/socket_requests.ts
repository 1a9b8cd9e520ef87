/**
 * What the simulated kernel does for requests on sockets: accept, connect, receive, send, poll. Each attempt goes as far as
 * the socket allows; what would block waits for its file, as io_uring's internal poll does.
 */
import * as abi from "../../ffi/abi.ts"
import { eventsOf, OpenFile, POLLERR, POLLHUP } from "./open_files.ts"
import { ENDED, type Request, WAITING } from "./request.ts"
import type { Ring } from "./ring.ts"
import { READABLE, type StreamSocket, WRITABLE } from "./stream_socket.ts"

const ENOTSOCK = 88
const EINVAL = 22
const EAGAIN = 11
const ENOBUFS = 105
const ECONNRESET = 104
const EPIPE = 32
const ECONNREFUSED = 111
const ETIMEDOUT = 110
const ENETUNREACH = 101
const ECONNABORTED = 103
const EMFILE = 24
const ENFILE = 23
const ENOMEM = 12

/** After so long the kernel gives up connecting, nanoseconds: tcp_syn_retries 6. */
const CONNECT_TIMEOUT_NS = 127e9
/** Completions of one multishot request in one go, at most. */
const BURST = 8

export class SocketRequests {
  private readonly ring: Ring

  constructor(ring: Ring) {
    this.ring = ring
  }

  /** A request that has just been submitted. */
  start(request: Request): void {
    if (request.op === abi.OP_CONNECT) this.startConnect(request)
    else this.attempt(request)
  }

  /** Goes as far as it can; posts what comes of it. */
  attempt(request: Request): void {
    switch (request.op) {
      case abi.OP_ACCEPT:
        this.accept(request)
        break
      case abi.OP_RECV:
        this.receive(request)
        break
      case abi.OP_SEND:
        if (request.isAtOnce) this.sendAtOnce(request)
        else this.send(request)
        break
      case abi.OP_POLL:
        this.poll(request)
        break
      default:
        this.finishConnect(request)
    }
  }

  // ---- connect ----

  private startConnect(request: Request): void {
    const { clock, faults, connect } = this.ring.parts
    const socket = request.file?.socket
    if (socket === undefined) {
      this.ring.post(request, -ENOTSOCK)
      return
    }
    request.state = WAITING
    const connected = (result: number) => {
      request.outcome = result
      this.ring.wake(request)
    }
    if (faults.happens("connectUnreachable")) this.ring.post(request, -ENETUNREACH)
    else if (faults.happens("connectRefused"))
      clock.after(2 * socket.line.latencyNs, () => connected(-ECONNREFUSED))
    else if (faults.happens("connectTimedOut")) clock.after(CONNECT_TIMEOUT_NS, () => connected(-ETIMEDOUT))
    else connect(request, connected)
  }

  private finishConnect(request: Request): void {
    if (request.outcome === 0) this.mayBreak(request.file?.socket as StreamSocket)
    this.ring.post(request, request.outcome)
  }

  // ---- accept ----

  private accept(request: Request): void {
    const { files, faults } = this.ring.parts
    const listener = request.file?.listener
    if (listener === undefined) {
      this.ring.post(request, -EINVAL)
      return
    }
    for (let count = 0; count < BURST; count++) {
      if (listener.queue.length === 0) {
        this.ring.await(request, READABLE)
        return
      }
      const errno = this.acceptError()
      if (errno !== 0) {
        if (errno === ECONNABORTED) listener.queue.shift()?.reset()
        this.ring.post(request, -errno)
        return
      }
      const socket = listener.queue.shift() as StreamSocket
      this.mayBreak(socket)
      const fd = files.open(new OpenFile(socket, (waiter) => this.ring.wake(waiter)))
      const hasMore = request.isMultishot && !faults.happens("lostMore")
      this.ring.post(request, fd, hasMore)
      if (this.hasEnded(request)) return
    }
    this.ring.makeReady(request)
  }

  private acceptError(): number {
    const { files, faults } = this.ring.parts
    if (files.isFull) {
      faults.count("descriptorsExhausted")
      return EMFILE
    }
    if (faults.happens("acceptEmfile")) return EMFILE
    if (faults.happens("acceptEnfile")) return ENFILE
    if (faults.happens("acceptEnomem")) return ENOMEM
    return faults.happens("acceptAborted") ? ECONNABORTED : 0
  }

  // ---- receive ----

  private receive(request: Request): void {
    const { buffers, faults, random } = this.ring.parts
    const socket = request.file?.socket
    if (socket === undefined) {
      this.ring.post(request, -ENOTSOCK)
      return
    }
    if (socket.isReadable) this.mayBreak(socket)
    for (let count = 0; count < BURST; count++) {
      if (!socket.isReadable) {
        this.ring.await(request, READABLE)
        return
      }
      const isEmpty = buffers.isEmpty
      if (isEmpty || faults.happens("noBuffers")) {
        if (isEmpty) faults.count("buffersExhausted")
        this.ring.post(request, -ENOBUFS)
        return
      }
      const { offset, length } = buffers.peek()
      const most = faults.happens("shortReceive") ? random.skewed(1, length) : length
      const result = socket.read(buffers.view(offset, most))
      if (result <= 0) {
        this.ring.post(request, result)
        return
      }
      const bufferHasMore = buffers.take(result)
      const hasMore = request.isMultishot && !faults.happens("lostMore")
      this.ring.post(request, result, hasMore, offset, bufferHasMore)
      if (this.hasEnded(request)) return
    }
    this.ring.makeReady(request)
  }

  // ---- send ----

  /** All of it now, without a completion entry; or an entry that says how far it got. */
  private sendAtOnce(request: Request): void {
    const { faults } = this.ring.parts
    const socket = this.socketToSend(request)
    if (socket === undefined) return
    const result = faults.happens("blockedSend") ? -EAGAIN : this.write(request, socket)
    if (result === request.length) this.ring.end(request)
    else this.ring.post(request, result)
  }

  /** All of it, however long it takes (MSG_WAITALL). */
  private send(request: Request): void {
    const { faults } = this.ring.parts
    const socket = this.socketToSend(request)
    if (socket === undefined) return
    if (request.sentBytes === 0 && faults.happens("zeroSend")) {
      socket.fail(EPIPE) // the stream cannot go on behind a hole: the engine says EPIPE
      this.ring.post(request, 0)
      return
    }
    for (;;) {
      const result = this.write(request, socket)
      if (result === -EAGAIN) {
        this.ring.await(request, WRITABLE)
        return
      }
      if (result < 0) {
        this.ring.post(request, request.sentBytes > 0 ? request.sentBytes : result)
        return
      }
      request.sentBytes += result
      if (request.sentBytes === request.length || faults.happens("shortSend")) {
        this.ring.post(request, request.sentBytes)
        return
      }
    }
  }

  private socketToSend(request: Request): StreamSocket | undefined {
    const socket = request.file?.socket
    if (socket === undefined) {
      this.ring.post(request, -ENOTSOCK)
      return undefined
    }
    this.mayBreak(socket)
    if (socket.isConnected && this.ring.parts.faults.happens("brokenPipe")) socket.fail(EPIPE)
    return socket
  }

  private write(request: Request, socket: StreamSocket): number {
    const { faults, random, arena } = this.ring.parts
    const left = request.length - request.sentBytes
    const count = left > 1 && faults.happens("shortSend") ? random.integer(1, left - 1) : left
    return socket.write(arena(request.offset + request.sentBytes, count))
  }

  // ---- poll ----

  private poll(request: Request): void {
    const file = request.file as OpenFile
    const mask = file.readiness & (request.length | POLLERR | POLLHUP)
    if (mask === 0) {
      this.ring.await(request, eventsOf(request.length) | READABLE)
      return
    }
    this.ring.post(request, mask, request.isMultishot)
    if (!this.hasEnded(request)) this.ring.await(request, eventsOf(request.length) | READABLE)
  }

  // ---- what can befall any of them ----

  private mayBreak(socket: StreamSocket): void {
    if (socket.isConnected && this.ring.parts.faults.happens("reset")) socket.fail(ECONNRESET)
  }

  /** Whether its last completion has been posted: multishot requests may end by an overflow. */
  private hasEnded(request: Request): boolean {
    return request.state === ENDED
  }
}
