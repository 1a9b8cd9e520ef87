/**
 * The state of a connection: bits of one number, so that a test of several is one operation and a connection stays small.
 * connection_core.ts tells how they follow each other.
 */

/** Reading is paused. */
export const PAUSED = 1
/** The RECV in flight is being cancelled. */
export const CANCELLING = 2
/** The peer has ended its side. */
export const PEER_ENDED = 4
/** Our side ends once the queue is sent. */
export const END_ASKED = 8
/** SHUTDOWN is in flight or done. */
export const FIN_ASKED = 16
/** SHUTDOWN is in flight. */
export const FIN_PENDING = 32
/** The program has no part in it any more; the descriptor closes once the queue is sent. */
export const DETACHED = 64
/** What is queued does not matter any more. */
export const ABANDONED = 128
/** CLOSE is in flight or done. */
export const CLOSE_ASKED = 256
/** In the reactor's list of owners to flush. */
export const DIRTY = 512
/** A write was refused or cut: the program waits for drain. */
export const WANTS_DRAIN = 1024
/** Holds the reactor, and so the process. */
export const REFERENCED = 2048
/** The end of the peer's side does not end ours. */
export const HALF_OPEN = 4096
/** The end of the peer's side arrived during a pause. */
export const END_HELD = 8192
/** Somebody waits for the queue to be sent. */
export const FLUSH_AWAITED = 16384
/** In the reactor's list of owners that found no send memory. */
export const STARVED = 32768
/** What arrives is dropped: the program's `open` has thrown, and the peer is only waited for. */
export const DISCARDS = 65536
/** CLOSE has completed. */
export const RELEASED = 131072
/** Chunks that a pause has held are being handed on: their handler may flush, and so come back here. */
export const HANDING_ON = 262144
