/**
 * What a host is to the core: it decides when rounds happen (hosted.ts, owned.ts).
 */
export interface Host {
  /** Something waits for the next round: see to it that there is one. */
  schedule(): void
  /** The number of holds changed to or from zero. */
  holdsChanged(): void
  /** The reactor is closed. */
  dispose(): void
}
