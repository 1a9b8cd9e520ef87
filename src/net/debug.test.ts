import { expect, test } from "bun:test"
import { Deadline } from "../reactor/deadlines.ts"
import type { HostName } from "../reactor/options.ts"
import type { PendingItem } from "../reactor/pending.ts"
import { Simulation } from "../testing/index.ts"
import type { Connection } from "./connection.ts"
import { Reactor } from "./reactor.ts"

const HOSTS: HostName[] = ["owned", "hosted"]

function open(
  host: HostName,
  debug?: object,
): { simulation: Simulation; reactor: Reactor; reports: PendingItem[][] } {
  const simulation = new Simulation({ seed: 5 })
  const reports: PendingItem[][] = []
  const report = (items: PendingItem[]) => void reports.push(items)
  const reactor = Reactor.open(
    { engine: "uring", host, ...(debug && { debug: { report, ...debug } }) },
    simulation,
  )
  return { simulation, reactor, reports }
}

/** In steps: a long deadline would be reported itself. */
async function waitMs(reactor: Reactor, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 5000) {
    await new Promise<void>((resolve) => {
      reactor.arm(new Deadline({ onDeadline: () => resolve() }, 0), Math.min(left, 5000))
    })
  }
}

for (const host of HOSTS) {
  test(`${host}: what hangs is reported once, with the stack that began it`, () => {
    const { simulation, reactor, reports } = open(host, {})
    const listener = reactor.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } })
    function theForgottenTimeout(): void {
      reactor.timeout(3_600_000).catch(() => {})
    }
    function theForgottenDeadline(): void {
      reactor.arm(new Deadline({ onDeadline() {} }, 0), 3_600_000)
    }
    theForgottenTimeout()
    theForgottenDeadline()
    simulation.drive(reactor, waitMs(reactor, 280_000))
    expect(reports).toEqual([])
    simulation.drive(reactor, waitMs(reactor, 400_000))
    expect(reports.length).toBe(1)
    const [items] = reports
    expect(items.map(({ kind, what }) => (kind === "deadline" ? kind : what))).toEqual([
      "TIMEOUT",
      "deadline",
    ])
    expect(items[0].owner).toBe("RawOperation")
    expect(items[0].stack).toContain("theForgottenTimeout")
    expect(items[1].stack).toContain("theForgottenDeadline")
    // The bound, and at most one scan more.
    for (const { ageMs } of items) expect(ageMs! >= 300_000 && ageMs! <= 330_100).toBe(true)
    expect(reactor.stats().hangsReported).toBe(2)
    listener.stop()
    for (const { deadline } of armed(reactor)) reactor.deadlines.clear(deadline)
    simulation.drive(reactor, reactor.close())
  })

  test(`${host}: a connection is reported when nothing moves on it, and again after it has moved`, () => {
    const { simulation, reactor, reports } = open(host, { scanMs: 1000, boundMs: 10_000 })
    const listener = reactor.listen({ hostname: "127.0.0.1", port: 0 })
    const peer = simulation.connect(listener.port!, {})
    const connection = simulation.drive(reactor, listener.accept()) as Connection
    for (let i = 0; i < 20; i++) {
      simulation.time.after(1e9, () => peer.send(new Uint8Array(1)))
      simulation.drive(reactor, waitMs(reactor, 2000))
    }
    expect(reports).toEqual([])
    simulation.drive(reactor, waitMs(reactor, 30_000))
    expect(reports.map((items) => items.map(({ what, owner }) => `${what} of ${owner}`))).toEqual([
      ["RECV of Connection"],
    ])
    const [[{ fd, ageMs, idleMs }]] = reports
    expect(fd).toBe(connection.fd)
    expect(ageMs! - idleMs!).toBeGreaterThan(30_000)
    peer.send(new Uint8Array(1))
    simulation.drive(reactor, waitMs(reactor, 30_000))
    expect(reports.length).toBe(2)
    simulation.drive(reactor, reactor.close())
  })

  test(`${host}: a send begins where it was written, not where it was flushed`, () => {
    const { simulation, reactor } = open(host, {})
    const listener = reactor.listen({ hostname: "127.0.0.1", port: 0 })
    const peer = simulation.connect(listener.port!, { onOpen: (it) => it.pause() })
    const connection = simulation.drive(reactor, listener.accept()) as Connection
    async function theWriteThatWaits(): Promise<void> {
      for (let i = 0; i < 4; i++) await connection.write(new Uint8Array(1 << 20))
    }
    theWriteThatWaits().catch(() => {})
    simulation.drive(reactor, waitMs(reactor, 1000))
    const send = reactor.pending().find(({ what }) => what === "SEND")
    expect(send?.stack).toContain("theWriteThatWaits")
    const socket = reactor.pending().find(({ kind, owner }) => kind === "socket" && owner === "Connection")
    expect(socket?.fd).toBe(connection.fd)
    connection.destroy()
    peer.reset()
    simulation.drive(reactor, reactor.close())
    expect(reactor.pending()).toEqual([])
  })
}

test("without debug mode pending() tells what there is, without ages and stacks", () => {
  const { simulation, reactor } = open("owned")
  const listener = reactor.listen({ hostname: "127.0.0.1", port: 0 })
  reactor.timeout(1000).catch(() => {})
  const deadline = new Deadline({ onDeadline() {} }, 7)
  reactor.arm(deadline, 1000)
  expect(reactor.debug).toBeUndefined()
  expect(Object.hasOwn(reactor, "submit")).toBe(false)
  expect(reactor.pending().map(({ kind, owner, what }) => `${kind} ${owner} ${what}`)).toEqual([
    "operation Listener operation 1",
    "operation RawOperation operation 1",
    "deadline reactor deadline 7",
    "socket Listener open",
  ])
  reactor.deadlines.clear(deadline)
  listener.close()
  simulation.drive(reactor, reactor.close())
})

test("URINGLOOP_DEBUG turns it on; the option decides", () => {
  const simulation = new Simulation({ seed: 5 })
  process.env.URINGLOOP_DEBUG = "1"
  try {
    for (const debug of [undefined, false]) {
      const reactor = Reactor.open(
        { engine: "uring", host: "owned", ...(debug !== undefined && { debug }) },
        simulation,
      )
      expect(reactor.debug !== undefined).toBe(debug === undefined)
      simulation.drive(reactor, reactor.close())
    }
  } finally {
    delete process.env.URINGLOOP_DEBUG
  }
})

function armed(reactor: Reactor): { deadline: Deadline }[] {
  const found: { deadline: Deadline }[] = []
  reactor.deadlines.forEachArmed((deadline) => void found.push({ deadline }))
  return found
}
