// Makes ffi/abi.ts from liburing-shim/abi.h.
//
//   bun ffi/generate-abi.ts            writes ffi/abi.ts
//   bun ffi/generate-abi.ts --check    exits 1 when ffi/abi.ts is not what the header says
//   ... --header FILE --out FILE       other files, for the tests
//
// C is the only truth about values: names are found in the header's text, but every number comes out
// of a C program that includes the header and is compiled here. A name that is found wrongly does not
// compile; a number cannot be wrong.
//
// Names: UL_OP_NOP becomes OP_NOP; field `slot` of struct ul_command becomes COMMAND_SLOT, its byte
// offset; COMMAND_SIZE is the size of the record. Reserved fields and padding are left out.

import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join, resolve } from "node:path"

/** One exported constant: `expression` is what C is asked to print. */
interface Constant {
  name: string
  expression: string
  kind: "integer" | "text"
  doc: string
}

/** What belongs together in the header: one enum, one struct, or a run of #defines. */
interface Section {
  title: string
  position: number
  constants: Constant[]
}

/** A comment of the header, with where it stands (lines and columns from 0). */
interface Comment {
  startLine: number
  startColumn: number
  endLine: number
  afterCode: boolean
  text: string
}

/** The comment that belongs to the code between two positions. */
type DocAt = (start: number, end: number) => string

export class HeaderError extends Error {}

/** The text of ffi/abi.ts for a header file. Throws HeaderError when the header cannot be understood. */
export async function generateAbi(headerPath: string): Promise<string> {
  const sections = readHeader(await Bun.file(headerPath).text())
  const values = evaluate(headerPath, sections)
  return render(sections, values, basename(headerPath))
}

/** Every constant that a header defines, without its value. */
export function readHeader(source: string): Section[] {
  const { code, comments } = splitComments(source)
  const lineOf = lineIndex(code)
  const docAt: DocAt = (start, end) => docFor(lineOf(start), lineOf(end), comments)
  const sections = [...readEnums(code, docAt), ...readStructs(code, docAt), ...readDefines(code, docAt)]
  sections.sort((a, b) => a.position - b.position)
  const merged = mergeDefines(sections)
  refuseDuplicates(merged)
  return merged
}

function readEnums(code: string, docAt: DocAt): Section[] {
  const sections: Section[] = []
  for (const match of code.matchAll(/\benum\b\s*(\w*)\s*\{([^}]*)\}/g)) {
    const bodyStart = match.index + match[0].indexOf("{") + 1
    const constants: Constant[] = []
    for (const { text, position } of splitAtCommas(match[2]!, bodyStart)) {
      const name = /^\w+/.exec(text)?.[0]
      if (name === undefined) continue
      constants.push({
        name: withoutPrefix(name),
        expression: name,
        kind: "integer",
        doc: docAt(position, position + text.length),
      })
    }
    sections.push({ title: `enum ${match[1]}`.trim(), position: match.index, constants })
  }
  return sections
}

function readStructs(code: string, docAt: DocAt): Section[] {
  const sections: Section[] = []
  for (const match of code.matchAll(/\bstruct\s+(ul_\w+)[^;{}()=]*\{/g)) {
    const struct = match[1]!
    const prefix = withoutPrefix(struct.toUpperCase())
    const bodyStart = match.index + match[0].length
    const body = code.slice(bodyStart, closingBrace(code, bodyStart))
    const constants: Constant[] = [
      { name: `${prefix}_SIZE`, expression: `sizeof(struct ${struct})`, kind: "integer", doc: "bytes" },
    ]
    // A declaration: a type, then names with optional array bounds. Braces of anonymous unions separate too.
    for (const declaration of body.matchAll(/[^;{}]+;/g)) {
      const parts = /^\s*(.*?)\s*\b(\w+\s*(?:\[[^\]]*\]\s*)*(?:,\s*\w+\s*(?:\[[^\]]*\]\s*)*)*);$/s.exec(
        declaration[0],
      )
      if (parts === null || parts[1] === "") continue
      const nameStart = bodyStart + declaration.index + declaration[0].lastIndexOf(parts[2]!)
      for (const { text, position } of splitAtCommas(parts[2]!, nameStart)) {
        const field = /^\w+/.exec(text)![0]
        if (/^_|^(pad|padding|reserved)\d*$/.test(field)) continue
        const bounds = text.slice(field.length).trim()
        constants.push({
          name: `${prefix}_${field.toUpperCase()}`,
          expression: `offsetof(struct ${struct}, ${field})`,
          kind: "integer",
          doc: [`${parts[1]!.replace(/\s+/g, " ")}${bounds}`, docAt(position, position + text.length)]
            .filter(Boolean)
            .join(": "),
        })
      }
    }
    sections.push({ title: `struct ${struct}`, position: match.index, constants })
  }
  return sections
}

function readDefines(code: string, docAt: DocAt): Section[] {
  const sections: Section[] = []
  for (const match of code.matchAll(/^[ \t]*#[ \t]*define[ \t]+(\w+)(\(?)((?:\\\n|[^\n])*)/gm)) {
    const [, name, parenthesis, rest] = match as unknown as [string, string, string, string]
    const value = rest.replaceAll("\\\n", " ").trim()
    // An include guard, a function-like macro, or an attribute holds no constant.
    if (parenthesis === "(" || value === "" || value.includes("__attribute__")) continue
    const kind = value.startsWith('"') ? "text" : "integer"
    sections.push({
      title: "constants",
      position: match.index,
      constants: [
        {
          name: withoutPrefix(name),
          expression: name,
          kind,
          doc: docAt(match.index, match.index + match[0].trimEnd().length),
        },
      ],
    })
  }
  return sections
}

/** Neighbouring #defines become one section. */
function mergeDefines(sections: Section[]): Section[] {
  const merged: Section[] = []
  for (const section of sections) {
    const last = merged.at(-1)
    if (last?.title === "constants" && section.title === "constants") {
      last.constants.push(...section.constants)
    } else {
      merged.push(section)
    }
  }
  return merged
}

function refuseDuplicates(sections: Section[]): void {
  const seen = new Map<string, string>()
  for (const { name, expression } of sections.flatMap((section) => section.constants)) {
    const other = seen.get(name)
    if (other !== undefined) {
      throw new HeaderError(`${other} and ${expression} would both be called ${name}: rename one`)
    }
    seen.set(name, expression)
  }
}

function withoutPrefix(name: string): string {
  if (!name.startsWith("UL_")) throw new HeaderError(`${name}: names in this header begin with UL_ or ul_`)
  return name.slice("UL_".length)
}

/** Splits a list at its commas, outside parentheses; each part with the position of its first character. */
function splitAtCommas(list: string, start: number): { text: string; position: number }[] {
  const parts: { text: string; position: number }[] = []
  let depth = 0
  let from = 0
  for (let i = 0; i <= list.length; i++) {
    const character = list[i]
    if (character === "(") depth++
    if (character === ")") depth--
    if ((character === "," && depth === 0) || i === list.length) {
      const text = list.slice(from, i)
      parts.push({ text: text.trim(), position: start + from + (text.length - text.trimStart().length) })
      from = i + 1
    }
  }
  return parts
}

function closingBrace(code: string, from: number): number {
  let depth = 1
  for (let i = from; i < code.length; i++) {
    if (code[i] === "{") depth++
    if (code[i] === "}" && --depth === 0) return i
  }
  throw new HeaderError("a brace is not closed")
}

function lineIndex(text: string): (position: number) => number {
  const starts = [0]
  for (let i = 0; i < text.length; i++) if (text[i] === "\n") starts.push(i + 1)
  return (position) => starts.findLastIndex((start) => start <= position)
}

/** Blanks the comments out, keeping every other character where it is, and lists them. */
function splitComments(source: string): { code: string; comments: Comment[] } {
  const comments: Comment[] = []
  const lineOf = lineIndex(source)
  const code = source.replace(
    /"(?:\\.|[^"\\\n])*"|\/\/[^\n]*|\/\*[\s\S]*?\*\//g,
    (match, position: number) => {
      if (match.startsWith('"')) return match
      const lineStart = source.lastIndexOf("\n", position - 1) + 1
      comments.push({
        startLine: lineOf(position),
        startColumn: position - lineStart,
        endLine: lineOf(position + match.length - 1),
        afterCode: source.slice(lineStart, position).trim() !== "",
        text: match
          .replace(/^\/\/[/!<]*|^\/\*[*!<]*|\*\/$/g, "")
          .replace(/\s*\n\s*\*?\s*/g, " ")
          .trim(),
      })
      return match.replace(/[^\n]/g, " ")
    },
  )
  return { code, comments }
}

/**
 * The comment that belongs to some lines: the one behind their code, with the lines it runs on to (clang-format
 * breaks long ones, at the same column), or else the comment that ends on the line above.
 */
function docFor(startLine: number, endLine: number, comments: Comment[]): string {
  const first = comments.findIndex((comment) => comment.startLine === endLine && comment.afterCode)
  if (first >= 0) {
    const texts = [comments[first]!.text]
    for (let i = first + 1; i < comments.length; i++) {
      const previous = comments[i - 1]!
      const next = comments[i]!
      const continues =
        !next.afterCode &&
        next.startLine === previous.endLine + 1 &&
        next.startColumn === previous.startColumn
      if (!continues) break
      texts.push(next.text)
    }
    return texts.join(" ")
  }
  const above = comments.findLast((comment) => comment.endLine === startLine - 1)
  if (above === undefined || above.afterCode || belongsToLineAbove(above, comments)) return ""
  return above.text
}

/** Whether a comment on a line of its own only continues the one behind the code above it. */
function belongsToLineAbove(comment: Comment, comments: Comment[]): boolean {
  const previous = comments.find((other) => other.endLine === comment.startLine - 1)
  if (previous === undefined || previous.startColumn !== comment.startColumn) return false
  return previous.afterCode || belongsToLineAbove(previous, comments)
}

/** Asks the compiler for every value. */
function evaluate(headerPath: string, sections: Section[]): Map<string, string> {
  const directory = mkdtempSync(join(tmpdir(), "uringloop-abi-"))
  try {
    const program = join(directory, "print")
    const lines = sections
      .flatMap((section) => section.constants)
      .map(
        ({ name, expression, kind }) =>
          `  ${kind === "text" ? "TEXT" : "INTEGER"}(${name}, (${expression}));`,
      )
    const source = `#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include "${resolve(headerPath)}"
#define INTEGER(name, value) ((value) < 0 ? printf("%s %" PRId64 "\\n", #name, (int64_t)(value)) \\
                                          : printf("%s %" PRIu64 "\\n", #name, (uint64_t)(value)))
#define TEXT(name, value) printf("%s \\"%s\\"\\n", #name, value)
int main(void) {
${lines.join("\n")}
  return 0;
}
`
    const compiler = Bun.spawnSync(["gcc", "-std=gnu11", "-x", "c", "-o", program, "-"], {
      stdin: Buffer.from(source),
      stderr: "pipe",
    })
    if (!compiler.success) {
      throw new HeaderError(`gcc refused what was read from ${basename(headerPath)}:\n${compiler.stderr}`)
    }
    const output = Bun.spawnSync([program]).stdout.toString().trim()
    return new Map(
      output.split("\n").map((line) => {
        const space = line.indexOf(" ")
        return [line.slice(0, space), line.slice(space + 1)] as const
      }),
    )
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function render(sections: Section[], values: Map<string, string>, headerName: string): string {
  const lines = [
    `// The layout of the records that pass between TypeScript and the shim, and their constants.`,
    `// Made from liburing-shim/${headerName} by ffi/generate-abi.ts (\`make abi\`): change the header, not this file.`,
  ]
  for (const { title, constants } of sections) {
    if (constants.length === 0) continue
    lines.push("", `// ${title}`)
    for (const { name, kind, doc } of constants) {
      const value = values.get(name)
      if (value === undefined) throw new HeaderError(`the C program printed nothing for ${name}`)
      if (doc !== "") lines.push(`/** ${doc.replaceAll("*/", "* /")} */`)
      lines.push(`export const ${name} = ${kind === "text" ? value : literal(value)}`)
    }
  }
  return `${lines.join("\n")}\n`
}

/** A number where a double holds it exactly, a bigint beyond. */
function literal(value: string): string {
  return Number.isSafeInteger(Number(value)) ? value : `${value}n`
}

async function main(args: string[]): Promise<number> {
  const option = (name: string, fallback: string) => {
    const at = args.indexOf(name)
    return at < 0 ? fallback : args[at + 1]!
  }
  const root = dirname(import.meta.dir)
  const header = option("--header", join(root, "liburing-shim/abi.h"))
  const out = option("--out", join(root, "ffi/abi.ts"))
  const text = await generateAbi(header)
  const file = Bun.file(out)
  const present = (await file.exists()) ? await file.text() : ""
  if (args.includes("--check")) {
    if (present === text) return 0
    console.error(`ffi/abi.ts is not what liburing-shim/abi.h says${firstDifference(present, text)}
Run: make abi`)
    return 1
  }
  if (present !== text) await Bun.write(out, text)
  return 0
}

function firstDifference(present: string, wanted: string): string {
  if (present === "") return ": it does not exist."
  const have = present.split("\n")
  const want = wanted.split("\n")
  const line = want.findIndex((text, i) => text !== have[i])
  if (line < 0) return `: it has lines too many, from line ${want.length + 1}.`
  return `, first in line ${line + 1}:\n  file:   ${have[line] ?? ""}\n  header: ${want[line]}`
}

if (import.meta.main) {
  try {
    process.exitCode = await main(process.argv.slice(2))
  } catch (error) {
    if (!(error instanceof HeaderError)) throw error
    console.error(error.message)
    process.exitCode = 1
  }
}
