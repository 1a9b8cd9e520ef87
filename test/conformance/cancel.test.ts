// Cancellation races completion: whichever wins, each operation settles exactly once, and nothing is left.

import { expect } from "bun:test"
import type { Reactor } from "../../src/index.ts"
import { POLLIN } from "../../src/index.ts"
import { onReactor, pause, rejection, until } from "../support/harness.ts"

/** Two connected raw descriptors of the reactor. */
async function rawPair(r: Reactor): Promise<[number, number]> {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0, backlog: 8 })
  const internal = listener as unknown as { pauseAccepting(): void }
  internal.pauseAccepting()
  await pause(r, 2)
  const client = r.socket("IPv4")
  const [accepted] = await Promise.all([
    r.accept(listener.fd),
    r.connectDescriptor(client, { hostname: "127.0.0.1", port: listener.port! }),
  ])
  listener.close()
  return [client, accepted]
}

onReactor("10,000 timeouts cancelled about when they fire", async (r, { random }) => {
  const counts = { fulfilled: 0, ECANCELED: 0 }
  for (let round = 0; round < 20; round++) {
    const all = Array.from({ length: 500 }, () => r.timeout(random.next() * 4))
    const settled = all.map(async (timeout) => {
      try {
        await timeout
        counts.fulfilled++
        return true
      } catch (error) {
        expect((error as { code: string }).code).toBe("ECANCELED")
        counts.ECANCELED++
        return false
      }
    })
    await pause(r, 1 + random.integer(0, 2))
    const stopped = await Promise.all(all.map((timeout) => r.cancel(timeout)))
    const fired = await Promise.all(settled)
    // cancel() says true of exactly those that were stopped.
    stopped.forEach((wasStopped, i) => {
      expect(wasStopped).toBe(!fired[i])
    })
  }
  expect(counts.fulfilled + counts.ECANCELED).toBe(10_000)
  expect(r.stats().stale).toBe(0)
})

onReactor("10,000 receives and polls cancelled while bytes arrive: none is lost", async (r, { random }) => {
  const [a, b] = await rawPair(r)
  let received = 0
  let sent = 0
  for (let i = 0; i < 5_000; i++) {
    const receive = r.recv(a)
    const poll = r.pollAdd(a, POLLIN)
    const mayCome = random.integer(0, 2) === 0
    if (mayCome) {
      sent += 3
      void r.send(b, "abc")
    }
    if (random.integer(0, 3) === 0) await r.nop()
    const cancelled = await Promise.all([r.cancel(receive), r.cancel(poll)])
    const [bytes, events] = await Promise.allSettled([receive, poll])
    if (bytes.status === "fulfilled") {
      received += bytes.value.length
      expect(cancelled[0]).toBe(false)
    } else expect(bytes.reason.code).toBe("ECANCELED")
    if (events.status === "fulfilled") expect(events.value & POLLIN).toBe(POLLIN)
    else expect(events.reason.code).toBe("ECANCELED")
  }
  while (received < sent) received += (await r.recv(a)).length
  expect(received).toBe(sent)
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
})

onReactor("cancelling what has ended, or is no operation, gives false", async (r) => {
  const nop = r.nop()
  await nop
  expect(await r.cancel(nop)).toBe(false)
  expect(await r.cancel(Promise.resolve())).toBe(false)
  const timeout = r.timeout(60_000)
  const ended = rejection(timeout)
  expect(await r.cancel(timeout)).toBe(true)
  expect((await ended).code).toBe("ECANCELED")
  expect(await r.cancel(timeout)).toBe(false)
})

onReactor("two cancellations of one operation: it ends once, both settle", async (r) => {
  for (let i = 0; i < 200; i++) {
    const timeout = r.timeout(60_000)
    const ended = rejection(timeout)
    const both = await Promise.all([r.cancel(timeout), r.cancel(timeout)])
    expect(both.filter(Boolean).length).toBeGreaterThanOrEqual(1)
    expect((await ended).code).toBe("ECANCELED")
  }
})

onReactor("AbortSignal of raw operations", async (r) => {
  const reason = new Error("no")
  const [a, b] = await rawPair(r)
  const controller = new AbortController()
  const { signal } = controller
  const all = [
    r.recv(a, { signal }),
    r.pollAdd(a, POLLIN, { signal }),
    r.timeout(60_000, { signal }),
    r.recv(b, { signal }),
  ].map((operation: Promise<unknown>) => rejection(operation))
  await r.nop()
  controller.abort(reason)
  for (const error of await Promise.all(all)) expect(error).toBe(reason)
  expect(await rejection(r.timeout(1, { signal }))).toBe(reason)
  await r.send(a, "still works")
  expect(Buffer.from(await r.recv(b)).toString()).toBe("still works")
  await Promise.all([r.closeDescriptor(a), r.closeDescriptor(b)])
})

onReactor("accepts cancelled while connections arrive: every connection is accepted or closed", async (r) => {
  const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
  const internal = listener as unknown as { pauseAccepting(): void }
  internal.pauseAccepting()
  await pause(r, 2)
  let accepted = 0
  let dialled = 0
  for (let i = 0; i < 300; i++) {
    const accept = r.accept(listener.fd)
    const client = r.socket("IPv4")
    await r.connectDescriptor(client, { hostname: "127.0.0.1", port: listener.port! })
    dialled++
    const wasStopped = await r.cancel(accept)
    try {
      const fd = await accept
      expect(wasStopped).toBe(false)
      accepted++
      await r.closeDescriptor(fd)
    } catch (error) {
      expect((error as { code: string }).code).toBe("ECANCELED")
    }
    await r.closeDescriptor(client)
  }
  while (accepted < dialled) {
    const fd = await r.accept(listener.fd)
    accepted++
    await r.closeDescriptor(fd)
  }
  listener.close()
  await until(r, "no descriptor is open", () => r.stats().descriptorsOpen === 0)
})
