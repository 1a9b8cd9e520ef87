/*
 * clock.c - LD_PRELOADed: the date is a lie and jumps by a day with every look. The monotonic clock is the
 * kernel's. A look at the date out of the shim ends the process with a word about it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define DAY 86400

static time_t jump(void) {
  static atomic_long looks;
  long look = atomic_fetch_add(&looks, 1);
  return (look % 2 ? 1 : -1) * (look % 7) * DAY;
}

static void refuse_shim(const void *caller) {
  Dl_info where;
  if (dladdr(caller, &where) && where.dli_fname && strstr(where.dli_fname, "libshim")) {
    static const char said[] = "clock.c: the shim looks at the date\n";
    (void)!write(2, said, sizeof said - 1);
    _exit(66);
  }
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  long result = syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    refuse_shim(__builtin_return_address(0));
    time->tv_sec += jump();
  }
  return (int)result;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  (void)zone;
  struct timespec time;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &time);
  refuse_shim(__builtin_return_address(0));
  out->tv_sec = time.tv_sec + jump();
  out->tv_usec = time.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
  refuse_shim(__builtin_return_address(0));
  now.tv_sec += jump();
  if (out)
    *out = now.tv_sec;
  return now.tv_sec;
}
