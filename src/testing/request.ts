/**
 * What passes between the simulated engine and the simulated kernel: requests, as submission entries make them, and
 * completion entries. What io_uring's structs are to the shim.
 */
import type { OpenFile } from "./open_files.ts"

/** Where a request is in its life. */
export const STAGED = 0
/** Waits for its file, or for a moment. */
export const WAITING = 1
/** Can go on: deferred work. */
export const READY = 2
/** Could go on, and is held back for a while. */
export const HELD = 3
/** A cancellation has said that it is over; its completion entry follows. */
export const CANCELLED = 4
/** Its last completion entry has been posted, or it needs none. */
export const ENDED = 5

/** One submission entry and what becomes of it. */
export class Request {
  readonly slot: number
  readonly generation: number
  /** OP_* of ffi/abi.ts. */
  readonly op: number
  readonly fd: number
  readonly isMultishot: boolean
  /** SEND: MSG_DONTWAIT with CQE_SKIP_SUCCESS. */
  readonly isAtOnce: boolean
  /** As in the command: SEND: bytes in the arena; POLL: mask; CANCEL: target slot and generation. */
  readonly offset: number
  readonly length: number
  /** TIMEOUT: nanoseconds. */
  readonly timeoutNs: number
  state = STAGED
  file: OpenFile | undefined
  /** READABLE, WRITABLE: events of the file that let it go on. */
  waitsFor = 0
  /** SEND: bytes taken so far. */
  sentBytes = 0
  /** CONNECT: how it went. */
  outcome = 0

  constructor(
    slot: number,
    generation: number,
    op: number,
    fd: number,
    isMultishot: boolean,
    isAtOnce: boolean,
    offset: number,
    length: number,
    timeoutNs: number,
  ) {
    this.slot = slot
    this.generation = generation
    this.op = op
    this.fd = fd
    this.isMultishot = isMultishot
    this.isAtOnce = isAtOnce
    this.offset = offset
    this.length = length
    this.timeoutNs = timeoutNs
  }
}

export interface CompletionEntry {
  slot: number
  generation: number
  op: number
  result: number
  /** IORING_CQE_F_MORE. */
  hasMore: boolean
  /** Offset of the bytes in the receive memory, or -1. */
  bufferOffset: number
  /** The kernel goes on filling that buffer. */
  bufferHasMore: boolean
}
