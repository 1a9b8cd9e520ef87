/**
 * A reactor's counters, gathered for people and tests. Taking them costs a few microseconds; keeping them costs next to
 * nothing, because the shim counts in memory that is shared anyway.
 */
import * as abi from "../../ffi/abi.ts"
import type { ReactorCore } from "./core.ts"
import type { Counters } from "./counters.ts"

export interface ReactorStats extends Counters {
  engine: string
  host: string
  /** Commands without their terminal completion. */
  operationsInFlight: number
  /** The same, as the shim counts. */
  commandsInFlight: number
  /** Descriptors accepted or opened, closed, and open. opened = closed + open. */
  descriptorsOpened: number
  descriptorsClosed: number
  descriptorsOpen: number
  /** Descriptors that a connection, a listener or a dial holds. */
  socketsOpen: number
  deadlinesArmed: number
  sendBytesInUse: number
  sendBytesHighWater: number
  buffersLent: number
  ticks: number
  /** System calls made for ticks. */
  systemCalls: number
  /** Ticks that were allowed to sleep. */
  waits: number
  commands: number
  completions: number
  /** Commands that the shim refused. */
  rejected: number
  /** Late completions, dropped. */
  stale: number
  /** Times the kernel's completion queue overflowed. Nothing is lost, but it is slow. */
  overflows: number
  /** Receives that found no buffer; they are armed again. */
  noBuffers: number
  /** Sends that the socket did not take at once. */
  sendsBlocked: number
  bytesReceived: number
  bytesSent: number
  /** Why `engine: "auto"` fell back; undefined when it did not. */
  fallbackReason: string | undefined
  /** 0 none, 1 listeners wait, 2 listeners refuse (docs/limits.md). */
  overloadStage: number
  /** Accepted connections open that a limit counts. */
  connectionsLimited: number
}

export function readStats(
  core: ReactorCore,
  header: Uint32Array,
  counters: BigUint64Array,
  socketsOpen: number,
): ReactorStats {
  const count = (field: number) => Number(counters[field / 8])
  return {
    engine: core.engine,
    host: core.hostName,
    operationsInFlight: core.slots.inFlight,
    commandsInFlight: header[abi.HEADER_IN_FLIGHT / 4],
    descriptorsOpened: count(abi.HEADER_FDS_OPENED),
    descriptorsClosed: count(abi.HEADER_FDS_CLOSED),
    descriptorsOpen: header[abi.HEADER_FDS_LIVE / 4],
    socketsOpen,
    deadlinesArmed: core.deadlines.armed,
    sendBytesInUse: core.arena.bytesInUse,
    sendBytesHighWater: core.arena.highWaterBytes,
    buffersLent: header[abi.HEADER_BUFFERS_LENT / 4],
    ticks: count(abi.HEADER_TICKS),
    systemCalls: count(abi.HEADER_SYSTEM_CALLS),
    waits: count(abi.HEADER_WAITS),
    commands: count(abi.HEADER_COMMANDS),
    completions: count(abi.HEADER_COMPLETIONS),
    rejected: count(abi.HEADER_REJECTED),
    stale: count(abi.HEADER_STALE) + core.slots.staleDropped,
    overflows: count(abi.HEADER_OVERFLOWS),
    noBuffers: count(abi.HEADER_NO_BUFFERS),
    sendsBlocked: count(abi.HEADER_SENDS_BLOCKED),
    bytesReceived: count(abi.HEADER_BYTES_RECEIVED),
    bytesSent: count(abi.HEADER_BYTES_SENT),
    fallbackReason: core.fallbackReason,
    overloadStage: core.overload.stage,
    connectionsLimited: core.overload.connections,
    ...core.counters,
  }
}
