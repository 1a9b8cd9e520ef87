/**
 * What the reactor and its connections count themselves; the shim counts the rest. Every drop, retry, refusal and pause has
 * one, so that none is silent. All of them are raised on ways that are rare.
 */
export class Counters {
  /** Receives and accepts armed anew after an end that was not asked for. */
  rearms = 0
  /** Errors that a handler threw and nobody took. */
  uncaught = 0
  /** Commands for which there was no free operation. */
  operationsRefused = 0
  /** Writes, sends and connects that found no send memory. */
  sendMemoryRefused = 0
  /** Writes of which a queue took only a part. */
  writesCut = 0
  /** Connects that failed, were given up or refused. */
  connectsFailed = 0
  /** Connections that ended with an error. */
  connectionsFailed = 0
  /** Bytes received that no program was given: of connections that it had closed. */
  bytesDiscarded = 0
  /** Bytes taken from programs that were never sent: of connections that failed, or were closed at once. */
  bytesUnsent = 0
  /** Closed connections whose peer stopped taking data: the rest was given up. */
  lingersExpired = 0
  /** Receiving paused because a program did not read. */
  readPauses = 0
  /** Pauses of listeners that found no descriptor, memory or operation. */
  acceptPauses = 0
  /** Accepts that failed in another way: connections that were gone by then. */
  acceptsFailed = 0
  /** Connections accepted that no program heard of: its listener, or the reactor, was being closed. */
  connectionsUnasked = 0
  /** Pauses of listeners whose program did not ask for what was accepted. */
  acceptQueuePauses = 0
  /** Pauses of listeners at `maxConnections` or `acceptsPerSecond`, their own or the reactor's, or by overload. */
  acceptLimitPauses = 0
  /** Connections accepted and reset by overload. */
  connectionsRefused = 0
  /** Connections reset because they did not move while the reactor was overloaded. */
  connectionsReset = 0
  /** Debug mode: operations, deadlines and sockets reported as hanging. */
  hangsReported = 0
  /** Times that the reactor came to be overloaded. */
  overloads = 0
}
