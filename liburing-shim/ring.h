/*
 * ring.h - an io_uring instance as both ring engines use it: opened with the best flags the kernel takes,
 * entered with one system call that submits, runs deferred work and waits. Also the two things that the
 * engine itself keeps in the ring: the timer that bounds a wait, and the poll on the runtime's own epoll
 * descriptor.
 *
 * user_data, as drawn from the top bit:
 *
 *   | generation (32) | slot (32) |        slot >= UL_MAX_SLOTS: the engine's own, told apart by ring_own
 */
#ifndef UL_RING_H
#define UL_RING_H

#include "engine.h"

#include <liburing.h>

/* Slots that no command can name: operations of the engine itself. */
enum ring_own {
  RING_OWN_TIMER = UL_MAX_SLOTS + 1, // bounds a wait
  RING_OWN_HOST = UL_MAX_SLOTS + 2,  // multishot poll on the runtime's epoll descriptor
  RING_OWN_NOTE = UL_MAX_SLOTS + 3,  // updates and removals of the two above: the answer does not matter
};

/* What must stay in memory until its submission entry has been taken by the kernel. */
union ring_scratch {
  struct sockaddr_storage address;
  struct __kernel_timespec time;
};

struct ring {
  struct io_uring uring;
  union ring_scratch *scratch; // one per submission entry
  uint32_t features;
  bool timer_armed, host_armed, host_removing;
  double timer_due_ms;
  struct __kernel_timespec timer;
};

static inline uint64_t ring_user_data(uint32_t slot, uint32_t generation) {
  return (uint64_t)generation << 32 | slot;
}
static inline uint32_t ring_slot(uint64_t user_data) {
  return (uint32_t)user_data;
}
static inline uint32_t ring_generation(uint64_t user_data) {
  return (uint32_t)(user_data >> 32);
}

/* Opens with the features that the kernel has and config->disable leaves. 0 or -errno with config->reason. */
int ring_open(struct ring *r, struct ul_ring *ring, struct ul_config *config);
void ring_close(struct ring *r);
/* A free submission entry; submits first when the queue is full. NULL when the kernel takes nothing now. */
struct io_uring_sqe *ring_sqe(struct ring *r, struct ul_ring *ring);
union ring_scratch *ring_scratch_of(struct ring *r, const struct io_uring_sqe *sqe);
/* Submits everything and waits for `want` completion entries. 0 or -errno; an interrupted or busy kernel is
 * 0. */
int ring_enter(struct ring *r, struct ul_ring *ring, unsigned want);
/* Everything staged has been taken by the kernel. */
bool ring_submitted(struct ring *r);
/* Before a wait: sees to it that it ends within wait_ns, and when the host descriptor becomes readable. */
void ring_bound_wait(struct ring *r, struct ul_ring *ring, double wait_ns);
/* Takes an entry whose slot is >= UL_MAX_SLOTS. */
void ring_own_completion(struct ring *r, struct ul_ring *ring, const struct io_uring_cqe *cqe);
int ring_notify(struct ring *r, struct ul_ring *ring, bool on);
/* Stages the operations that need nothing but the ring. Returns false for the others. */
bool ring_stage_common(struct ring *r, struct ul_ring *ring, const struct ul_command *command);

static inline bool ring_has_completions(struct ring *r) {
  return io_uring_smp_load_acquire(r->uring.cq.ktail) != *r->uring.cq.khead;
}

#endif
