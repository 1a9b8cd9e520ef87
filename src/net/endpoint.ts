/**
 * An open stream socket without its traffic: addresses and socket options. None of it is hot; each is a system call.
 */
import * as abi from "../../ffi/abi.ts"
import { decode, type SocketAddress } from "../reactor/address.ts"
import type { ReactorCore } from "../reactor/core.ts"

export abstract class Endpoint {
  readonly core: ReactorCore
  /** The descriptor; -1 once its CLOSE has been asked for. */
  protected descriptor: number

  constructor(core: ReactorCore, fd: number) {
    this.core = core
    this.descriptor = fd
  }

  /** The descriptor, or -1 when closed. */
  abstract get fd(): number

  protected addressOf(peer: 0 | 1): SocketAddress | undefined {
    if (this.fd < 0) return undefined
    const record = new Uint8Array(abi.ADDRESS_SIZE)
    return this.core.native.name(this.core.ring, this.descriptor, peer, record) < 0
      ? undefined
      : decode(record)
  }

  get remoteAddress(): string | undefined {
    return ipOf(this.addressOf(1))
  }
  get remotePort(): number | undefined {
    return portOf(this.addressOf(1))
  }
  get remoteFamily(): "IPv4" | "IPv6" | undefined {
    return ipFamilyOf(this.addressOf(1))
  }
  get localAddress(): string | undefined {
    return ipOf(this.addressOf(0))
  }
  get localPort(): number | undefined {
    return portOf(this.addressOf(0))
  }
  get localFamily(): "IPv4" | "IPv6" | undefined {
    return ipFamilyOf(this.addressOf(0))
  }

  protected setOption(option: number, value: number): boolean {
    if (this.fd < 0) return false
    return this.core.native.setOption(this.core.ring, this.descriptor, option, value) >= 0
  }

  /** Small segments are not held back (TCP_NODELAY, on by default). Returns false when it could not be set. */
  setNoDelay(enable = true): boolean {
    return this.setOption(abi.O_NO_DELAY, enable ? 1 : 0)
  }

  /** TCP keepalive, with the first probe after `initialDelayMs` (0: the system's). Returns false when it could not be set. */
  setKeepAlive(enable = false, initialDelayMs = 0): boolean {
    const set = this.setOption(abi.O_KEEP_ALIVE, enable ? 1 : 0)
    const seconds = Math.ceil(initialDelayMs / 1000)
    return set && (!enable || seconds <= 0 || this.setOption(abi.O_KEEP_IDLE, seconds))
  }
}

function ipOf(address: SocketAddress | undefined): string | undefined {
  return address === undefined || address.family === "unix" ? undefined : address.address
}
function portOf(address: SocketAddress | undefined): number | undefined {
  return address === undefined || address.family === "unix" ? undefined : address.port
}
function ipFamilyOf(address: SocketAddress | undefined): "IPv4" | "IPv6" | undefined {
  return address === undefined || address.family === "unix" ? undefined : address.family
}
