#!/usr/bin/env bun
/**
 * The `uringloop` command: reads which command is meant, and leaves the rest to it. Exit status 2: called wrongly.
 */
import { doctor } from "./doctor.ts"
import { version } from "./version.ts"

interface Command {
  summary: string
  options: string[]
  /** Returns the exit status. */
  run(options: Set<string>): number
}

const commands: Record<string, Command> = {
  doctor: {
    summary: "what this kernel and this process allow, and which engine `auto` takes (--json for programs)",
    options: ["--json"],
    run: (options) => doctor(options.has("--json")),
  },
  help: { summary: "this text", options: [], run: help },
  version: { summary: "the version of uringloop", options: [], run: printVersion },
}

/** As people type them. */
const aliases: Record<string, string> = {
  "--help": "help",
  "-h": "help",
  "--version": "version",
  "-v": "version",
}

function help(): number {
  const lines = Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(8)}  ${summary}`)
  console.log(["usage: uringloop COMMAND [OPTION]", "", ...lines].join("\n"))
  return 0
}

function printVersion(): number {
  console.log(version)
  return 0
}

function misuse(message: string): number {
  console.error(`uringloop: ${message}`)
  return 2
}

function main(args: string[]): number {
  const [given, ...options] = args
  const allowed = Object.keys(commands).join(", ")
  if (given === undefined) return misuse(`no command given: it must be one of ${allowed}`)
  const name = aliases[given] ?? given
  if (!Object.hasOwn(commands, name))
    return misuse(`unknown command "${given}": it must be one of ${allowed}`)
  const command = commands[name]
  const unknown = options.find((option) => !command.options.includes(option))
  if (unknown === undefined) return command.run(new Set(options))
  const takes = command.options.length === 0 ? "takes none" : `takes ${command.options.join(", ")}`
  return misuse(`unknown option "${unknown}": ${name} ${takes}`)
}

process.exitCode = main(process.argv.slice(2))
