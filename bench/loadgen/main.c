/*
 * main.c - the clocks, the epoll instance, the measured window, and the choice of the load.
 */
#include "loadgen.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#define EXIT_CANNOT 3 // the run could not be made at all
#define SPARE_FILES 64

struct measurement measured;

void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("loadgen: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(EXIT_CANNOT);
}

static uint64_t clock_ns(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

uint64_t now_ns(void) {
  return clock_ns(CLOCK_MONOTONIC);
}

void window_open(void) {
  measured.requests = measured.bytes = measured.late_sends = measured.spun_ns = 0;
  histogram_clear(&measured.latency);
  measured.server_start = server_usage_read(options.server_pid, false);
  measured.client_cpu_start_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  measured.start_ns = now_ns();
}

void window_close(void) {
  measured.end_ns = now_ns();
  measured.client_cpu_end_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  measured.server_end = server_usage_read(options.server_pid, false);
  if (options.server_pid) {
    struct server_usage memory = server_usage_read(options.server_pid, true);
    measured.server_end.rss_bytes = memory.rss_bytes;
    measured.server_end.anonymous_bytes = memory.anonymous_bytes;
  }
}

int epoll_make(void) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0)
    fail("epoll_create1: %m");
  return epoll;
}

/* Both directions and edge-triggered, so that nothing is ever changed again: the kernel drops it with the
 * socket. */
void epoll_watch(int epoll, struct connection *c) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
    fail("epoll_ctl: %m");
}

int epoll_wait_until(int epoll, struct epoll_event *events, int limit, uint64_t now, uint64_t until_ns) {
  uint64_t left = until_ns > now && !options.spin ? until_ns - now : 0;
  struct timespec timeout = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
  int count = epoll_pwait2(epoll, events, limit, &timeout, NULL);
  if (count < 0 && errno != EINTR)
    fail("epoll_pwait2: %m");
  if (count == 0 && options.spin)
    measured.spun_ns += now_ns() - now;
  return count < 0 ? 0 : count;
}

static void raise_file_limit(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (options.connections + SPARE_FILES > limit.rlim_cur)
    fail("--connections: at most %lu here (RLIMIT_NOFILE)", (unsigned long)limit.rlim_cur - SPARE_FILES);
}

int main(int argc, char **argv) {
  options_parse(argc, argv);
  raise_file_limit();
  prctl(PR_SET_TIMERSLACK, 1UL); // the open loop wakes when a request is due, not 50 us later
  if (options.server_pid && !server_usage_read(options.server_pid, true).known)
    fail("--server-pid: cannot read /proc/%d", options.server_pid);
  stream_prepare();
  static void (*const run[])(void) = {[MODE_CLOSED] = run_closed,
                                      [MODE_OPEN] = run_open,
                                      [MODE_SHORT] = run_short,
                                      [MODE_IDLE] = run_idle,
                                      [MODE_BURST] = run_burst};
  run[options.mode]();
  report_print();
  return report_exit_status();
}
