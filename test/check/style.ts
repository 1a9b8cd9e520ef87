// The style check: rules of this project that no formatter or linter knows. Part of `make check`.
//
//   bun test/check/style.ts        lists every breach as `path:line: what is wrong`, exits 1 on any
//
// A rule is a function from one file (or from all) to breaches, so that style.test.ts can show of each
// that it fails when it should.

import { dirname, join, normalize } from "node:path"
import { Glob } from "bun"

/** A file as the rules see it. `path` is relative to the repository, with forward slashes. */
export interface SourceFile {
  path: string
  text: string
}

/** Longest file that is still one purpose. Tests and generated files are exempt. */
export const FILE_LINES_MAX = 450
export const README_LINES_MAX = 150
/** All of liburing-shim/*.c, three engines and the probe: an engine and what it stands on is one sitting. */
export const SHIM_LINES_MAX = 3050

/** Files that may be longer than FILE_LINES_MAX, each with the reason. An entry that is not needed fails too. */
export const LONG_FILES: Record<string, string> = {}

const GENERATED = new Set(["ffi/abi.ts", "package-lock.json"])
/** These two spell out what is forbidden. */
const EXEMPT_FROM_WORDS = new Set(["test/check/style.ts", "test/check/style.test.ts"])
const NAMELESS = new Set(["utils", "util", "helpers", "helper", "common", "manager", "data2"])

/**
 * The layers, lowest first. A file may import from its own room and from rooms on lower rows, never from
 * another room on its own row or from above.
 */
const LAYERS: string[][] = [
  ["src/errors.ts"],
  ["ffi"],
  ["src/reactor"],
  ["src/net"],
  ["src/http", "src/ws"],
  ["src/bun", "src/node", "src/deno"],
  ["src"],
]
/** The sim engine stands beside the engines: it may know the reactor, and only tests may know it. */
const TESTING = "src/testing"
const TESTING_MAY_IMPORT = new Set([TESTING, "src/reactor", "ffi", "src/errors.ts"])
const OUTSIDE_SOURCE = /^(cli|bench|test|examples)\//

/** Every breach in a set of files, as printable lines in order of path. */
export function checkFiles(files: SourceFile[], longFiles = LONG_FILES): string[] {
  const perFile = [
    nameRule,
    importRule,
    wordRule,
    headerRule,
    machinePathRule,
    lockfileRule,
    (file: SourceFile) => lengthRule(file, longFiles),
  ]
  const sorted = files.toSorted((a, b) => (a.path < b.path ? -1 : 1))
  const breaches = sorted.flatMap((file) => perFile.flatMap((rule) => rule(file)))
  return [...breaches, ...shimBudgetRule(sorted), ...longFileListRule(sorted, longFiles)]
}

/** Reads the repository's own text files; what was built or installed is not among them. */
export async function readRepository(root: string): Promise<SourceFile[]> {
  const files: SourceFile[] = []
  const glob = new Glob("**/*")
  for await (const path of glob.scan({ cwd: root, dot: true, onlyFiles: true })) {
    if (/(^|\/)(node_modules|build|\.git)\//.test(path)) continue
    if (!isText(path)) continue
    files.push({ path, text: await Bun.file(join(root, path)).text() })
  }
  return files
}

function isText(path: string): boolean {
  return (
    /\.(ts|js|mjs|c|h|sh|md|json|jsonc|toml|yml|yaml|txt|csv|svg|html)$/.test(path) ||
    /(^|\/)(Makefile|LICENSE|run|\.npmrc|\.gitignore|\.clang-format)$/.test(path)
  )
}

function nameRule({ path }: SourceFile): string[] {
  const words = path.toLowerCase().split(/[/._-]/)
  const bad = words.find((word) => NAMELESS.has(word))
  return bad === undefined ? [] : [`${path}: the name "${bad}" does not say what is inside`]
}

function importRule(file: SourceFile): string[] {
  if (!file.path.endsWith(".ts")) return []
  const breaches: string[] = []
  for (const { specifier, line } of importsOf(file.text)) {
    if (!specifier.startsWith(".")) continue
    const at = `${file.path}:${line}`
    if (!/\.(ts|json|so|txt|md|html)$/.test(specifier)) {
      breaches.push(`${at}: the import "${specifier}" needs its .ts`)
    }
    const target = normalize(join(dirname(file.path), specifier))
    const why = layerBreach(file.path, target)
    if (why !== "") breaches.push(`${at}: imports ${target}: ${why}`)
  }
  return breaches
}

/** Why one file may not import another, or "". */
function layerBreach(importer: string, target: string): string {
  const isTest = importer.endsWith(".test.ts") || importer.startsWith("test/")
  if (target.startsWith(`${TESTING}/`) && roomOf(importer) !== TESTING) {
    return isTest ? "" : "src/testing is for tests alone"
  }
  if (!/^(src|ffi)\//.test(importer)) return ""
  if (OUTSIDE_SOURCE.test(target)) {
    return isTest && target.startsWith("test/")
      ? ""
      : "src and ffi know nothing of cli, bench, test, examples"
  }
  const from = roomOf(importer)
  const to = roomOf(target)
  if (from === to) return ""
  if (from === TESTING) return TESTING_MAY_IMPORT.has(to) ? "" : "src/testing may know the reactor and below"
  return rankOf(to) < rankOf(from) ? "" : `layers: ${from} is not above ${to}`
}

function roomOf(path: string): string {
  if (path === "src/errors.ts" || path === "src/errors.test.ts") return "src/errors.ts"
  const match = /^(ffi|src\/\w+)\//.exec(path)
  return match === null ? "src" : match[1]!
}

function rankOf(room: string): number {
  const rank = LAYERS.findIndex((row) => row.includes(room))
  if (rank < 0) throw new Error(`test/check/style.ts: no layer is known for ${room}: add it to LAYERS`)
  return rank
}

function importsOf(text: string): { specifier: string; line: number }[] {
  const code = withoutComments(text)
  const imports: { specifier: string; line: number }[] = []
  for (const match of code.matchAll(/\b(?:from|import)\s*\(?\s*"([^"\n]+)"/g)) {
    imports.push({ specifier: match[1]!, line: lineAt(code, match.index) })
  }
  return imports
}

function wordRule({ path, text }: SourceFile): string[] {
  if (EXEMPT_FROM_WORDS.has(path) || GENERATED.has(path)) return []
  if (!/\.(ts|c|h|sh)$|(^|\/)(Makefile|run)$/.test(path)) return []
  const isTest = path.endsWith(".test.ts") || path.startsWith("test/")
  const code = /\.(ts|c|h)$/.test(path) ? withoutComments(text) : text
  return [
    ...matches(path, text, /\b(TODO|FIXME|XXX)\b|[Nn]ot implemented|@ts-(ignore|nocheck)/g),
    ...matches(path, code, /\bas any\b/g),
    ...(isTest ? matches(path, code, /\.(skip|todo)\(/g) : []),
  ].map((breach) => `${breach} must not stay in the repository`)
}

function headerRule({ path, text }: SourceFile): string[] {
  if (!/^(src|ffi|liburing-shim)\/.*\.(ts|c|h)$/.test(path) || path.endsWith(".test.ts")) return []
  const body = text.replace(/^#!.*\n/, "").trimStart()
  const header = /^(?:\/\/.*\n?)+|^\/\*[\s\S]*?\*\//.exec(body)?.[0] ?? ""
  const letters = header.replace(/[^\p{L}]/gu, "").length
  return letters >= 30 ? [] : [`${path}:1: begins without a paragraph that says what the file is`]
}

function machinePathRule({ path, text }: SourceFile): string[] {
  if (EXEMPT_FROM_WORDS.has(path)) return []
  return matches(path, text, /(?<![\w.~-])\/(work|root|home\/\w+)\/\w*/g).map(
    (breach) => `${breach} is a path of one machine`,
  )
}

function lockfileRule({ path, text }: SourceFile): string[] {
  if (path !== "package-lock.json") return []
  return matches(path, text, /"resolved"/g)
    .slice(0, 1)
    .map((breach) => `${breach} addresses name a registry`)
}

function lengthRule({ path, text }: SourceFile, longFiles: Record<string, string>): string[] {
  const lines = lineCount(text)
  if (path === "README.md") {
    return lines <= README_LINES_MAX ? [] : [`${path}: ${lines} lines, at most ${README_LINES_MAX}`]
  }
  if (!isMeasured(path) || path in longFiles || lines <= FILE_LINES_MAX) return []
  return [`${path}: ${lines} lines, at most ${FILE_LINES_MAX}: split it, or give a reason in LONG_FILES`]
}

function isMeasured(path: string): boolean {
  return /\.(ts|c|h|sh)$/.test(path) && !/\.test\.ts$|(^|\/)test\//.test(path) && !GENERATED.has(path)
}

function longFileListRule(files: SourceFile[], longFiles: Record<string, string>): string[] {
  return Object.entries(longFiles).flatMap(([path, reason]) => {
    if (reason.trim().length < 10) return [`${path}: stands in LONG_FILES without a reason`]
    const file = files.find((other) => other.path === path)
    const isLong = file !== undefined && lineCount(file.text) > FILE_LINES_MAX
    return isLong ? [] : [`${path}: stands in LONG_FILES but is not long (any more)`]
  })
}

function shimBudgetRule(files: SourceFile[]): string[] {
  const engines = files.filter(({ path }) => /^liburing-shim\/[^/]+\.c$/.test(path))
  const lines = engines.reduce((sum, file) => sum + lineCount(file.text), 0)
  return lines < SHIM_LINES_MAX ? [] : [`liburing-shim/*.c: ${lines} lines, the budget is ${SHIM_LINES_MAX}`]
}

/** `path:line: "what was found"` for each match. */
function matches(path: string, text: string, pattern: RegExp): string[] {
  return [...text.matchAll(pattern)].map((match) => `${path}:${lineAt(text, match.index)}: "${match[0]}"`)
}

/** Blanks // and block comments, keeping lines where they are. Strings stay: imports are read from them. */
function withoutComments(text: string): string {
  const tokens =
    /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|(?<!\\)\/\/[^\n]*|\/\*[\s\S]*?\*\//g
  return text.replace(tokens, (match) => (match.startsWith("/") ? match.replace(/[^\n]/g, " ") : match))
}

function lineAt(text: string, position: number): number {
  return text.slice(0, position).split("\n").length
}

function lineCount(text: string): number {
  return text.split("\n").length - (text.endsWith("\n") ? 1 : 0)
}

if (import.meta.main) {
  const breaches = checkFiles(await readRepository(join(import.meta.dir, "../..")))
  for (const breach of breaches) console.error(breach)
  if (breaches.length > 0) {
    console.error(`style: ${breaches.length} to put right`)
    process.exitCode = 1
  }
}
