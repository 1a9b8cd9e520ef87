/**
 * The reactor as programs have it: operations as promises, listeners and connections; and the default one that `listen` and
 * `connect` use.
 */
import type { Platform } from "../../ffi/native.ts"
import { invalidType } from "../errors.ts"
import { ReactorOperations } from "../reactor/operations.ts"
import type { ReactorOptions } from "../reactor/options.ts"
import { Connection } from "./connection.ts"
import { dial } from "./dial.ts"
import { Handlers } from "./handlers.ts"
import { borrowOption, Listener, SocketListener } from "./listener.ts"
import {
  type ConnectAddressOptions,
  checkConnect,
  type ListenAddressOptions,
  type SocketOptions,
} from "./options.ts"
import { Socket } from "./socket.ts"

export class Reactor extends ReactorOperations implements AsyncDisposable {
  /**
   * Opens a reactor on this thread.
   * @param platform what it stands on instead of the kernel and the runtime: a `Simulation` of `uringloop/testing`
   * @throws UringloopError ENGINE_UNAVAILABLE, SHIM_UNAVAILABLE; TypeError, RangeError for a wrong option
   */
  static open(options: ReactorOptions = {}, platform?: Platform): Reactor {
    return new Reactor(options, platform)
  }

  /**
   * Listens. With `socket` handlers (Bun's form) each connection goes to them; without, connections are asked for with
   * `accept()` or `for await`, and half-open is allowed unless `allowHalfOpen` is false.
   * @throws UringloopError EADDRINUSE and the like; TypeError, RangeError for a wrong option
   */
  listen<Data = undefined>(options: ListenAddressOptions & SocketOptions<Data>): SocketListener<Data>
  listen(options: ListenAddressOptions & { socket?: undefined }): Listener
  listen<Data>(options: ListenForm<Data>): SocketListener<Data> | Listener {
    if (typeof options !== "object" || options === null) throw invalidType("options", "an object", options)
    if (isCallbackForm(options)) return new SocketListener<Data>(this, options)
    return new Listener(this, { ...options, allowHalfOpen: options?.allowHalfOpen ?? true })
  }

  /**
   * Connects. With `socket` handlers completes with a `Socket` after `open` has been called, otherwise with a
   * `Connection`, which is half-open unless `allowHalfOpen` is false.
   * @throws (rejects) UringloopError ECONNREFUSED, ETIMEDOUT and the like; throws for a wrong option
   */
  connect<Data = undefined>(options: ConnectAddressOptions & SocketOptions<Data>): Promise<Socket<Data>>
  connect(options: ConnectAddressOptions & { socket?: undefined }): Promise<Connection>
  connect<Data>(options: ConnectForm<Data>): Promise<Socket<Data> | Connection> {
    const target = checkConnect(options)
    if (!isCallbackForm(options)) {
      const halfOpen = options.allowHalfOpen ?? true
      return dial(this, target, options, (fd) => new Connection(this, fd, halfOpen))
    }
    const handlers = new Handlers(options.socket, borrowOption(options))
    const data = options.data as Data
    const dialled = dial(this, target, options, (fd) => {
      const socket = new Socket<Data>(this, fd, handlers, data, undefined, options.allowHalfOpen === true)
      socket.opened()
      return socket
    })
    if (handlers.connectError === undefined) return dialled
    return dialled.catch((error) => this.refused(handlers, data, error))
  }

  private refused<Data>(handlers: Handlers, data: Data, error: unknown): never {
    try {
      ;(handlers.connectError as (socket: Socket<Data>, error: unknown) => unknown)(
        Socket.neverOpen(this, handlers, data),
        error,
      )
    } catch (second) {
      this.reportUncaught(second)
    }
    throw error
  }
}

type Form<Address, Data> = (Address & SocketOptions<Data>) | (Address & { socket?: undefined })
type ListenForm<Data> = Form<ListenAddressOptions, Data>
type ConnectForm<Data> = Form<ConnectAddressOptions, Data>

function isCallbackForm<Address, Data>(
  options: Form<Address, Data>,
): options is Address & SocketOptions<Data> {
  return (
    typeof options === "object" && options !== null && "socket" in options && options.socket !== undefined
  )
}

let shared: Reactor | undefined

/** The reactor of `listen` and `connect`: opened when it is first needed, with the environment's choices. */
export function defaultReactor(): Reactor {
  if (shared === undefined || !shared.isOpen) shared = Reactor.open()
  return shared
}

/** `Reactor.listen` of the default reactor. */
export const listen: Reactor["listen"] = ((options: never) =>
  defaultReactor().listen(options)) as Reactor["listen"]

/** `Reactor.connect` of the default reactor. */
export const connect: Reactor["connect"] = ((options: never) =>
  defaultReactor().connect(options)) as Reactor["connect"]
