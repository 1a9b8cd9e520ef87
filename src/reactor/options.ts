/**
 * What a reactor can be told, checked before the kernel sees any of it, and the configuration record made from it.
 */
import * as abi from "../../ffi/abi.ts"
import { integerOption, invalidType, outOfRange } from "../errors.ts"
import { MAX_BLOCK_BYTES } from "./arena.ts"
import { warnOfHangs } from "./debug.ts"
import { type DebugOptions, type DebugSettings, settleDebug } from "./debug_options.ts"
import { type OverloadOptions, type OverloadSettings, settleOverload } from "./overload_options.ts"

export type EngineName = "uring" | "poll" | "epoll"
export type HostName = "hosted" | "owned"

export interface ReactorOptions {
  /** Kernel interface. `"auto"` (default, or `URINGLOOP_ENGINE`): uring, or epoll where io_uring is blocked. */
  engine?: EngineName | "auto"
  /** Whose thread: beside the runtime's loop (default, or `URINGLOOP_HOST`), or `run()` blocks in the ring. */
  host?: HostName
  /** Operations in flight at most. A connection takes one, or two while it sends. Default 1,048,576. */
  maxOperations?: number
  /** Memory for bytes on their way out, a multiple of 1 MiB. Touched as needed. Default 64 MiB. */
  sendArenaBytes?: number
  /** Bytes that a connection queues for a peer that does not read, at most; as many again are in flight. Default 1 MiB. */
  maxQueuedBytes?: number
  /** Accepted connections open at once. At the limit listeners stop accepting, until 5 % are closed. Default: no limit. */
  maxConnections?: number
  /** What happens when the limit of connections, or of memory, lasts. Default: accepting waits, and memory does not matter. */
  overload?: OverloadOptions
  /** Receive buffers, a power of two. Default 8 (512 on the poll engine): all of them stay in a core's cache. */
  receiveBuffers?: number
  /** Bytes of each, a power of two; the largest chunk a read gives. Default 262,144 (16,384 on the poll engine). */
  receiveBufferBytes?: number
  /** Entries of the ring's submission queue, a power of two. Default 1024. */
  submissionEntries?: number
  /** Entries of the ring's completion queue, a power of two. Default 16,384. */
  completionEntries?: number
  /** Hosted: longest stay in the ring before the runtime's loop gets a turn, microseconds. Default 1000. */
  stayMicroseconds?: number
  /** Debug mode (default: `URINGLOOP_DEBUG`): keeps the stacks that began what is under way, and reports what hangs. */
  debug?: boolean | DebugOptions
  /** Kernel features not to use, for experiments. */
  disable?: FeatureName[]
}

const FEATURES = {
  defer_taskrun: abi.FEATURE_DEFER_TASKRUN,
  single_issuer: abi.FEATURE_SINGLE_ISSUER,
  coop_taskrun: abi.FEATURE_COOP_TASKRUN,
  buffer_ring: abi.FEATURE_BUFFER_RING,
  incremental_buffers: abi.FEATURE_INCREMENTAL,
  multishot_recv: abi.FEATURE_MULTISHOT_RECV,
  multishot_accept: abi.FEATURE_MULTISHOT_ACCEPT,
  skip_success: abi.FEATURE_SKIP_SUCCESS,
  registered_ring: abi.FEATURE_REGISTERED_RING,
  no_iowait: abi.FEATURE_NO_IOWAIT,
  min_wait: abi.FEATURE_MIN_WAIT,
  restrictions: abi.FEATURE_RESTRICTIONS,
} as const

export type FeatureName = keyof typeof FEATURES

const ENGINE_IDS: Record<EngineName, number> = {
  uring: abi.ENGINE_URING,
  poll: abi.ENGINE_POLL,
  epoll: abi.ENGINE_EPOLL,
}

const KNOWN = new Set([
  "engine",
  "host",
  "maxOperations",
  "sendArenaBytes",
  "maxQueuedBytes",
  "maxConnections",
  "overload",
  "receiveBuffers",
  "receiveBufferBytes",
  "submissionEntries",
  "completionEntries",
  "stayMicroseconds",
  "debug",
  "disable",
])

const MIB = 1024 * 1024
const DEFAULT_OPERATIONS = 1_048_576
const DEFAULT_STAY_US = 1000
const MIN_QUEUED_BYTES = 1024

/** Options with every choice made. */
export interface Settings {
  engine: EngineName | "auto"
  host: HostName
  stayNs: number
  maxOperations: number
  maxQueuedBytes: number
  overload: OverloadSettings
  debug: DebugSettings | undefined
  /** A `struct ul_config` but for the engine. */
  config: Uint8Array
}

/** Names of the features in a bit set. */
export function featureNames(bits: number): FeatureName[] {
  return (Object.keys(FEATURES) as FeatureName[]).filter((name) => bits & FEATURES[name])
}

/** @throws TypeError or RangeError that names the option and what is allowed */
export function settle(options: ReactorOptions): Settings {
  if (typeof options !== "object" || options === null) throw invalidType("options", "an object", options)
  for (const name of Object.keys(options)) {
    if (!KNOWN.has(name)) throw outOfRange(`option "${name}"`, `one of ${[...KNOWN].join(", ")}`, name)
  }
  const config = new Uint8Array(abi.CONFIG_SIZE)
  const view = new DataView(config.buffer)
  const put = (
    offset: number,
    name: string,
    value: number | undefined,
    least: number,
    most: number,
    step: "any" | "power" | "mib",
  ) => {
    if (value === undefined) return
    integerOption(name, value, least, most)
    if (step === "power" && (value & (value - 1)) !== 0) throw outOfRange(name, "a power of two", value)
    if (step === "mib" && value % MIB !== 0) throw outOfRange(name, "a multiple of 1048576 (1 MiB)", value)
    view.setUint32(offset, value, true)
  }
  const maxOperations = integerOption(
    "maxOperations",
    options.maxOperations ?? DEFAULT_OPERATIONS,
    16,
    abi.MAX_SLOTS / 2,
  )
  // Each of them may have to be cancelled while all are in flight.
  view.setUint32(abi.CONFIG_SLOT_CAPACITY, 2 * maxOperations, true)
  put(abi.CONFIG_ARENA_BYTES, "sendArenaBytes", options.sendArenaBytes, MIB, 1024 * MIB, "mib")
  put(abi.CONFIG_BUFFER_COUNT, "receiveBuffers", options.receiveBuffers, 1, 32768, "power")
  put(abi.CONFIG_BUFFER_BYTES, "receiveBufferBytes", options.receiveBufferBytes, 64, MIB, "power")
  put(abi.CONFIG_SUBMISSION_ENTRIES, "submissionEntries", options.submissionEntries, 8, 32768, "power")
  put(abi.CONFIG_COMPLETION_ENTRIES, "completionEntries", options.completionEntries, 16, 65536, "power")
  let disable = 0
  if (options.disable !== undefined && !Array.isArray(options.disable)) {
    throw invalidType("disable", "an array", options.disable)
  }
  for (const name of options.disable ?? []) {
    if (!Object.hasOwn(FEATURES, name))
      throw outOfRange("disable", `of ${Object.keys(FEATURES).join(", ")}`, name)
    disable |= FEATURES[name]
  }
  view.setUint32(abi.CONFIG_DISABLE, disable, true)
  return {
    maxOperations,
    maxQueuedBytes: integerOption(
      "maxQueuedBytes",
      options.maxQueuedBytes ?? MAX_BLOCK_BYTES,
      MIN_QUEUED_BYTES,
      MAX_BLOCK_BYTES,
    ),
    debug: settleDebug(options.debug, warnOfHangs),
    overload: settleOverload(options.maxConnections, options.overload),
    engine: choice("engine", options.engine, "URINGLOOP_ENGINE", ["auto", "uring", "poll", "epoll"], "auto"),
    host: choice("host", options.host, "URINGLOOP_HOST", ["hosted", "owned"], "hosted"),
    stayNs: integerOption("stayMicroseconds", options.stayMicroseconds ?? DEFAULT_STAY_US, 0, 1000) * 1000,
    config,
  }
}

function choice<T extends string>(
  name: string,
  value: T | undefined,
  variable: string,
  allowed: T[],
  standard: T,
): T {
  const fromEnvironment = process.env[variable]
  const unset = fromEnvironment === undefined || fromEnvironment === ""
  const chosen = value !== undefined ? value : unset ? standard : fromEnvironment
  if (typeof chosen !== "string") throw invalidType(name, "a string", chosen)
  if (!(allowed as string[]).includes(chosen)) {
    throw outOfRange(value === undefined ? variable : name, `one of ${allowed.join(", ")}`, chosen)
  }
  return chosen as T
}

/** Sets the engine in a configuration record. */
export function setEngine(config: Uint8Array, engine: EngineName): void {
  new DataView(config.buffer).setUint32(abi.CONFIG_ENGINE, ENGINE_IDS[engine], true)
}

/** The text that ul_open left in a configuration record. */
export function reasonOf(config: Uint8Array): string {
  const text = config.subarray(abi.CONFIG_REASON, abi.CONFIG_REASON + abi.REASON_BYTES)
  const end = text.indexOf(0)
  return new TextDecoder().decode(end < 0 ? text : text.subarray(0, end))
}
