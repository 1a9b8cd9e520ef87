// Where a source file can be mutated, and how: from its syntax tree, so that strings, types and comments stay as they are.

import * as ast from "typescript/unstable/ast"
import { API } from "typescript/unstable/async"

export interface Mutation {
  /** Relative to the repository. */
  path: string
  line: number
  start: number
  end: number
  /** What stands at [start, end), and what is put there. */
  from: string
  to: string
  kind: string
}

const OPERATORS: Record<string, string> = {
  "===": "!==",
  "!==": "===",
  "<": "<=",
  ">": ">=",
  "<=": "<",
  ">=": ">",
  "+": "-",
  "-": "+",
  "*": "/",
  "/": "*",
  "%": "*",
  "&&": "||",
  "||": "&&",
  "&": "|",
  "|": "&",
  "<<": ">>",
  ">>": "<<",
  ">>>": "<<",
  "+=": "-=",
  "-=": "+=",
  "|=": "&=",
  "&=": "|=",
  "++": "--",
  "--": "++",
}

/** Every mutation of some files. */
export async function findMutations(root: string, paths: string[]): Promise<Mutation[]> {
  const api = new API({ cwd: root })
  try {
    const snapshot = await api.updateSnapshot({ openProjects: [`${root}/tsconfig.json`] })
    const [project] = snapshot.getProjects()
    const found: Mutation[] = []
    for (const path of paths) {
      const file = await project.program.getSourceFile(`${root}/${path}`)
      if (file === undefined) throw new Error(`${path} is not part of the program`)
      visit(file, file.text, path, found)
    }
    return found
  } finally {
    await api.close()
  }
}

function visit(node: ast.Node, text: string, path: string, found: Mutation[]): void {
  const at = (start: number, end: number, to: string, kind: string) => {
    const line = text.slice(0, start).split("\n").length
    found.push({ path, line, start, end, from: text.slice(start, end), to, kind })
  }
  const whole = (target: ast.Node): [number, number] => [startOf(target, text), target.end]
  const { SyntaxKind } = ast
  switch (node.kind) {
    case SyntaxKind.ImportDeclaration:
    case SyntaxKind.InterfaceDeclaration:
    case SyntaxKind.TypeAliasDeclaration:
      return
    case SyntaxKind.BinaryExpression: {
      const { operatorToken } = node as ast.BinaryExpression
      const [start, end] = whole(operatorToken)
      const swapped = OPERATORS[text.slice(start, end)]
      if (swapped !== undefined) at(start, end, swapped, "operator")
      break
    }
    case SyntaxKind.PostfixUnaryExpression:
    case SyntaxKind.PrefixUnaryExpression: {
      const { operand } = node as ast.PrefixUnaryExpression
      const isPrefix = node.kind === SyntaxKind.PrefixUnaryExpression
      const [start, end] = isPrefix ? [startOf(node, text), startOf(operand, text)] : [operand.end, node.end]
      const operator = text.slice(start, end)
      if (operator === "!" || operator === "~" || operator === "-") at(start, end, "", "operator")
      else if (OPERATORS[operator] !== undefined) at(start, end, OPERATORS[operator], "operator")
      break
    }
    case SyntaxKind.NumericLiteral: {
      const [start, end] = whole(node)
      const value = Number(text.slice(start, end).replaceAll("_", ""))
      at(start, end, value === 1 ? "0" : String(value + 1), "constant")
      break
    }
    case SyntaxKind.TrueKeyword:
      at(...whole(node), "false", "constant")
      break
    case SyntaxKind.FalseKeyword:
      at(...whole(node), "true", "constant")
      break
    case SyntaxKind.IfStatement:
    case SyntaxKind.WhileStatement: {
      const { expression } = node as ast.IfStatement
      const [start, end] = whole(expression)
      at(start, end, `!(${text.slice(start, end)})`, "condition")
      break
    }
    case SyntaxKind.ConditionalExpression: {
      const { condition } = node as ast.ConditionalExpression
      const [start, end] = whole(condition)
      at(start, end, `!(${text.slice(start, end)})`, "condition")
      break
    }
    case SyntaxKind.ExpressionStatement: {
      const [start, end] = whole(node)
      if (!text.startsWith("super(", start)) at(start, end, ";", "statement")
      break
    }
    case SyntaxKind.BreakStatement:
    case SyntaxKind.ReturnStatement:
      // A return with a value would often be a type error, which the checks find.
      if ((node as ast.ReturnStatement).expression === undefined) at(...whole(node), ";", "statement")
      break
    case SyntaxKind.ThrowStatement:
      return // what it says is not behaviour
  }
  node.forEachChild((child) => visit(child, text, path, found))
}

/** Behind the blanks and comments that belong to a node. */
function startOf(node: ast.Node, text: string): number {
  let at = node.pos
  for (;;) {
    const rest = text.slice(at)
    const skipped = /^(\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/)/.exec(rest)
    if (skipped === null) return at
    at += skipped[0].length
  }
}
