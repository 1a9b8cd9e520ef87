/**
 * The shim's exports over the simulated kernel: `Native` of ffi/native.ts. Several rings may be open; they share the
 * descriptors and the network, as they would in a process.
 */
import * as abi from "../../ffi/abi.ts"
import type { Native } from "../../ffi/native.ts"
import { AF_INET, AF_INET6, decode, encodeIp } from "../reactor/address.ts"
import type { VirtualClock } from "./clock.ts"
import { checkConfig, type RingConfig } from "./config.ts"
import { Engine } from "./engine.ts"
import type { FaultPlan } from "./faults.ts"
import type { SimulatedLoop } from "./loop.ts"
import { Mapping } from "./mapping.ts"
import type { Network } from "./network.ts"
import { OpenFile, OpenFiles } from "./open_files.ts"
import type { Random } from "./random.ts"
import { ReceiveBuffers } from "./receive_buffers.ts"
import type { Request } from "./request.ts"
import { Ring } from "./ring.ts"
import { ShimTables } from "./shim_tables.ts"
import { StreamSocket } from "./stream_socket.ts"

const EBADF = 9
const EBUSY = 16
const EINVAL = 22
const ENOENT = 2
const ENOTCONN = 107
const EAFNOSUPPORT = 97
/** Eventfds have numbers that no socket has. */
const FIRST_EVENT_FD = 1_000_000
const FEATURES =
  abi.FEATURE_DEFER_TASKRUN |
  abi.FEATURE_SINGLE_ISSUER |
  abi.FEATURE_BUFFER_RING |
  abi.FEATURE_MULTISHOT_RECV |
  abi.FEATURE_MULTISHOT_ACCEPT |
  abi.FEATURE_SKIP_SUCCESS

/** What a reactor's options do not say about a ring. */
export interface KernelShape {
  /** RLIMIT_NOFILE. */
  fdLimit: number
  commandCapacity: number
  completionCapacity: number
  /** Provided buffers that several receives share (6.12). */
  isIncremental: boolean
}

export interface NativeParts {
  clock: VirtualClock
  random: Random
  faults: FaultPlan
  network: Network
  loop: SimulatedLoop
  /** The test has seen enough: waits end. */
  isOver: () => boolean
  shape: KernelShape
}

/** One open ring. */
export interface SimulatedRing {
  engine: Engine
  tables: ShimTables
  ring: Ring
  mapping: Mapping
  buffers: ReceiveBuffers
  options: Map<number, number>
}

export class SimulatedNative implements Native {
  readonly path = "simulated"
  readonly files: OpenFiles
  private readonly parts: NativeParts
  private readonly rings = new Map<number, SimulatedRing>()
  private nextHandle = 0

  constructor(parts: NativeParts) {
    this.parts = parts
    this.files = new OpenFiles(parts.shape.fdLimit, parts.faults, () => parts.clock.nowNs)
    parts.loop.onIo = () => {
      for (const { engine } of this.rings.values()) engine.hostWoke()
    }
  }

  /** The parts of an open ring, for checkers and tests. */
  ringOf(handle: number): SimulatedRing | undefined {
    return this.rings.get(handle)
  }

  /** A ring has something to report, and its host sleeps with the eventfd silent. */
  get isUnheard(): boolean {
    for (const [handle, { engine }] of this.rings) {
      if (engine.hasNews && !this.parts.loop.isSignalled(FIRST_EVENT_FD + handle)) return true
    }
    return false
  }

  /** What is left unaccounted for: of a ring's buffers, and of all descriptors. */
  account(handle: number): { buffers: number; descriptors: number } {
    let known = 0
    for (const { ring, mapping } of this.rings.values()) {
      known += ring.underWay().descriptors + mapping.get(abi.HEADER_FDS_LIVE)
    }
    const found = this.rings.get(handle)
    const buffers = found?.buffers
    const accounted =
      buffers === undefined ? 0 : buffers.inRingCount + buffers.finishedCount + found!.ring.underWay().buffers
    return { buffers: (buffers?.count ?? 0) - accounted, descriptors: this.files.count - known }
  }

  abiVersion(): number {
    return abi.ABI_VERSION
  }

  open(config: Uint8Array): number {
    const { shape } = this.parts
    const checked = checkConfig(config, shape.commandCapacity, shape.completionCapacity)
    if (typeof checked === "number") return checked
    const handle = this.nextHandle++
    this.rings.set(handle, this.build(handle, checked))
    return handle
  }

  private build(handle: number, config: RingConfig): SimulatedRing {
    const { clock, random, faults, loop, isOver, shape } = this.parts
    const features = (FEATURES | (shape.isIncremental ? abi.FEATURE_INCREMENTAL : 0)) & ~config.disable
    const mapping = new Mapping({ ...config, features })
    mapping.setNow(clock.nowMs)
    const buffers = new ReceiveBuffers(
      mapping.buffers,
      config.buffers,
      config.bufferBytes,
      shape.isIncremental,
    )
    const ring = new Ring(
      {
        clock,
        random,
        faults,
        files: this.files,
        buffers,
        arena: (offset, length) => mapping.arena(offset, length),
        connect: (request, connected) => this.connect(mapping, request, connected),
      },
      { submissions: config.submissionEntries, completions: config.completionEntries },
    )
    const closeFile = (fd: number) => (this.files.close(fd) ? 0 : -EBADF)
    const tables = new ShimTables(mapping, shape.fdLimit, closeFile)
    const engine = new Engine({
      mapping,
      ring,
      buffers,
      faults,
      random,
      tables,
      closeFile,
      shutdownFile: (fd, how) => this.files.get(fd)?.socket?.shutdown(how) ?? -ENOTCONN,
      signal: () => loop.signal(FIRST_EVENT_FD + handle),
      isHostReady: () => loop.hasIo,
      isOver,
    })
    return { engine, tables, ring, mapping, buffers, options: new Map() }
  }

  close(ring: number): number {
    const found = this.rings.get(ring)
    if (found === undefined) return -EBADF
    if (found.mapping.get(abi.HEADER_IN_FLIGHT) > 0) return -EBUSY
    this.rings.delete(ring)
    found.tables.close()
    found.mapping.clear()
    return 0
  }

  region(ring: number, offset: number, length: number): ArrayBuffer {
    const found = this.rings.get(ring)
    if (found === undefined) throw new RangeError(`there is no ring ${ring}`)
    return found.mapping.region(offset, length)
  }

  // Taken out of the object by its users: bound.
  readonly tick = (ring: number, count: number, waitNs: number): number => {
    const found = this.rings.get(ring)
    return found === undefined ? -EBADF : found.engine.tick(count, waitNs)
  }

  notify(ring: number, on: number): number {
    return this.rings.get(ring)?.engine.notify(on !== 0) ?? -EBADF
  }

  eventFd(ring: number): number {
    return this.rings.has(ring) ? FIRST_EVENT_FD + ring : -EBADF
  }

  watch(ring: number, fd: number): number {
    const engine = this.rings.get(ring)?.engine
    if (engine === undefined) return -EBADF
    if (engine.isHostWatched || fd < 0) return -EINVAL
    engine.isHostWatched = true
    return 0
  }

  listen(ring: number, address: Uint8Array, backlog: number, _flags: number): number {
    const found = this.rings.get(ring)
    if (found === undefined) return -EBADF
    const target = decode(address)
    if (target.family === "unix") return -EAFNOSUPPORT
    if (backlog < 1) return -EINVAL
    const listener = this.parts.network.listen({ address: target.address, port: target.port }, backlog)
    return typeof listener === "number" ? listener : this.openFile(found, listener)
  }

  socket(ring: number, family: number): number {
    const found = this.rings.get(ring)
    if (found === undefined) return -EBADF
    if (family !== AF_INET && family !== AF_INET6) return -EAFNOSUPPORT
    return this.openFile(found, this.parts.network.socket())
  }

  adopt(): number {
    return -EINVAL // there is nobody else in a simulation to open a descriptor
  }

  name(ring: number, fd: number, peer: number, out: Uint8Array): number {
    const file = this.owned(ring, fd)
    if (file === undefined) return -EBADF
    if (peer === 1 && file.socket?.other === undefined) return -ENOTCONN
    const place = file.listener?.place ?? (peer === 1 ? file.socket?.remote : file.socket?.local)
    if (place !== undefined) out.set(encodeIp(place.address, place.port))
    return 0
  }

  setOption(ring: number, fd: number, option: number, value: number): number {
    const file = this.owned(ring, fd)
    if (file === undefined) return -EBADF
    if (option < abi.O_NO_DELAY || option >= abi.O_ERROR) return -EINVAL
    if (option === abi.O_LINGER && file.socket !== undefined) file.socket.resetsOnClose = value === 0
    this.rings.get(ring)?.options.set(fd * 16 + option, value)
    return 0
  }

  getOption(ring: number, fd: number, option: number): number {
    if (this.owned(ring, fd) === undefined) return -EBADF
    if (option < abi.O_NO_DELAY || option > abi.O_ERROR) return -EINVAL
    return this.rings.get(ring)?.options.get(fd * 16 + option) ?? 0
  }

  resolve(host: string, out: Uint8Array, capacity: number): number {
    if (capacity < 1) return -EINVAL
    try {
      out.set(encodeIp(host === "localhost" ? "127.0.0.1" : host, 0))
      return 1
    } catch {
      return -ENOENT // no names but one
    }
  }

  probe(): string {
    return "{}"
  }

  private owned(ring: number, fd: number): OpenFile | undefined {
    return this.rings.get(ring)?.tables.isOwned(fd) ? this.files.get(fd) : undefined
  }

  private openFile(found: SimulatedRing, behind: ConstructorParameters<typeof OpenFile>[0]): number {
    const fd = this.files.open(new OpenFile(behind, (request) => found.ring.wake(request)))
    if (fd >= 0) return found.tables.own(fd)
    behind.close()
    return fd
  }

  private connect(mapping: Mapping, request: Request, connected: (result: number) => void): void {
    const record = mapping.arena(request.offset, abi.ADDRESS_SIZE).slice()
    const target = decode(record)
    if (target.family === "unix" || !(request.file?.socket instanceof StreamSocket)) {
      connected(-EINVAL)
      return
    }
    this.parts.network.connect(request.file.socket, { address: target.address, port: target.port }, connected)
  }
}
