/**
 * Virtual time: a clock that moves only when somebody waits, and what is to happen on it. Events of the same moment run in
 * the order in which they were asked for.
 */

interface Event {
  dueNs: number
  order: number
  run: () => void
}

/** Not 0, so that nothing can take "no time" for the beginning. */
const START_NS = 1e12

export class VirtualClock {
  private nowValue = START_NS
  private orderNext = 0
  /** A binary heap, the next event first. */
  private readonly heap: Event[] = []

  /** Nanoseconds since a fixed origin. */
  get nowNs(): number {
    return this.nowValue
  }

  /** Milliseconds since the same origin. */
  get nowMs(): number {
    return this.nowValue / 1e6
  }

  /** When the next event is due; Infinity when there is none. */
  get nextNs(): number {
    return this.heap.length === 0 ? Number.POSITIVE_INFINITY : this.heap[0].dueNs
  }

  /** Runs `run` in `ns` nanoseconds. */
  after(ns: number, run: () => void): void {
    this.at(this.nowValue + ns, run)
  }

  /** Runs `run` at a moment, or with the next events when it has passed. */
  at(dueNs: number, run: () => void): void {
    const event = { dueNs: Math.max(dueNs, this.nowValue), order: this.orderNext++, run }
    const heap = this.heap
    let at = heap.length
    heap.push(event)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (isBefore(heap[parent], event)) break
      heap[at] = heap[parent]
      at = parent
    }
    heap[at] = event
  }

  /** Moves to the next event and runs it. */
  runNext(): void {
    const event = this.pop()
    if (event.dueNs > this.nowValue) this.nowValue = event.dueNs
    event.run()
  }

  /** Moves on to a moment, running what is due on the way. */
  moveTo(ns: number): void {
    while (this.nextNs <= ns) this.runNext()
    if (ns > this.nowValue) this.nowValue = ns
  }

  private pop(): Event {
    const heap = this.heap
    const first = heap[0]
    const last = heap.pop() as Event
    const count = heap.length
    if (count === 0) return first
    let at = 0
    for (let child = 1; child < count; child = 2 * at + 1) {
      if (child + 1 < count && isBefore(heap[child + 1], heap[child])) child++
      if (isBefore(last, heap[child])) break
      heap[at] = heap[child]
      at = child
    }
    heap[at] = last
    return first
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.dueNs < b.dueNs || (a.dueNs === b.dueNs && a.order < b.order)
}
