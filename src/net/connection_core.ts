/**
 * One stream connection, whatever the form in which a program holds it: receiving, sending, half-close, close, deadlines.
 * socket.ts (handlers) and connection.ts (promises) extend it.
 *
 * Receiving: one multishot RECV is armed while bytes are wanted. A pause cancels it; what still arrives is held and handed
 * on at the resume, so pausing bounds memory without losing a byte.
 *
 * Sending: what is written goes into one block of the send arena, the queue. Before each tick the queue becomes one SEND,
 * of which a connection has at most one in flight; meanwhile the next queue fills.
 *
 *   written -> queueBlock -> (before the tick) -> sentBlock, SEND in flight -> freed on its terminal completion
 *
 * Closing: the program's side ends at once (`detach`); the descriptor follows when the queue has been sent, no operation
 * is in flight (cancel, wait for the terminal completion), and then CLOSE. Nothing is delivered after `detach`.
 */
import * as abi from "../../ffi/abi.ts"
import { systemError, UringloopError } from "../errors.ts"
import type { OperationOwner, ReactorCore } from "../reactor/core.ts"
import { Deadline, type DeadlineOwner } from "../reactor/deadlines.ts"
import type { DescriptorOwner } from "../reactor/descriptors.ts"
import {
  ABANDONED,
  CANCELLING,
  CLOSE_ASKED,
  DETACHED,
  DIRTY,
  DISCARDS,
  END_ASKED,
  END_HELD,
  FIN_ASKED,
  FIN_PENDING,
  FLUSH_AWAITED,
  HALF_OPEN,
  HANDING_ON,
  PAUSED,
  PEER_ENDED,
  REFERENCED,
  RELEASED,
  STARVED,
  WANTS_DRAIN,
} from "./connection_state.ts"
import { NO_BLOCK, OutgoingQueue } from "./outgoing.ts"

/** A closed connection goes on sending what was written before, as long as the peer takes something this often. */
export const CLOSE_LINGER_MS = 60_000

const KIND_RECV = 1
const KIND_SEND = 2
const KIND_SHUTDOWN = 3
const KIND_CLOSE = 4

/** Deadline kinds. Subclasses count from DEADLINE_FIRST_FREE. */
const DEADLINE_LINGER = 0
export const DEADLINE_FIRST_FREE = 1

const ECANCELED = 125
const ENOBUFS = 105
const ENOTCONN = 107
const SHUT_RD = 0
const SHUT_WR = 1

export abstract class ConnectionCore
  extends OutgoingQueue
  implements OperationOwner, DescriptorOwner, DeadlineOwner
{
  /** Slots of the operations in flight, or -1. */
  private recvSlot = -1
  private sendSlot = -1
  private sentBlock = NO_BLOCK
  /** Bytes in the SEND in flight. */
  private sentLength = 0
  /** Chunks that arrived during a pause, oldest first. Made when the first does. */
  private held: Buffer[] | undefined
  private linger: Deadline | undefined

  constructor(core: ReactorCore, fd: number, halfOpen: boolean) {
    super(core, fd)
    if (halfOpen) this.state |= HALF_OPEN
    core.descriptors.add(fd, this)
    core.hold()
  }

  // ---- what the forms do with it ----

  /** Bytes [offset, offset + length) of `core.bufferBytes` have arrived. Must not throw. */
  protected abstract onBytes(offset: number, length: number): void
  /** A chunk that a pause has held. */
  protected abstract onHeld(chunk: Buffer): void
  /** The peer has ended its side. */
  protected abstract onPeerEnd(): void
  /** The queue has room again after a write was refused or cut, or somebody waited for it. */
  protected abstract onFlushed(): void
  /** The program's part ends, with the error if there was one and the chunks that a pause held. Called once. */
  protected abstract onDetached(error: Error | undefined, held: Buffer[] | undefined): void
  /** The descriptor is closed. */
  protected abstract onReleased(): void
  abstract onDeadline(kind: number, deadline: Deadline): void

  // ---- receiving ----

  protected startReceiving(): void {
    if (this.recvSlot >= 0 || this.state & (PAUSED | PEER_ENDED | END_HELD | DETACHED)) return
    const slot = this.core.submit(abi.OP_RECV, abi.C_MULTISHOT, this.descriptor, KIND_RECV, this, 0, 0)
    if (slot < 0) this.fail(new UringloopError("LIMIT_OPERATIONS", "too many operations are in flight"))
    this.recvSlot = slot
  }

  protected pauseReceiving(): void {
    if (this.state & (PAUSED | DETACHED)) return
    this.state |= PAUSED
    this.cancelReceive()
  }

  protected resumeReceiving(): void {
    if ((this.state & PAUSED) === 0 || this.state & DETACHED) return
    this.state &= ~PAUSED
    // What was held is handed on before the next tick, not inside this call.
    if (this.held !== undefined || this.state & END_HELD) this.markDirty()
    else this.startReceiving()
  }

  private cancelReceive(): void {
    if (this.recvSlot < 0 || this.state & CANCELLING) return
    if (this.core.cancelSlot(this.recvSlot) >= 0) this.state |= CANCELLING
  }

  private onReceived(result: number, flags: number, bufferOffset: number): void {
    const ended = (flags & abi.F_MORE) === 0
    if (ended) {
      this.recvSlot = -1
      this.state &= ~CANCELLING
    }
    if (result > 0) {
      if ((this.state & (PAUSED | DETACHED | DISCARDS)) === 0 && this.held === undefined) {
        this.core.deliveries++
        this.onBytes(bufferOffset, result)
      } else if ((this.state & (DETACHED | DISCARDS)) === 0) {
        this.held ??= []
        this.held.push(this.core.memory.copyOf(bufferOffset, result))
      } else this.core.counters.bytesDiscarded += result
    } else if (result === 0) {
      if (this.state & PAUSED || this.held !== undefined) this.state |= END_HELD
      else this.peerEnded()
    } else if (result !== -ECANCELED && result !== -ENOBUFS) {
      this.fail(systemError(result, "read"))
    }
    if (!ended) return
    if (this.state & DETACHED) this.advanceClose()
    else if (result !== 0 && (this.state & PAUSED) === 0) {
      if (result !== -ECANCELED) this.core.counters.rearms++
      this.startReceiving()
    }
  }

  private deliverHeld(): void {
    const chunks = this.held
    this.held = undefined
    if (chunks !== undefined) {
      for (let i = 0; i < chunks.length; i++) {
        if (this.state & DETACHED) return
        if (this.state & PAUSED) {
          // Paused again by the handler: the rest stays, in front of what comes later.
          const rest: Buffer[] = chunks.slice(i)
          this.held = this.held === undefined ? rest : rest.concat(this.held)
          return
        }
        this.core.deliveries++
        this.onHeld(chunks[i])
      }
    }
    if (this.state & (PAUSED | DETACHED)) return
    if (this.state & END_HELD) {
      this.state &= ~END_HELD
      this.peerEnded()
    } else this.startReceiving()
  }

  private peerEnded(): void {
    if (this.state & (PEER_ENDED | DETACHED)) return
    this.state |= PEER_ENDED
    // Our side has ended too: that was all. Otherwise the program is told, and may answer if it wanted half-open.
    if (this.state & END_ASKED) {
      this.detach(undefined)
      return
    }
    this.core.deliveries++
    this.onPeerEnd()
    if ((this.state & (HALF_OPEN | DETACHED)) === 0) this.detach(undefined)
  }

  // ---- sending ----

  /** Bytes written and not yet taken by the kernel. */
  protected get pendingBytes(): number {
    return this.queueLength + this.sentLength
  }

  protected get isHalfOpen(): boolean {
    return (this.state & HALF_OPEN) !== 0
  }

  protected get canWrite(): boolean {
    return (this.state & (END_ASKED | DETACHED)) === 0
  }

  /** Before the tick: what has been queued becomes one SEND; without a queue, what comes after it. */
  flushCommands(): void {
    this.state &= ~(DIRTY | STARVED)
    const mayHandOn = (this.state & (PAUSED | DETACHED | HANDING_ON)) === 0
    if (mayHandOn && (this.held !== undefined || this.state & END_HELD)) {
      this.state |= HANDING_ON
      this.deliverHeld()
      this.state &= ~HANDING_ON
    }
    if (this.state & ABANDONED) {
      this.advanceClose()
      return
    }
    if (this.sendSlot >= 0 || this.state & CLOSE_ASKED) return
    if (this.queueLength === 0) {
      this.afterQueue()
      return
    }
    const awaited = this.state & (WANTS_DRAIN | END_ASKED | DETACHED | FLUSH_AWAITED)
    this.sendSlot = this.core.submit(
      abi.OP_SEND,
      awaited ? 0 : abi.C_QUIET,
      this.descriptor,
      KIND_SEND,
      this,
      this.queueBlock,
      this.queueLength,
    )
    if (this.sendSlot < 0 && this.state & DETACHED) {
      this.core.waitForOperation(this) // nobody is left to be told: it is sent when there is one
      return
    }
    if (this.sendSlot < 0) {
      this.fail(new UringloopError("LIMIT_OPERATIONS", "too many operations are in flight"))
      return
    }
    this.sentBlock = this.queueBlock
    this.sentLength = this.queueLength
    this.queueBlock = NO_BLOCK
    this.queueLength = 0
    // There is room again while this part is under way.
    this.tellFlushed()
  }

  private tellFlushed(): void {
    if ((this.state & (WANTS_DRAIN | FLUSH_AWAITED)) === 0 || this.state & DETACHED) return
    this.state &= ~(WANTS_DRAIN | FLUSH_AWAITED)
    this.core.deliveries++
    this.onFlushed()
  }

  private onSent(result: number): void {
    this.sendSlot = -1
    this.sentLength = 0
    this.core.arena.free(this.sentBlock)
    this.sentBlock = NO_BLOCK
    if (result < 0 && (this.state & ABANDONED) === 0) {
      // The stream has a hole now: nothing behind it may be sent.
      this.state |= ABANDONED
      this.fail(systemError(result, "write"))
      return
    }
    if (this.queueLength > 0 && (this.state & ABANDONED) === 0) {
      if (this.state & DETACHED) this.armLinger()
      this.markDirty()
    } else this.afterQueue()
  }

  /** Nothing is queued or in flight to be sent. */
  private afterQueue(): void {
    if (this.state & DETACHED) {
      this.advanceClose()
      return
    }
    if (this.state & END_ASKED && (this.state & FIN_ASKED) === 0) this.sendFin()
    this.tellFlushed()
  }

  private sendFin(): void {
    const slot = this.core.submit(abi.OP_SHUTDOWN, 0, this.descriptor, KIND_SHUTDOWN, this, 0, SHUT_WR)
    if (slot >= 0) this.state |= FIN_ASKED | FIN_PENDING
    else this.fail(new UringloopError("LIMIT_OPERATIONS", "too many operations are in flight"))
  }

  /** Ends our side once the queue is sent; the peer's goes on. */
  protected endSending(): void {
    if (this.state & (END_ASKED | DETACHED)) return
    this.state |= END_ASKED
    if (this.state & PEER_ENDED) this.detach(undefined)
    else this.markDirty()
  }

  /** Ends reading: the receive in flight ends as if the peer had ended its side. Writing goes on. */
  protected endReceiving(): void {
    if (this.state & (PEER_ENDED | DETACHED | FIN_PENDING)) return
    const slot = this.core.submit(abi.OP_SHUTDOWN, 0, this.descriptor, KIND_SHUTDOWN, this, 0, SHUT_RD)
    if (slot >= 0) this.state |= FIN_PENDING
  }

  // ---- the end ----

  /** The program's part ends now; what it has written is still sent. */
  protected detach(error: Error | undefined): void {
    if (this.state & DETACHED) return
    this.state |= DETACHED
    const held = this.held
    this.held = undefined
    if (this.pendingBytes > 0 && (this.state & ABANDONED) === 0) this.armLinger()
    this.markDirty()
    this.onDetached(error, held)
  }

  /** A stream that is cut short must not look to the peer like one that has ended: it sees a reset. */
  private resetInsteadOfEnd(): void {
    if (this.pendingBytes > 0) this.core.native.setOption(this.core.ring, this.descriptor, abi.O_LINGER, 0)
  }

  protected fail(error: Error): void {
    this.resetInsteadOfEnd()
    if ((this.state & DETACHED) === 0) this.core.counters.connectionsFailed++
    this.state |= ABANDONED
    this.detach(error)
    this.markDirty()
  }

  /** Closes without sending what is queued. */
  abandon(): void {
    this.state |= ABANDONED
    this.detach(undefined)
    this.markDirty()
  }

  resetByOverload(): void {
    this.setOption(abi.O_LINGER, 0)
    this.fail(new UringloopError("LIMIT_OVERLOAD", "reset: nothing moved while the reactor was overloaded"))
  }

  get unsentBytes(): number {
    return this.pendingBytes
  }

  private armLinger(): void {
    this.linger ??= new Deadline(this, DEADLINE_LINGER)
    this.core.arm(this.linger, CLOSE_LINGER_MS)
  }

  /** Subclasses hand on the deadlines that are not theirs. */
  protected onCoreDeadline(): void {
    // The peer has taken nothing for CLOSE_LINGER_MS since we closed: what is left is given up.
    this.core.counters.lingersExpired++
    this.resetInsteadOfEnd()
    this.state |= ABANDONED
    this.advanceClose()
  }

  /** One step towards CLOSE; called whenever something it waits for has ended. */
  private advanceClose(): void {
    if (this.state & CLOSE_ASKED) return
    if (this.queueLength > 0 && (this.state & ABANDONED) === 0) return
    this.cancelReceive()
    if (this.sendSlot >= 0 && this.state & ABANDONED) this.core.cancelSlot(this.sendSlot)
    if (this.recvSlot >= 0 || this.sendSlot >= 0 || this.state & FIN_PENDING) return
    if (this.queueBlock !== NO_BLOCK) {
      this.core.counters.bytesUnsent += this.queueLength
      this.core.arena.free(this.queueBlock)
      this.queueBlock = NO_BLOCK
      this.queueLength = 0
    }
    if (this.linger !== undefined) this.core.deadlines.clear(this.linger)
    if (this.core.submit(abi.OP_CLOSE, 0, this.descriptor, KIND_CLOSE, this, 0, 0) < 0) {
      this.markDirty() // no slot free: again in the next round
      return
    }
    this.state |= CLOSE_ASKED
    this.core.descriptors.remove(this.descriptor)
    this.descriptor = -1
  }

  onCompletion(kind: number, _slot: number, result: number, flags: number, bufferOffset: number): void {
    switch (kind) {
      case KIND_RECV:
        this.onReceived(result, flags, bufferOffset)
        break
      case KIND_SEND:
        this.onSent(result)
        break
      case KIND_SHUTDOWN:
        this.state &= ~FIN_PENDING
        if (this.state & DETACHED) this.advanceClose()
        else if (result < 0 && result !== -ENOTCONN) this.fail(systemError(result, "shutdown"))
        break
      default:
        this.state |= RELEASED
        this.unhold()
        this.onReleased()
    }
  }

  // ---- odds and ends of both forms ----

  private unhold(): void {
    if ((this.state & REFERENCED) === 0) return
    this.state &= ~REFERENCED
    this.core.release()
  }

  /** Keeps the process alive while open (the initial state). */
  ref(): void {
    if (this.state & (REFERENCED | CLOSE_ASKED)) return
    this.state |= REFERENCED
    this.core.hold()
  }

  /** Lets the process exit although this is open. */
  unref(): void {
    this.unhold()
  }

  override get fd(): number {
    return this.state & DETACHED ? -1 : this.descriptor
  }

  /** Bytes taken from the program, in all. */
  get bytesWritten(): number {
    return this.written
  }
}
