// expectNoLeaks finds whatever is left, names it, and in debug mode says where it began.

import { expect } from "bun:test"
import type { Connection, Reactor } from "../../src/index.ts"
import { Deadline } from "../../src/reactor/deadlines.ts"
import { expectNoLeaks } from "../../src/testing/index.ts"
import { isHosted, onReactor, pause, rejection } from "../support/harness.ts"

/** In the owned host the harness has a deadline of its own. */
async function harnessOwners(r: Reactor): Promise<object[]> {
  await pause(r, 1) // it is armed behind the begin of the test
  const owners: object[] = []
  r.deadlines.forEachArmed(({ owner }) => void owners.push(owner))
  return owners
}

async function leaks(r: Reactor, except: object[]): Promise<string> {
  const error = await rejection(expectNoLeaks(r, { withinMs: 20, except }))
  expect(error.code).toBe("ERR_LEAKS")
  return error.message
}

for (const debug of [false, true]) {
  const how = debug ? "debug mode" : "plain"

  onReactor(
    `${how}: nothing is left after a conversation`,
    async (r) => {
      const except = await harnessOwners(r)
      await expectNoLeaks(r, { except })
      const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
      const client = await r.connect({ hostname: "127.0.0.1", port: listener.port! })
      const server = (await listener.accept()) as Connection
      await client.write("x")
      await server.read()
      void client.close()
      void server.close()
      await expectNoLeaks(r, { except: [...except, listener] })
      listener.close()
      await expectNoLeaks(r, { except })
      if (!isHosted) return
      await r.close()
      await expectNoLeaks(r)
    },
    { reactor: { debug } },
  )

  onReactor(
    `${how}: an open connection, its listener and what it has not sent`,
    async (r) => {
      const except = await harnessOwners(r)
      const listener = r.listen({ hostname: "127.0.0.1", port: 0 })
      async function theForgottenConnection(): Promise<Connection> {
        return r.connect({ hostname: "127.0.0.1", port: listener.port! })
      }
      const client = await theForgottenConnection()
      const server = (await listener.accept()) as Connection
      const writing = rejection(server.write(new Uint8Array(30_000_000)))
      const found = await leaks(r, except)
      expect(found).toContain(`socket open of Connection fd ${client.fd}`)
      expect(found).toContain(`socket open of Listener fd ${listener.fd}`)
      expect(found).toMatch(/bytes of send memory/)
      if (debug) expect(found).toMatch(/operation RECV of Connection fd \d+, for 0\.\d s/)
      await expectNoLeaks(r, { except: [...except, listener, client, server] })
      client.destroy()
      server.destroy()
      listener.close()
      await writing
    },
    { reactor: { debug } },
  )

  onReactor(
    `${how}: a deadline, a raw operation, a raw descriptor`,
    async (r) => {
      const except = await harnessOwners(r)
      const deadline = new Deadline({ onDeadline() {} }, 3)
      r.arm(deadline, 60_000)
      const abort = new AbortController()
      function theForgottenTimeout(): Promise<unknown> {
        return rejection(r.timeout(60_000, { signal: abort.signal }) as Promise<unknown>)
      }
      const timeout = theForgottenTimeout()
      const fd = r.socket("IPv4")
      const found = await leaks(r, except)
      expect(found).toStartWith("3 left over:")
      expect(found).toContain(debug ? "operation TIMEOUT of RawOperation" : "operation 1 of RawOperation")
      expect(found).toContain(`socket open of RawDescriptor fd ${fd}`)
      expect(found.includes("theForgottenTimeout")).toBe(debug)
      abort.abort()
      await timeout
      r.deadlines.clear(deadline)
      await r.closeDescriptor(fd)
      await expectNoLeaks(r, { except })
    },
    { reactor: { debug } },
  )
}
