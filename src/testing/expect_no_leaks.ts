/**
 * For the end of a test: nothing of a reactor is left.
 */
import { UringloopError } from "../errors.ts"
import type { ReactorCore } from "../reactor/core.ts"
import { Deadline } from "../reactor/deadlines.ts"
import { describePending, listPending } from "../reactor/pending.ts"

export interface NoLeaksOptions {
  /** What may be there: listeners that go on, connections that are kept. With their operations, deadlines and memory. */
  except?: readonly object[]
  /** What is being closed has so long to end, milliseconds. Default 1000. */
  withinMs?: number
}

const LOOK_MS = 5
const LISTED_MOST = 20

/**
 * Completes when no operation, descriptor, deadline or send memory of a reactor is in use but by `except`. In the owned host
 * the reactor must run meanwhile: `reactor.run(expectNoLeaks(reactor))`.
 * @throws (rejects) UringloopError ERR_LEAKS that lists what is left; in debug mode with ages and the stacks that began it
 */
export async function expectNoLeaks(reactor: ReactorCore, options: NoLeaksOptions = {}): Promise<void> {
  const { except = [], withinMs = 1000 } = options
  const ends = reactor.clock() + withinMs
  for (;;) {
    const left = leftOf(reactor, except)
    if (left.length === 0) return
    if (reactor.isClosed || reactor.clock() >= ends) {
      const more = left.length > LISTED_MOST ? `\n... and ${left.length - LISTED_MOST} more` : ""
      throw new UringloopError(
        "ERR_LEAKS",
        `${left.length} left over:\n${left.slice(0, LISTED_MOST).join("\n")}${more}`,
      )
    }
    await new Promise<void>((resolve) => {
      reactor.arm(new Deadline({ onDeadline: () => resolve() }, 0), LOOK_MS)
    })
  }
}

/** A line for each thing that is left. */
function leftOf(reactor: ReactorCore, except: readonly object[]): string[] {
  if (reactor.isClosed) return closedLeft(reactor)
  const left = listPending(reactor, (owner) => !except.includes(owner as object)).map(describePending)
  const stats = reactor.stats()
  // Memory has no owner: what is excepted may hold some.
  const held = except.reduce((sum: number, owner) => sum + heldBy(owner), 0)
  if (stats.sendBytesInUse > 0 && held === 0) left.push(`${stats.sendBytesInUse} bytes of send memory`)
  const unowned = stats.descriptorsOpen - stats.socketsOpen
  if (unowned > 0) left.push(`${unowned} descriptors that nobody holds`)
  return left
}

function heldBy(owner: object): number {
  return (owner as { unsentBytes?: number }).unsentBytes ?? 0
}

/** The counters at the end: a reactor that was closed has waited for everything but what nobody held. */
function closedLeft(reactor: ReactorCore): string[] {
  const { descriptorsOpen, sendBytesInUse, deadlinesArmed } = reactor.stats()
  const left: string[] = []
  if (descriptorsOpen > 0) left.push(`${descriptorsOpen} descriptors were open when the ring was released`)
  if (sendBytesInUse > 0) left.push(`${sendBytesInUse} bytes of send memory`)
  if (deadlinesArmed > 0) left.push(`${deadlinesArmed} deadlines`)
  return left
}
