/*
 * ring.h - an io_uring instance as both ring engines use it: opened with the best flags the kernel takes,
 * entered with one system call that submits, runs deferred work and waits. Also the two things that the
 * engine itself keeps in the ring: the timer that bounds a wait, and the poll on the runtime's own epoll
 * descriptor.
 *
 * Under memory pressure the kernel takes no entries for a while. Then nothing fails and nothing is lost: what
 * found no place in the queue is kept here, in order, and prepared again at the next harvest.
 *
 * user_data, as drawn from the top bit:
 *
 *   | generation (32) | slot (32) |        slot >= UL_MAX_SLOTS: the engine's own, told apart by ring_own
 */
#ifndef UL_RING_H
#define UL_RING_H

#include "engine.h"
#include "gather.h"

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
  uint32_t kept_head, kept_tail; // slots that found no submission entry: index + 1, through ul_slot.link
  bool timer_armed, host_armed, host_removing;
  double timer_due_ms;
  struct __kernel_timespec timer;
  struct gather gather;
  bool prompt; // something staged completes by itself, and somebody waits for it: no gathering in this tick
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
/* Before the first entry, once everything is registered: from here on the kernel refuses what the engines do
 * not use, other registrations too (IORING_REGISTER_RESTRICTIONS). 0 or -errno with config->reason. */
int ring_start(struct ring *r, struct ul_config *config);
void ring_close(struct ring *r);
/* A free submission entry; submits first when the queue is full. NULL when the kernel takes nothing now. */
struct io_uring_sqe *ring_sqe(struct ring *r, struct ul_ring *ring);
/* The same for (a step of) the operation in a slot, behind those kept already. NULL: kept for ring_retry. */
struct io_uring_sqe *ring_sqe_for(struct ring *r, struct ul_ring *ring, uint32_t slot);
/* Calls `again`, which asks for an entry as before, for each kept slot. */
void ring_retry(struct ring *r, struct ul_ring *ring, void (*again)(struct ul_ring *ring, uint32_t slot));
/* Fills in the entry of an operation that needs nothing but the ring: not ACCEPT, RECV, SEND. */
void ring_prepare(struct ring *r, struct ul_ring *ring, struct io_uring_sqe *sqe, const struct ul_slot *slot);
/* Whether a cancellation that ended with `result` has only missed its target and must be made again. The
 * kernel does not find an operation between two of its attempts, and it may then wait for ever. */
bool ring_cancel_missed(const struct ul_ring *ring, const struct ul_slot *slot, int32_t result);
/* Submits everything. 0 or -errno; an interrupted or busy kernel, or one short of memory, is 0. */
int ring_enter(struct ring *r, struct ul_ring *ring);
/* The same, and waits for a completion entry, or a little longer for several (gather.h). */
int ring_wait(struct ring *r, struct ul_ring *ring);
/* Everything staged has been taken by the kernel. */
bool ring_submitted(struct ring *r);
/* The end of a flush and of a harvest: asleep, nobody enters for us. 0 or -errno. */
int ring_leave(struct ring *r, struct ul_ring *ring);
/* Before a wait: sees to it that it ends within wait_ns, and when the host descriptor becomes readable.
 * False: it would not. */
bool ring_bound_wait(struct ring *r, struct ul_ring *ring, double wait_ns);
/* Takes an entry whose slot is >= UL_MAX_SLOTS. */
void ring_own_completion(struct ring *r, struct ul_ring *ring, const struct io_uring_cqe *cqe);
int ring_notify(struct ring *r, struct ul_ring *ring, bool on);

static inline bool ring_has_completions(struct ring *r) {
  return io_uring_smp_load_acquire(r->uring.cq.ktail) != *r->uring.cq.khead;
}
/* Takes the next completion entry. It is copied and given back at once: completing may submit, and the kernel
 * then needs the place. */
static inline bool ring_next(struct ring *r, struct io_uring_cqe *cqe) {
  struct io_uring_cq *cq = &r->uring.cq;
  unsigned head = *cq->khead;
  if (head == io_uring_smp_load_acquire(cq->ktail))
    return false;
  *cqe = cq->cqes[head & cq->ring_mask];
  io_uring_smp_store_release(cq->khead, head + 1);
  return true;
}

#endif
