/**
 * A `Native` that hands every call on to another. What stands between the reactor and the shim extends it, and overrides what
 * it looks at or changes.
 */
import type { Native } from "../../ffi/native.ts"

export abstract class PassThrough implements Native {
  readonly path: string
  protected readonly inner: Native
  /** Bound: its users take it out of the object. */
  abstract readonly tick: Native["tick"]

  constructor(inner: Native) {
    this.inner = inner
    this.path = inner.path
  }

  abiVersion(): number {
    return this.inner.abiVersion()
  }
  open(config: Uint8Array): number {
    return this.inner.open(config)
  }
  close(ring: number): number {
    return this.inner.close(ring)
  }
  region(ring: number, offset: number, length: number): ArrayBuffer {
    return this.inner.region(ring, offset, length)
  }
  notify(ring: number, on: number): number {
    return this.inner.notify(ring, on)
  }
  eventFd(ring: number): number {
    return this.inner.eventFd(ring)
  }
  watch(ring: number, fd: number): number {
    return this.inner.watch(ring, fd)
  }
  listen(ring: number, address: Uint8Array, backlog: number, flags: number): number {
    return this.inner.listen(ring, address, backlog, flags)
  }
  socket(ring: number, family: number): number {
    return this.inner.socket(ring, family)
  }
  adopt(ring: number, fd: number): number {
    return this.inner.adopt(ring, fd)
  }
  name(ring: number, fd: number, peer: number, out: Uint8Array): number {
    return this.inner.name(ring, fd, peer, out)
  }
  setOption(ring: number, fd: number, option: number, value: number): number {
    return this.inner.setOption(ring, fd, option, value)
  }
  getOption(ring: number, fd: number, option: number): number {
    return this.inner.getOption(ring, fd, option)
  }
  resolve(host: string, out: Uint8Array, capacity: number): number {
    return this.inner.resolve(host, out, capacity)
  }
  probe(): string {
    return this.inner.probe()
  }
}
