import { expect, test } from "bun:test"
import { drawRates, Random, Simulation } from "../testing/index.ts"
import type { ListenAddressOptions } from "./options.ts"
import { Reactor } from "./reactor.ts"
import type { Socket } from "./socket.ts"

test.each([
  [{ maxConnections: 0 }, "maxConnections"],
  [{ maxConnections: 1.5 }, "maxConnections"],
  [{ acceptsPerSecond: 0 }, "acceptsPerSecond"],
  [{ acceptsPerSecond: "5" }, "acceptsPerSecond"],
  [{ acceptBurst: 5 }, "acceptBurst must be given with acceptsPerSecond"],
  [{ acceptBurst: 0, acceptsPerSecond: 5 }, "acceptBurst"],
] as unknown as [ListenAddressOptions, string][])("listen refuses %j", async (limits, name) => {
  const simulation = new Simulation({ seed: 1 })
  const reactor = Reactor.open({ engine: "uring", host: "owned" }, simulation)
  expect(() => reactor.listen({ hostname: "127.0.0.1", port: 0, ...limits })).toThrow(name)
  simulation.drive(reactor, reactor.close())
})

/** One run: peers come, get a byte, stay a while, go. Some never go by themselves. */
function run(
  seed: number,
  faulty: boolean,
): { served: number; most: number; stats: ReturnType<Reactor["stats"]> } {
  const random = new Random(seed).fork("limits")
  const simulation = new Simulation({ seed, faults: faulty ? drawRates(random) : {} })
  const maxConnections = random.integer(1, 20)
  const hasStages = random.chance(0.5)
  const reactor = Reactor.open(
    {
      engine: "uring",
      host: random.pick(["owned", "hosted"] as const),
      maxOperations: 1024,
      maxConnections,
      ...(hasStages && {
        overload: { refuseAfterMs: random.integer(0, 3000), resetAfterMs: random.integer(1, 3000) },
      }),
    },
    simulation,
  )
  const open = new Set<Socket>()
  let most = 0
  let served = 0
  let ended = 0
  const count = random.integer(1, 60)
  const listener = reactor.listen({
    hostname: "127.0.0.1",
    port: 0,
    ...(random.chance(0.3) && { acceptsPerSecond: random.integer(1, 50) }),
    ...(random.chance(0.3) && { maxConnections: random.integer(1, 10) }),
    socket: {
      open(socket) {
        open.add(socket)
        most = Math.max(most, open.size)
        socket.write("x")
      },
      data() {},
      close: (socket) => void open.delete(socket),
    },
  })
  for (let i = 0; i < count; i++) {
    const staysMs = random.chance(0.2) ? random.integer(3000, 10_000) : random.integer(0, 500)
    let isOver = false
    const over = () => {
      if (!isOver) ended++
      isOver = true
    }
    simulation.time.after(random.integer(0, 2000) * 1e6, () => {
      const peer = simulation.connect(listener.port!, {
        onData() {
          served++
          simulation.time.after(staysMs * 1e6, () => {
            peer.reset()
            over()
          })
        },
        onEnd() {
          peer.close()
          over()
        },
        onReset: over,
        onRefused: over,
      })
    })
  }
  simulation.until(reactor, () => ended === count)
  simulation.until(reactor, () => open.size === 0)
  simulation.drive(reactor, reactor.close())
  const stats = reactor.stats()
  expect(most).toBeLessThanOrEqual(maxConnections)
  expect([stats.deadlinesArmed, stats.operationsInFlight, stats.socketsOpen]).toEqual([0, 0, 0])
  if (!hasStages && !faulty) expect(served).toBe(count)
  return { served, most, stats }
}

test("simulated crowds: never more than the limit, everybody is served or refused, nothing is left", () => {
  let pauses = 0
  let refused = 0
  let reset = 0
  for (let seed = 1; seed <= 150; seed++) {
    const { stats } = run(seed, seed % 3 === 0)
    pauses += stats.acceptLimitPauses
    refused += stats.connectionsRefused
    reset += stats.connectionsReset
  }
  expect(pauses).toBeGreaterThan(100)
  expect(refused).toBeGreaterThan(10)
  expect(reset).toBeGreaterThan(10)
})
