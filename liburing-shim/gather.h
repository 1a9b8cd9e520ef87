/*
 * gather.h - how many completion entries a wait asks for.
 *
 * A thread that is busy all the time finds a few completions at each look, because it looks so often: it
 * handles four, enters the kernel, finds the four that came meanwhile. Each look costs a system call, a tick
 * and a turn of TypeScript. Waiting for company makes the same work come in larger portions: up to
 * GATHER_MOST entries are waited for, for at most GATHER_WAIT_US (the kernel's min_wait_usec, 6.12).
 *
 * It must not cost a thread with time to spare its latency, nor peers that all wait for us their throughput:
 *
 *  - gathering begins when the thread has run for GATHER_ENTER percent of a window, and shrinks below
 *    GATHER_LEAVE; below GATHER_SATURATED percent only as many are waited for as come in GATHER_FORM_US;
 *  - it grows by a quarter a window, and shrinks by a quarter when in two windows less than GATHER_RATE
 * percent of the entries per second come that came without it; the next growth then waits for longer each
 * time;
 *  - after GATHER_AGAIN windows it begins anew, so that the comparison is never an old one.
 *
 * docs/decisions/gathering.md has the figures.
 */
#ifndef UL_GATHER_H
#define UL_GATHER_H

#include <stdbool.h>
#include <stdint.h>

#define GATHER_MOST      32      // entries
#define GATHER_WAIT_US   50      // for company, microseconds
#define GATHER_FORM_US   80      // microseconds
#define GATHER_WINDOW    32      // waits between two looks at the clocks, and
#define GATHER_WINDOW_NS 4000000 // nanoseconds, at least
#define GATHER_ENTER     85      // percent
#define GATHER_SATURATED 95      // percent
#define GATHER_LEAVE     70      // percent
#define GATHER_RATE      92      // percent
#define GATHER_HOLD_MOST 32      // windows
#define GATHER_AGAIN     256     // windows

struct gather {
  uint32_t want;              // entries to wait for; 0 or 1: whatever comes first
  uint32_t waits, entries;    // in this window
  uint32_t hold, hold_length; // windows to let pass before growing; how many it was the last time
  uint32_t windows;           // since it began anew
  bool was_bad;               // the last window was
  double plain_rate;          // entries per nanosecond without gathering
  uint32_t plain_percent;     // of the time that the thread ran then
  uint64_t began_ns, ran_ns;  // clocks at the beginning of the window
};

/* After a wait that brought `got` entries: whether to look at the clocks, and call gather_window. */
static inline bool gather_note(struct gather *g, uint32_t got) {
  g->entries += got;
  return ++g->waits % GATHER_WINDOW == 0;
}

/* The end of a window, if enough time has passed: `now_ns` of CLOCK_MONOTONIC, `ran_ns` of the thread's
 * clock.
 */
void gather_window(struct gather *g, uint64_t now_ns, uint64_t ran_ns);

#endif
