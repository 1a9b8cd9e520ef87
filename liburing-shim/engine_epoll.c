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
 *  - timeouts in a heap, waits in nanoseconds (epoll_pwait2, 5.11; before that milliseconds, rounded up);
 *  - while the host sleeps on the eventfd a helper thread watches the epoll descriptor for it.
 *
 * Edges and their loss: readiness is remembered in the descriptor's state until a call says EAGAIN, so an
 * event that finds nobody waiting is not lost. Descriptors that the ring does not own may be closed and
 * reused behind our back: they leave the epoll set as soon as nothing waits on them.
 */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX  512
#define HOST_KEY    UINT32_MAX
#define NEVER       UINT64_MAX
#define FOREVER_NS  1e15         // waits longer than eleven days need no bound
#define WAKER_STACK (256 * 1024) // the static TLS of the process lies in it too
#define BUFFER_REST 8            // a buffer with less than this part of it left is full

/* ul_slot.state. Everything else has ended, and only its completion is under way. */
enum slot_state { SLOT_WAITING = 1 };

enum descriptor_state {
  READABLE = 1, // until a receive or an accept says otherwise
  BLOCKED = 2,  // a send found no space, or a connect is under way: until EPOLLOUT
  EXACT = 4,    // a short receive does not mean empty: not TCP, or its end is near, or urgent data lie in it
  QUEUED = 8,   // in the run list
  FOREIGN = 16, // not owned by the ring
  ALWAYS = 32,  // epoll refuses it: always ready
};

/* Slots in the order they came: index + 1, linked through ul_slot.link. */
struct list {
  uint32_t head, tail;
};

struct descriptor {
  struct list readers, writers, polls; // RECV and ACCEPT; SEND and CONNECT; POLL
  uint32_t run_next;                   // next in the run list: fd + 1
  uint32_t interest;                   // events registered; 0: not in the epoll set
  uint32_t state;
};

struct due {
  uint64_t ns;
  uint32_t slot;
};

/* The helper thread. All but the constants under `lock`; only the ring's thread arms. */
struct waker {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  int epoll_fd, event_fd, control_fd; // constant while it runs
  bool armed, polling, quit;
  uint64_t due_ns, polling_until_ns;
};

struct epoll_engine {
  int epoll_fd;
  bool host_watched, notifying, waker_runs, no_pwait2;
  struct descriptor *fds;
  uint32_t run_head, run_tail; // fd + 1
  struct list quiet;           // QUIET sends that are done: reported with whatever comes next
  struct due *heap;
  uint32_t heap_count;
  uint32_t cursor, buffer_bytes, buffers_end; // bytes into the receive buffers
  struct waker waker;
};

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool has_deferred(const struct ul_ring *ring) {
  return ring->deferred_head != ring->deferred_tail;
}

/* ---- lists
 * ------------------------------------------------------------------------------------------------------- */

static void push(struct ul_ring *ring, struct list *list, uint32_t index) {
  ring->slots[index].link = 0;
  if (list->tail)
    ring->slots[list->tail - 1].link = index + 1;
  else
    list->head = index + 1;
  list->tail = index + 1;
}

static void take_out(struct ul_ring *ring, struct list *list, uint32_t index) {
  uint32_t before = 0;
  for (uint32_t at = list->head; at != index + 1; at = ring->slots[at - 1].link)
    before = at;
  uint32_t next = ring->slots[index].link;
  if (before)
    ring->slots[before - 1].link = next;
  else
    list->head = next;
  if (!next)
    list->tail = before;
  ring->slots[index].state = 0;
}

static void enqueue(struct epoll_engine *e, int fd) {
  struct descriptor *d = &e->fds[fd];
  if (d->state & QUEUED)
    return;
  d->state |= QUEUED;
  d->run_next = 0;
  if (e->run_tail)
    e->fds[e->run_tail - 1].run_next = (uint32_t)fd + 1;
  else
    e->run_head = (uint32_t)fd + 1;
  e->run_tail = (uint32_t)fd + 1;
}

/* Puts an entry at its place in the heap, starting from the hole `at`; ul_slot.link is its position. */
static void heap_place(struct epoll_engine *e, struct ul_ring *ring, uint32_t at, struct due entry) {
  for (uint32_t up; at && e->heap[up = (at - 1) / 2].ns > entry.ns; at = up) {
    e->heap[at] = e->heap[up];
    ring->slots[e->heap[at].slot].link = at;
  }
  for (uint32_t down; (down = 2 * at + 1) < e->heap_count; at = down) {
    if (down + 1 < e->heap_count && e->heap[down + 1].ns < e->heap[down].ns)
      down++;
    if (e->heap[down].ns >= entry.ns)
      break;
    e->heap[at] = e->heap[down];
    ring->slots[e->heap[at].slot].link = at;
  }
  e->heap[at] = entry;
  ring->slots[entry.slot].link = at;
}

static void heap_remove(struct epoll_engine *e, struct ul_ring *ring, uint32_t index) {
  uint32_t at = ring->slots[index].link;
  struct due last = e->heap[--e->heap_count];
  if (at != e->heap_count)
    heap_place(e, ring, at, last);
  ring->slots[index].state = 0;
}

/* ---- the epoll set
 * ----------------------------------------------------------------------------------------------- */

static int control(struct epoll_engine *e, struct ul_ring *ring, int op, int fd, uint32_t events,
                   uint32_t key) {
  struct epoll_event event = {.events = events | EPOLLET, .data.u32 = key};
  ring->header->system_calls++;
  return epoll_ctl(e->epoll_fd, op, fd, &event) ? -errno : 0;
}

/* Sees to it that `events` of a descriptor are reported; `again`: also the ones that are there already. */
static int want(struct epoll_engine *e, struct ul_ring *ring, int fd, uint32_t events, bool again) {
  struct descriptor *d = &e->fds[fd];
  bool foreign = !ul_owned(ring, fd);
  if (d->interest && !foreign != !(d->state & FOREIGN))
    d->interest = 0; // closed and reused behind our back
  if (!d->interest) {
    bool tcp = !foreign && ring->fds[fd].family != AF_UNIX && ring->fds[fd].family != AF_UNSPEC;
    d->state = (d->state & QUEUED) | (tcp ? 0 : EXACT) | (foreign ? FOREIGN | READABLE : 0);
  }
  uint32_t all = d->interest | events | EPOLLRDHUP;
  if (all == d->interest && !again)
    return 0;
  int op = d->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  int error = d->state & ALWAYS ? -EPERM : control(e, ring, op, fd, all, (uint32_t)fd);
  if (error == -EEXIST || error == -ENOENT)
    error = control(e, ring, op == EPOLL_CTL_MOD ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, all, (uint32_t)fd);
  if (error == -EPERM)
    d->state |= ALWAYS | READABLE;
  else if (error)
    return error;
  d->interest = all;
  return 0;
}

static void forget(struct epoll_engine *e, struct ul_ring *ring, int fd) {
  struct descriptor *d = &e->fds[fd];
  if (d->interest && !(d->state & ALWAYS))
    control(e, ring, EPOLL_CTL_DEL, fd, 0, 0);
  d->interest = 0;
  d->state &= QUEUED; // the entry in the run list stays: it does nothing
}

static void forget_if_idle(struct epoll_engine *e, struct ul_ring *ring, int fd) {
  const struct descriptor *d = &e->fds[fd];
  if ((d->state & FOREIGN) && !d->readers.head && !d->writers.head && !d->polls.head)
    forget(e, ring, fd);
}

/* ---- the calls that do the work
 * ---------------------------------------------------------------------------------- */

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

static int32_t try_accept(struct ul_ring *ring, const struct descriptor *d, int fd) {
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
static bool receive(struct epoll_engine *e, struct ul_ring *ring, struct descriptor *d, uint32_t index) {
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
    take_out(ring, &d->readers, index);
  ul_emit(ring, index, (int32_t)n, (multishot ? UL_F_MORE : 0) | (n > 0 ? UL_F_BUFFER : 0),
          n > 0 ? offset : 0);
  return some;
}

/* ---- staging
 * ----------------------------------------------------------------------------------------------------- */

static void wait_in(struct ul_ring *ring, struct list *list, uint32_t index) {
  ring->slots[index].state = SLOT_WAITING;
  push(ring, list, index);
}

static void stage_reader(struct epoll_engine *e, struct ul_ring *ring, uint32_t index) {
  int fd = ring->slots[index].fd;
  struct descriptor *d = &e->fds[fd];
  int error = want(e, ring, fd, EPOLLIN | EPOLLPRI, false); // EPOLLPRI: see EXACT
  if (error) {
    ul_complete_later(ring, index, error);
    return;
  }
  wait_in(ring, &d->readers, index);
  if (d->state & READABLE)
    enqueue(e, fd);
}

static void stage_writer(struct epoll_engine *e, struct ul_ring *ring, uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  struct descriptor *d = &e->fds[slot->fd];
  int32_t result = -EAGAIN;
  if (slot->op == UL_OP_CONNECT)
    result = try_connect(ring, slot);
  else if (!d->writers.head && !(d->state & BLOCKED))
    result = try_send(ring, slot);
  if (result == (slot->op == UL_OP_CONNECT ? -EINPROGRESS : -EAGAIN)) {
    ring->header->sends_blocked += slot->op == UL_OP_SEND;
    result = want(e, ring, slot->fd, EPOLLOUT, false);
    if (!result) {
      d->state |= BLOCKED;
      wait_in(ring, &d->writers, index);
      return;
    }
  }
  if (result > 0 && (slot->flags & UL_C_QUIET))
    push(ring, &e->quiet, index);
  else
    ul_complete_later(ring, index, result);
}

static void stage_poll(struct epoll_engine *e, struct ul_ring *ring, uint32_t index) {
  struct ul_slot *slot = &ring->slots[index];
  struct descriptor *d = &e->fds[slot->fd];
  int error = want(e, ring, slot->fd, slot->length, true);
  if (error) {
    ul_complete_later(ring, index, error);
    return;
  }
  wait_in(ring, &d->polls, index);
  if ((d->state & ALWAYS) && (slot->done = ready_now(ring, slot->fd, slot->length)))
    enqueue(e, slot->fd);
}

static int32_t cancel(struct epoll_engine *e, struct ul_ring *ring, uint32_t target, uint32_t generation) {
  struct ul_slot *slot = target < ring->slot_capacity ? &ring->slots[target] : NULL;
  if (!slot || !slot->op || slot->generation != generation || slot->state != SLOT_WAITING)
    return -ENOENT;
  if (slot->op == UL_OP_TIMEOUT) {
    heap_remove(e, ring, target);
  } else {
    struct descriptor *d = &e->fds[slot->fd];
    bool reader = slot->op == UL_OP_RECV || slot->op == UL_OP_ACCEPT;
    take_out(ring, reader ? &d->readers : slot->op == UL_OP_POLL ? &d->polls : &d->writers, target);
    forget_if_idle(e, ring, slot->fd);
  }
  ul_complete_later(ring, target, -ECANCELED);
  return 0;
}

static void epoll_stage(struct ul_ring *ring, const struct ul_command *command, struct ul_slot *slot) {
  struct epoll_engine *e = ring->state;
  uint32_t index = command->slot;
  switch (command->op) {
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
    heap_place(e, ring, e->heap_count++, (struct due){now_ns() + command->argument, index});
    break;
  case UL_OP_CANCEL:
    ul_complete_later(ring, index, cancel(e, ring, command->offset, command->length));
    break;
  case UL_OP_CLOSE:
    forget(e, ring, command->fd);
    ring->header->system_calls++;
    ul_complete_later(ring, index, close(command->fd) ? -errno : 0);
    break;
  default:
    ul_complete_later(ring, index, 0);
    break;
  }
}

/* ---- completing
 * -------------------------------------------------------------------------------------------------- */

static void run_polls(struct ul_ring *ring, struct descriptor *d) {
  for (uint32_t at = d->polls.head, next; at && ul_room(ring); at = next) {
    struct ul_slot *slot = &ring->slots[at - 1];
    uint32_t mask = slot->done;
    next = slot->link;
    slot->done = 0;
    if (mask && !(slot->flags & UL_C_MULTISHOT))
      take_out(ring, &d->polls, at - 1);
    if (mask)
      ul_emit(ring, at - 1, (int32_t)mask, slot->flags & UL_C_MULTISHOT ? UL_F_MORE : 0, 0);
  }
}

static void run_writers(struct ul_ring *ring, struct descriptor *d, int fd) {
  while (d->writers.head && !(d->state & BLOCKED) && ul_room(ring)) {
    uint32_t index = d->writers.head - 1;
    struct ul_slot *slot = &ring->slots[index];
    int32_t result = slot->op == UL_OP_CONNECT ? connect_result(ring, fd) : try_send(ring, slot);
    if (result == -EAGAIN) {
      d->state |= BLOCKED;
      return;
    }
    take_out(ring, &d->writers, index);
    ul_emit(ring, index, result, 0, 0);
  }
}

static void run_readers(struct epoll_engine *e, struct ul_ring *ring, struct descriptor *d, int fd) {
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
      take_out(ring, &d->readers, index);
    ul_emit(ring, index, result, more ? UL_F_MORE : 0, 0);
  }
}

/* One turn of a descriptor: whatever its state allows. What is left of it keeps it in the run list. */
static void run(struct epoll_engine *e, struct ul_ring *ring, int fd) {
  struct descriptor *d = &e->fds[fd];
  run_polls(ring, d);
  run_writers(ring, d, fd);
  run_readers(e, ring, d, fd);
  bool polls_left = d->polls.head && !ul_room(ring); // some may not have been looked at
  if (polls_left || (d->writers.head && !(d->state & BLOCKED)) || (d->readers.head && (d->state & READABLE)))
    enqueue(e, fd);
  else
    forget_if_idle(e, ring, fd);
}

static void run_all(struct epoll_engine *e, struct ul_ring *ring) {
  uint32_t last = e->run_tail, at = 0;
  while (at != last && ul_room(ring)) {
    at = e->run_head;
    struct descriptor *d = &e->fds[at - 1];
    e->run_head = d->run_next;
    if (!e->run_head)
      e->run_tail = 0;
    d->state &= ~(uint32_t)QUEUED;
    run(e, ring, (int)at - 1);
  }
}

static void on_event(struct epoll_engine *e, struct ul_ring *ring, int fd, uint32_t events) {
  struct descriptor *d = &e->fds[fd];
  if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
    d->state |= READABLE;
  if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
    d->state |= EXACT;
  if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
    d->state &= ~(uint32_t)BLOCKED;
  for (uint32_t at = d->polls.head; at; at = ring->slots[at - 1].link)
    ring->slots[at - 1].done |= events & (ring->slots[at - 1].length | POLLERR | POLLHUP);
  if (d->readers.head || d->writers.head || d->polls.head)
    enqueue(e, fd);
}

static int wait_for_events(struct epoll_engine *e, struct epoll_event *events, uint64_t bound_ns,
                           uint64_t now) {
  uint64_t left = bound_ns > now ? bound_ns - now : 0;
  struct timespec time = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
  if (!e->no_pwait2) {
    int n = epoll_pwait2(e->epoll_fd, events, EVENTS_MAX, bound_ns == NEVER ? NULL : &time, NULL);
    e->no_pwait2 = n < 0 && (errno == ENOSYS || errno == EPERM);
    if (!e->no_pwait2)
      return n;
  }
  uint64_t ms = (left + 999999) / 1000000;
  return epoll_pwait(e->epoll_fd, events, EVENTS_MAX,
                     bound_ns == NEVER ? -1
                     : ms > INT32_MAX  ? INT32_MAX
                                       : (int)ms,
                     NULL);
}

/* Takes events, having slept until `until_ns` or the next timeout. Returns 0, 1 (interrupted) or -errno. */
static int gather(struct epoll_engine *e, struct ul_ring *ring, uint64_t until_ns) {
  struct epoll_event events[EVENTS_MAX];
  uint64_t bound = e->heap_count && e->heap[0].ns < until_ns ? e->heap[0].ns : until_ns;
  ring->header->system_calls++;
  int n = wait_for_events(e, events, bound, bound && bound != NEVER ? now_ns() : 0);
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
  uint64_t now = e->heap_count ? now_ns() : 0;
  while (e->heap_count && e->heap[0].ns <= now && ul_room(ring)) {
    uint32_t index = e->heap[0].slot;
    heap_remove(e, ring, index);
    ul_emit(ring, index, -ETIME, 0, 0);
  }
}

static void arm_waker(struct epoll_engine *e, struct ul_ring *ring);

static int epoll_flush(struct ul_ring *ring) {
  struct epoll_engine *e = ring->state;
  if (e->notifying)
    arm_waker(e, ring); // a timeout may be due sooner now
  return 0;
}

static int epoll_harvest(struct ul_ring *ring, double wait_ns) {
  struct epoll_engine *e = ring->state;
  struct ul_header *header = ring->header;
  bool sleep = wait_ns > 0 && !e->run_head && !has_deferred(ring);
  if (sleep && ring->host_fd >= 0 && !e->host_watched && !e->notifying)
    e->host_watched = !control(e, ring, EPOLL_CTL_ADD, ring->host_fd, EPOLLIN, HOST_KEY);
  uint64_t until = !sleep ? 0 : wait_ns > FOREVER_NS ? NEVER : now_ns() + (uint64_t)wait_ns;
  int error;
  do {
    error = gather(e, ring, until);
    expire(e, ring);
    run_all(e, ring);
    // Events that led to nothing are not worth coming back for.
  } while (sleep && !error && !ring->completion_count && !header->wait_expired && !header->host_ready &&
           !e->run_head && !has_deferred(ring));
  while (e->quiet.head && ul_room(ring)) {
    uint32_t index = e->quiet.head - 1;
    take_out(ring, &e->quiet, index);
    ul_emit(ring, index, (int32_t)ring->slots[index].length, 0, 0);
  }
  header->buffers_lent = (e->cursor + e->buffer_bytes - 1) / e->buffer_bytes;
  if (e->notifying)
    arm_waker(e, ring);
  return error < 0 ? error : 0;
}

/* ---- the helper thread
 * ------------------------------------------------------------------------------------------- */

static void signal_event(int fd) {
  uint64_t one = 1;
  ssize_t ignored = write(fd, &one, sizeof one); // EAGAIN: it is readable already
  (void)ignored;
}

/* Sleeps until armed, then until the epoll descriptor is readable or a timeout is due; says so once. */
static void *waker_main(void *argument) {
  struct waker *w = argument;
  pthread_mutex_lock(&w->lock);
  while (!w->quit) {
    if (!w->armed) {
      pthread_cond_wait(&w->changed, &w->lock);
      continue;
    }
    uint64_t due = w->polling_until_ns = w->due_ns, now = now_ns(), left = due > now ? due - now : 0;
    struct timespec time = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
    struct pollfd watched[2] = {{.fd = w->epoll_fd, .events = POLLIN},
                                {.fd = w->control_fd, .events = POLLIN}};
    w->polling = true;
    pthread_mutex_unlock(&w->lock);
    int n = ppoll(watched, 2, due == NEVER ? NULL : &time, NULL);
    pthread_mutex_lock(&w->lock);
    w->polling = false;
    uint64_t ignored;
    if (n > 0 && watched[1].revents && read(w->control_fd, &ignored, sizeof ignored) < 0)
      continue;
    if (w->armed && ((n > 0 && watched[0].revents) || now_ns() >= w->due_ns)) {
      w->armed = false;
      signal_event(w->event_fd);
    }
  }
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

static void arm_waker(struct epoll_engine *e, struct ul_ring *ring) {
  struct waker *w = &e->waker;
  if (e->run_head || has_deferred(ring)) {
    signal_event(ring->event_fd);
    return;
  }
  pthread_mutex_lock(&w->lock);
  w->armed = true;
  w->due_ns = e->heap_count ? e->heap[0].ns : NEVER;
  if (!w->polling)
    pthread_cond_signal(&w->changed);
  else if (w->due_ns < w->polling_until_ns)
    signal_event(w->control_fd);
  pthread_mutex_unlock(&w->lock);
}

static int start_waker(struct epoll_engine *e, struct ul_ring *ring) {
  struct waker *w = &e->waker;
  w->epoll_fd = e->epoll_fd;
  w->event_fd = ring->event_fd;
  w->control_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (w->control_fd < 0)
    return -errno;
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, WAKER_STACK);
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->changed, NULL);
  pthread_sigmask(SIG_SETMASK, &all, &before); // signals are the host's
  int error = pthread_create(&w->thread, &attributes, waker_main, w);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (error)
    close(w->control_fd);
  e->waker_runs = !error;
  return -error;
}

static void stop_waker(struct epoll_engine *e) {
  struct waker *w = &e->waker;
  pthread_mutex_lock(&w->lock);
  w->quit = true;
  pthread_cond_signal(&w->changed);
  signal_event(w->control_fd);
  pthread_mutex_unlock(&w->lock);
  pthread_join(w->thread, NULL);
  pthread_cond_destroy(&w->changed);
  pthread_mutex_destroy(&w->lock);
  close(w->control_fd);
}

/* ---- set-up
 * ------------------------------------------------------------------------------------------------------ */

static int epoll_notify(struct ul_ring *ring, bool on) {
  struct epoll_engine *e = ring->state;
  int error = on && !e->waker_runs ? start_waker(e, ring) : 0;
  if (error)
    return error;
  // The host's epoll watches the eventfd: watched from here too, each would set off the other for ever.
  if (on && e->host_watched) {
    control(e, ring, EPOLL_CTL_DEL, ring->host_fd, 0, 0);
    e->host_watched = false;
  }
  e->notifying = on;
  if (on)
    arm_waker(e, ring);
  if (on || !e->waker_runs)
    return 0;
  pthread_mutex_lock(&e->waker.lock);
  e->waker.armed = false;
  pthread_mutex_unlock(&e->waker.lock);
  return 0;
}

static void epoll_recycle(struct ul_ring *ring) {
  struct epoll_engine *e = ring->state;
  e->cursor = 0;
  ring->header->buffers_lent = 0;
}

static void epoll_close(struct ul_ring *ring) {
  struct epoll_engine *e = ring->state;
  if (e->waker_runs)
    stop_waker(e);
  if (e->epoll_fd >= 0)
    close(e->epoll_fd);
  free(e->fds);
  free(e->heap);
  free(e);
  ring->state = NULL;
}

static int epoll_open(struct ul_ring *ring, struct ul_config *config) {
  struct epoll_engine *e = calloc(1, sizeof *e);
  if (!e)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the engine");
  ring->state = e;
  e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (e->epoll_fd < 0)
    return ul_fail(config, UL_STEP_RING, errno, "epoll_create1");
  // Both are touched page by page, as descriptors and timeouts come.
  e->fds = calloc(ring->fd_capacity, sizeof *e->fds);
  e->heap = calloc(ring->slot_capacity, sizeof *e->heap);
  if (!e->fds || !e->heap)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the descriptor table");
  e->buffer_bytes = config->buffer_bytes;
  e->buffers_end = config->buffer_count * config->buffer_bytes;
  return 0;
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
