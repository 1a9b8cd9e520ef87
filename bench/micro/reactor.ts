// The reactor's rounds: a tick without anything to do, commands through the ring and back, the resumption of a promise, and
// an echo between two connections of one process. In the owned host, so that nothing else has a turn in between.

import { do_not_optimize } from "mitata"
import { OP_NOP } from "../../ffi/abi.ts"
import { type EngineName, Reactor, type Socket, UringloopError } from "../../src/index.ts"
import type { OperationOwner } from "../../src/reactor/core.ts"
import type { Cost, Group } from "./table.ts"

/** Done in one call, because what stands around it (`run`, a promise) costs as much as one of them. */
const TIMES = 64
const MESSAGE_BYTES = 64
const KIND = 9
/** After that long nothing is in flight but what waits for bytes that nobody writes. */
const SETTLE_MS = 20

export function reactorGroups(): Group[] {
  return (["uring", "poll", "epoll"] as const).filter(isAvailable).map(reactorGroup)
}

function isAvailable(engine: EngineName): boolean {
  try {
    const reactor = Reactor.open({ engine, host: "owned" })
    reactor.run(reactor.close())
    return true
  } catch (error) {
    if (error instanceof UringloopError && error.code === "ENGINE_UNAVAILABLE") return false
    throw error
  }
}

function reactorGroup(engine: EngineName): Group {
  let reactor: Reactor | undefined
  return {
    name: `reactor, engine ${engine}`,
    open() {
      reactor = Reactor.open({ engine, host: "owned" })
      return reactorCosts(reactor)
    },
    close() {
      reactor?.run(reactor.close())
    },
  }
}

function reactorCosts(reactor: Reactor): Cost[] {
  const { native, ring } = reactor
  const owner: OperationOwner = { onCompletion() {} }
  const roundTrips = echo(reactor)
  reactor.run(reactor.timeout(SETTLE_MS))
  // An ACCEPT and two RECVs.
  const idle = reactor.slots.inFlight
  return [
    { name: "tick, empty", call: () => do_not_optimize(native.tick(ring, 0, 0)) },
    { name: "round, empty", call: () => do_not_optimize(reactor.round(0)) },
    {
      name: `a round of ${TIMES} NOPs submitted and dispatched, per NOP`,
      times: TIMES,
      call() {
        for (let i = 0; i < TIMES; i++) reactor.submit(OP_NOP, 0, -1, KIND, owner, 0, 0)
        while (reactor.slots.inFlight > idle) reactor.round(0)
      },
    },
    {
      name: "a round of one NOP",
      call() {
        reactor.submit(OP_NOP, 0, -1, KIND, owner, 0, 0)
        while (reactor.slots.inFlight > idle) reactor.round(0)
      },
    },
    { name: "await reactor.nop()", times: TIMES, call: () => reactor.run(awaitNops(reactor)) },
    {
      name: `echo round trip of ${MESSAGE_BYTES} B, loopback TCP, handlers`,
      times: TIMES,
      call: () => reactor.run(roundTrips(TIMES)),
    },
  ]
}

async function awaitNops(reactor: Reactor): Promise<void> {
  for (let i = 0; i < TIMES; i++) await reactor.nop()
}

/** A listener that echoes and a connection to it. Returns what makes so many round trips, one after the other. */
function echo(reactor: Reactor): (times: number) => Promise<void> {
  const message = new Uint8Array(MESSAGE_BYTES).fill(97)
  let left = 0
  let received = 0
  let done = () => {}
  const listener = reactor.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, data) {
        socket.write(data)
      },
    },
  })
  let client: Socket | undefined
  const dialled = reactor.connect({
    hostname: "127.0.0.1",
    port: listener.port!,
    socket: {
      data(socket, data) {
        received += data.length
        if (received < MESSAGE_BYTES) return
        received = 0
        if (--left === 0) done()
        else socket.write(message)
      },
    },
  })
  reactor.run(
    dialled.then((socket) => {
      client = socket
    }),
  )
  const roundTrips = (times: number) =>
    new Promise<void>((resolve) => {
      left = times
      done = resolve
      client?.write(message)
    })
  reactor.run(roundTrips(1)) // both ends are open and armed after it
  return roundTrips
}
