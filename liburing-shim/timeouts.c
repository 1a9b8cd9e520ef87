/*
 * timeouts.c - see timeouts.h. Every move of an entry is written to its slot, as ul_slot.link.
 */
#include "timeouts.h"

/* Puts an entry at its place, starting from the hole `at`. */
static void place(struct timeouts *t, struct ul_ring *ring, uint32_t at, struct due entry) {
  for (uint32_t up; at && t->heap[up = (at - 1) / 2].ns > entry.ns; at = up) {
    t->heap[at] = t->heap[up];
    ring->slots[t->heap[at].slot].link = at;
  }
  for (uint32_t down; (down = 2 * at + 1) < t->count; at = down) {
    if (down + 1 < t->count && t->heap[down + 1].ns < t->heap[down].ns)
      down++;
    if (t->heap[down].ns >= entry.ns)
      break;
    t->heap[at] = t->heap[down];
    ring->slots[t->heap[at].slot].link = at;
  }
  t->heap[at] = entry;
  ring->slots[entry.slot].link = at;
}

void timeouts_add(struct timeouts *t, struct ul_ring *ring, uint32_t slot, uint64_t due_ns) {
  place(t, ring, t->count++, (struct due){due_ns, slot});
}

void timeouts_remove(struct timeouts *t, struct ul_ring *ring, uint32_t slot) {
  uint32_t at = ring->slots[slot].link;
  struct due last = t->heap[--t->count];
  if (at != t->count)
    place(t, ring, at, last);
}
