import { expect, test } from "bun:test"
import { addLcov, type Coverage, missedLines, percent, share } from "./lcov.ts"

test("runs add up, ranges are told", () => {
  const coverage: Coverage = new Map()
  addLcov(
    coverage,
    "TN:\nSF:a.c\nFNDA:0,f\nDA:1,1\nDA:2,0\nDA:3,0\nDA:7,0\nBRDA:1,0,0,1\nBRDA:1,0,1,-\nend_of_record\n",
  )
  addLcov(coverage, "SF:a.c\nFNDA:2,f\nDA:1,1\nDA:7,4\nBRDA:1,0,1,3\nend_of_record\nSF:b.c\nDA:1,0\n")
  const a = coverage.get("a.c")!
  expect(share(a.lines)).toEqual({ hit: 2, all: 4 })
  expect(share(a.functions)).toEqual({ hit: 1, all: 1 })
  expect(share(a.branches)).toEqual({ hit: 2, all: 2 })
  expect(missedLines(a)).toBe("2-3")
  expect(percent(share(a.lines))).toBe("50.0 %")
  expect(missedLines(coverage.get("b.c")!)).toBe("1")
})
