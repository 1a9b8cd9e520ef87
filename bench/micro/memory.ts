// The border to native code: calls, and reading memory that both sides see.

import { CString, dlopen, type Pointer, read, toArrayBuffer } from "bun:ffi"
import { bench, do_not_optimize, group } from "mitata"

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

export function memoryBenches(): void {
  const address = map(1 << 16)
  const words = new Uint32Array(toArrayBuffer(address, 0, 1 << 16))
  const longs = new BigUint64Array(words.buffer)
  const own = new Uint32Array(1 << 14)
  const argument = new Uint8Array(2048)
  let at = 0
  const next = () => {
    at = (at + 4) & 0x3fff
    return at
  }
  group("calls", () => {
    bench("call: abs(int)", () => do_not_optimize(libc.abs(-3)))
    bench("call: strnlen(typed array, n)", () => do_not_optimize(libc.strnlen(argument, 16)))
    bench("call: getppid, a system call", () => do_not_optimize(libc.getppid()))
    bench("call: a C string made into a string", () =>
      do_not_optimize(new CString(libc.strerror(2)!).toString()),
    )
  })
  group("shared words", () => {
    bench("read: external typed array", () => do_not_optimize(words[next()]))
    bench("read: own typed array", () => do_not_optimize(own[next()]))
    bench("read: Atomics.load, external", () => do_not_optimize(Atomics.load(words, next())))
    bench("read: bun:ffi read.u32", () => do_not_optimize(read.u32(address, next())))
    bench("read: external BigUint64Array to Number", () => do_not_optimize(Number(longs[next() >> 1])))
    bench("write: 8 words of a record, external", () => {
      const start = next() & ~7
      for (let i = 0; i < 8; i++) words[start + i] = i
    })
  })
}
