/*
 * gathering.c - many connections that do little.
 *
 *   - idle: opens all of them a wave at a time with one request on each, then holds them for `seconds`. The
 *     window is the holding; the server's memory is read before the first connection and at its end.
 *   - burst: opens all of them at once, one request on each; the window ends with the last answer.
 */
#include "loadgen.h"

#include <time.h>

#define EVENTS 1024
#define NS     1000000000.0

static void hold(uint64_t until_ns) {
  struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                           .tv_nsec = (long)(until_ns % 1000000000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
    continue;
}

/* Requests and latencies of the opening are kept; the window holds only the clocks and the memory of the
 * holding. */
void run_idle(void) {
  struct connection *all = connections_allocate(options.connections, 1);
  struct server_usage before = server_usage_read(options.server_pid, true);
  connections_gather(all, options.connections);
  hold(now_ns() + (uint64_t)(options.warmup * NS));
  uint64_t requests = measured.requests;
  struct histogram latency = measured.latency;
  window_open();
  hold(measured.start_ns + (uint64_t)(options.seconds * NS));
  window_close();
  measured.requests = requests;
  measured.latency = latency;
  measured.server_before = before;
  for (uint32_t i = 0; i < options.connections; i++)
    connection_close(&all[i]);
}

static bool advance(struct connection *c, uint32_t events, uint64_t now) {
  if (c->unsent && !connection_flush(c))
    return true;
  return events & (EPOLLIN | EPOLLHUP | EPOLLERR) && connection_receive(c, now) != 0;
}

void run_burst(void) {
  struct connection *all = connections_allocate(options.connections, 1);
  int epoll = epoll_make();
  uint64_t now = now_ns(), deadline = now + (uint64_t)(options.seconds * NS);
  uint32_t waiting = options.connections;
  window_open();
  for (uint32_t i = 0; i < options.connections; i++) {
    struct connection *c = &all[i];
    if (connection_open(c, i)) {
      connection_request(c, now);
      if (connection_flush(c)) {
        epoll_watch(epoll, c);
        continue;
      }
    }
    waiting--;
  }
  struct epoll_event events[EVENTS];
  for (now = now_ns(); waiting && now < deadline;) {
    int count = epoll_wait_until(epoll, events, EVENTS, now, deadline);
    now = now_ns();
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->state != CONN_LOST && connection_outstanding(c) && advance(c, events[i].events, now))
        waiting--;
    }
  }
  window_close();
  measured.errors[FAIL_TIMEOUT] += waiting;
  for (uint32_t i = 0; i < options.connections; i++)
    connection_close(&all[i]);
}
