/*
 * timeouts.h - the TIMEOUT operations of the epoll engine, which has no kernel to keep them: a binary heap of
 * slots, the one that is due first on top. While a slot is in here its link is its place in the heap, so that
 * a cancellation finds it at once.
 */
#ifndef UL_TIMEOUTS_H
#define UL_TIMEOUTS_H

#include "engine.h"

struct due {
  uint64_t ns; // CLOCK_MONOTONIC
  uint32_t slot;
};

struct timeouts {
  struct due *heap; // of slot_capacity entries
  uint32_t count;
};

static inline uint64_t timeouts_first_ns(const struct timeouts *t) {
  return t->count ? t->heap[0].ns : UL_NEVER;
}
void timeouts_add(struct timeouts *t, struct ul_ring *ring, uint32_t slot, uint64_t due_ns);
void timeouts_remove(struct timeouts *t, struct ul_ring *ring, uint32_t slot);

#endif
