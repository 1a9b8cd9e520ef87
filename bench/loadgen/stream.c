/*
 * stream.c - the bytes of a run, laid out once so that sending is a pointer into a table and checking is a
 * memcmp.
 */
#include "loadgen.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ECHO_PERIOD   65521 // a prime: no message size divides it, so a lost or doubled message shows
#define WINDOW_BYTES  (1 << 18)
#define REPLY_LIMIT   (1 << 20)
#define LEARN_SECONDS 5

struct stream stream;

static void prepare_echo(void) {
  stream.period = ECHO_PERIOD;
  stream.window = WINDOW_BYTES;
  stream.request_bytes = stream.reply_bytes = options.size;
  stream.bytes = malloc(stream.period + stream.window);
  if (!stream.bytes)
    fail("out of memory");
  uint64_t state = 0x9e3779b97f4a7c15;
  for (size_t i = 0; i < stream.period + stream.window; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17; // xorshift64
    stream.bytes[i] = i < stream.period ? (uint8_t)(state >> 32) : stream.bytes[i - stream.period];
  }
}

static void prepare_requests(void) {
  char request[1024];
  int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                        options.path, (unsigned)options.port);
  if (length >= (int)sizeof request)
    fail("--path: too long (at most 900 bytes)");
  stream.request_bytes = (size_t)length;
  stream.period = stream.request_bytes;
  stream.window = WINDOW_BYTES;
  stream.bytes = malloc(stream.period + stream.window);
  if (!stream.bytes)
    fail("out of memory");
  for (size_t i = 0; i < stream.period + stream.window; i++)
    stream.bytes[i] = (uint8_t)request[i % stream.request_bytes];
}

/* The length of the body that a head announces. */
static size_t content_length(const char *head, const char *end) {
  for (const char *line = head; line < end; line = strchr(line, '\n') + 1)
    if (strncasecmp(line, "content-length:", 15) == 0)
      return strtoull(line + 15, NULL, 10);
  fail("the reply has no Content-Length: only replies of one fixed length can be counted");
}

/* One request over a connection of its own: its reply is what all others are counted and compared by. */
static void learn_reply(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct timeval patience = {.tv_sec = LEARN_SECONDS};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(options.port), .sin_addr = options.host};
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
    fail("cannot connect to port %u: %m", (unsigned)options.port);
  if (send(fd, stream.bytes, stream.request_bytes, MSG_NOSIGNAL) != (ssize_t)stream.request_bytes)
    fail("cannot send the first request: %m");
  stream.reply = malloc(REPLY_LIMIT + 1);
  if (!stream.reply)
    fail("out of memory");
  for (size_t have = 0;;) {
    ssize_t got = recv(fd, stream.reply + have, REPLY_LIMIT - have, 0);
    if (got <= 0)
      fail(got < 0 ? "no reply to the first request: %m"
                   : "the server closed before a whole reply, or it is over 1 MiB");
    stream.reply[have += (size_t)got] = 0;
    const char *end = strstr(stream.reply, "\r\n\r\n");
    if (!end)
      continue;
    stream.reply_head_bytes = (size_t)(end + 4 - stream.reply);
    stream.reply_bytes = stream.reply_head_bytes + content_length(stream.reply, end);
    if (have >= stream.reply_bytes)
      break;
  }
  close(fd);
  if (strncmp(stream.reply, "HTTP/1.1 200", 12) != 0)
    fail("the first reply is not HTTP/1.1 200 but %.24s", stream.reply);
}

void stream_prepare(void) {
  if (options.kind == KIND_ECHO) {
    prepare_echo();
    return;
  }
  prepare_requests();
  learn_reply();
}
