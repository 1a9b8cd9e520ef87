/**
 * Bun: the shim through bun:ffi, and what the hosts need of Bun's own loop. In the symbol table each parameter is
 * commented with its C declaration. bun:ffi compiles a call to about 2 ns, so a tick costs its system call and little else.
 */
import { dlopen, FFIType, ptr, read, toArrayBuffer } from "bun:ffi"
import { drainMicrotasks } from "bun:jsc"
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as abi from "./abi.ts"
import { type EventWatch, type Native, type RuntimeLoop, ShimError } from "./native.ts"

const { i32, u32, f64, ptr: pointer, cstring } = FFIType

const symbols = {
  ul_abi_version: { args: [], returns: i32 },
  ul_open: { args: [pointer /* struct ul_config *config */], returns: i32 },
  ul_close: { args: [u32 /* uint32_t ring */], returns: i32 },
  ul_region: { args: [u32 /* uint32_t ring */], returns: pointer },
  ul_tick: {
    args: [u32 /* uint32_t ring */, u32 /* uint32_t count */, f64 /* double wait_ns */],
    returns: i32,
  },
  ul_notify: { args: [u32 /* uint32_t ring */, u32 /* uint32_t on */], returns: i32 },
  ul_event_fd: { args: [u32 /* uint32_t ring */], returns: i32 },
  ul_watch: { args: [u32 /* uint32_t ring */, i32 /* int32_t fd */], returns: i32 },
  ul_listen: {
    args: [
      u32 /* uint32_t ring */,
      pointer /* const struct ul_address * */,
      i32 /* int32_t backlog */,
      u32 /* flags */,
    ],
    returns: i32,
  },
  ul_socket: { args: [u32 /* uint32_t ring */, u32 /* uint32_t family */], returns: i32 },
  ul_adopt: { args: [u32 /* uint32_t ring */, i32 /* int32_t fd */], returns: i32 },
  ul_name: {
    args: [
      u32 /* uint32_t ring */,
      i32 /* int32_t fd */,
      u32 /* uint32_t peer */,
      pointer /* struct ul_address *out */,
    ],
    returns: i32,
  },
  ul_set_option: {
    args: [u32 /* uint32_t ring */, i32 /* int32_t fd */, u32 /* uint32_t option */, i32 /* int32_t value */],
    returns: i32,
  },
  ul_get_option: {
    args: [u32 /* uint32_t ring */, i32 /* int32_t fd */, u32 /* uint32_t option */],
    returns: i32,
  },
  ul_resolve: {
    args: [cstring /* const char *host */, pointer /* struct ul_address *out */, u32 /* uint32_t capacity */],
    returns: i32,
  },
  ul_probe: { args: [pointer /* char *out */, u32 /* uint32_t capacity */], returns: i32 },
} as const

const PROBE_BYTES = 64 * 1024

/** Where the library is: `URINGLOOP_SHIM`, or beside the sources where `make shim` puts it. */
export function shimPath(): string {
  return (
    process.env.URINGLOOP_SHIM ?? fileURLToPath(new URL("../liburing-shim/build/libshim.so", import.meta.url))
  )
}

let loaded: Native | undefined

/** Loads the shim, once per thread. Throws ShimError when it is missing, cannot be loaded or has another record layout. */
export function loadShim(): Native {
  loaded ??= load(shimPath())
  return loaded
}

function load(path: string): Native {
  if (!existsSync(path)) throw new ShimError(`the shim is not at ${path}: build it with \`make shim\``)
  let library: ReturnType<typeof dlopen<typeof symbols>>
  try {
    library = dlopen(path, symbols)
  } catch (cause) {
    throw new ShimError(`the shim at ${path} cannot be loaded: ${(cause as Error).message}`, { cause })
  }
  const s = library.symbols
  if (s.ul_abi_version() !== abi.ABI_VERSION) {
    const has = s.ul_abi_version()
    throw new ShimError(
      `the shim at ${path} has record layout ${has}, this version needs ${abi.ABI_VERSION}: run \`make shim\``,
    )
  }
  return {
    path,
    abiVersion: s.ul_abi_version,
    open: (config) => s.ul_open(ptr(config)),
    close: s.ul_close,
    region(ring, offset, length) {
      const base = s.ul_region(ring)
      if (base === null) throw new ShimError(`there is no ring ${ring} on this thread`)
      if (offset + length > read.u32(base, abi.HEADER_TOTAL_BYTES)) {
        throw new ShimError(`region ${offset} + ${length} lies outside of the mapping`)
      }
      return toArrayBuffer(base, offset, length)
    },
    tick: s.ul_tick,
    notify: s.ul_notify,
    eventFd: s.ul_event_fd,
    watch: s.ul_watch,
    listen: (ring, address, backlog, flags) => s.ul_listen(ring, ptr(address), backlog, flags),
    socket: s.ul_socket,
    adopt: s.ul_adopt,
    name: (ring, fd, peer, out) => s.ul_name(ring, fd, peer, ptr(out)),
    setOption: s.ul_set_option,
    getOption: s.ul_get_option,
    resolve(host, out, capacity) {
      const name = Buffer.from(`${host}\0`)
      return s.ul_resolve(ptr(name) as never, ptr(out), capacity)
    },
    probe() {
      const out = new Uint8Array(PROBE_BYTES)
      const length = s.ul_probe(ptr(out), PROBE_BYTES)
      if (length < 0) throw new ShimError(`probing failed with errno ${-length}`)
      return new TextDecoder().decode(out.subarray(0, length))
    },
  }
}

/** Bun's own loop. */
export const bunLoop: RuntimeLoop = {
  drainMicrotasks,
  nextTurn(callback, keepAlive) {
    const immediate = setImmediate(callback)
    if (!keepAlive) immediate.unref()
  },
  setTimer(callback, afterMs, keepAlive) {
    const timer = setTimeout(callback, afterMs)
    if (!keepAlive) timer.unref()
    return timer
  },
  clearTimer(timer) {
    clearTimeout(timer as Timer)
  },
  watchEvent: (eventFd, onReadable) => new StreamWatch(eventFd, onReadable),
  loopDescriptor,
}

interface EventReader {
  read(): Promise<{ done: boolean }>
  cancel(): Promise<void>
}

/**
 * An eventfd in Bun's epoll by public means: a stream that reads it. A pending read keeps the process alive; cancelling
 * it is the only "unref", and leaves the descriptor open.
 */
class StreamWatch implements EventWatch {
  readonly #eventFd: number
  readonly #onReadable: () => void
  #reader: EventReader | undefined

  constructor(eventFd: number, onReadable: () => void) {
    this.#eventFd = eventFd
    this.#onReadable = onReadable
  }

  get isOpen(): boolean {
    return this.#reader !== undefined
  }

  open(): void {
    if (this.#reader !== undefined) return
    this.#reader = Bun.file(this.#eventFd).stream().getReader()
    void this.#pump(this.#reader)
  }

  close(): void {
    const reader = this.#reader
    this.#reader = undefined
    void reader?.cancel()
  }

  async #pump(reader: EventReader): Promise<void> {
    for (;;) {
      const { done } = await reader.read()
      if (this.#reader !== reader) return
      if (done) {
        // Bun ended the stream by itself: begin another, or the reactor would sleep for ever.
        this.#reader = undefined
        this.open()
        return
      }
      this.#onReadable()
    }
  }
}

/**
 * Among this process's epoll instances, the one that watches the eventfd (proc(5), /proc/pid/fdinfo). Bun watches a duplicate
 * of the descriptor, so the eventfd is known by its id.
 */
function loopDescriptor(eventFd: number): number {
  try {
    const id = eventId(String(eventFd))
    if (id === undefined) return -1
    const names = readdirSync("/proc/self/fd")
    const watched = new Set(names.filter((name) => eventId(name) === id))
    for (const name of names) {
      if (!isEpoll(name)) continue
      for (const [, target] of fdInfo(name).matchAll(/^tfd:\s*(\d+)/gm)) {
        if (watched.has(target)) return Number(name)
      }
    }
  } catch {
    // No /proc: the caller goes without.
  }
  return -1
}

function fdInfo(name: string): string {
  try {
    return readFileSync(`/proc/self/fdinfo/${name}`, "latin1")
  } catch {
    return "" // the descriptor of the directory listing itself
  }
}

/** Which eventfd a descriptor is, if it is one. */
function eventId(name: string): string | undefined {
  return /^eventfd-id:\s*(\d+)/m.exec(fdInfo(name))?.[1]
}

function isEpoll(name: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${name}`) === "anon_inode:[eventpoll]"
  } catch {
    return false // the descriptor of the directory listing itself
  }
}
