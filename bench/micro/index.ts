// What single steps of the inner loop cost, with mitata: `bun bench/micro/index.ts [part of a name]`.
//
// Figures are per call on an idle core. They explain a decision; the socket benchmark (bench/run.ts) makes it.

import { cpus, release } from "node:os"
import { bytesGroups } from "./bytes.ts"
import { memoryGroups } from "./memory.ts"
import { promiseGroups } from "./promises.ts"
import { reactorGroups } from "./reactor.ts"
import { structureGroups } from "./structures.ts"
import { runGroups } from "./table.ts"
import { trafficGroups } from "./traffic.ts"

console.log(`Bun ${Bun.version}, Linux ${release()}, ${cpus()[0]?.model ?? "an unknown processor"}\n`)
await runGroups(
  [
    ...reactorGroups(),
    ...trafficGroups(),
    ...structureGroups(),
    ...promiseGroups(),
    ...memoryGroups(),
    ...bytesGroups(),
  ],
  new RegExp(process.argv[2] ?? "", "i"),
)
