// A fixed HTTP/1.1 reply to every request head, over plain sockets: what the loop costs under a protocol,
// without a parser. The same handlers on either loop.
//
//   CONTESTANT=bun|uringloop PORT=0 bun bench/servers/http.ts      prints `listening on 127.0.0.1:PORT`

import { type ServedSocket, serveSockets } from "./contestant.ts"

const REPLY = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
const REPLY_BYTES = REPLY.length
const ONE_REPLY = Buffer.from(REPLY)
/** Replies to a pipeline leave in one write from this. */
const REPLIES = 64
const MANY_REPLIES = Buffer.from(REPLY.repeat(REPLIES))

const CARRIAGE_RETURN = 13
const LINE_FEED = 10

interface Exchange {
  /** How much of "\r\n\r\n" the last chunk ended with: a head may be split anywhere. */
  matched: number
  /** Bytes of replies that the socket has not taken yet. Since all replies are alike, a count is enough. */
  owed: number
}

/**
 * Request heads that end in this chunk. The common chunk is exactly one head: the four bytes at its end decide
 * once no other end is inside, which one native search tells.
 */
function countHeads(exchange: Exchange, chunk: Buffer): number {
  if (exchange.matched === 0 && endsWithHead(chunk) && chunk.indexOf("\r\n\r\n") === chunk.length - 4)
    return 1
  let { matched } = exchange
  let heads = 0
  for (let i = 0; i < chunk.length; i++) {
    const byte = chunk[i]
    if (byte === (matched & 1 ? LINE_FEED : CARRIAGE_RETURN)) matched++
    else matched = byte === CARRIAGE_RETURN ? 1 : 0
    if (matched === 4) {
      matched = 0
      heads++
    }
  }
  exchange.matched = matched
  return heads
}

function endsWithHead(chunk: Buffer): boolean {
  const end = chunk.length
  return end >= 4 && chunk[end - 1] === LINE_FEED && chunk[end - 3] === LINE_FEED
}

function sendOwed(socket: ServedSocket<Exchange>): void {
  const exchange = socket.data
  while (exchange.owed > 0) {
    // A reply cut short goes on where it was cut; all of them end at a multiple of REPLY_BYTES.
    const sentOfFirst = (REPLY_BYTES - (exchange.owed % REPLY_BYTES)) % REPLY_BYTES
    const length = Math.min(exchange.owed, MANY_REPLIES.length - sentOfFirst)
    const taken = socket.write(MANY_REPLIES.subarray(sentOfFirst, sentOfFirst + length))
    if (taken < 0) return
    exchange.owed -= taken
    if (taken < length) return
  }
}

await serveSockets<Exchange>({
  open(socket) {
    socket.data = { matched: 0, owed: 0 }
  },
  data(socket, chunk) {
    const heads = countHeads(socket.data, chunk)
    if (heads === 0) return
    const wasFree = socket.data.owed === 0
    if (wasFree && heads === 1) {
      socket.data.owed = REPLY_BYTES - Math.max(0, socket.write(ONE_REPLY))
      return
    }
    socket.data.owed += heads * REPLY_BYTES
    if (wasFree) sendOwed(socket)
  },
  drain: sendOwed,
})
