/*
 * epoll_set.c - see epoll_set.h. The lists of waiting slots, the calls of epoll itself, the run list.
 */
#include "epoll_set.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void slot_list_push(struct ul_ring *ring, struct slot_list *list, uint32_t index) {
  ring->slots[index].link = 0;
  *(list->tail ? &ring->slots[list->tail - 1].link : &list->head) = index + 1;
  list->tail = index + 1;
}

void slot_list_remove(struct ul_ring *ring, struct slot_list *list, uint32_t index) {
  uint32_t before = 0;
  for (uint32_t at = list->head; at != index + 1; at = ring->slots[at - 1].link)
    before = at;
  uint32_t next = ring->slots[index].link;
  *(before ? &ring->slots[before - 1].link : &list->head) = next;
  if (!next)
    list->tail = before;
}

int epoll_set_open(struct epoll_set *set, struct ul_ring *ring, struct ul_config *config) {
  set->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (set->epoll_fd < 0)
    return ul_fail(config, UL_STEP_RING, errno, "epoll_create1");
  set->fds = calloc(ring->fd_capacity, sizeof *set->fds); // touched page by page, as descriptors come
  return set->fds ? 0 : ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the descriptor table");
}

void epoll_set_close(struct epoll_set *set) {
  if (set->epoll_fd >= 0)
    close(set->epoll_fd);
  free(set->fds);
}

int epoll_set_control(struct epoll_set *set, struct ul_ring *ring, int op, int fd, uint32_t events,
                      uint32_t key) {
  struct epoll_event event = {.events = events | EPOLLET, .data.u32 = key};
  ring->header->system_calls++;
  return epoll_ctl(set->epoll_fd, op, fd, &event) ? -errno : 0;
}

int epoll_set_want(struct epoll_set *set, struct ul_ring *ring, int fd, uint32_t events, bool again) {
  struct epoll_descriptor *d = &set->fds[fd];
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
  int error = d->state & ALWAYS ? -EPERM : epoll_set_control(set, ring, op, fd, all, (uint32_t)fd);
  if (error == -EEXIST || error == -ENOENT) {
    op = op == EPOLL_CTL_MOD ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    error = epoll_set_control(set, ring, op, fd, all, (uint32_t)fd);
  }
  if (error == -EPERM)
    d->state |= ALWAYS | READABLE;
  else if (error)
    return error;
  d->interest = all;
  return 0;
}

void epoll_set_forget(struct epoll_set *set, struct ul_ring *ring, int fd) {
  struct epoll_descriptor *d = &set->fds[fd];
  if (d->interest && !(d->state & ALWAYS))
    epoll_set_control(set, ring, EPOLL_CTL_DEL, fd, 0, 0);
  d->interest = 0;
  d->state &= QUEUED; // the entry in the run list stays: it does nothing
}

void epoll_set_forget_if_idle(struct epoll_set *set, struct ul_ring *ring, int fd) {
  const struct epoll_descriptor *d = &set->fds[fd];
  if ((d->state & FOREIGN) && !d->readers.head && !d->writers.head && !d->polls.head)
    epoll_set_forget(set, ring, fd);
}

int epoll_set_wait(struct epoll_set *set, struct ul_ring *ring, struct epoll_event *events,
                   uint64_t bound_ns) {
  bool forever = bound_ns == UL_NEVER;
  uint64_t now = bound_ns && !forever ? ul_now_ns() : 0, left = bound_ns > now ? bound_ns - now : 0;
  struct timespec time = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
  ring->header->system_calls++;
  if (!set->no_pwait2) {
    int n = epoll_pwait2(set->epoll_fd, events, EPOLL_EVENTS_MAX, forever ? NULL : &time, NULL);
    set->no_pwait2 = n < 0 && (errno == ENOSYS || errno == EPERM);
    if (!set->no_pwait2)
      return n;
  }
  uint64_t ms = (left + 999999) / 1000000;
  int timeout = forever ? -1 : ms > INT32_MAX ? INT32_MAX : (int)ms;
  return epoll_pwait(set->epoll_fd, events, EPOLL_EVENTS_MAX, timeout, NULL);
}

void epoll_set_enqueue(struct epoll_set *set, int fd) {
  struct epoll_descriptor *d = &set->fds[fd];
  if (d->state & QUEUED)
    return;
  d->state |= QUEUED;
  d->run_next = 0;
  *(set->run_tail ? &set->fds[set->run_tail - 1].run_next : &set->run_head) = (uint32_t)fd + 1;
  set->run_tail = (uint32_t)fd + 1;
}

int epoll_set_dequeue(struct epoll_set *set) {
  int fd = (int)set->run_head - 1;
  if (fd < 0)
    return fd;
  set->run_head = set->fds[fd].run_next;
  if (!set->run_head)
    set->run_tail = 0;
  set->fds[fd].state &= ~(uint32_t)QUEUED;
  return fd;
}
