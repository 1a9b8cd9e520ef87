import { expect, test } from "bun:test"
import { Simulation, withFaults } from "../testing/index.ts"
import { Reactor } from "./reactor.ts"

test("over a simulated kernel, in virtual time", () => {
  const simulation = new Simulation({ seed: 3 })
  const platform = withFaults(simulation, [
    { operation: "recv", delayMs: 60_000, times: 1 },
    { operation: "recv", bytes: 2, after: 1 },
    { operation: "accept", error: "EMFILE", times: 1 },
  ])
  for (const host of ["owned", "hosted"] as const) {
    const reactor = Reactor.open({ engine: "uring", host, maxOperations: 64 }, platform)
    const chunks: string[] = []
    const listener = reactor.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: (_, chunk) => void chunks.push(chunk.toString()) },
    })
    const peer = simulation.connect(listener.port!, { onOpen: (it) => it.send(Buffer.from("abc")) })
    simulation.until(reactor, () => chunks.join("") === "abc")
    peer.send(Buffer.from("defgh"))
    simulation.until(reactor, () => chunks.join("") === "abcdefgh")
    expect(chunks.at(-1)).toBe("h")
    simulation.drive(reactor, reactor.close())
  }
  expect(simulation.time.nowMs).toBeGreaterThan(60_000)
  expect(platform.faultCounts[0]).toBe(1)
  expect(platform.faultCounts[2]).toBe(1)
})

test("open fails", () => {
  const simulation = new Simulation({ seed: 3 })
  const refused = withFaults(simulation, [{ operation: "open", error: "EPERM" }])
  expect(() => Reactor.open({ engine: "uring" }, refused)).toThrow("EPERM")
})

test("open fails once: auto falls back, and says why", async () => {
  const reactor = Reactor.open(
    { engine: "auto" },
    withFaults(undefined, [{ operation: "open", error: "EPERM", times: 1 }]),
  )
  expect([reactor.engine, reactor.fallbackReason]).toEqual(["epoll", "EPERM"])
  await reactor.close()
})
