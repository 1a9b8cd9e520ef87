/**
 * Descriptors that nobody holds any more and whose CLOSE found no free operation: it is asked for again when one has ended.
 */
import type { Flushable } from "./core.ts"

export class Unclosed implements Flushable {
  private readonly descriptors: number[] = []
  private readonly close: (fd: number) => boolean
  private readonly wait: (owner: Flushable) => void

  /**
   * @param close asks for the CLOSE of a descriptor; false when no operation is free
   * @param wait has `flushCommands` called once an operation has ended
   */
  constructor(close: (fd: number) => boolean, wait: (owner: Flushable) => void) {
    this.close = close
    this.wait = wait
  }

  get isEmpty(): boolean {
    return this.descriptors.length === 0
  }

  add(fd: number): void {
    this.descriptors.push(fd)
    this.flushCommands()
  }

  flushCommands(): void {
    while (this.descriptors.length > 0) {
      if (!this.close(this.descriptors.at(-1)!)) {
        this.wait(this)
        return
      }
      this.descriptors.pop()
    }
  }
}
