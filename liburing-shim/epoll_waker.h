/*
 * epoll_waker.h - wakes a host that sleeps on the eventfd. A ring can be told to write to an eventfd, an
 * epoll instance cannot: a helper thread watches it meanwhile, and the next timeout with it.
 *
 * Armed, the thread makes the eventfd readable once, then rests until it is armed again. It reads no events
 * and touches neither the ring nor its slots. One too many is harmless: the host looks and finds nothing.
 */
#ifndef UL_EPOLL_WAKER_H
#define UL_EPOLL_WAKER_H

#include "engine.h"

#include <pthread.h>

/* Only the ring's thread starts, arms, disarms and stops. */
struct epoll_waker {
  bool running;                       // the ring's thread alone
  pthread_t thread;                   // likewise
  int epoll_fd, event_fd, control_fd; // constant while it runs
  pthread_mutex_t lock;               // all below
  pthread_cond_t changed;
  bool armed, polling, quit;
  uint64_t due_ns, polling_until_ns;
};

/* 0 or -errno; nothing when it runs already. */
int epoll_waker_start(struct epoll_waker *w, int epoll_fd, int event_fd);
/* To wake the host when the epoll instance has events, or at due_ns (UL_NEVER allowed). */
void epoll_waker_arm(struct epoll_waker *w, uint64_t due_ns);
void epoll_waker_disarm(struct epoll_waker *w);
void epoll_waker_stop(struct epoll_waker *w);

#endif
