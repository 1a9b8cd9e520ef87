/**
 * Opening a ring: the shim, the engine that was asked for, and the fallback where io_uring is blocked.
 */
import { bunLoop, loadShim } from "../../ffi/bun.ts"
import { type Native, type Platform, ShimError } from "../../ffi/native.ts"
import { errnoName, UringloopError } from "../errors.ts"
import { type EngineName, reasonOf, type Settings, setEngine } from "./options.ts"

export interface OpenedEngine {
  engine: EngineName
  /** The shim's handle. */
  ring: number
  /** Why "auto" did not choose uring. */
  fallbackReason: string | undefined
}

/** The fallback is told once per process. */
let fallbackTold = false

/** The shim, the runtime's loop and its clock. @throws UringloopError SHIM_UNAVAILABLE */
export function runtimePlatform(): Platform {
  return { native: loadNative(), loop: bunLoop, clock: () => performance.now() }
}

function loadNative(): Native {
  try {
    return loadShim()
  } catch (cause) {
    if (cause instanceof ShimError) throw new UringloopError("SHIM_UNAVAILABLE", cause.message, { cause })
    throw cause
  }
}

/** @throws UringloopError ENGINE_UNAVAILABLE */
export function openEngine(native: Native, settings: Settings): OpenedEngine {
  const wanted = settings.engine === "auto" ? "uring" : settings.engine
  const config = settings.config.slice()
  setEngine(config, wanted)
  const ring = native.open(config)
  if (ring >= 0) return { engine: wanted, ring, fallbackReason: undefined }
  const reason = reasonOf(config) || errnoName(-ring)
  const error = new UringloopError("ENGINE_UNAVAILABLE", `engine "${wanted}" is not available: ${reason}`, {
    errno: -ring,
    syscall: "io_uring_setup",
  })
  if (settings.engine !== "auto") throw error
  const fallback = settings.config.slice()
  setEngine(fallback, "epoll")
  const fallbackRing = native.open(fallback)
  if (fallbackRing < 0) {
    throw new UringloopError("ENGINE_UNAVAILABLE", `engine "epoll" is not available: ${reasonOf(fallback)}`, {
      errno: -fallbackRing,
      cause: error,
    })
  }
  if (!fallbackTold) {
    fallbackTold = true
    console.warn(`uringloop: ${error.message}; using engine "epoll"`)
  }
  return { engine: "epoll", ring: fallbackRing, fallbackReason: reason }
}
