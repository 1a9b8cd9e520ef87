/**
 * Commands of a fault plan's own: cancellations underneath, delays, closes and wake-ups. They have the lowest slots of the
 * shim's table; those that find none free wait for one.
 */
import * as abi from "../../ffi/abi.ts"

/** Slots [0, OWN_SLOTS) of the shim's table are a plan's. */
export const OWN_SLOTS = 256

interface OwnCommand {
  op: number
  fd: number
  /** CANCEL: the target, as the shim knows it. */
  slot: number
  generation: number
  /** TIMEOUT: from now. */
  ns: number
  done: (() => void) | undefined
}

export class OwnCommands {
  private readonly queue: OwnCommand[] = []
  private readonly free: number[] = []
  private readonly underway = new Map<number, OwnCommand>()
  private generation = 0

  constructor() {
    for (let slot = OWN_SLOTS - 1; slot >= 0; slot--) this.free.push(slot)
  }

  /** Something waits or is in flight. */
  get isBusy(): boolean {
    return this.underway.size > 0 || this.queue.length > 0
  }

  close(fd: number): void {
    this.add({ op: abi.OP_CLOSE, fd })
  }

  /** Ends an operation of the shim's. */
  cancel(slot: number, generation: number): void {
    this.add({ op: abi.OP_CANCEL, slot, generation })
  }

  /** Calls back in the tick in which the time has passed; a sleeping host is woken. */
  delay(ns: number, done: () => void): void {
    this.add({ op: abi.OP_TIMEOUT, ns, done })
  }

  /** Calls back in the next tick; a sleeping host is woken. */
  wake(done: () => void): void {
    this.add({ op: abi.OP_NOP, done })
  }

  private add(command: Partial<OwnCommand>): void {
    this.queue.push({ op: 0, fd: -1, slot: 0, generation: 0, ns: 0, done: undefined, ...command })
  }

  /** Writes what waits. `place` gives the index of the next free record in `words`. */
  issue(words: Int32Array, place: () => number): void {
    while (this.queue.length > 0 && this.free.length > 0) {
      const command = this.queue.shift() as OwnCommand
      const slot = this.free.pop() as number
      const at = place()
      words[at] = command.op
      words[at + 1] = command.fd
      words[at + 2] = slot
      this.generation = (this.generation % 0x7fff_fffe) + 1
      words[at + 3] = this.generation
      words[at + 4] = command.slot
      words[at + 5] = command.generation
      words[at + 6] = command.ns % 0x1_0000_0000
      words[at + 7] = Math.floor(command.ns / 0x1_0000_0000)
      this.underway.set(slot, command)
    }
  }

  /** The command in one of our slots has completed. */
  completed(slot: number): void {
    const command = this.underway.get(slot)
    this.underway.delete(slot)
    this.free.push(slot)
    command?.done?.()
  }
}
