// What it costs to come back to a waiting function, and to let the runtime have its turn.

import { drainMicrotasks } from "bun:jsc"
import { bench, do_not_optimize, group } from "mitata"

/** An operation that settles at once, in each of the shapes that a loop could give it. */
export function promiseBenches(): void {
  group("resumption", () => {
    bench("await: a settled promise", async () => {
      await Promise.resolve(1)
    })
    bench("await: a value that is no promise", async () => {
      await 1
    })
    bench("await: new Promise, resolved after", async () => {
      let settle!: (value: number) => void
      const promise = new Promise<number>((resolve) => {
        settle = resolve
      })
      settle(1)
      await promise
    })
    bench("await: Promise.withResolvers, resolved after", async () => {
      const { promise, resolve } = Promise.withResolvers<number>()
      resolve(1)
      await promise
    })
    bench("await: a thenable", async () => {
      // biome-ignore lint/suspicious/noThenProperty: it is a thenable that is measured
      await { then: (resolve: (value: number) => void) => resolve(1) }
    })
    bench("callback: a closure made and called", () => {
      let seen = 0
      const settle = (value: number) => {
        seen = value
      }
      settle(1)
      do_not_optimize(seen)
    })
  })
  group("microtasks", () => {
    bench("drainMicrotasks: nothing to do", () => drainMicrotasks())
    bench("drainMicrotasks: one microtask", () => {
      queueMicrotask(nothing)
      drainMicrotasks()
    })
    bench("drainMicrotasks: one await resumed", () => {
      void resumed(Promise.resolve())
      drainMicrotasks()
    })
  })
  group("turns of the runtime's loop", () => {
    bench("turn: setImmediate", async () => {
      await new Promise<void>((resolve) => setImmediate(resolve))
    })
    bench("turn: process.nextTick", async () => {
      await new Promise<void>((resolve) => process.nextTick(resolve))
    })
  })
}

function nothing(): void {}

async function resumed(promise: Promise<void>): Promise<void> {
  await promise
}
