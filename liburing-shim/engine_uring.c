/*
 * engine_uring.c - completions through io_uring. Practices shown, and the kernel each needs:
 *
 *  - multishot accept (5.19) and multishot recv (6.0) into a provided buffer ring (5.19; incremental 6.12):
 * armed once, they complete until cancelled;
 *  - DEFER_TASKRUN with SINGLE_ISSUER (6.1): completions run when this thread enters, in batches;
 *  - one io_uring_enter per tick submits the batch, runs deferred work and waits;
 *  - sends go out at once or not at all: MSG_DONTWAIT with CQE_SKIP_SUCCESS (5.17). A send that the socket
 * takes whole posts no completion entry, so a wait in the same call waits for news from the peer and not for
 * the send just made: one system call per request where there would be two. When the queue has been drained
 * and the send has not failed, it has succeeded. One that the socket does not take whole posts its result;
 * the rest is sent again, this time with a poll behind it;
 *  - a saturated thread waits a little for company (6.12): gather.h.
 *
 * Where a feature is missing, single-shot operations are armed again here and TypeScript sees no difference.
 */
#include "buffer_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum send_state { SEND_AT_ONCE = 1, SEND_BLOCKED = 2 };

#define SEND_FLAGS (MSG_NOSIGNAL | MSG_WAITALL)

struct uring_engine {
  struct ring ring;
  struct buffer_ring buffers;
  uint32_t *at_once; // slots of sends staged with CQE_SKIP_SUCCESS and not accounted for yet
  uint32_t at_once_count;
  uint32_t urgent; // staged commands whose completion somebody waits for: no sleeping in this harvest
  bool unsettled;  // the last harvest could not settle all of at_once: the next one does not sleep
};

/* ---- staging ---- */

/* Arms the operation in a slot, for the first time or again, unless a cancellation has named it. */
static void arm(struct ul_ring *ring, uint32_t index) {
  struct uring_engine *e = ring->state;
  struct ul_slot *slot = &ring->slots[index];
  struct io_uring_sqe *sqe = NULL;
  if (slot->cancelled)
    ul_complete_later(ring, index, -ECANCELED); // it has found nothing in the ring
  else
    sqe = ring_sqe_for(&e->ring, ring, index);
  if (!sqe)
    return;
  switch (slot->op) {
  case UL_OP_ACCEPT:
    if ((slot->flags & UL_C_MULTISHOT) && (e->ring.features & UL_FEATURE_MULTISHOT_ACCEPT))
      io_uring_prep_multishot_accept(sqe, slot->fd, NULL, NULL, SOCK_CLOEXEC);
    else
      io_uring_prep_accept(sqe, slot->fd, NULL, NULL, SOCK_CLOEXEC);
    break;
  case UL_OP_RECV:
    if ((slot->flags & UL_C_MULTISHOT) && (e->ring.features & UL_FEATURE_MULTISHOT_RECV))
      io_uring_prep_recv_multishot(sqe, slot->fd, NULL, 0, 0);
    else
      io_uring_prep_recv(sqe, slot->fd, NULL, e->buffers.size, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    break;
  case UL_OP_SEND:
    if (e->at_once_count == ring->slot_capacity)
      slot->state = SEND_BLOCKED;
    io_uring_prep_send(sqe, slot->fd, ring->arena + slot->offset + slot->done, slot->length - slot->done,
                       SEND_FLAGS);
    if (slot->state == SEND_AT_ONCE) {
      sqe->msg_flags |= MSG_DONTWAIT;
      sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
      e->at_once[e->at_once_count++] = index;
    }
    break;
  default:
    ring_prepare(&e->ring, ring, sqe, slot);
    break;
  }
}

static void uring_stage(struct ul_ring *ring, uint32_t index) {
  struct uring_engine *e = ring->state;
  struct ul_slot *slot = &ring->slots[index];
  // Asleep, only completion entries make the eventfd speak.
  bool heard = ring->sleeping && !(slot->flags & UL_C_QUIET);
  if (slot->op == UL_OP_SEND)
    slot->state = (e->ring.features & UL_FEATURE_SKIP_SUCCESS) && !heard ? SEND_AT_ONCE : SEND_BLOCKED;
  if (slot->op == UL_OP_SEND && !(slot->flags & UL_C_QUIET))
    e->urgent++;
  arm(ring, index);
}

/* ---- completing ---- */

static void complete_send(struct ul_ring *ring, uint32_t index, int32_t result) {
  struct ul_slot *slot = &ring->slots[index];
  bool first = slot->state == SEND_AT_ONCE;
  slot->state = SEND_BLOCKED;
  if (result > 0) {
    slot->done += (uint32_t)result;
    ring->header->bytes_sent += (uint32_t)result;
  }
  if (slot->done == slot->length)
    ul_emit(ring, index, (int32_t)slot->length, 0, 0);
  else if (result > 0 || (first && result == -EAGAIN)) {
    ring->header->sends_blocked++;
    arm(ring, index);
  } else
    ul_emit(ring, index, result ? result : -EPIPE, 0, 0);
}

static void complete(struct uring_engine *e, struct ul_ring *ring, const struct io_uring_cqe *cqe) {
  uint32_t index = ring_slot(cqe->user_data);
  if (index >= UL_MAX_SLOTS) {
    ring_own_completion(&e->ring, ring, cqe);
    return;
  }
  struct ul_slot *slot = &ring->slots[index];
  uint32_t offset = cqe->flags & IORING_CQE_F_BUFFER ? buffer_ring_take(&e->buffers, cqe) : 0;
  if (!slot->op || slot->generation != ring_generation(cqe->user_data)) {
    ring->header->stale++;
    return;
  }
  bool more = cqe->flags & IORING_CQE_F_MORE;
  bool again = false; // a single shot that stands for a multishot
  int32_t result = cqe->res;
  switch (slot->op) {
  case UL_OP_RECV:
    if (result == -ENOBUFS)
      ring->header->no_buffers++;
    if (result > 0)
      ring->header->bytes_received += (uint32_t)result;
    again = !more && result > 0 && (slot->flags & UL_C_MULTISHOT) &&
            !(e->ring.features & UL_FEATURE_MULTISHOT_RECV);
    break;
  case UL_OP_ACCEPT:
    if (result >= 0)
      result = ul_own(ring, result, ring->fds[slot->fd].family);
    again = !more && result >= 0 && (slot->flags & UL_C_MULTISHOT) &&
            !(e->ring.features & UL_FEATURE_MULTISHOT_ACCEPT);
    break;
  case UL_OP_SEND:
    complete_send(ring, index, result);
    return;
  case UL_OP_CANCEL:
    if (ring_cancel_missed(ring, slot, result) && ring->slots[slot->offset].state != SEND_AT_ONCE) {
      arm(ring, index);
      return;
    }
    break;
  default:
    break;
  }
  uint32_t flags = more || again ? UL_F_MORE : 0;
  if (slot->op == UL_OP_RECV && result > 0)
    flags |= UL_F_BUFFER;
  ul_emit(ring, index, result, flags, offset);
  if (again)
    arm(ring, index);
}

/* Takes entries while there is room for their completions. Returns true when the queue is empty. */
static bool drain(struct uring_engine *e, struct ul_ring *ring) {
  struct io_uring_cqe cqe;
  while (ul_room(ring) && ring_next(&e->ring, &cqe))
    complete(e, ring, &cqe);
  return !ring_has_completions(&e->ring) &&
         !(IO_URING_READ_ONCE(*e->ring.uring.sq.kflags) & IORING_SQ_CQ_OVERFLOW);
}

/* All failures are known: the sends that went out at once and have not failed have succeeded. */
static void settle_sends(struct uring_engine *e, struct ul_ring *ring) {
  uint32_t left = 0;
  for (uint32_t i = 0; i < e->at_once_count; i++) {
    uint32_t index = e->at_once[i];
    struct ul_slot *slot = &ring->slots[index];
    if (slot->op != UL_OP_SEND || slot->state != SEND_AT_ONCE)
      continue; // failed, and dealt with
    if (!ul_room(ring)) {
      e->at_once[left++] = index;
      continue;
    }
    ring->header->bytes_sent += slot->length;
    ul_emit(ring, index, (int32_t)slot->length, 0, 0);
  }
  e->at_once_count = left;
}

static int uring_flush(struct ul_ring *ring) {
  struct uring_engine *e = ring->state;
  int error = ring_enter(&e->ring, ring);
  return error ?: ring_leave(&e->ring, ring);
}

static int uring_harvest(struct ul_ring *ring, double wait_ns) {
  struct uring_engine *e = ring->state;
  bool sleep = wait_ns > 0 && !e->urgent && !e->unsettled && !e->ring.kept_head &&
               !ring_has_completions(&e->ring) && ring_bound_wait(&e->ring, ring, wait_ns);
  ring_retry(&e->ring, ring, arm);
  int error = sleep ? ring_wait(&e->ring, ring) : ring_enter(&e->ring, ring);
  e->urgent = 0;
  // Before draining: that may stage continuations, which are none of the sends to settle.
  bool taken = !error && ring_submitted(&e->ring);
  if (drain(e, ring) && taken)
    settle_sends(e, ring);
  e->unsettled = e->at_once_count > 0;
  ring->header->buffers_lent = e->buffers.finished_count;
  error = error ?: ring_leave(&e->ring, ring);
  // A send that went out in leaving posts nothing, so the eventfd would stay silent: the host is to come
  // back.
  if (ring->sleeping && e->unsettled)
    ul_signal(ring->event_fd);
  return error;
}

/* ---- set-up ---- */

static int uring_notify(struct ul_ring *ring, bool on) {
  struct uring_engine *e = ring->state;
  return ring_notify(&e->ring, ring, on);
}

static void uring_recycle(struct ul_ring *ring) {
  struct uring_engine *e = ring->state;
  buffer_ring_recycle(&e->buffers, ring);
}

static void uring_close(struct ul_ring *ring) {
  struct uring_engine *e = ring->state;
  ring_close(&e->ring);
  buffer_ring_close(&e->buffers);
  free(e->at_once);
  free(e);
  ring->state = NULL;
}

/*
 * What liburing's probe cannot tell, tried on socket pairs. Whether the multishot form works; the one vouches
 * for the other, as multishot accept came before multishot recv (5.19, 6.0). And whether entries come in the
 * order in which single-shot and multishot receives took from an incremental buffer: it alone tells where
 * their bytes lie, and kernels without 687b2bae0eff (6.16, and what it was ported back to) post the multishot
 * ones first. Returns false when it does not.
 */
static bool try_receives(struct uring_engine *e, struct ul_ring *ring) {
  enum { SINGLE, MULTI };
  int pairs[2][2] = {{-1, -1}, {-1, -1}};
  unsigned waiting = 0, right = 0; // by bit
  for (int i = e->buffers.incremental ? SINGLE : MULTI; i <= MULTI; i++) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pairs[i]))
      break;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring.uring);
    if (i == MULTI)
      io_uring_prep_recv_multishot(sqe, pairs[i][0], NULL, 0, 0);
    else
      io_uring_prep_recv(sqe, pairs[i][0], NULL, e->buffers.size, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->user_data = ring_user_data(RING_OWN_NOTE, (uint32_t)i);
    waiting |= 1u << i;
  }
  ring_enter(&e->ring, ring); // both wait: what comes now completes in one batch
  for (int i = SINGLE; i <= MULTI; i++) {
    send(pairs[i][1], &"sm"[i], 1, MSG_NOSIGNAL);
    close(pairs[i][1]); // ends the multishot receive too
  }
  for (int round = 0; waiting && round < 8; round++) {
    struct io_uring_cqe cqe;
    ring_wait(&e->ring, ring);
    while (ring_next(&e->ring, &cqe)) {
      uint32_t i = ring_generation(cqe.user_data);
      bool more = cqe.flags & IORING_CQE_F_MORE;
      uint32_t offset = cqe.flags & IORING_CQE_F_BUFFER ? buffer_ring_take(&e->buffers, &cqe) : 0;
      if (cqe.res == 1 && ring->buffers[offset] == "sm"[i] && more == (i == MULTI))
        right |= 1u << i;
      if (!more)
        waiting &= ~(1u << i);
    }
  }
  close(pairs[SINGLE][0]);
  close(pairs[MULTI][0]);
  if (right & 1u << MULTI)
    e->ring.features |= UL_FEATURE_MULTISHOT_RECV | UL_FEATURE_MULTISHOT_ACCEPT;
  return !e->buffers.incremental || right == (1u << SINGLE | 1u << MULTI);
}

static int uring_open(struct ul_ring *ring, struct ul_config *config) {
  struct uring_engine *e = calloc(1, sizeof *e);
  if (!e)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the engine");
  ring->state = e;
  int error = ring_open(&e->ring, ring, config)
                  ?: buffer_ring_open(&e->buffers, &e->ring, ring, config) ?: ring_start(&e->ring, config);
  if (error)
    return error;
  if (!try_receives(e, ring)) { // again, on classic buffers: a started ring takes no other ones
    uring_close(ring);
    config->disable |= UL_FEATURE_INCREMENTAL;
    return uring_open(ring, config);
  }
  e->at_once = malloc((size_t)config->slot_capacity * sizeof *e->at_once);
  if (!e->at_once)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the send list");
  e->ring.features &= ~config->disable;
  ring->header->features = e->ring.features;
  return 0;
}

const struct ul_engine ul_engine_uring = {
    .name = "uring",
    .open = uring_open,
    .stage = uring_stage,
    .flush = uring_flush,
    .harvest = uring_harvest,
    .notify = uring_notify,
    .recycle = uring_recycle,
    .close = uring_close,
};
