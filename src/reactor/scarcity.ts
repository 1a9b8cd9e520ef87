/**
 * Owners that found something used up, send memory or operations, and wait until some has been given back.
 */
import type { Arena } from "./arena.ts"
import type { Flushable } from "./core.ts"

export class Scarcity {
  private readonly arena: Arena
  /** Owners that found no send memory. */
  private starved: Flushable[] = []
  /** Send memory in use when the first of them was turned away. */
  private starvedAtBytes = 0
  /** Owners that found no free operation. */
  private readonly crowded = new Set<Flushable>()

  constructor(arena: Arena) {
    this.arena = arena
  }

  get isEmpty(): boolean {
    return this.starved.length === 0 && this.crowded.size === 0
  }

  addStarved(owner: Flushable): void {
    if (this.starved.length === 0) this.starvedAtBytes = this.arena.bytesInUse
    this.starved.push(owner)
  }

  addCrowded(owner: Flushable): void {
    this.crowded.add(owner)
  }

  /** Moves those who may try again to the owners that are flushed before the next tick. */
  release(dirty: Flushable[], isFull: boolean): void {
    if (this.starved.length > 0 && this.arena.bytesInUse < this.starvedAtBytes) {
      for (const owner of this.starved) dirty.push(owner)
      this.starved = []
    }
    if (this.crowded.size > 0 && !isFull) {
      for (const owner of this.crowded) dirty.push(owner)
      this.crowded.clear()
    }
  }
}
