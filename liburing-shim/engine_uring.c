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
 * the rest is sent again, this time with a poll behind it.
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
  uint32_t
      retry; // first of the slots whose continuation found no submission entry; 0: none (links are slot + 1)
};

/* ---- staging ---- */

static void keep_for_retry(struct uring_engine *e, struct ul_ring *ring, uint32_t index) {
  ring->slots[index].link = e->retry;
  e->retry = index + 1;
}

/* Arms the operation in a slot, for the first time or again. */
static void arm(struct uring_engine *e, struct ul_ring *ring, uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  struct io_uring_sqe *sqe = ring_sqe(&e->ring, ring);
  if (!sqe) {
    keep_for_retry(e, ring, index);
    return;
  }
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
  default: // UL_OP_SEND
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
  }
  sqe->user_data = ring_user_data(index, slot->generation);
}

static void uring_stage(struct ul_ring *ring, const struct ul_command *command, struct ul_slot *slot) {
  struct uring_engine *e = ring->state;
  // Asleep, only completion entries make the eventfd speak.
  bool heard = ring->sleeping && !(slot->flags & UL_C_QUIET);
  if (slot->op == UL_OP_SEND)
    slot->state = (e->ring.features & UL_FEATURE_SKIP_SUCCESS) && !heard ? SEND_AT_ONCE : SEND_BLOCKED;
  if (slot->op == UL_OP_SEND && !(slot->flags & UL_C_QUIET))
    e->urgent++;
  if (!ring_stage_common(&e->ring, ring, command))
    arm(e, ring, command->slot);
}

/* ---- completing ---- */

static void complete_send(struct uring_engine *e, struct ul_ring *ring, uint32_t index, int32_t result) {
  struct ul_slot *slot = &ring->slots[index];
  bool first = slot->state == SEND_AT_ONCE;
  slot->state = SEND_BLOCKED;
  if (result > 0) {
    slot->done += (uint32_t)result;
    ring->header->bytes_sent += (uint32_t)result;
  }
  if (slot->done == slot->length)
    ul_emit(ring, index, (int32_t)slot->length, 0, 0);
  else if (slot->cancelled && (result > 0 || result == -EAGAIN))
    ul_emit(ring, index, -ECANCELED, 0, 0);
  else if (result > 0 || (first && result == -EAGAIN)) {
    ring->header->sends_blocked++;
    arm(e, ring, index);
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
            !(e->ring.features & UL_FEATURE_MULTISHOT_RECV) && !slot->cancelled;
    break;
  case UL_OP_ACCEPT:
    if (result >= 0)
      result = ul_own(ring, result, ring->fds[slot->fd].family);
    again = !more && result >= 0 && (slot->flags & UL_C_MULTISHOT) &&
            !(e->ring.features & UL_FEATURE_MULTISHOT_ACCEPT) && !slot->cancelled;
    break;
  case UL_OP_SEND:
    complete_send(e, ring, index, result);
    return;
  default:
    break;
  }
  uint32_t flags = more || again ? UL_F_MORE : 0;
  if (slot->op == UL_OP_RECV && result > 0)
    flags |= UL_F_BUFFER;
  ul_emit(ring, index, result, flags, offset);
  if (again)
    arm(e, ring, index);
}

/* Takes entries while there is room for their completions. Returns true when the queue is empty. */
static bool drain(struct uring_engine *e, struct ul_ring *ring) {
  struct io_uring_cq *cq = &e->ring.uring.cq;
  unsigned head = *cq->khead;
  unsigned tail = io_uring_smp_load_acquire(cq->ktail);
  while (head != tail && ul_room(ring)) {
    // The entry is copied and given back first: completing may submit, and the kernel then needs the place.
    struct io_uring_cqe cqe = cq->cqes[head & cq->ring_mask];
    io_uring_smp_store_release(cq->khead, ++head);
    complete(e, ring, &cqe);
    tail = io_uring_smp_load_acquire(cq->ktail);
  }
  return head == tail && !(IO_URING_READ_ONCE(*e->ring.uring.sq.kflags) & IORING_SQ_CQ_OVERFLOW);
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

static void retry(struct uring_engine *e, struct ul_ring *ring) {
  uint32_t link = e->retry;
  e->retry = 0;
  while (link) {
    uint32_t index = link - 1;
    link = ring->slots[index].link;
    if (ring->slots[index].cancelled)
      ul_complete_later(ring, index, -ECANCELED); // the cancellation has found nothing in the ring
    else
      arm(e, ring, index);
  }
}

static int uring_flush(struct ul_ring *ring) {
  struct uring_engine *e = ring->state;
  return ring_enter(&e->ring, ring, 0);
}

static int uring_harvest(struct ul_ring *ring, double wait_ns) {
  struct uring_engine *e = ring->state;
  bool sleep = wait_ns > 0 && !e->urgent && !e->retry && !ring_has_completions(&e->ring);
  if (sleep)
    ring_bound_wait(&e->ring, ring, wait_ns);
  if (e->retry)
    retry(e, ring);
  int error = ring_enter(&e->ring, ring, sleep);
  e->urgent = 0;
  if (drain(e, ring) && ring_submitted(&e->ring))
    settle_sends(e, ring);
  // Nobody enters for us while the eventfd is relied on.
  if (!error && ring->sleeping && !ring_submitted(&e->ring))
    error = ring_enter(&e->ring, ring, 0);
  ring->header->buffers_lent = e->buffers.finished_count;
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
  if (e->ring.uring.ring_fd >= 0)
    buffer_ring_close(&e->buffers, &e->ring);
  ring_close(&e->ring);
  free(e->at_once);
  free(e);
  ring->state = NULL;
}

/* What liburing's probe cannot tell: whether the multishot forms work. Tried on a socket pair. */
static void try_multishot(struct uring_engine *e, struct ul_ring *ring) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
    return;
  struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring.uring);
  io_uring_prep_recv_multishot(sqe, pair[0], NULL, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = BUFFER_GROUP;
  sqe->user_data = RING_OWN_NOTE;
  bool works = write(pair[1], "x", 1) == 1;
  close(pair[1]); // ends the receive: one entry with a byte, then one with 0
  for (int round = 0; works && round < 4; round++) {
    ring_enter(&e->ring, ring, 1);
    struct io_uring_cqe *cqe;
    while (!io_uring_peek_cqe(&e->ring.uring, &cqe)) {
      if (cqe->res > 0) {
        buffer_ring_take(&e->buffers, cqe);
        works = cqe->flags & IORING_CQE_F_MORE;
      } else {
        round = 4;
        works = works && cqe->res == 0;
      }
      io_uring_cqe_seen(&e->ring.uring, cqe);
    }
  }
  close(pair[0]);
  // Multishot accept came before multishot recv (5.19, 6.0), so the one vouches for the other.
  if (works)
    e->ring.features |= UL_FEATURE_MULTISHOT_RECV | UL_FEATURE_MULTISHOT_ACCEPT;
}

static int uring_open(struct ul_ring *ring, struct ul_config *config) {
  struct uring_engine *e = calloc(1, sizeof *e);
  if (!e)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the engine");
  ring->state = e;
  int error = ring_open(&e->ring, ring, config);
  if (!error)
    error = buffer_ring_open(&e->buffers, &e->ring, ring, config);
  if (error)
    return error;
  e->at_once = malloc((size_t)config->slot_capacity * sizeof *e->at_once);
  if (!e->at_once)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the send list");
  try_multishot(e, ring);
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
