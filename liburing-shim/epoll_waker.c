/*
 * epoll_waker.c - see epoll_waker.h. The helper thread first, then what the ring's thread does to it.
 */
#include "epoll_waker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES (256 * 1024) // the static TLS of the process lies in it too

/* Sleeps until armed, then until the epoll descriptor is readable or a timeout is due; says so once. */
static void *waker_main(void *argument) {
  struct epoll_waker *w = argument;
  pthread_mutex_lock(&w->lock);
  while (!w->quit) {
    if (!w->armed) {
      pthread_cond_wait(&w->changed, &w->lock);
      continue;
    }
    uint64_t due = w->polling_until_ns = w->due_ns, now = ul_now_ns(), left = due > now ? due - now : 0;
    struct timespec time = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
    struct pollfd watched[2] = {{.fd = w->epoll_fd, .events = POLLIN},
                                {.fd = w->control_fd, .events = POLLIN}};
    w->polling = true;
    pthread_mutex_unlock(&w->lock);
    int n = ppoll(watched, 2, due == UL_NEVER ? NULL : &time, NULL);
    pthread_mutex_lock(&w->lock);
    w->polling = false;
    uint64_t ignored;
    if (n > 0 && watched[1].revents && read(w->control_fd, &ignored, sizeof ignored) < 0)
      continue;
    if (w->armed && ((n > 0 && watched[0].revents) || ul_now_ns() >= w->due_ns)) {
      w->armed = false;
      ul_signal(w->event_fd);
    }
  }
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

int epoll_waker_start(struct epoll_waker *w, int epoll_fd, int event_fd) {
  if (w->running)
    return 0;
  w->epoll_fd = epoll_fd;
  w->event_fd = event_fd;
  w->control_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (w->control_fd < 0)
    return -errno;
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->changed, NULL);
  pthread_sigmask(SIG_SETMASK, &all, &before); // signals are the host's
  int error = pthread_create(&w->thread, &attributes, waker_main, w);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (error)
    close(w->control_fd);
  w->running = !error;
  return -error;
}

void epoll_waker_arm(struct epoll_waker *w, uint64_t due_ns) {
  pthread_mutex_lock(&w->lock);
  w->armed = true;
  w->due_ns = due_ns;
  if (!w->polling)
    pthread_cond_signal(&w->changed);
  else if (w->due_ns < w->polling_until_ns)
    ul_signal(w->control_fd);
  pthread_mutex_unlock(&w->lock);
}

void epoll_waker_disarm(struct epoll_waker *w) {
  pthread_mutex_lock(&w->lock);
  w->armed = false;
  pthread_mutex_unlock(&w->lock);
}

void epoll_waker_stop(struct epoll_waker *w) {
  pthread_mutex_lock(&w->lock);
  w->quit = true;
  pthread_cond_signal(&w->changed);
  ul_signal(w->control_fd);
  pthread_mutex_unlock(&w->lock);
  pthread_join(w->thread, NULL);
  pthread_cond_destroy(&w->changed);
  pthread_mutex_destroy(&w->lock);
  close(w->control_fd);
}
