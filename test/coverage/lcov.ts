// Coverage records in lcov's format (geninfo(1)): read, and several runs added up.

export interface FileCoverage {
  /** By line number: how often it ran. */
  lines: Map<number, number>
  /** By name. */
  functions: Map<string, number>
  /** By "line,block,branch". */
  branches: Map<string, number>
}

export type Coverage = Map<string, FileCoverage>

export interface Share {
  hit: number
  all: number
}

/** Adds the records of one run. Paths are as they stand there. */
export function addLcov(coverage: Coverage, text: string): void {
  let file: FileCoverage | undefined
  for (const line of text.split("\n")) {
    const [key, rest] = split(line, ":")
    if (key === "SF") {
      file = coverage.get(rest) ?? { lines: new Map(), functions: new Map(), branches: new Map() }
      coverage.set(rest, file)
    } else if (file === undefined) continue
    else if (key === "DA") {
      const [number, hits] = rest.split(",").map(Number)
      add(file.lines, number, hits)
    } else if (key === "FNDA") {
      const [hits, name] = split(rest, ",")
      add(file.functions, name, Number(hits))
    } else if (key === "BRDA") {
      const at = rest.lastIndexOf(",")
      const hits = rest.slice(at + 1)
      add(file.branches, rest.slice(0, at), hits === "-" ? 0 : Number(hits))
    }
  }
}

function split(text: string, by: string): [string, string] {
  const at = text.indexOf(by)
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)]
}

function add<Key>(counts: Map<Key, number>, key: Key, hits: number): void {
  counts.set(key, (counts.get(key) ?? 0) + hits)
}

export function share(counts: Map<unknown, number>): Share {
  let hit = 0
  for (const hits of counts.values()) if (hits > 0) hit++
  return { hit, all: counts.size }
}

export function percent({ hit, all }: Share): string {
  return all === 0 ? "-" : `${((100 * hit) / all).toFixed(1)} %`
}

/** Lines that never ran, as ranges: "12, 20-23". */
export function missedLines({ lines }: FileCoverage): string {
  const ranges: [number, number][] = []
  const all = [...lines].sort(([a], [b]) => a - b)
  let isOpen = false
  for (const [line, hits] of all) {
    if (hits > 0) isOpen = false
    else if (isOpen) ranges[ranges.length - 1][1] = line
    else {
      ranges.push([line, line])
      isOpen = true
    }
  }
  return ranges.map(([from, to]) => (from === to ? from : `${from}-${to}`)).join(", ")
}
