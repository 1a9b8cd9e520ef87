/**
 * The configuration record of a simulated ring: defaults and bounds as in liburing-shim/rings.c (`check_config`).
 */
import * as abi from "../../ffi/abi.ts"

const EINVAL = 22
const MIB = 1 << 20

export interface RingConfig {
  engine: number
  disable: number
  submissionEntries: number
  completionEntries: number
  slots: number
  commands: number
  completions: number
  arenaBytes: number
  buffers: number
  bufferBytes: number
}

interface Rule {
  name: string
  standard: number
  least: number
  most: number
  isPower: boolean
}

/** Reads a `struct ul_config`; on failure writes its `reason` and returns a negated errno. */
export function checkConfig(record: Uint8Array, commands: number, completions: number): RingConfig | number {
  const view = new DataView(record.buffer, record.byteOffset)
  let reason = ""
  const field = (offset: number, rule: Rule): number => {
    const value = view.getUint32(offset, true) || rule.standard
    const isWrong = value < rule.least || value > rule.most || (rule.isPower && (value & (value - 1)) !== 0)
    if (isWrong) reason ||= `${rule.name} is ${value}: ${rule.least} to ${rule.most} is allowed`
    return value
  }
  const rule = (name: string, standard: number, least: number, most: number, isPower = false): Rule => {
    return { name, standard, least, most, isPower }
  }
  const config: RingConfig = {
    engine: view.getUint32(abi.CONFIG_ENGINE, true),
    disable: view.getUint32(abi.CONFIG_DISABLE, true),
    submissionEntries: field(abi.CONFIG_SUBMISSION_ENTRIES, rule("submission_entries", 1024, 8, 32768, true)),
    completionEntries: field(
      abi.CONFIG_COMPLETION_ENTRIES,
      rule("completion_entries", 16384, 16, 65536, true),
    ),
    slots: field(abi.CONFIG_SLOT_CAPACITY, rule("slot_capacity", 4096, 16, abi.MAX_SLOTS)),
    commands: field(abi.CONFIG_COMMAND_CAPACITY, rule("command_capacity", commands, 8, 65536)),
    completions: field(abi.CONFIG_COMPLETION_CAPACITY, rule("completion_capacity", completions, 8, 65536)),
    arenaBytes: field(abi.CONFIG_ARENA_BYTES, rule("arena_bytes", 4 * MIB, MIB, 1024 * MIB)),
    buffers: field(abi.CONFIG_BUFFER_COUNT, rule("buffer_count", 8, 1, 32768, true)),
    bufferBytes: field(abi.CONFIG_BUFFER_BYTES, rule("buffer_bytes", 16384, 64, MIB, true)),
  }
  if (config.engine < abi.ENGINE_URING || config.engine > abi.ENGINE_EPOLL)
    reason ||= "there is no such engine"
  if (config.arenaBytes % MIB !== 0) reason ||= "arena_bytes must be a multiple of 1 MiB"
  if (reason === "") return config
  view.setUint32(abi.CONFIG_ERROR_STEP, abi.STEP_CONFIG, true)
  const text = new TextEncoder().encode(reason).subarray(0, abi.REASON_BYTES - 1)
  record.fill(0, abi.CONFIG_REASON, abi.CONFIG_REASON + abi.REASON_BYTES)
  record.set(text, abi.CONFIG_REASON)
  return -EINVAL
}
