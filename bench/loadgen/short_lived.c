/*
 * short_lived.c - connect, one request, its reply, close; `connections` of these at a time, until the time is
 * over. The client closes first, so the server never holds a port in TIME_WAIT.
 */
#include "loadgen.h"

#define EVENTS 256
#define NS     1000000000.0

/* Addresses that have no port left fail at once; more of them in a row than this, and the run stops. */
#define FAILURES_MAX 1000

static uint32_t opened, failures;
static int epoll;

/* The latency counts from before the socket is made. */
static void begin(struct connection *c) {
  while (failures < FAILURES_MAX) {
    uint64_t due = now_ns();
    if (connection_open(c, opened++)) {
      connection_request(c, due);
      if (connection_flush(c)) {
        epoll_watch(epoll, c);
        return;
      }
    }
    failures++;
  }
}

static void serve_short(struct connection *c, uint32_t events, uint64_t now) {
  if (c->unsent && !connection_flush(c)) {
    failures++;
    begin(c);
    return;
  }
  if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
    return;
  int64_t completed = connection_receive(c, now);
  if (completed == 0)
    return;
  failures = completed < 0 ? failures + 1 : 0;
  connection_close(c);
  begin(c);
}

void run_short(void) {
  struct connection *all = connections_allocate(options.connections, 1);
  epoll = epoll_make();
  uint64_t now = now_ns(), boundary = now + (uint64_t)(options.warmup * NS);
  bool measuring = false;
  for (uint32_t i = 0; i < options.connections; i++)
    begin(&all[i]);
  struct epoll_event events[EVENTS];
  while (failures < FAILURES_MAX &&
         !(measuring && options.requests && measured.requests >= options.requests)) {
    if (now >= boundary) {
      if (measuring)
        break;
      window_open();
      measuring = true;
      boundary = now + (uint64_t)(options.seconds * NS);
    }
    int count = epoll_wait_until(epoll, events, EVENTS, now, boundary);
    now = now_ns();
    for (int i = 0; i < count; i++)
      serve_short(events[i].data.ptr, events[i].events, now);
  }
  if (!measuring)
    window_open();
  window_close();
  for (uint32_t i = 0; i < options.connections; i++)
    connection_close(&all[i]);
}
