/**
 * Seeded randomness: the only source of chance in a simulated run. Each part of the simulation forks its own stream from the
 * seed, so that one more draw in one part does not change what another part does.
 */

/** mulberry32: small and fast, good enough to pick sizes, moments and faults. */
export class Random {
  private state: number

  constructor(seed: number) {
    this.state = seed >>> 0
  }

  /** A stream of its own, which depends on the seed and on `name` alone if forked before anything is drawn. */
  fork(name: string): Random {
    let hash = this.state ^ 0x811c9dc5
    for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
    return new Random(hash ^ (hash >>> 15))
  }

  /** In [0, 1). */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = this.state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }

  /** True with this probability; draws nothing when that is certain either way. */
  chance(probability: number): boolean {
    return probability > 0 && (probability >= 1 || this.next() < probability)
  }

  /** An integer in [least, most]. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1))
  }

  /** Small values often, large ones sometimes: an integer in [least, most]. */
  skewed(least: number, most: number): number {
    return least + Math.floor((most - least + 1) * this.next() ** 4)
  }

  pick<T>(from: readonly T[]): T {
    return from[this.integer(0, from.length - 1)]
  }

  shuffle<T>(items: T[]): void {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(0, i)
      const item = items[i]
      items[i] = items[j]
      items[j] = item
    }
  }
}
