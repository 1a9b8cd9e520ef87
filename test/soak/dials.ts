// Clients inside the soak's server process, on the same reactor: promise-form connections with deadlines and aborts, handlers,
// and raw operations. Each task checks what it got; what it could not explain is `lost`.

import type { Connection, Listener, Reactor } from "../../src/index.ts"
import { pattern, Random, StreamCheck } from "../support/random.ts"

export interface DialCounts {
  tasks: number
  bytesChecked: number
  /** Faults of our own making: each must have exactly the outcome that is documented. */
  readsGivenUp: number
  writesGivenUp: number
  dialsAborted: number
  dialsTimedOut: number
  dialsRefused: number
  connectionsDestroyed: number
  operationsCancelled: number
  /** Dials that found no descriptor: a phase of EMFILE. */
  withoutDescriptor: number
  lost: number
  /** The first few. */
  troubles: string[]
}

const RUNNERS = 8
/** Between two tasks of a runner: some 200 tasks a second in all. */
const PAUSE_MS = 40
/** No task takes longer, whatever is stopped meanwhile. */
const TASK_LIMIT_MS = 600_000
const TROUBLES_KEPT = 10
const DEAF_MS = 60
/** More than two sockets and a connection's queue can hold. */
const TOO_MUCH = new Uint8Array(32_000_000)

class OutOfDescriptors extends Error {}

export class Dials {
  readonly counts: DialCounts = {
    tasks: 0,
    bytesChecked: 0,
    readsGivenUp: 0,
    writesGivenUp: 0,
    dialsAborted: 0,
    dialsTimedOut: 0,
    dialsRefused: 0,
    connectionsDestroyed: 0,
    operationsCancelled: 0,
    withoutDescriptor: 0,
    lost: 0,
    troubles: [],
  }
  private readonly reactor: Reactor
  private readonly ports: number[]
  private readonly random = new Random(Number(process.env.TEST_SEED ?? 1))
  /** Accepts, and does not read. */
  private readonly deaf: Listener
  private readonly closedPort: number
  private isStopping = false
  private running: Promise<unknown> = Promise.resolve()

  constructor(reactor: Reactor, echoPort: number, promisePort: number) {
    this.reactor = reactor
    this.ports = [echoPort, promisePort]
    this.deaf = reactor.listen({ hostname: "127.0.0.1", port: 0 })
    void this.serveDeaf()
    const closed = reactor.listen({ hostname: "127.0.0.1", port: 0 })
    this.closedPort = closed.port!
    closed.close()
  }

  start(): void {
    this.isStopping = false
    this.running = Promise.all(Array.from({ length: RUNNERS }, () => this.runTasks()))
  }

  async stop(): Promise<void> {
    this.isStopping = true
    await this.running
  }

  closeListener(): void {
    this.deaf.close()
  }

  private async serveDeaf(): Promise<void> {
    for await (const connection of this.deaf) {
      setTimeout(() => connection.destroy(), DEAF_MS)
    }
  }

  private async runTasks(): Promise<void> {
    const tasks: [string, () => Promise<void>][] = [
      ["reads given up", () => this.echoWithReadsGivenUp()],
      ["reads given up", () => this.echoWithReadsGivenUp()],
      ["handlers", () => this.echoWithHandlers()],
      ["dial aborted", () => this.dialAborted()],
      ["dial timed out", () => this.dialTimedOut()],
      ["dial refused", () => this.dialRefused()],
      ["write given up", () => this.writeGivenUp()],
      ["destroyed", () => this.destroyed()],
      ["cancelled", () => this.cancelled()],
    ]
    while (!this.isStopping) {
      const [name, task] = this.random.pick(tasks)
      await this.runTask(name, task)
      await Bun.sleep(this.random.integer(0, 2 * PAUSE_MS))
    }
  }

  private async runTask(name: string, task: () => Promise<void>): Promise<void> {
    const limit = Promise.withResolvers<never>()
    const timer = setTimeout(() => limit.reject(new Error("it did not come to its end")), TASK_LIMIT_MS)
    this.counts.tasks++
    try {
      await Promise.race([task(), limit.promise])
    } catch (error) {
      if (error instanceof OutOfDescriptors) this.counts.withoutDescriptor++
      else this.lose(`${name}: ${error instanceof Error ? error.stack : error}`)
    } finally {
      clearTimeout(timer)
    }
  }

  private lose(trouble: string): void {
    this.counts.lost++
    if (this.counts.troubles.length < TROUBLES_KEPT) this.counts.troubles.push(trouble)
  }

  private async dial(): Promise<Connection> {
    try {
      return await this.reactor.connect({ hostname: "127.0.0.1", port: this.random.pick(this.ports) })
    } catch (error) {
      throw describeDial(error)
    }
  }

  /** A read given up has taken nothing: the bytes all come, in order. */
  private async echoWithReadsGivenUp(): Promise<void> {
    const { random, counts } = this
    const connection = await this.dial()
    const seed = random.integer(0, 10_000)
    const total = 1 + random.size(60_000)
    const check = new StreamCheck(seed)
    await connection.write(pattern(seed, 0, total))
    await connection.shutdown()
    for (;;) {
      const options =
        random.next() < 0.5
          ? { timeoutMs: random.integer(1, 3) }
          : { signal: AbortSignal.timeout(random.integer(0, 3)) }
      try {
        const chunk = await connection.read(options)
        if (chunk === undefined) break
        check.take(chunk)
      } catch (error) {
        const { code, name } = error as Error & { code?: string }
        if (code !== "ETIMEDOUT" && name !== "TimeoutError") throw error
        counts.readsGivenUp++
        await Bun.sleep(5)
      }
    }
    check.expect(total)
    counts.bytesChecked += total
    await connection.close()
  }

  private async echoWithHandlers(): Promise<void> {
    const seed = this.random.integer(0, 10_000)
    const total = 1 + this.random.size(60_000)
    const check = new StreamCheck(seed)
    const closed = Promise.withResolvers<void>()
    try {
      await this.reactor.connect({
        hostname: "127.0.0.1",
        port: this.random.pick(this.ports),
        socket: {
          open: (socket) => void socket.write(pattern(seed, 0, total)),
          data(socket, chunk) {
            check.take(chunk)
            if (check.bytes >= total) socket.end()
          },
          close: (_socket, error) => (error === undefined ? closed.resolve() : closed.reject(error)),
        },
      })
    } catch (error) {
      throw describeDial(error)
    }
    await closed.promise
    check.expect(total)
    this.counts.bytesChecked += total
  }

  private async dialAborted(): Promise<void> {
    const controller = new AbortController()
    const reason = new Error("aborted by the soak")
    const dialled = this.reactor.connect({
      hostname: "127.0.0.1",
      port: this.random.pick(this.ports),
      signal: controller.signal,
    })
    const when = this.random.integer(0, 3)
    if (when === 0) controller.abort(reason)
    else if (when === 1) queueMicrotask(() => controller.abort(reason))
    else setTimeout(() => controller.abort(reason), when - 2)
    try {
      await (await dialled).close()
    } catch (error) {
      if (error !== reason) throw describeDial(error)
      this.counts.dialsAborted++
    }
  }

  private async dialTimedOut(): Promise<void> {
    try {
      // On loopback a connect is mostly faster; what comes first is welcome.
      const dialled = this.reactor.connect({ hostname: "127.0.0.1", port: this.ports[0], timeoutMs: 1 })
      await (await dialled).close()
    } catch (error) {
      if ((error as { code?: string }).code !== "ETIMEDOUT") throw describeDial(error)
      this.counts.dialsTimedOut++
    }
  }

  private async dialRefused(): Promise<void> {
    try {
      await this.reactor.connect({ hostname: "127.0.0.1", port: this.closedPort })
    } catch (error) {
      if ((error as { code?: string }).code !== "ECONNREFUSED") throw describeDial(error)
      this.counts.dialsRefused++
      return
    }
    throw new Error("a closed port took a connection")
  }

  /** The peer does not read: the write is given up, and the connection is closed with it. */
  private async writeGivenUp(): Promise<void> {
    let connection: Connection
    try {
      connection = await this.reactor.connect({ hostname: "127.0.0.1", port: this.deaf.port! })
    } catch (error) {
      throw describeDial(error)
    }
    try {
      await connection.write(TOO_MUCH, { timeoutMs: this.random.integer(1, 20) })
      throw new Error("32 MB went to a peer that does not read")
    } catch (error) {
      // The peer goes away soon after, so either may come first when this process was stopped.
      const { code } = error as { code?: string }
      if (code !== "ETIMEDOUT" && code !== "ECONNRESET" && code !== "EPIPE") throw error
      this.counts.writesGivenUp++
    }
    if (connection.isOpen) throw new Error("the connection of a write that was given up is open")
    connection.destroy()
    await connection.close()
  }

  private async destroyed(): Promise<void> {
    const connection = await this.dial()
    await connection.write(pattern(1, 0, 1 + this.random.size(300_000)))
    if (this.random.next() < 0.5) await Bun.sleep(this.random.integer(0, 3))
    connection.destroy()
    this.counts.connectionsDestroyed++
    await connection.close()
  }

  private async cancelled(): Promise<void> {
    const timer = this.reactor.timeout(60_000)
    const outcome = timer.then(
      () => "fired",
      (error) => (error as { code?: string }).code,
    )
    await Bun.sleep(this.random.integer(0, 2))
    const wasStopped = await this.reactor.cancel(timer)
    if (!wasStopped || (await outcome) !== "ECANCELED") {
      throw new Error(`a timer of a minute, cancelled: ${wasStopped}, ${await outcome}`)
    }
    this.counts.operationsCancelled++
  }
}

/** A dial that found no descriptor is a fault of the soak's own. */
function describeDial(error: unknown): unknown {
  const { code } = error as { code?: string }
  return code === "EMFILE" || code === "ENFILE" ? new OutOfDescriptors() : error
}
