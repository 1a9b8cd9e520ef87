/**
 * uringloop: an io_uring event loop for Bun. `listen` and `connect` take Bun's options and handlers; without handlers they
 * give promises. `Reactor` is the loop itself.
 */
export { type OwnCode, UringloopError } from "./errors.ts"
export { Connection, type WaitOptions } from "./net/connection.ts"
export type { BinaryType, SocketHandlers } from "./net/handlers.ts"
export { Listener, SocketListener } from "./net/listener.ts"
export type { ConnectAddressOptions, ListenAddressOptions, SocketOptions } from "./net/options.ts"
export { connect, defaultReactor, listen, Reactor } from "./net/reactor.ts"
export { Socket, type Writable } from "./net/socket.ts"
export type { SocketAddress } from "./reactor/address.ts"
export type { DebugOptions } from "./reactor/debug_options.ts"
export {
  type OperationOptions,
  POLLIN,
  POLLOUT,
  POLLPRI,
  POLLRDHUP,
  type RawAddress,
} from "./reactor/operations.ts"
export type { EngineName, FeatureName, HostName, ReactorOptions } from "./reactor/options.ts"
export type { OverloadOptions } from "./reactor/overload_options.ts"
export type { PendingItem } from "./reactor/pending.ts"
export type { ReactorStats } from "./reactor/stats.ts"
