/*
 * engine_poll.c - readiness through io_uring: wait with POLL_ADD, then act with MSG_DONTWAIT, as a network
 * poller over a ring does it. It measures what completions gain over readiness when all else is equal.
 * Practices shown, and the kernel each needs:
 *
 *  - an operation is a chain of steps, a wait and an act by turns, at most one of them in flight. Each
 * carries the slot's own user_data, so that a cancellation finds whichever is in flight; the mark
 * slot->cancelled ends the chain where none is;
 *  - a receive buffer is taken (last in, first out: still in the cache) only when there is something to
 * receive;
 *  - the wait that follows an act costs no system call of its own: it goes out with the next tick's enter;
 *  - ACCEPT_DONTWAIT (6.10) accepts in batches until the listener is empty. Without it, one at a time, and
 * the accept itself waits in the ring;
 *  - entering again inside a harvest: a poll that fires is not worth reporting, the receive that follows it
 * is.
 *
 * Rejected: linking the poll and the act (IOSQE_IO_LINK). The buffer would be taken for the whole wait.
 */
#include "ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum step { STEP_NONE = 0, STEP_WAIT = 1, STEP_ACT = 2 }; // NONE: an operation that has no steps

#define ACCEPT_DONTWAIT (1u << 1) // io_uring_sqe.ioprio, 6.10
#define ACCEPT_BATCH    8         // accepts per step
#define ROUNDS_MAX      16        // enters per harvest

struct poll_engine {
  struct ring ring;
  uint32_t buffer_bytes;
  uint16_t *free_buffers, *lent_buffers;
  uint32_t free_count, lent_count;
  bool accept_dontwait;
  uint32_t steps; // staged since the last enter
  uint32_t acts;  // of these, the ones that complete at once
};

/* ---- staging ---- */

static void prepare_wait(struct io_uring_sqe *sqe, const struct ul_slot *slot) {
  bool out = slot->op == UL_OP_SEND;
  io_uring_prep_poll_add(sqe, slot->fd, out ? POLLOUT : slot->op == UL_OP_RECV ? POLLIN | POLLRDHUP : POLLIN);
}

/* RECV: slot->done is the receive buffer. ACCEPT: slot->done counts the accepts in flight. */
static void prepare_act(struct poll_engine *e, struct ul_ring *ring, struct io_uring_sqe *sqe,
                        struct ul_slot *slot) {
  switch (slot->op) {
  case UL_OP_ACCEPT:
    io_uring_prep_accept(sqe, slot->fd, NULL, NULL, SOCK_CLOEXEC);
    sqe->ioprio = e->accept_dontwait ? ACCEPT_DONTWAIT : 0;
    slot->done++;
    break;
  case UL_OP_RECV:
    io_uring_prep_recv(sqe, slot->fd, ring->buffers + (size_t)slot->done * e->buffer_bytes, e->buffer_bytes,
                       MSG_DONTWAIT);
    break;
  default: // UL_OP_SEND
    io_uring_prep_send(sqe, slot->fd, ring->arena + slot->offset + slot->done, slot->length - slot->done,
                       MSG_DONTWAIT | MSG_NOSIGNAL);
    break;
  }
}

/* Arms the step in a slot. */
static void arm(struct poll_engine *e, struct ul_ring *ring, uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  uint32_t count = 1;
  if (slot->op == UL_OP_ACCEPT && slot->state == STEP_ACT && (slot->flags & UL_C_MULTISHOT) &&
      e->accept_dontwait)
    count = ACCEPT_BATCH;
  for (uint32_t i = 0; i < count && (!i || io_uring_sq_space_left(&e->ring.uring)); i++) {
    struct io_uring_sqe *sqe = ring_sqe_for(&e->ring, ring, index);
    if (!sqe) { // only ever the first of a batch
      if (slot->op == UL_OP_RECV && slot->state == STEP_ACT)
        e->free_buffers[e->free_count++] = (uint16_t)slot->done;
      return;
    }
    if (slot->state == STEP_WAIT)
      prepare_wait(sqe, slot);
    else if (slot->state == STEP_ACT)
      prepare_act(e, ring, sqe, slot);
    else
      ring_prepare(&e->ring, ring, sqe, slot);
  }
  e->steps++;
  e->acts += slot->state == STEP_ACT;
}

/* Goes on with `next`, unless a cancellation has named the slot. */
static void step(struct poll_engine *e, struct ul_ring *ring, uint32_t index, enum step next) {
  struct ul_slot *slot = &ring->slots[index];
  bool receive = slot->op == UL_OP_RECV && next == STEP_ACT;
  if (slot->cancelled) {
    ul_complete_later(ring, index, -ECANCELED);
    return;
  }
  if (receive && !e->free_count) {
    ring->header->no_buffers++;
    ul_complete_later(ring, index, -ENOBUFS);
    return;
  }
  if (receive)
    slot->done = e->free_buffers[--e->free_count];
  slot->state = next;
  arm(e, ring, index);
}

static void again(struct ul_ring *ring, uint32_t index) {
  step(ring->state, ring, index, ring->slots[index].state);
}

static void poll_stage(struct ul_ring *ring, uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  if (slot->op == UL_OP_ACCEPT)
    slot->offset = slot->length = 0; // ACCEPT: the listener was empty; the error that ends it
  slot->state = slot->op == UL_OP_SEND                               ? STEP_ACT
                : slot->op == UL_OP_ACCEPT || slot->op == UL_OP_RECV ? STEP_WAIT
                                                                     : STEP_NONE;
  arm(ring->state, ring, index);
}

/* ---- completing ---- */

static void complete_accept(struct poll_engine *e, struct ul_ring *ring, uint32_t index, int32_t result) {
  struct ul_slot *slot = &ring->slots[index];
  slot->done--;
  if (result >= 0)
    result = ul_own(ring, result, ring->fds[slot->fd].family);
  if (result >= 0 && !(slot->flags & UL_C_MULTISHOT)) {
    ul_emit(ring, index, result, 0, 0);
    return;
  }
  if (result >= 0)
    ul_emit(ring, index, result, UL_F_MORE, 0);
  else if (result == -EAGAIN)
    slot->offset = 1;
  else
    slot->length = (uint32_t)-result;
  if (slot->done)
    return; // the others of the batch first: they may carry descriptors
  bool empty = slot->offset;
  slot->offset = 0;
  if (slot->length)
    ul_complete_later(ring, index, -(int32_t)slot->length);
  else
    step(e, ring, index, empty ? STEP_WAIT : STEP_ACT);
}

static void complete_recv(struct poll_engine *e, struct ul_ring *ring, uint32_t index, int32_t result) {
  struct ul_slot *slot = &ring->slots[index];
  uint16_t buffer = (uint16_t)slot->done;
  if (result <= 0) {
    e->free_buffers[e->free_count++] = buffer;
    if (result == -EAGAIN)
      step(e, ring, index, STEP_WAIT);
    else
      ul_emit(ring, index, result, 0, 0);
    return;
  }
  bool multishot = slot->flags & UL_C_MULTISHOT;
  ring->header->bytes_received += (uint32_t)result;
  e->lent_buffers[e->lent_count++] = buffer;
  ul_emit(ring, index, result, UL_F_BUFFER | (multishot ? UL_F_MORE : 0), buffer * e->buffer_bytes);
  // A full buffer means more. Without a free one the wait leads to the next tick, when the buffers are back.
  if (multishot)
    step(e, ring, index, (uint32_t)result == e->buffer_bytes && e->free_count ? STEP_ACT : STEP_WAIT);
}

static void complete_send(struct poll_engine *e, struct ul_ring *ring, uint32_t index, int32_t result) {
  struct ul_slot *slot = &ring->slots[index];
  if (result > 0) {
    slot->done += (uint32_t)result;
    ring->header->bytes_sent += (uint32_t)result;
  }
  if (slot->done == slot->length)
    ul_emit(ring, index, (int32_t)slot->length, 0, 0);
  else if (result > 0 || result == -EAGAIN) {
    ring->header->sends_blocked++;
    step(e, ring, index, STEP_WAIT);
  } else
    ul_emit(ring, index, result ? result : -EPIPE, 0, 0);
}

static void complete(struct poll_engine *e, struct ul_ring *ring, const struct io_uring_cqe *cqe) {
  uint32_t index = ring_slot(cqe->user_data);
  if (index >= UL_MAX_SLOTS) {
    ring_own_completion(&e->ring, ring, cqe);
    return;
  }
  struct ul_slot *slot = &ring->slots[index];
  if (!slot->op || slot->generation != ring_generation(cqe->user_data)) {
    ring->header->stale++;
    return;
  }
  if (slot->state == STEP_WAIT && cqe->res >= 0)
    step(e, ring, index, STEP_ACT);
  else if (slot->op == UL_OP_CANCEL && ring_cancel_missed(ring, slot, cqe->res))
    arm(e, ring, index);
  else if (slot->state != STEP_ACT) // or a wait that failed
    ul_emit(ring, index, cqe->res, cqe->flags & IORING_CQE_F_MORE ? UL_F_MORE : 0, 0);
  else if (slot->op == UL_OP_ACCEPT)
    complete_accept(e, ring, index, cqe->res);
  else if (slot->op == UL_OP_RECV)
    complete_recv(e, ring, index, cqe->res);
  else
    complete_send(e, ring, index, cqe->res);
}

/* Takes entries while there is room for their completions. */
static void drain(struct poll_engine *e, struct ul_ring *ring) {
  struct io_uring_cqe cqe;
  while (ul_room(ring) && ring_next(&e->ring, &cqe))
    complete(e, ring, &cqe);
}

static int poll_flush(struct ul_ring *ring) {
  struct poll_engine *e = ring->state;
  int error = ring_enter(&e->ring, ring);
  return error ?: ring_leave(&e->ring, ring);
}

static bool something_to_report(const struct ul_ring *ring) {
  return ring->completion_count || ul_has_deferred(ring) || ring->header->wait_expired ||
         ring->header->host_ready;
}

static int poll_harvest(struct ul_ring *ring, double wait_ns) {
  struct poll_engine *e = ring->state;
  bool sleep = wait_ns > 0 && !e->ring.kept_head && !ring_has_completions(&e->ring) &&
               ring_bound_wait(&e->ring, ring, wait_ns);
  ring_retry(&e->ring, ring, again);
  int error = 0;
  for (int round = 0; round < ROUNDS_MAX; round++) {
    e->steps = e->acts = 0;
    bool wait = sleep && !something_to_report(ring);
    error = wait ? ring_wait(&e->ring, ring) : ring_enter(&e->ring, ring);
    drain(e, ring);
    // Go on for acts, which complete at once, and for waits when there is nothing to report yet.
    if (error || !ul_room(ring) || !(e->acts || (e->steps && sleep && !something_to_report(ring))))
      break;
  }
  ring->header->buffers_lent = e->lent_count;
  return error ?: ring_leave(&e->ring, ring);
}

/* ---- set-up ---- */

static int poll_notify(struct ul_ring *ring, bool on) {
  struct poll_engine *e = ring->state;
  return ring_notify(&e->ring, ring, on);
}

static void poll_recycle(struct ul_ring *ring) {
  struct poll_engine *e = ring->state;
  while (e->lent_count)
    e->free_buffers[e->free_count++] = e->lent_buffers[--e->lent_count];
  ring->header->buffers_lent = 0;
}

static void poll_close(struct ul_ring *ring) {
  struct poll_engine *e = ring->state;
  ring_close(&e->ring);
  free(e->free_buffers);
  free(e->lent_buffers);
  free(e);
  ring->state = NULL;
}

/* Whether an accept can be told not to wait. Tried on a listener that nobody knows. */
static bool try_accept_dontwait(struct poll_engine *e, struct ul_ring *ring) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr name = {.sa_family = AF_UNIX}; // a name that the kernel chooses, abstract
  struct io_uring_cqe *cqe = NULL;
  if (fd >= 0 && !bind(fd, &name, sizeof name.sa_family) && !listen(fd, 1)) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring.uring);
    io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
    sqe->ioprio = ACCEPT_DONTWAIT;
    sqe->user_data = RING_OWN_NOTE;
    ring_wait(&e->ring, ring);
  }
  bool works = !io_uring_peek_cqe(&e->ring.uring, &cqe) && cqe->res == -EAGAIN;
  if (cqe)
    io_uring_cqe_seen(&e->ring.uring, cqe);
  if (fd >= 0)
    close(fd);
  return works;
}

static int poll_open(struct ul_ring *ring, struct ul_config *config) {
  struct poll_engine *e = calloc(1, sizeof *e);
  if (!e)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the engine");
  ring->state = e;
  int error = ring_open(&e->ring, ring, config) ?: ring_start(&e->ring, config);
  if (error)
    return error;
  e->buffer_bytes = config->buffer_bytes;
  e->free_buffers = malloc(config->buffer_count * sizeof *e->free_buffers);
  e->lent_buffers = malloc(config->buffer_count * sizeof *e->lent_buffers);
  if (!e->free_buffers || !e->lent_buffers)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the buffer lists");
  for (uint32_t i = config->buffer_count; i-- > 0;)
    e->free_buffers[e->free_count++] = (uint16_t)i;
  e->accept_dontwait = try_accept_dontwait(e, ring);
  ring->header->features = e->ring.features & ~(uint32_t)UL_FEATURE_SKIP_SUCCESS;
  return 0;
}

const struct ul_engine ul_engine_poll = {
    .name = "poll",
    .open = poll_open,
    .stage = poll_stage,
    .flush = poll_flush,
    .harvest = poll_harvest,
    .notify = poll_notify,
    .recycle = poll_recycle,
    .close = poll_close,
};
