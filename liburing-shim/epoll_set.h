/*
 * epoll_set.h - the descriptors of the epoll engine: what epoll has been told of each, what waits on it, what
 * is known of its readiness, and which have a turn next.
 *
 * Edges and their loss: readiness is remembered in the descriptor's state until a call says EAGAIN, so an
 * event that finds nobody waiting is not lost. Descriptors that the ring does not own may be closed and
 * reused behind our back: they leave the epoll set as soon as nothing waits on them.
 */
#ifndef UL_EPOLL_SET_H
#define UL_EPOLL_SET_H

#include "engine.h"

#include <sys/epoll.h>

#define EPOLL_EVENTS_MAX 512 // taken per wait

enum epoll_state {
  READABLE = 1, // until a receive or an accept says otherwise
  BLOCKED = 2,  // a send found no space, or a connect is under way: until EPOLLOUT
  EXACT = 4,    // a short receive does not mean empty: not TCP, or its end is near, or urgent data lie in it
  QUEUED = 8,   // in the run list
  FOREIGN = 16, // not owned by the ring
  ALWAYS = 32,  // epoll refuses it: always ready
};

/* Slots in the order they came: index + 1, linked through ul_slot.link. */
struct slot_list {
  uint32_t head, tail;
};

struct epoll_descriptor {
  struct slot_list readers, writers, polls; // RECV and ACCEPT; SEND and CONNECT; POLL
  uint32_t run_next;                        // next in the run list: fd + 1
  uint32_t interest;                        // events registered; 0: not in the epoll set
  uint32_t state;                           // enum epoll_state
};

struct epoll_set {
  int epoll_fd;
  bool no_pwait2;
  struct epoll_descriptor *fds; // by descriptor number
  uint32_t run_head, run_tail;  // fd + 1
};

void slot_list_push(struct ul_ring *ring, struct slot_list *list, uint32_t slot);
void slot_list_remove(struct ul_ring *ring, struct slot_list *list, uint32_t slot);

/* 0 or -errno with config->reason. */
int epoll_set_open(struct epoll_set *set, struct ul_ring *ring, struct ul_config *config);
void epoll_set_close(struct epoll_set *set);
/* epoll_ctl, edge-triggered. */
int epoll_set_control(struct epoll_set *set, struct ul_ring *ring, int op, int fd, uint32_t events,
                      uint32_t key);
/* Sees to it that `events` of a descriptor are reported; `again`: also the ones that are there already. */
int epoll_set_want(struct epoll_set *set, struct ul_ring *ring, int fd, uint32_t events, bool again);
void epoll_set_forget(struct epoll_set *set, struct ul_ring *ring, int fd);
void epoll_set_forget_if_idle(struct epoll_set *set, struct ul_ring *ring, int fd);
/* Takes up to EPOLL_EVENTS_MAX events, having slept until bound_ns (0: not at all; UL_NEVER allowed). */
int epoll_set_wait(struct epoll_set *set, struct ul_ring *ring, struct epoll_event *events,
                   uint64_t bound_ns);
/* The run list: at its end, unless it is in there; the next, or -1. */
void epoll_set_enqueue(struct epoll_set *set, int fd);
int epoll_set_dequeue(struct epoll_set *set);

#endif
