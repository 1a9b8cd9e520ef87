// What passes between the soak's driver and its server process.

import type { ReactorStats } from "../../src/index.ts"
import type { DialCounts } from "./dials.ts"

export type ToServer =
  /** Report once, at once; with `collect`, after a full garbage collection. */
  | { ask: "report"; collect: boolean }
  | { ask: "startDials" }
  | { ask: "stopDials" }
  /** A phase of EMFILE: take all descriptors but a few, and give them back. */
  | { ask: "takeDescriptors"; spare: number }
  | { ask: "giveDescriptors" }
  /** Close the reactor, report a last time, exit. */
  | { ask: "close" }

export type FromServer =
  | { say: "listening"; pid: number; engine: string; ports: [number, number, number] }
  | { say: "report"; stats: ReactorStats; dials: DialCounts; heapBytes: number }
  | { say: "dialsStopped" }
  | { say: "closed"; stats: ReactorStats; dials: DialCounts }
