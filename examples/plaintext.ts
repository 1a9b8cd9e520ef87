/**
 * The smallest HTTP server that curl and wrk accept: the same reply to every request. PORT picks the port (0: any),
 * URINGLOOP_ENGINE the engine.
 */
import { defaultReactor, listen, type Socket } from "../src/index.ts"

const REPLY = Buffer.from(
  "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!",
)
const HEAD_END = "\r\n\r\n"

/** Bytes of the head so far, when a request arrives in pieces; at most MAX_HEAD of them. */
type Partial = Buffer | undefined
const MAX_HEAD = 16 * 1024

function onData(socket: Socket<Partial>, chunk: Buffer): void {
  const bytes = socket.data === undefined ? chunk : Buffer.concat([socket.data, chunk])
  let from = 0
  for (let end = bytes.indexOf(HEAD_END); end >= 0; end = bytes.indexOf(HEAD_END, from)) {
    from = end + HEAD_END.length
    // A peer that sends requests and takes no replies is not worth a queue.
    if (socket.write(REPLY) < REPLY.length) {
      socket.terminate()
      return
    }
    if (isLast(bytes, end)) {
      socket.end()
      return
    }
  }
  socket.data = from < bytes.length ? bytes.subarray(from) : undefined
  if (bytes.length - from > MAX_HEAD) socket.terminate()
}

/** HTTP/1.0 clients such as `nc` and `ab` expect the connection to be closed. */
function isLast(bytes: Buffer, end: number): boolean {
  const lineEnd = bytes.indexOf("\r\n")
  return lineEnd >= 8 && lineEnd <= end && bytes.toString("latin1", lineEnd - 8, lineEnd) === "HTTP/1.0"
}

const listener = listen<Partial>({
  hostname: process.env.HOST ?? "127.0.0.1",
  port: Number(process.env.PORT ?? 3000),
  socket: { data: onData },
})

console.log(
  `plaintext (engine ${defaultReactor().engine}) listening on ${listener.hostname}:${listener.port}`,
)
if (defaultReactor().hostName === "owned") defaultReactor().run()
