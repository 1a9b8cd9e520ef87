/**
 * What a runtime must provide to reach the shim: one method per export of liburing-shim/exports.h, with the types that
 * TypeScript uses for them. `ffi/bun.ts` implements it with bun:ffi; a second runtime is one more file beside it.
 *
 * Results are as in C: 0 or more is success, less than 0 is a negated errno. `-EBADF` means that the ring does not exist or
 * belongs to another thread. Byte arrays are only read or written during the call.
 */
export interface Native {
  /** Path of the loaded library. */
  readonly path: string
  /** Version of the record layout that the library was built with. */
  abiVersion(): number
  /** Opens a ring from a `struct ul_config`; on failure the config's `reason` says why. Returns the ring's handle. */
  open(config: Uint8Array): number
  /** `-EBUSY` while operations are in flight. */
  close(ring: number): number
  /**
   * Bytes [offset, offset + length) of a ring's shared mapping, which begins with `struct ul_header`. They stay readable for
   * the life of the process.
   */
  region(ring: number, offset: number, length: number): ArrayBuffer
  /**
   * Hands over `count` commands. `waitNs` below 0: flush only. Otherwise harvests, having slept up to `waitNs`
   * nanoseconds unless there was something to report; returns the number of completions.
   */
  readonly tick: (ring: number, count: number, waitNs: number) => number
  /** Turns the ring's event descriptor on (1) or off (0). After turning it on, tick once more before relying on it. */
  notify(ring: number, on: number): number
  /** Descriptor of the ring's eventfd. */
  eventFd(ring: number): number
  /** Waits end when `fd`, the epoll instance of the runtime's own loop, becomes readable. */
  watch(ring: number, fd: number): number
  /** Opens a listening stream socket on a `struct ul_address`. Returns the descriptor, owned by the ring. */
  listen(ring: number, address: Uint8Array, backlog: number, flags: number): number
  /** Opens a stream socket of a family. Returns the descriptor, owned by the ring. */
  socket(ring: number, family: number): number
  /** Takes over a stream socket or listener that somebody else opened. */
  adopt(ring: number, fd: number): number
  /** Writes this end's address (`peer` 0) or the other's (1) into `out`, a `struct ul_address`. */
  name(ring: number, fd: number, peer: number, out: Uint8Array): number
  setOption(ring: number, fd: number, option: number, value: number): number
  getOption(ring: number, fd: number, option: number): number
  /** Resolves a host name into `struct ul_address` records, blocking. Returns how many there are. */
  resolve(host: string, out: Uint8Array, capacity: number): number
  /** What this kernel and process allow, as JSON text. */
  probe(): string
}

/** The library is not there, or cannot be loaded. */
export class ShimError extends Error {
  override name = "ShimError"
}

/** What the hosts need of the runtime's own loop. Public interfaces of the runtime only. */
export interface RuntimeLoop {
  /** Runs waiting promise reactions (and, where the runtime has them, nextTick callbacks) now. */
  readonly drainMicrotasks: () => void
  /** Calls back in the loop's next turn, after its I/O. `keepAlive` false: the process may exit first. */
  nextTurn(callback: () => void, keepAlive: boolean): void
  /** Calls back after a time. `keepAlive` as above. Returns what `clearTimer` takes. */
  setTimer(callback: () => void, afterMs: number, keepAlive: boolean): unknown
  clearTimer(timer: unknown): void
  /** Watches an eventfd. The watch starts closed. */
  watchEvent(eventFd: number, onReadable: () => void): EventWatch
  /** Descriptor of the epoll instance of the runtime's loop, known by its watching `eventFd`; -1 if not found. */
  loopDescriptor(eventFd: number): number
}

/** An open watch keeps the process alive and calls back each time the eventfd becomes readable. */
export interface EventWatch {
  readonly isOpen: boolean
  open(): void
  close(): void
}

/** All that a reactor stands on. The runtime's own by default; a simulated one in tests (src/testing). */
export interface Platform {
  readonly native: Native
  readonly loop: RuntimeLoop
  /** Monotonic milliseconds from any fixed origin. */
  readonly clock: () => number
}
