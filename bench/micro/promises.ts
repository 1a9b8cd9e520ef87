// What it costs to come back to a waiting function, and to let the runtime have its turn.

import { drainMicrotasks } from "bun:jsc"
import { do_not_optimize } from "mitata"
import type { Cost, Group } from "./table.ts"

export function promiseGroups(): Group[] {
  return [
    { name: "resumption", open: () => resumptionCosts },
    { name: "microtasks", open: () => microtaskCosts },
    { name: "turns of the runtime's loop", open: () => turnCosts },
  ]
}

/** An operation that settles at once, in each of the shapes that a loop could give it. */
const resumptionCosts: Cost[] = [
  {
    name: "await a settled promise",
    call: async () => {
      await Promise.resolve(1)
    },
  },
  {
    name: "await a value that is no promise",
    call: async () => {
      await 1
    },
  },
  {
    name: "await new Promise, resolved after",
    call: async () => {
      let settle!: (value: number) => void
      const promise = new Promise<number>((resolve) => {
        settle = resolve
      })
      settle(1)
      await promise
    },
  },
  {
    name: "await Promise.withResolvers, resolved after",
    call: async () => {
      const { promise, resolve } = Promise.withResolvers<number>()
      resolve(1)
      await promise
    },
  },
  {
    name: "await a thenable",
    call: async () => {
      // biome-ignore lint/suspicious/noThenProperty: it is a thenable that is measured
      await { then: (resolve: (value: number) => void) => resolve(1) }
    },
  },
  {
    name: "a closure made and called",
    call() {
      let seen = 0
      const settle = (value: number) => {
        seen = value
      }
      settle(1)
      do_not_optimize(seen)
    },
  },
]

const microtaskCosts: Cost[] = [
  { name: "drainMicrotasks, nothing to do", call: () => drainMicrotasks() },
  {
    name: "drainMicrotasks, one microtask",
    call() {
      queueMicrotask(nothing)
      drainMicrotasks()
    },
  },
  {
    name: "drainMicrotasks, one await resumed",
    call() {
      void resumed(Promise.resolve())
      drainMicrotasks()
    },
  },
]

const turnCosts: Cost[] = [
  {
    name: "setImmediate",
    call: async () => {
      await new Promise<void>((resolve) => setImmediate(resolve))
    },
  },
  {
    name: "process.nextTick",
    call: async () => {
      await new Promise<void>((resolve) => process.nextTick(resolve))
    },
  },
]

function nothing(): void {}

async function resumed(promise: Promise<void>): Promise<void> {
  await promise
}
