/*
 * engine_epoll.c - readiness through epoll: for machines where io_uring is forbidden, and the baseline that
 * the ring engines are measured against. Practices shown, and the kernel each needs:
 *
 *  - edge-triggered, registered once (EPOLLET): no epoll_ctl per operation. EPOLLOUT is asked for when a send
 * first blocks: asked for from the start, each new connection would wake the loop to say that it is writable;
 *  - try first: a send goes out while it is staged. A receive waits for readiness, and on TCP a short one
 * means empty (epoll(7)), which saves the receive that would say EAGAIN;
 *  - one receive per connection and turn; a connection that has more goes to the end of the run list;
 *  - receives lie side by side in the buffers, as with incremental consumption on the ring: they all come
 * back at the next tick, so a cursor is the whole allocator;
 *  - timeouts in a heap (timeouts.h), waits in nanoseconds (epoll_pwait2, 5.11; before that milliseconds,
 * rounded up);
 *  - while the host sleeps on the eventfd a helper thread watches the epoll descriptor (epoll_waker.h).
 *
 * epoll_set.h keeps what is known of each descriptor, and who waits for it.
 */
#include "epoll_set.h"
#include "epoll_waker.h"
#include "timeouts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define HOST_KEY    UINT32_MAX
#define FOREVER_NS  1e15 // waits longer than eleven days need no bound
#define BUFFER_REST 8    // a buffer with less than this part of it left is full

/* ul_slot.state. Everything else has ended, and only its completion is under way. */
enum slot_state { SLOT_WAITING = 1 };

struct epoll_engine {
  struct epoll_set set;
  struct timeouts timeouts;
  struct epoll_waker waker;
  bool host_watched, notifying;
  struct slot_list quiet;                     // QUIET sends that are done: reported with whatever comes next
  uint32_t cursor, buffer_bytes, buffers_end; // bytes into the receive buffers
};

/* ---- the calls that do the work ---- */

static uint32_t ready_now(struct ul_ring *ring, int fd, uint32_t mask) {
  struct pollfd query = {.fd = fd, .events = (short)mask};
  ring->header->system_calls++;
  return poll(&query, 1, 0) > 0 ? (uint32_t)query.revents : 0;
}

/* Sends what is left. Returns the slot's result, or -EAGAIN: an edge will follow. */
static int32_t try_send(struct ul_ring *ring, struct ul_slot *slot) {
  ring->header->system_calls++;
  ssize_t n = send(slot->fd, ring->arena + slot->offset + slot->done, slot->length - slot->done,
                   MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n < 0)
    return errno == EINTR ? -EAGAIN : -errno;
  slot->done += (uint32_t)n;
  ring->header->bytes_sent += (uint64_t)n;
  return slot->done == slot->length ? (int32_t)slot->length : -EAGAIN;
}

static int32_t try_accept(struct ul_ring *ring, const struct epoll_descriptor *d, int fd) {
  if ((d->state & FOREIGN) && !ready_now(ring, fd, POLLIN))
    return -EAGAIN; // it may be a blocking one
  ring->header->system_calls++;
  int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  return accepted < 0 ? -errno : ul_own(ring, accepted, ring->fds[fd].family);
}

/* Never waits, on a foreign blocking socket neither. */
static int32_t try_connect(struct ul_ring *ring, const struct ul_slot *slot) {
  struct sockaddr_storage address;
  socklen_t length = ul_to_sockaddr((const struct ul_address *)(ring->arena + slot->offset), &address);
  int status = ul_owned(ring, slot->fd) ? O_NONBLOCK : fcntl(slot->fd, F_GETFL);
  if (status < 0)
    return -errno;
  if (!(status & O_NONBLOCK))
    fcntl(slot->fd, F_SETFL, status | O_NONBLOCK);
  ring->header->system_calls++;
  int32_t result = connect(slot->fd, (struct sockaddr *)&address, length) ? -errno : 0;
  if (!(status & O_NONBLOCK))
    fcntl(slot->fd, F_SETFL, status);
  return result;
}

static int32_t connect_result(struct ul_ring *ring, int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  ring->header->system_calls++;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) ? -errno : -error;
}

/* Receives once and emits, or finds nothing. Returns true when another receive would tell whether there is
 * more. */
static bool receive(struct epoll_engine *e, struct ul_ring *ring, struct epoll_descriptor *d,
                    uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  uint32_t offset = e->cursor, space = e->buffer_bytes - offset % e->buffer_bytes;
  ssize_t n = -ENOBUFS;
  if (offset < e->buffers_end) {
    ring->header->system_calls++;
    n = recv(slot->fd, ring->buffers + offset, space, MSG_DONTWAIT);
    n = n < 0 ? -errno : n;
  } else
    ring->header->no_buffers++;
  if (n == -EAGAIN)
    d->state &= ~(uint32_t)READABLE;
  if (n == -EAGAIN || n == -EINTR)
    return false;
  bool multishot = n > 0 && (slot->flags & UL_C_MULTISHOT), some = n > 0 && (uint32_t)n < space;
  if (n > 0) {
    e->cursor += (uint32_t)n;
    if (space - (uint32_t)n < e->buffer_bytes / BUFFER_REST)
      e->cursor += space - (uint32_t)n;
    ring->header->bytes_received += (uint64_t)n;
  }
  if (some && !(d->state & EXACT))
    d->state &= ~(uint32_t)READABLE;
  if (!multishot)
    slot_list_remove(ring, &d->readers, index);
  ul_emit(ring, index, (int32_t)n, (multishot ? UL_F_MORE : 0) | (n > 0 ? UL_F_BUFFER : 0),
          n > 0 ? offset : 0);
  return some;
}

/* ---- staging ---- */

static void wait_in(struct ul_ring *ring, struct slot_list *list, uint32_t index) {
  ring->slots[index].state = SLOT_WAITING;
  slot_list_push(ring, list, index);
}

static void stage_reader(struct epoll_engine *e, struct ul_ring *ring, uint32_t index) {
  int fd = ring->slots[index].fd;
  struct epoll_descriptor *d = &e->set.fds[fd];
  int error = epoll_set_want(&e->set, ring, fd, EPOLLIN | EPOLLPRI, false); // EPOLLPRI: see EXACT
  if (error) {
    ul_complete_later(ring, index, error);
    return;
  }
  wait_in(ring, &d->readers, index);
  if (d->state & READABLE)
    epoll_set_enqueue(&e->set, fd);
}

static void stage_writer(struct epoll_engine *e, struct ul_ring *ring, uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  struct epoll_descriptor *d = &e->set.fds[slot->fd];
  int32_t result = -EAGAIN;
  if (slot->op == UL_OP_CONNECT)
    result = try_connect(ring, slot);
  else if (!d->writers.head && !(d->state & BLOCKED))
    result = try_send(ring, slot);
  if (result == (slot->op == UL_OP_CONNECT ? -EINPROGRESS : -EAGAIN)) {
    ring->header->sends_blocked += slot->op == UL_OP_SEND;
    result = epoll_set_want(&e->set, ring, slot->fd, EPOLLOUT, false);
    if (!result) {
      d->state |= BLOCKED;
      wait_in(ring, &d->writers, index);
      return;
    }
  }
  if (result > 0 && (slot->flags & UL_C_QUIET))
    slot_list_push(ring, &e->quiet, index);
  else
    ul_complete_later(ring, index, result);
}

static void stage_poll(struct epoll_engine *e, struct ul_ring *ring, uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  struct epoll_descriptor *d = &e->set.fds[slot->fd];
  int error = epoll_set_want(&e->set, ring, slot->fd, slot->length, true);
  if (error) {
    ul_complete_later(ring, index, error);
    return;
  }
  wait_in(ring, &d->polls, index);
  if ((d->state & ALWAYS) && (slot->done = ready_now(ring, slot->fd, slot->length)))
    epoll_set_enqueue(&e->set, slot->fd);
}

static int32_t cancel(struct epoll_engine *e, struct ul_ring *ring, uint32_t target) {
  struct ul_slot *slot = &ring->slots[target];
  if (slot->state != SLOT_WAITING)
    return -ENOENT;
  if (slot->op == UL_OP_TIMEOUT) {
    timeouts_remove(&e->timeouts, ring, target);
  } else {
    struct epoll_descriptor *d = &e->set.fds[slot->fd];
    bool reader = slot->op == UL_OP_RECV || slot->op == UL_OP_ACCEPT;
    slot_list_remove(ring, reader ? &d->readers : slot->op == UL_OP_POLL ? &d->polls : &d->writers, target);
    epoll_set_forget_if_idle(&e->set, ring, slot->fd);
  }
  slot->state = 0;
  ul_complete_later(ring, target, -ECANCELED);
  return 0;
}

static void epoll_stage(struct ul_ring *ring, uint32_t index) {
  struct epoll_engine *e = ring->state;
  struct ul_slot *slot = &ring->slots[index];
  switch (slot->op) {
  case UL_OP_ACCEPT:
  case UL_OP_RECV:
    stage_reader(e, ring, index);
    break;
  case UL_OP_SEND:
  case UL_OP_CONNECT:
    stage_writer(e, ring, index);
    break;
  case UL_OP_POLL:
    stage_poll(e, ring, index);
    break;
  case UL_OP_TIMEOUT:
    slot->state = SLOT_WAITING;
    timeouts_add(&e->timeouts, ring, index, ul_now_ns() + ul_timeout_ns(slot));
    break;
  case UL_OP_CANCEL:
    ul_complete_later(ring, index, cancel(e, ring, slot->offset));
    break;
  case UL_OP_CLOSE:
    epoll_set_forget(&e->set, ring, slot->fd);
    ring->header->system_calls++;
    ul_complete_later(ring, index, close(slot->fd) ? -errno : 0);
    break;
  default:
    ul_complete_later(ring, index, 0);
    break;
  }
}

/* ---- completing ---- */

static void run_polls(struct ul_ring *ring, struct epoll_descriptor *d) {
  for (uint32_t at = d->polls.head, next; at && ul_room(ring); at = next) {
    struct ul_slot *slot = &ring->slots[at - 1];
    uint32_t mask = slot->done;
    next = slot->link;
    slot->done = 0;
    if (mask && !(slot->flags & UL_C_MULTISHOT))
      slot_list_remove(ring, &d->polls, at - 1);
    if (mask)
      ul_emit(ring, at - 1, (int32_t)mask, slot->flags & UL_C_MULTISHOT ? UL_F_MORE : 0, 0);
  }
}

static void run_writers(struct ul_ring *ring, struct epoll_descriptor *d, int fd) {
  while (d->writers.head && !(d->state & BLOCKED) && ul_room(ring)) {
    uint32_t index = d->writers.head - 1;
    struct ul_slot *slot = &ring->slots[index];
    int32_t result = slot->op == UL_OP_CONNECT ? connect_result(ring, fd) : try_send(ring, slot);
    if (result == -EAGAIN) {
      d->state |= BLOCKED;
      return;
    }
    slot_list_remove(ring, &d->writers, index);
    ul_emit(ring, index, result, 0, 0);
  }
}

static void run_readers(struct epoll_engine *e, struct ul_ring *ring, struct epoll_descriptor *d, int fd) {
  int receives = 0;
  while (d->readers.head && (d->state & READABLE) && ul_room(ring)) {
    uint32_t index = d->readers.head - 1;
    struct ul_slot *slot = &ring->slots[index];
    if (slot->op == UL_OP_RECV) {
      // One a turn, and after a short one another to find the socket empty or at its end.
      if (receives++ == 2 || !receive(e, ring, d, index))
        return;
      continue;
    }
    int32_t result = try_accept(ring, d, fd);
    bool more = result >= 0 && (slot->flags & UL_C_MULTISHOT);
    if (result == -EAGAIN) {
      d->state &= ~(uint32_t)READABLE;
      return;
    }
    if (!more)
      slot_list_remove(ring, &d->readers, index);
    ul_emit(ring, index, result, more ? UL_F_MORE : 0, 0);
  }
}

/* One turn of a descriptor: whatever its state allows. What is left of it keeps it in the run list. */
static void run(struct epoll_engine *e, struct ul_ring *ring, int fd) {
  struct epoll_descriptor *d = &e->set.fds[fd];
  run_polls(ring, d);
  run_writers(ring, d, fd);
  run_readers(e, ring, d, fd);
  bool polls_left = d->polls.head && !ul_room(ring); // some may not have been looked at
  if (polls_left || (d->writers.head && !(d->state & BLOCKED)) || (d->readers.head && (d->state & READABLE)))
    epoll_set_enqueue(&e->set, fd);
  else
    epoll_set_forget_if_idle(&e->set, ring, fd);
}

static void run_all(struct epoll_engine *e, struct ul_ring *ring) {
  int last = (int)e->set.run_tail - 1; // who comes in meanwhile has the next turn
  for (int fd = -1; fd != last && ul_room(ring);)
    run(e, ring, fd = epoll_set_dequeue(&e->set));
}

static void on_event(struct epoll_engine *e, struct ul_ring *ring, int fd, uint32_t events) {
  struct epoll_descriptor *d = &e->set.fds[fd];
  if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
    d->state |= READABLE;
  if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
    d->state |= EXACT;
  if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
    d->state &= ~(uint32_t)BLOCKED;
  for (uint32_t at = d->polls.head; at; at = ring->slots[at - 1].link)
    ring->slots[at - 1].done |= events & (ring->slots[at - 1].length | POLLERR | POLLHUP);
  if (d->readers.head || d->writers.head || d->polls.head)
    epoll_set_enqueue(&e->set, fd);
}

/* Takes events, having slept until `until_ns` or the next timeout. Returns 0, 1 (interrupted) or -errno. */
static int gather(struct epoll_engine *e, struct ul_ring *ring, uint64_t until_ns) {
  struct epoll_event events[EPOLL_EVENTS_MAX];
  uint64_t due_ns = timeouts_first_ns(&e->timeouts), bound = due_ns < until_ns ? due_ns : until_ns;
  int n = epoll_set_wait(&e->set, ring, events, bound);
  if (n < 0)
    return errno == EINTR ? 1 : -errno;
  if (!n && bound && bound == until_ns)
    ring->header->wait_expired = 1;
  for (int i = 0; i < n; i++) {
    if (events[i].data.u32 == HOST_KEY)
      ring->header->host_ready = 1;
    else
      on_event(e, ring, (int)events[i].data.u32, events[i].events);
  }
  return 0;
}

static void expire(struct epoll_engine *e, struct ul_ring *ring) {
  uint64_t now = e->timeouts.count ? ul_now_ns() : 0;
  while (timeouts_first_ns(&e->timeouts) <= now && ul_room(ring)) {
    uint32_t index = e->timeouts.heap[0].slot;
    timeouts_remove(&e->timeouts, ring, index);
    ul_emit(ring, index, -ETIME, 0, 0);
  }
}

/* While the host sleeps: the helper thread watches for it, unless there is something to do already. */
static void arm_waker(struct epoll_engine *e, struct ul_ring *ring) {
  if (e->set.run_head || ul_has_deferred(ring))
    ul_signal(ring->event_fd);
  else
    epoll_waker_arm(&e->waker, timeouts_first_ns(&e->timeouts));
}

static int epoll_flush(struct ul_ring *ring) {
  struct epoll_engine *e = ring->state;
  if (e->notifying)
    arm_waker(e, ring); // a timeout may be due sooner now
  return 0;
}

static int epoll_harvest(struct ul_ring *ring, double wait_ns) {
  struct epoll_engine *e = ring->state;
  struct ul_header *header = ring->header;
  bool sleep = wait_ns > 0 && !e->set.run_head && !ul_has_deferred(ring);
  if (sleep && ring->host_fd >= 0 && !e->host_watched && !e->notifying)
    e->host_watched = !epoll_set_control(&e->set, ring, EPOLL_CTL_ADD, ring->host_fd, EPOLLIN, HOST_KEY);
  uint64_t until = !sleep ? 0 : wait_ns > FOREVER_NS ? UL_NEVER : ul_now_ns() + (uint64_t)wait_ns;
  int error;
  do {
    error = gather(e, ring, until);
    expire(e, ring);
    run_all(e, ring);
    // Events that led to nothing are not worth coming back for.
  } while (sleep && !error && !ring->completion_count && !header->wait_expired && !header->host_ready &&
           !e->set.run_head && !ul_has_deferred(ring));
  while (e->quiet.head && ul_room(ring)) {
    uint32_t index = e->quiet.head - 1;
    slot_list_remove(ring, &e->quiet, index);
    ul_emit(ring, index, (int32_t)ring->slots[index].length, 0, 0);
  }
  header->buffers_lent = (e->cursor + e->buffer_bytes - 1) / e->buffer_bytes;
  if (e->notifying)
    arm_waker(e, ring);
  return error < 0 ? error : 0;
}

/* ---- set-up ---- */

static int epoll_notify(struct ul_ring *ring, bool on) {
  struct epoll_engine *e = ring->state;
  int error = on ? epoll_waker_start(&e->waker, e->set.epoll_fd, ring->event_fd) : 0;
  if (error)
    return error;
  // The host's epoll watches the eventfd: watched from here too, each would set off the other for ever.
  if (on && e->host_watched) {
    epoll_set_control(&e->set, ring, EPOLL_CTL_DEL, ring->host_fd, 0, 0);
    e->host_watched = false;
  }
  e->notifying = on;
  if (on)
    arm_waker(e, ring);
  else if (e->waker.running)
    epoll_waker_disarm(&e->waker);
  return 0;
}

static void epoll_recycle(struct ul_ring *ring) {
  struct epoll_engine *e = ring->state;
  e->cursor = 0;
  ring->header->buffers_lent = 0;
}

static void epoll_close(struct ul_ring *ring) {
  struct epoll_engine *e = ring->state;
  if (e->waker.running)
    epoll_waker_stop(&e->waker);
  epoll_set_close(&e->set);
  free(e->timeouts.heap);
  free(e);
  ring->state = NULL;
}

static int epoll_open(struct ul_ring *ring, struct ul_config *config) {
  struct epoll_engine *e = calloc(1, sizeof *e);
  if (!e)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the engine");
  ring->state = e;
  e->buffer_bytes = config->buffer_bytes;
  e->buffers_end = config->buffer_count * config->buffer_bytes;
  int error = epoll_set_open(&e->set, ring, config);
  if (error)
    return error;
  e->timeouts.heap = calloc(ring->slot_capacity, sizeof *e->timeouts.heap); // touched as timeouts come
  return e->timeouts.heap ? 0 : ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the timeouts");
}

const struct ul_engine ul_engine_epoll = {
    .name = "epoll",
    .open = epoll_open,
    .stage = epoll_stage,
    .flush = epoll_flush,
    .harvest = epoll_harvest,
    .notify = epoll_notify,
    .recycle = epoll_recycle,
    .close = epoll_close,
};
