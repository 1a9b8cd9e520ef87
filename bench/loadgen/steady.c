/*
 * steady.c - load over connections that stay open.
 *
 * Closed loop: each connection always has `depth` requests outstanding; a reply is followed by the next
 * request. Open loop: request i is due at start + i / rate, on connection i modulo their number, whatever the
 * server does. Its latency counts from when it was due, so a server that stalls is charged for all that
 * should have been sent meanwhile.
 */
#include "loadgen.h"

#include <stdlib.h>

#define EVENTS           256
#define OPEN_OUTSTANDING 1024    // per connection; a request beyond that waits, and its waiting counts
#define LATE_NS          1000000 // a request sent later than this after it was due: the client is at fault
#define NS               1000000000.0

static struct connection *all;
static uint32_t live;
static int epoll;

static void start(uint32_t outstanding) {
  all = connections_allocate(options.connections, outstanding);
  connections_gather(all, options.connections);
  epoll = epoll_make();
  for (uint32_t i = 0; i < options.connections; i++) {
    if (all[i].state == CONN_OPEN) {
      epoll_watch(epoll, &all[i]);
      live++;
    }
  }
  if (live == 0) {
    int status = report_exit_status(); // names the errors
    if (status == EXIT_WRONG)
      exit(status);
    fail("no connection could be opened");
  }
}

static void stop(void) {
  window_close();
  for (uint32_t i = 0; i < options.connections; i++)
    connection_close(&all[i]);
}

static bool enough(void) {
  return live == 0 || (options.requests && measured.requests >= options.requests);
}

/* One reply, one request: all that came in one chunk is answered with one send. */
static void serve_closed(struct connection *c, uint32_t events, uint64_t now) {
  int64_t completed = events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? connection_receive(c, now) : 0;
  for (int64_t i = 0; i < completed; i++)
    connection_request(c, now);
  if (completed < 0 || (c->unsent && !connection_flush(c)))
    live--;
}

void run_closed(void) {
  start(options.depth);
  uint64_t now = now_ns(), boundary = now + (uint64_t)(options.warmup * NS);
  bool measuring = false;
  for (uint32_t i = 0; i < options.connections; i++) {
    for (uint32_t d = 0; d < options.depth && all[i].state == CONN_OPEN; d++)
      connection_request(&all[i], now);
    if (all[i].state == CONN_OPEN && !connection_flush(&all[i]))
      live--;
  }
  struct epoll_event events[EVENTS];
  while (!(measuring && enough()) && live) {
    now = now_ns();
    if (now >= boundary) {
      if (measuring)
        break;
      window_open();
      measuring = true;
      boundary = now + (uint64_t)(options.seconds * NS);
    }
    int count = epoll_wait_until(epoll, events, EVENTS, now, boundary);
    now = now_ns();
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->state == CONN_OPEN)
        serve_closed(c, events[i].events, now);
    }
  }
  if (!measuring)
    window_open();
  stop();
}

/* Sends what is due. Returns the number of the first request that is not, or that has no room yet. */
static uint64_t send_due(uint64_t next, uint64_t start_ns, uint64_t now) {
  for (;; next++) {
    uint64_t due = start_ns + (uint64_t)((double)next * NS / options.rate);
    struct connection *c = &all[next % options.connections];
    if (due > now)
      return next;
    if (c->state != CONN_OPEN)
      continue;
    if (connection_outstanding(c) >= OPEN_OUTSTANDING)
      return next;
    measured.late_sends += now - due > LATE_NS;
    connection_request(c, due);
    if (!connection_flush(c) && --live == 0)
      return next;
  }
}

void run_open(void) {
  start(OPEN_OUTSTANDING);
  uint64_t start_ns = now_ns(), now = start_ns, next = 0;
  uint64_t boundary = start_ns + (uint64_t)(options.warmup * NS);
  bool measuring = false;
  struct epoll_event events[EVENTS];
  while (!(measuring && enough()) && live) {
    if (now >= boundary) {
      if (measuring)
        break;
      window_open();
      measuring = true;
      boundary = now + (uint64_t)(options.seconds * NS);
    }
    next = send_due(next, start_ns, now);
    uint64_t due = start_ns + (uint64_t)((double)next * NS / options.rate);
    // A due request that has no room yet must not turn this into a spin: a reply makes room.
    int count = epoll_wait_until(epoll, events, EVENTS, now, due > now && due < boundary ? due : boundary);
    now = now_ns();
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->state == CONN_OPEN && (connection_receive(c, now) < 0 || (c->unsent && !connection_flush(c))))
        live--;
    }
  }
  if (!measuring)
    window_open();
  stop();
}
