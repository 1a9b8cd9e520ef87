/**
 * What a checker says when something does not hold that always must: docs/design.md, "What always holds".
 */
export class Violation extends Error {
  override name = "Violation"
}
