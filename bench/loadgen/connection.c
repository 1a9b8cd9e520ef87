/*
 * connection.c - one socket of the client: opening, sending, receiving, verifying. Every failure is counted
 * by kind here, once; the loops only need to know that a connection is lost.
 *
 * Source addresses are spread over 127.0.0.2 and up, so that short connections do not run out of ports: each
 * address has some 28,000, and a closed connection holds its own for a minute.
 */
#include "loadgen.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define RECEIVE_BYTES (1 << 16)
#define SAMPLE_BYTES  64            // checked at either end of a chunk when not all of it is
#define WAVE          128           // connections opened at a time: below any server's backlog
#define WAVE_NS       5000000000ull // for all of a wave to be answered

uint32_t connection_stamps;

struct connection *connections_allocate(uint32_t count, uint32_t outstanding) {
  for (connection_stamps = 1; connection_stamps < outstanding;)
    connection_stamps *= 2;
  struct connection *all = calloc(count ? count : 1, sizeof *all);
  uint64_t *stamps = calloc((size_t)count * connection_stamps + 1, sizeof *stamps);
  if (!all || !stamps)
    fail("out of memory");
  for (uint32_t i = 0; i < count; i++) {
    all[i].fd = -1;
    all[i].stamps = stamps + (size_t)i * connection_stamps;
  }
  return all;
}

static bool lose(struct connection *c, enum failure kind) {
  measured.errors[kind]++;
  connection_close(c);
  c->state = CONN_LOST;
  return false;
}

/* For a receive that ends the connection. */
static int64_t lose_received(struct connection *c, enum failure kind) {
  lose(c, kind);
  return -1;
}

static bool lose_by_errno(struct connection *c) {
  if (c->state == CONN_CONNECTING) {
    measured.connect_errno = errno;
    return lose(c, FAIL_CONNECT);
  }
  return lose(c, FAIL_RESET);
}

static int bind_source(int fd, uint32_t index) {
  int yes = 1;
  struct sockaddr_in from = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + index % options.sources)};
  if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes) < 0)
    return -1;
  return bind(fd, (struct sockaddr *)&from, sizeof from);
}

/* On loopback the handshake is done when connect returns, though it says EINPROGRESS: the caller may send at
 * once. */
bool connection_open(struct connection *c, uint32_t index) {
  uint64_t *stamps = c->stamps;
  *c = (struct connection){.stamps = stamps, .state = CONN_CONNECTING};
  c->send_place = c->check_place = options.kind == KIND_ECHO ? index * 7919 % (uint32_t)stream.period : 0;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd < 0 || (options.sources > 1 && bind_source(c->fd, index) < 0))
    return lose_by_errno(c);
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(options.port), .sin_addr = options.host};
  int yes = 1;
  if (options.mode != MODE_SHORT && setsockopt(c->fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &yes, sizeof yes) < 0)
    return lose_by_errno(c);
  if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
    return lose_by_errno(c);
  return true;
}

void connection_close(struct connection *c) {
  if (c->fd >= 0)
    close(c->fd);
  c->fd = -1;
  c->state = CONN_NONE;
}

/* Queues one request that was due at the given time; connection_flush sends it. */
void connection_request(struct connection *c, uint64_t due_ns) {
  c->unsent += stream.request_bytes;
  c->stamps[c->newest++ & (connection_stamps - 1)] = due_ns;
}

static void advance(uint32_t *place, size_t bytes) {
  size_t sum = *place + bytes;
  *place = (uint32_t)(sum < stream.period ? sum : sum % stream.period);
}

bool connection_flush(struct connection *c) {
  while (c->unsent) {
    size_t some = c->unsent < stream.window ? c->unsent : stream.window;
    ssize_t sent = send(c->fd, stream.bytes + c->send_place, some, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN || (errno == ENOTCONN && c->state == CONN_CONNECTING))
        return true;
      return errno == EINTR ? connection_flush(c) : lose_by_errno(c);
    }
    c->state = CONN_OPEN;
    advance(&c->send_place, (size_t)sent);
    c->unsent -= (size_t)sent;
    if ((size_t)sent < some)
      return true; // the socket is full: EPOLLOUT tells
  }
  return true;
}

/* Checks an echoed chunk against the stream: all of a short one, both ends of a long one unless --verify. */
static bool echo_right(struct connection *c, const uint8_t *chunk, size_t length) {
  const uint8_t *wanted = stream.bytes + c->check_place;
  bool right;
  if (options.verify || length <= 2 * SAMPLE_BYTES)
    right = memcmp(chunk, wanted, length) == 0;
  else
    right = memcmp(chunk, wanted, SAMPLE_BYTES) == 0 &&
            memcmp(chunk + length - SAMPLE_BYTES, wanted + length - SAMPLE_BYTES, SAMPLE_BYTES) == 0;
  advance(&c->check_place, length);
  return right;
}

/*
 * Checks replies against the one learned first. The head may vary in content (a date) but not in length, so
 * it is compared up to the status; the body byte for byte. By default only at the start of a chunk that
 * starts a reply.
 */
static bool reply_right(const struct connection *c, const uint8_t *chunk, size_t length) {
  size_t place = c->partial, at = 0;
  do {
    bool in_head = place < stream.reply_head_bytes;
    size_t part = (in_head ? stream.reply_head_bytes : stream.reply_bytes) - place;
    part = part < length - at ? part : length - at;
    size_t checked = !in_head ? part : place < 12 ? 12 - place : 0; // "HTTP/1.1 200"
    checked = checked < part ? checked : part;
    if (memcmp(chunk + at, stream.reply + place, checked) != 0)
      return false;
    at += part;
    place = (place + part) % stream.reply_bytes;
  } while (options.verify && at < length);
  return true;
}

/* Takes all there is, which is at most what the client itself has asked for. */
int64_t connection_receive(struct connection *c, uint64_t now) {
  static uint8_t chunk[RECEIVE_BYTES];
  int64_t completed = 0;
  for (;;) {
    ssize_t got = recv(c->fd, chunk, sizeof chunk, 0);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0 && errno == EAGAIN)
      return completed;
    if (got == 0)
      return lose_received(c, FAIL_CLOSED);
    if (got < 0)
      return lose_by_errno(c), -1;
    if (options.kind == KIND_ECHO && !echo_right(c, chunk, (size_t)got))
      return lose_received(c, FAIL_WRONG_BYTES);
    if (options.kind == KIND_HTTP && !reply_right(c, chunk, (size_t)got))
      return lose_received(c, FAIL_BAD_REPLY);
    measured.bytes += (uint64_t)got;
    for (c->partial += (uint64_t)got; c->partial >= stream.reply_bytes; c->partial -= stream.reply_bytes) {
      if (c->oldest == c->newest) // more came back than was sent
        return lose_received(c, FAIL_WRONG_BYTES);
      uint64_t due = c->stamps[c->oldest++ & (connection_stamps - 1)];
      histogram_add(&measured.latency, now > due ? now - due : 0, 1);
      measured.requests++;
      completed++;
    }
    if ((size_t)got < sizeof chunk)
      return completed; // drained: an edge comes with the next byte
  }
}

/* Blocks until the one outstanding request of c is answered, or the time is over. */
static void await_answer(struct connection *c, uint64_t deadline_ns) {
  while (c->state != CONN_LOST && connection_outstanding(c)) {
    uint64_t now = now_ns();
    struct pollfd poller = {.fd = c->fd, .events = c->unsent ? POLLOUT : POLLIN};
    if (poll(&poller, 1, now < deadline_ns ? (int)((deadline_ns - now) / 1000000) : 0) <= 0)
      lose(c, FAIL_TIMEOUT);
    else if (c->unsent)
      connection_flush(c);
    else
      connection_receive(c, now_ns());
  }
}

/*
 * Opens all connections, a wave at a time, with one request on each: an answer proves that the server has
 * accepted, so no backlog overflows and no timed window starts with connections still in the queue. A server
 * that leaves one unanswered gets no further wave.
 */
void connections_gather(struct connection *all, uint32_t count) {
  for (uint32_t first = 0; first < count && !measured.errors[FAIL_TIMEOUT]; first += WAVE) {
    uint32_t end = first + WAVE < count ? first + WAVE : count;
    uint64_t deadline_ns = now_ns() + WAVE_NS;
    for (uint32_t i = first; i < end; i++) {
      if (connection_open(&all[i], i)) {
        connection_request(&all[i], now_ns());
        connection_flush(&all[i]);
      }
    }
    for (uint32_t i = first; i < end; i++)
      await_answer(&all[i], deadline_ns);
  }
}
