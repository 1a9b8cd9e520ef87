// What single steps of the inner loop cost, with mitata: `bun bench/micro/index.ts [part of a name]`.
//
// Figures are per call on an idle core. They explain a decision; the socket benchmark (bench/run.ts) makes it.

import { run } from "mitata"
import { bytesBenches } from "./bytes.ts"
import { memoryBenches } from "./memory.ts"
import { promiseBenches } from "./promises.ts"

bytesBenches()
memoryBenches()
promiseBenches()

const filter = process.argv[2]
await run(filter === undefined ? {} : { filter: new RegExp(filter, "i") })
