// The border to native code: calls, and reading memory that both sides see.

import { CString, dlopen, type Pointer, read, toArrayBuffer } from "bun:ffi"
import { do_not_optimize } from "mitata"
import type { Cost, Group } from "./table.ts"

const PROT_READ_WRITE = 3
const MAP_PRIVATE_ANONYMOUS = 0x22

const libc = dlopen("libc.so.6", {
  // void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
  mmap: { args: ["ptr", "u64", "i32", "i32", "i32", "i64"], returns: "ptr" },
  // int abs(int): about the least that a call can do
  abs: { args: ["i32"], returns: "i32" },
  // size_t strnlen(const char *text, size_t limit): reads its argument
  strnlen: { args: ["buffer", "u64"], returns: "u64" },
  // pid_t getppid(void): a system call, never cached
  getppid: { args: [], returns: "i32" },
  // const char *strerror(int)
  strerror: { args: ["i32"], returns: "ptr" },
}).symbols

function map(bytes: number): Pointer {
  const address = libc.mmap(null, bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0)
  if (address === null) throw new Error(`mmap of ${bytes} bytes failed`)
  return address as Pointer
}

/** Memory from outside the JavaScript heap, as the shim's rings are. It stays mapped until the process ends. */
export function externalMemory(bytes: number): ArrayBuffer {
  return toArrayBuffer(map(bytes), 0, bytes)
}

export function memoryGroups(): Group[] {
  return [
    { name: "calls", open: callCosts },
    { name: "shared words", open: wordCosts },
  ]
}

function callCosts(): Cost[] {
  const argument = new Uint8Array(2048)
  return [
    { name: "abs(int)", call: () => do_not_optimize(libc.abs(-3)) },
    { name: "strnlen(typed array, n)", call: () => do_not_optimize(libc.strnlen(argument, 16)) },
    { name: "getppid, a system call", call: () => do_not_optimize(libc.getppid()) },
    {
      name: "a C string made into a string",
      call: () => do_not_optimize(new CString(libc.strerror(2)!).toString()),
    },
  ]
}

function wordCosts(): Cost[] {
  const address = map(1 << 16)
  const words = new Uint32Array(toArrayBuffer(address, 0, 1 << 16))
  const longs = new BigUint64Array(words.buffer)
  const own = new Uint32Array(1 << 14)
  let at = 0
  const next = () => {
    at = (at + 4) & 0x3fff
    return at
  }
  return [
    { name: "read: external typed array", call: () => do_not_optimize(words[next()]) },
    { name: "read: own typed array", call: () => do_not_optimize(own[next()]) },
    { name: "read: Atomics.load, external", call: () => do_not_optimize(Atomics.load(words, next())) },
    { name: "read: bun:ffi read.u32", call: () => do_not_optimize(read.u32(address, next())) },
    {
      name: "read: external BigUint64Array to Number",
      call: () => do_not_optimize(Number(longs[next() >> 1])),
    },
    {
      name: "write: 8 words of a record, external",
      call() {
        const start = next() & ~7
        for (let i = 0; i < 8; i++) words[start + i] = i
      },
    },
  ]
}
