/*
 * ring.c - see ring.h. liburing 2.3 prepares the entries; entering is done here, because one call has to
 * carry flags that liburing 2.3 does not know (IORING_ENTER_NO_IOWAIT) and to submit, wait and run deferred
 * work at once.
 */
#include "ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif
#ifndef IORING_FEAT_MIN_TIMEOUT
#define IORING_FEAT_MIN_TIMEOUT (1U << 15)
#endif
#ifndef IORING_FEAT_CQE_SKIP
#define IORING_FEAT_CQE_SKIP (1U << 11)
#endif

#define SUBMISSIONS_LEAST 256 // queues are not made shorter for want of memory
#define COMPLETIONS_LEAST 1024
#define WORKERS_MOST      32   // kernel threads of a ring that wait for a peer
#define FOREVER_NS        1e15 // waits longer than eleven days need no timer

struct step {
  unsigned flags;
  uint32_t features;
};

/* From the best to the plainest: the first that the kernel takes is used. */
static const struct step steps[] = {
    {IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL |
         IORING_SETUP_R_DISABLED,
     UL_FEATURE_DEFER_TASKRUN | UL_FEATURE_SINGLE_ISSUER},
    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER |
         IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
     UL_FEATURE_COOP_TASKRUN | UL_FEATURE_SINGLE_ISSUER},
    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
         IORING_SETUP_R_DISABLED,
     UL_FEATURE_COOP_TASKRUN},
    {IORING_SETUP_R_DISABLED, 0},
    {0, 0},
};

/* What the engines use, and so all that the kernel lets anybody use through this ring's descriptor. */
static const struct io_uring_restriction allowed[] = {
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_ACCEPT},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_CONNECT},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_RECV},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_SEND},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_CLOSE},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_REMOVE},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_TIMEOUT},
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_TIMEOUT_REMOVE}, // updates too
    {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_ASYNC_CANCEL},
    {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
     .sqe_flags = IOSQE_BUFFER_SELECT | IOSQE_CQE_SKIP_SUCCESS},
    {.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_UNREGISTER_RING_FDS}, // at the end
};

static int set_up(struct ring *r, const struct ul_config *config) {
  int error = -EINVAL;
  for (size_t i = 0; i < sizeof steps / sizeof *steps && error == -EINVAL; i++) {
    if (steps[i].features & config->disable)
      continue;
    struct io_uring_params params = {.flags = steps[i].flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
                                     .cq_entries = config->completion_entries};
    if (steps[i].features & UL_FEATURE_DEFER_TASKRUN)
      params.flags |= IORING_SETUP_TASKRUN_FLAG;
    error = io_uring_queue_init_params(config->submission_entries, &r->uring, &params);
    if (error) {
      r->uring.ring_fd = -1;
      continue;
    }
    r->features = steps[i].features;
    if (params.features & IORING_FEAT_CQE_SKIP)
      r->features |= UL_FEATURE_SKIP_SUCCESS;
    if (params.features & IORING_FEAT_NO_IOWAIT)
      r->features |= UL_FEATURE_NO_IOWAIT;
    if (params.features & IORING_FEAT_MIN_TIMEOUT)
      r->features |= UL_FEATURE_MIN_WAIT;
  }
  return error;
}

int ring_open(struct ring *r, struct ul_ring *ring, struct ul_config *config) {
  uint32_t *submissions = &config->submission_entries, *completions = &config->completion_entries;
  int error;
  r->uring.ring_fd = -1;
  // Queues count against RLIMIT_MEMLOCK before 5.12: shorter ones may fit.
  while ((error = set_up(r, config)) == -ENOMEM &&
         (*submissions > SUBMISSIONS_LEAST || *completions > COMPLETIONS_LEAST)) {
    *submissions /= *submissions > SUBMISSIONS_LEAST ? 2 : 1;
    *completions /= *completions > COMPLETIONS_LEAST ? 2 : 1;
  }
  if (error)
    return ul_fail(config, UL_STEP_RING, -error, "io_uring_setup");
  // Entries and their indices advance together, so the indirection array is the identity for good.
  for (unsigned i = 0; i < r->uring.sq.ring_entries; i++)
    r->uring.sq.array[i] = i;
  if (!(config->disable & UL_FEATURE_REGISTERED_RING) && io_uring_register_ring_fd(&r->uring) == 1)
    r->features |= UL_FEATURE_REGISTERED_RING;
  r->features &= ~config->disable;
  r->scratch = calloc(r->uring.sq.ring_entries, sizeof *r->scratch);
  if (!r->scratch)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating submission memory");
  error = io_uring_register_eventfd(&r->uring, ring->event_fd);
  if (error)
    return ul_fail(config, UL_STEP_EVENTFD, -error, "registering the eventfd");
  io_uring_cq_eventfd_toggle(&r->uring, false);
  unsigned workers[2] = {0, WORKERS_MOST}; // see SECURITY.md; before 5.15 nothing bounds them
  io_uring_register_iowq_max_workers(&r->uring, workers);
  return 0;
}

int ring_start(struct ring *r, struct ul_config *config) {
  const unsigned count = sizeof allowed / sizeof *allowed;
  bool disabled = r->uring.flags & IORING_SETUP_R_DISABLED;
  if (disabled && !(config->disable & UL_FEATURE_RESTRICTIONS) &&
      !io_uring_register_restrictions(&r->uring, (struct io_uring_restriction *)allowed, count))
    r->features |= UL_FEATURE_RESTRICTIONS;
  int error = disabled ? io_uring_enable_rings(&r->uring) : 0;
  if (error)
    return ul_fail(config, UL_STEP_RING, -error, "io_uring_enable_rings");
  error = io_uring_get_events(&r->uring); // a filter may let the other two through, and not this one
  return error < 0 ? ul_fail(config, UL_STEP_RING, -error, "io_uring_enter") : 0;
}

void ring_close(struct ring *r) {
  if (r->uring.ring_fd >= 0)
    io_uring_queue_exit(&r->uring);
  free(r->scratch);
}

bool ring_submitted(struct ring *r) {
  return io_uring_smp_load_acquire(r->uring.sq.khead) == r->uring.sq.sqe_tail;
}

static int enter(struct ring *r, struct ul_ring *ring, unsigned want) {
  struct io_uring_sq *sq = &r->uring.sq;
  io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
  for (int round = 0; round < 4; round++) {
    unsigned count = sq->sqe_tail - io_uring_smp_load_acquire(sq->khead);
    unsigned status = IO_URING_READ_ONCE(*sq->kflags);
    if (status & IORING_SQ_CQ_OVERFLOW)
      ring->header->overflows++;
    // Without IORING_SETUP_TASKRUN_FLAG nothing tells of deferred work, but then there is none: it runs by
    // interrupt.
    if (!count && !want && !(status & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))
      return 0;
    unsigned flags = IORING_ENTER_GETEVENTS;
    if (r->features & UL_FEATURE_REGISTERED_RING)
      flags |= IORING_ENTER_REGISTERED_RING;
    if (want && (r->features & UL_FEATURE_NO_IOWAIT))
      flags |= IORING_ENTER_NO_IOWAIT;
    // After min_wait_usec, which liburing 2.3 calls pad, one entry is enough. Only with a time limit behind
    // it does the kernel go on waiting for that one; the ring's own timer ends the wait long before.
    static const struct __kernel_timespec an_hour = {.tv_sec = 3600};
    struct io_uring_getevents_arg company = {.pad = GATHER_WAIT_US, .ts = (uint64_t)(uintptr_t)&an_hour};
    ring->header->system_calls++;
    int taken = io_uring_enter2((unsigned)r->uring.enter_ring_fd, count, want,
                                want > 1 ? flags | IORING_ENTER_EXT_ARG : flags,
                                want > 1 ? (sigset_t *)&company : NULL, want > 1 ? sizeof company : 0);
    if (taken == -EINTR || taken == -EBUSY || taken == -EAGAIN || taken == -ENOMEM || taken == -ETIME)
      return 0; // entries stay queued: the next round takes them
    if (taken < 0)
      return taken;
    if ((unsigned)taken >= count)
      return 0;
    want = 0; // the kernel stopped in the middle and has not waited
  }
  return 0;
}

int ring_enter(struct ring *r, struct ul_ring *ring) {
  return enter(r, ring, 0);
}

int ring_wait(struct ring *r, struct ul_ring *ring) {
  struct gather *g = &r->gather;
  bool alone = r->prompt || !(r->features & UL_FEATURE_MIN_WAIT);
  r->prompt = false;
  if (alone)
    return enter(r, ring, 1);
  int error = enter(r, ring, g->want > 1 ? g->want : 1);
  if (!gather_note(g, io_uring_cq_ready(&r->uring)))
    return error;
  struct timespec ran;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ran);
  gather_window(g, ul_now_ns(), (uint64_t)ran.tv_sec * 1000000000u + (uint64_t)ran.tv_nsec);
  return error;
}

struct io_uring_sqe *ring_sqe(struct ring *r, struct ul_ring *ring) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
  if (!sqe && !ring_enter(r, ring))
    sqe = io_uring_get_sqe(&r->uring);
  return sqe;
}

struct io_uring_sqe *ring_sqe_for(struct ring *r, struct ul_ring *ring, uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  struct io_uring_sqe *sqe = r->kept_head ? NULL : ring_sqe(r, ring);
  if (sqe) {
    sqe->user_data = ring_user_data(index, slot->generation); // io_uring_prep_* leaves it alone
  } else if (slot->op == UL_OP_CLOSE) {
    ring->header->system_calls++; // needs no entry, and gives memory back
    ul_complete_later(ring, index, close(slot->fd) ? -errno : 0);
  } else {
    slot->link = 0;
    *(r->kept_head ? &ring->slots[r->kept_tail - 1].link : &r->kept_head) = index + 1;
    r->kept_tail = index + 1;
  }
  return sqe;
}

void ring_retry(struct ring *r, struct ul_ring *ring, void (*again)(struct ul_ring *, uint32_t)) {
  uint32_t next = r->kept_head;
  r->kept_head = 0;
  while (next) {
    uint32_t index = next - 1;
    next = ring->slots[index].link;
    again(ring, index);
  }
}

void ring_prepare(struct ring *r, struct ul_ring *ring, struct io_uring_sqe *sqe,
                  const struct ul_slot *slot) {
  union ring_scratch *scratch = &r->scratch[sqe - r->uring.sq.sqes];
  r->prompt |= slot->op == UL_OP_NOP || slot->op == UL_OP_CANCEL;
  switch (slot->op) {
  case UL_OP_CONNECT: {
    socklen_t length = ul_to_sockaddr((const struct ul_address *)(ring->arena + slot->offset),
                                      &scratch->address);
    io_uring_prep_connect(sqe, slot->fd, (struct sockaddr *)&scratch->address, length);
    break;
  }
  case UL_OP_POLL:
    if (slot->flags & UL_C_MULTISHOT)
      io_uring_prep_poll_multishot(sqe, slot->fd, slot->length);
    else
      io_uring_prep_poll_add(sqe, slot->fd, slot->length);
    break;
  case UL_OP_TIMEOUT:
    scratch->time.tv_sec = (long long)(ul_timeout_ns(slot) / 1000000000u);
    scratch->time.tv_nsec = (long long)(ul_timeout_ns(slot) % 1000000000u);
    io_uring_prep_timeout(sqe, &scratch->time, 0, 0);
    break;
  case UL_OP_CANCEL:
    io_uring_prep_cancel64(sqe, ring_user_data(slot->offset, slot->length), 0);
    break;
  case UL_OP_CLOSE:
    io_uring_prep_close(sqe, slot->fd);
    break;
  default:
    io_uring_prep_nop(sqe);
    break;
  }
}

bool ring_cancel_missed(const struct ul_ring *ring, const struct ul_slot *slot, int32_t result) {
  const struct ul_slot *target = &ring->slots[slot->offset];
  return result == -ENOENT && target->op && target->generation == slot->length && !target->over;
}

/* ---- the wait ---- */

bool ring_bound_wait(struct ring *r, struct ul_ring *ring, double wait_ns) {
  struct io_uring_sqe *sqe;
  if (ring->host_fd >= 0 && !r->host_armed) {
    if (!(sqe = ring_sqe(r, ring)))
      return false;
    io_uring_prep_poll_multishot(sqe, ring->host_fd, POLLIN);
    sqe->user_data = RING_OWN_HOST;
    r->host_armed = true;
  }
  // One timer serves many waits: it is armed anew only when it has fired, or when it would fire too late. A
  // kernel timer per wait (io_uring_submit_and_wait_timeout) costs a tenth of a request at one connection.
  if (wait_ns > FOREVER_NS || (r->timer_armed && r->timer_due_ms <= ring->header->now_ms + wait_ns / 1e6 + 1))
    return true;
  if (!(sqe = ring_sqe(r, ring)))
    return false;
  r->timer.tv_sec = (long long)(wait_ns / 1e9);
  r->timer.tv_nsec = (long long)(wait_ns - (double)r->timer.tv_sec * 1e9);
  if (r->timer_armed)
    io_uring_prep_timeout_update(sqe, &r->timer, RING_OWN_TIMER, 0);
  else
    io_uring_prep_timeout(sqe, &r->timer, 0, 0);
  sqe->user_data = r->timer_armed ? RING_OWN_NOTE : RING_OWN_TIMER;
  r->timer_armed = true;
  r->timer_due_ms = ul_now_ms() + wait_ns / 1e6;
  return true;
}

void ring_own_completion(struct ring *r, struct ul_ring *ring, const struct io_uring_cqe *cqe) {
  switch (ring_slot(cqe->user_data)) {
  case RING_OWN_TIMER:
    r->timer_armed = false;
    ring->header->wait_expired = 1;
    break;
  case RING_OWN_HOST:
    if (cqe->res >= 0)
      ring->header->host_ready = 1;
    if (!(cqe->flags & IORING_CQE_F_MORE))
      r->host_armed = r->host_removing = false;
    break;
  default:
    break;
  }
}

int ring_leave(struct ring *r, struct ul_ring *ring) {
  if (!ring->sleeping || (ring_submitted(r) && !r->kept_head))
    return 0;
  int error = ring_enter(r, ring);
  if (!ring_submitted(r) || r->kept_head)
    ul_signal(ring->event_fd); // the host must come back for what the kernel does not take now
  return error;
}

int ring_notify(struct ring *r, struct ul_ring *ring, bool on) {
  if (!on) {
    io_uring_cq_eventfd_toggle(&r->uring, false);
    return 0;
  }
  // The poll on the host's epoll must be gone before the eventfd, which that epoll watches, may speak: each
  // would set off the other for ever.
  if (r->host_armed && !r->host_removing) {
    struct io_uring_sqe *sqe = ring_sqe(r, ring);
    if (!sqe)
      return -EAGAIN;
    io_uring_prep_poll_remove(sqe, RING_OWN_HOST);
    sqe->user_data = RING_OWN_NOTE;
    r->host_removing = true;
  }
  int error = ring_enter(r, ring);
  if (!error)
    io_uring_cq_eventfd_toggle(&r->uring, true);
  r->gather = (struct gather){0}; // what comes after a sleep is another load
  return error;
}
