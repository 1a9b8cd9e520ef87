/**
 * Who holds which open descriptor, so that closing the reactor can close them all.
 */

/** Holds an open descriptor; the reactor has it closed when it is closed itself. */
export interface DescriptorOwner {
  /** Gives up at once: cancel, and close without waiting for the peer. Must not throw. */
  abandon(): void
  /** A connection: ends it with a reset, because the reactor is overloaded and nothing moves on it. */
  resetByOverload?(): void
  /** A connection: bytes written and not taken by the kernel. */
  readonly unsentBytes?: number
}

export function isDescriptorOwner(owner: object): boolean {
  return "abandon" in owner
}

/** Indexed by descriptor: eight bytes each, since descriptors are small and dense. */
export class DescriptorTable {
  private readonly owners: (DescriptorOwner | undefined)[] = []
  private count = 0

  /** Descriptors held. */
  get open(): number {
    return this.count
  }

  add(fd: number, owner: DescriptorOwner): void {
    while (this.owners.length <= fd) this.owners.push(undefined)
    if (this.owners[fd] === undefined) this.count++
    this.owners[fd] = owner
  }

  /** The descriptor's CLOSE has been asked for. Does nothing when nobody holds it. */
  remove(fd: number): void {
    if (this.owners[fd] === undefined) return
    this.owners[fd] = undefined
    this.count--
  }

  ownerOf(fd: number): DescriptorOwner | undefined {
    return this.owners[fd]
  }

  forEachOpen(visit: (fd: number, owner: DescriptorOwner) => void): void {
    this.owners.forEach((owner, fd) => {
      if (owner !== undefined) visit(fd, owner)
    })
  }

  /** Everybody who holds one now. */
  all(): DescriptorOwner[] {
    return this.owners.filter((owner) => owner !== undefined)
  }
}
