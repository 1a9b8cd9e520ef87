// The simulated connections against what Linux's do.

import { describe, expect, test } from "bun:test"
import { VirtualClock } from "./clock.ts"
import { Random } from "./random.ts"
import { StreamSocket, WRITABLE } from "./stream_socket.ts"

const EAGAIN = -11
const ECONNRESET = -104
const EPIPE = -32
const LATENCY_NS = 1000

function pair(change = {}) {
  const clock = new VirtualClock()
  const random = new Random(7)
  const line = {
    latencyNs: LATENCY_NS,
    jitterNs: 0,
    windowBytes: 100,
    segmentBytes: 1000,
    draw: () => random.next(),
    causes: new Set<string>(),
    ...change,
  }
  const a = new StreamSocket(clock, line)
  const b = new StreamSocket(clock, line)
  StreamSocket.join(a, b)
  const pass = () => clock.moveTo(clock.nowNs + 10 * LATENCY_NS)
  return { clock, a, b, line, pass }
}

const bytes = (count: number, from = 0) => Uint8Array.from({ length: count }, (_, i) => (from + i) & 0xff)
const read = (socket: StreamSocket, most = 1000) => {
  const into = new Uint8Array(most)
  const count = socket.read(into)
  return count < 0 ? count : [...into.subarray(0, count)]
}

describe("bytes", () => {
  test("arrive after the latency, once, in order", () => {
    const { clock, a, b } = pair()
    expect(a.write(bytes(10))).toBe(10)
    clock.moveTo(clock.nowNs + LATENCY_NS - 1)
    expect(read(b)).toBe(EAGAIN)
    clock.moveTo(clock.nowNs + 1)
    expect(read(b, 4)).toEqual([0, 1, 2, 3])
    expect(read(b)).toEqual([4, 5, 6, 7, 8, 9])
    expect(read(b)).toBe(EAGAIN)
  })

  test("keep their order under jitter and in segments", () => {
    const { a, b, pass } = pair({ jitterNs: 5 * LATENCY_NS, segmentBytes: 3, windowBytes: 10_000 })
    for (let i = 0; i < 20; i++) a.write(bytes(10, 10 * i))
    pass()
    expect(read(b)).toEqual([...bytes(200)])
  })

  test("are the sender's again once written", () => {
    const { a, b, pass } = pair()
    const own = bytes(3)
    a.write(own)
    own.fill(9)
    pass()
    expect(read(b)).toEqual([0, 1, 2])
  })

  test("fill the window; reading makes room and wakes the sender", () => {
    const { a, b, pass } = pair()
    let woken = 0
    a.onChange = (events) => {
      if (events & WRITABLE) woken++
    }
    expect(a.write(bytes(150))).toBe(100)
    expect(a.write(bytes(1))).toBe(EAGAIN)
    pass()
    read(b, 60)
    pass()
    expect(woken).toBe(1)
    expect(a.write(bytes(150))).toBe(60)
  })
})

describe("ends", () => {
  test("a shut side is read to its end; the other goes on", () => {
    const { a, b, pass } = pair()
    a.write(bytes(2))
    a.shutdown(1)
    expect(a.write(bytes(1))).toBe(EPIPE)
    pass()
    expect(read(b)).toEqual([0, 1])
    expect(read(b)).toEqual([])
    expect(b.write(bytes(1))).toBe(1)
    pass()
    expect(read(a)).toEqual([0])
  })

  test("a reset lets what has arrived be read, is told once, and then reads as the end", () => {
    const { a, b, pass } = pair()
    a.write(bytes(2))
    a.reset()
    pass()
    expect(read(b)).toEqual([0, 1])
    expect(read(b)).toBe(ECONNRESET)
    expect(read(b)).toEqual([])
    expect(b.write(bytes(1))).toBe(EPIPE)
  })

  test("closing with bytes unread is a reset, without it an end", () => {
    const first = pair()
    first.a.write(bytes(1))
    first.pass()
    first.b.close()
    first.pass()
    expect(read(first.a)).toBe(ECONNRESET)
    const second = pair()
    second.b.close()
    second.pass()
    expect(read(second.a)).toEqual([])
  })

  test("bytes for a closed socket are answered with a reset", () => {
    const { a, b, pass } = pair()
    b.close()
    pass()
    expect(a.write(bytes(1))).toBe(1)
    pass()
    pass()
    expect(a.write(bytes(1))).toBe(ECONNRESET)
  })
})
