/**
 * Which commands the simulated engine refuses, and with which errno: the rules of liburing-shim/shim.c (`validate`).
 */
import * as abi from "../../ffi/abi.ts"
import { AF_INET, AF_INET6, AF_UNIX } from "../reactor/address.ts"
import type { Mapping } from "./mapping.ts"
import type { ShimTables } from "./shim_tables.ts"

const EINVAL = 22
const EBUSY = 16
const POLL_MASK = 1 | 2 | 4 | 0x2000
const OPS_MOST = 0xffff
const INT32_MAX = 0x7fff_ffff

/** 0, or the errno with which the command at a word of the command array is refused. */
export function refusalOf(tables: ShimTables, mapping: Mapping, at: number): number {
  const { commandWords, commands } = mapping
  const op = commandWords[at] & 0xff
  const flags = (commandWords[at] >>> 8) & 0xff
  const reserved = commandWords[at] >>> 16
  const fd = commands[at + 1]
  const slot = commandWords[at + 2]
  const generation = commandWords[at + 3]
  if (op < abi.OP_NOP || op > abi.OP_CLOSE || reserved !== 0 || generation === 0) return EINVAL
  if (slot >= tables.slotCapacity || tables.slotAt(slot).op !== 0) return EINVAL
  if (flags & ~allowedFlags(op)) return EINVAL
  const hasFd = op !== abi.OP_NOP && op !== abi.OP_TIMEOUT && op !== abi.OP_CANCEL
  if (hasFd ? fd < 0 || fd >= tables.descriptors.length : fd !== -1) return EINVAL
  if (hasFd && tables.descriptors[fd].ops === OPS_MOST) return EBUSY
  const offset = commandWords[at + 4]
  const length = commandWords[at + 5]
  switch (op) {
    case abi.OP_CONNECT:
      return isAddress(mapping, offset) ? 0 : EINVAL
    case abi.OP_SEND:
      return length > 0 && length <= INT32_MAX && isInArena(mapping, offset, length) ? 0 : EINVAL
    case abi.OP_POLL:
      return length !== 0 && (length & ~POLL_MASK) === 0 ? 0 : EINVAL
    case abi.OP_TIMEOUT:
      return commandWords[at + 7] <= INT32_MAX ? 0 : EINVAL
    case abi.OP_SHUTDOWN:
      return length <= 2 ? 0 : EINVAL
    case abi.OP_CLOSE:
      if (!tables.descriptors[fd].isOwned) return EINVAL
      return tables.descriptors[fd].ops > 0 ? EBUSY : 0
    default:
      return 0
  }
}

function allowedFlags(op: number): number {
  if (op === abi.OP_SEND) return abi.C_QUIET
  return op === abi.OP_ACCEPT || op === abi.OP_RECV || op === abi.OP_POLL ? abi.C_MULTISHOT : 0
}

function isInArena(mapping: Mapping, offset: number, length: number): boolean {
  return offset + length <= mapping.get(abi.HEADER_ARENA_BYTES)
}

function isAddress(mapping: Mapping, offset: number): boolean {
  if (offset % 4 !== 0 || !isInArena(mapping, offset, abi.ADDRESS_SIZE)) return false
  const record = mapping.arena(offset, abi.ADDRESS_SIZE)
  const family = record[abi.ADDRESS_FAMILY] | (record[abi.ADDRESS_FAMILY + 1] << 8)
  if (family === AF_INET || family === AF_INET6) return true
  const pathLength = record[abi.ADDRESS_PATH_LENGTH]
  return family === AF_UNIX && pathLength > 0 && pathLength <= abi.PATH_BYTES
}
