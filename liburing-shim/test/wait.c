/*
 * wait.c - sleeping and waking: bounded waits, the host's descriptor, the eventfd, and that no wake-up is
 * ever lost.
 */
#include "check.h"

static bool readable(int fd, int timeout_ms) {
  struct pollfd query = {.fd = fd, .events = POLLIN};
  return poll(&query, 1, timeout_ms) == 1;
}

static void empty(int fd) {
  uint64_t ignored;
  (void)!read(fd, &ignored, sizeof ignored);
}

static void bounded_waits(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  submit_recv(c, p.ours, true);
  for (int i = 0; i < 5; i++) {
    double start = ul_now_ms();
    // A wait may end early; the flag says when it ran out.
    while (tick(c, 20 * MS) == 0 && !c->header->wait_expired)
      CHECK(ul_now_ms() - start < 1000);
    double took = ul_now_ms() - start;
    CHECK_EQ(c->header->wait_expired, 1);
    CHECK(took >= 19 && took < 60);
  }
  tick(c, 0);
  CHECK_EQ(c->header->wait_expired, 0);
  for (int i = 0; i < 50; i++) { // what is there already ends the wait before it begins
    CHECK_EQ(write(p.theirs, "x", 1), 1);
    double start = ul_now_ms();
    CHECK_EQ(tick(c, 1000 * MS), 1);
    CHECK(ul_now_ms() - start < 500);
  }
  double start = ul_now_ms();
  submit_nop(c);
  CHECK_EQ(tick(c, INFINITY), 1);
  CHECK(ul_now_ms() - start < 500);
  CHECK(c->header->now_ms >= start && c->header->now_ms <= ul_now_ms());
  close(p.theirs);
  shut(c);
}

/* Short waits after a long one that was cut short: the long one's timer must not count for them, nor theirs
 * for it. */
static void waits_of_many_lengths(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  submit_recv(c, p.ours, true);
  static const double lengths_ms[] = {500, 2, 30, 1, 0.05, 200, 3, 0.2, 0.001};
  for (int i = 0; i < 9; i++) {
    if (lengths_ms[i] >= 100) {
      CHECK_EQ(write(p.theirs, "x", 1), 1);
      tick(c, lengths_ms[i] * MS);
      continue;
    }
    double start = ul_now_ms();
    tick(c, lengths_ms[i] * MS);
    CHECK(ul_now_ms() - start < lengths_ms[i] + 15);
  }
  close(p.theirs);
  shut(c);
}

static void *write_later(void *argument) {
  int fd = *(int *)argument;
  usleep(20000);
  (void)!write(fd, "12345678", 8);
  return NULL;
}

static void unbounded_wait_ends_with_an_event(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t slot = submit_recv(c, p.ours, true);
  pthread_t thread;
  CHECK(!pthread_create(&thread, NULL, write_later, &p.theirs));
  double start = ul_now_ms();
  while (!untaken(c, slot)) {
    tick(c, INFINITY);
    CHECK(ul_now_ms() - start < PATIENCE);
  }
  CHECK(ul_now_ms() - start >= 15);
  CHECK_EQ(c->header->wait_expired, 0);
  pthread_join(thread, NULL);
  close(p.theirs);
  shut(c);
}

/* The runtime's loop: an epoll instance with an eventfd in it. */
static void host_cuts_waits(int engine) {
  struct client *c = open_small(engine);
  int host = epoll_create1(EPOLL_CLOEXEC), event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  struct epoll_event ignored = {.events = EPOLLIN};
  CHECK(!epoll_ctl(host, EPOLL_CTL_ADD, event, &ignored));
  CHECK_EQ(ul_watch((uint32_t)c->ring, host), 0);
  CHECK_EQ(ul_watch((uint32_t)c->ring, host), -EINVAL);
  tick(c, 1 * MS);
  CHECK_EQ(c->header->host_ready, 0);
  for (int i = 0; i < 20; i++) {
    pthread_t thread;
    double start = ul_now_ms();
    CHECK(!pthread_create(&thread, NULL, write_later, &event));
    do {
      tick(c, INFINITY);
      CHECK(ul_now_ms() - start < PATIENCE);
    } while (!c->header->host_ready);
    CHECK_EQ(c->header->wait_expired, 0);
    pthread_join(thread, NULL);
    CHECK_EQ(epoll_wait(host, &ignored, 1, 0), 1); // the host's turn
    empty(event);
    CHECK_EQ(epoll_wait(host, &ignored, 1, 0), 0);
    for (int k = 0; k < 3; k++)
      tick(c, 0);     // a late report is allowed
    if (i % 5 == 4) { // a sleep between: the poll is taken away and comes back
      CHECK_EQ(ul_notify((uint32_t)c->ring, 1), 0);
      tick(c, 0);
      uint64_t one = 1;
      empty(ul_event_fd((uint32_t)c->ring));
      CHECK_EQ(write(event, &one, 8), 8);
      CHECK(!readable(ul_event_fd((uint32_t)c->ring), 5)); // the host is awake without us
      empty(event);
      epoll_wait(host, &ignored, 1, 0);
      CHECK_EQ(ul_notify((uint32_t)c->ring, 0), 0);
      tick(c, 0);
    }
  }
  close(host);
  close(event);
  shut(c);
}

static void notifies_when_something_waits(int engine) {
  struct client *c = open_small(engine);
  uint32_t ring = (uint32_t)c->ring;
  struct pair p = unix_pair(c), q = tcp_pair(c);
  int event = ul_event_fd(ring);
  uint32_t slot = submit_recv(c, p.ours, true);
  submit_recv(c, q.ours, true);
  idle_ms(c, 3);
  CHECK_EQ(write(p.theirs, "x", 1), 1);
  CHECK(!readable(event, 5)); // off
  CHECK_EQ(next_of(c, slot)->c.result, 1);
  for (int i = 0; i < 200; i++) {
    CHECK_EQ(ul_notify(ring, 1), 0);
    CHECK_EQ(tick(c, 0), 0);
    empty(event); // a write that was under way is harmless
    if (i < 5)
      CHECK(!readable(event, 5));
    CHECK_EQ(write(p.theirs, "x", 1), 1);
    CHECK(readable(event, PATIENCE));
    if (i % 2) // either order
      CHECK_EQ(ul_notify(ring, 0), 0);
    empty(event);
    CHECK_EQ(next_of(c, slot)->c.result, 1);
    CHECK_EQ(ul_notify(ring, 0), 0);
  }
  CHECK_EQ(write(p.theirs, "x", 1), 1);
  idle_ms(c, 2);
  empty(event);
  CHECK_EQ(write(p.theirs, "x", 1), 1);
  CHECK(!readable(event, 5)); // off again
  close(p.theirs);
  close(q.theirs);
  shut(c);
}

/* The last look before sleeping finds a send that the socket has not taken whole: the rest must not wait for
   the next tick, because there is none. */
static void blocked_send_goes_on_asleep(int engine) {
  struct client *c = open_small(engine);
  uint32_t ring = (uint32_t)c->ring;
  int event = ul_event_fd(ring);
  struct pair p = unix_pair(c);
  uint8_t in[65536];
  uint32_t slot = submit(c, UL_OP_SEND, UL_C_QUIET, p.ours, 0, 1000000, 0);
  tick(c, UL_WAIT_FLUSH);
  CHECK_EQ(ul_notify(ring, 1), 0);
  CHECK_EQ(tick(c, 0), 0);
  for (double until = ul_now_ms() + PATIENCE; !untaken(c, slot);) {
    CHECK(ul_now_ms() < until);
    while (read(p.theirs, in, sizeof in) > 0)
      ;
    CHECK(readable(event, PATIENCE));
    empty(event);
    tick(c, 0);
  }
  CHECK_EQ(finish(c, slot), 1000000);
  close(p.theirs);
  shut(c);
}

/* On for good: every event speaks, not only the first after ul_notify. */
static void notify_stays_on(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  int event = ul_event_fd((uint32_t)c->ring);
  uint32_t slot = submit_recv(c, p.ours, true);
  CHECK_EQ(ul_notify((uint32_t)c->ring, 1), 0);
  tick(c, 0);
  for (int i = 0; i < 100; i++) {
    CHECK_EQ(write(p.theirs, "x", 1), 1);
    CHECK(readable(event, PATIENCE));
    do { // emptied before the look, as a host does
      CHECK(readable(event, PATIENCE));
      empty(event);
      tick(c, 0);
    } while (!untaken(c, slot));
    next_of(c, slot);
  }
  close(p.theirs);
  shut(c);
}

/* Asleep: a command that is only flushed must wake the sleeper when it completes, whatever it is. */
static void flushed_commands_notify(int engine) {
  struct client *c = open_small(engine);
  uint32_t ring = (uint32_t)c->ring;
  int event = ul_event_fd(ring);
  struct pair p = unix_pair(c);
  for (int kind = 0; kind < 6; kind++) {
    for (int round = 0; round < 3; round++) {
      CHECK_EQ(ul_notify(ring, 1), 0);
      CHECK_EQ(tick(c, 0), 0);
      empty(event);
      uint32_t slot;
      switch (kind) {
      case 0:
        slot = submit_nop(c);
        break;
      case 1:
        slot = submit_send(c, p.ours, 0, 10);
        break;
      case 2:
        slot = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 3000000);
        break;
      case 3:
        slot = submit(c, UL_OP_CANCEL, 0, -1, 5, 5, 0);
        break;
      case 4:
        slot = submit(c, UL_OP_SHUTDOWN, 0, p.ours, 0, SHUT_RD, 0);
        break;
      default:
        slot = submit_recv(c, p.ours, false); // end of stream
        break;
      }
      tick(c, UL_WAIT_FLUSH);
      if (!readable(event, PATIENCE))
        FAIL("kind %d: no notification", kind);
      empty(event);
      tick(c, 0);
      if (untaken(c, slot) != 1)
        FAIL("kind %d: notified, but nothing there", kind);
      CHECK_EQ(ul_notify(ring, 0), 0);
    }
  }
  close(p.theirs);
  shut(c);
}

static void notify_with_timeouts(int engine) {
  struct client *c = open_small(engine);
  uint32_t ring = (uint32_t)c->ring;
  int event = ul_event_fd(ring);
  uint32_t late = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 3600000000000ull);
  CHECK_EQ(ul_notify(ring, 1), 0);
  tick(c, 0);
  empty(event);
  CHECK(!readable(event, 5));
  uint32_t soon = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 10000000); // earlier than what is slept for
  double start = ul_now_ms();
  tick(c, UL_WAIT_FLUSH);
  CHECK(readable(event, PATIENCE));
  CHECK(ul_now_ms() - start >= 9);
  CHECK_EQ(ul_notify(ring, 0), 0);
  CHECK_EQ(finish(c, soon), -ETIME);
  CHECK_EQ(untaken(c, late), 0);
  shut(c);
}

/* More than one tick can report: what is left speaks up. */
static void notify_with_a_full_completion_array(int engine) {
  struct ul_config config = small_config(engine);
  config.completion_capacity = 8;
  struct client *c = open_with(config);
  uint32_t ring = (uint32_t)c->ring;
  int event = ul_event_fd(ring), total = 0;
  struct pair p[30];
  for (int i = 0; i < 30; i++) {
    p[i] = unix_pair(c);
    submit_recv(c, p[i].ours, true);
  }
  idle_ms(c, 3);
  for (int i = 0; i < 30; i++)
    CHECK_EQ(write(p[i].theirs, "x", 1), 1);
  while (total < 30) { // as a host would: sleep only when a tick after notify(1) brought nothing
    CHECK_EQ(ul_notify(ring, 1), 0);
    int n = tick(c, 0);
    if (!n)
      CHECK(readable(event, PATIENCE));
    empty(event);
    CHECK_EQ(ul_notify(ring, 0), 0);
    total += n;
  }
  CHECK_EQ(total, 30);
  for (int i = 0; i < 30; i++)
    close(p[i].theirs);
  shut(c);
}

#ifndef PING_PONGS
#define PING_PONGS 100000
#endif

static void *pong(void *argument) {
  int fd = *(int *)argument;
  char byte;
  for (int i = 0;; i++) {
    if (read(fd, &byte, 1) != 1)
      return argument; // the end
    for (volatile int spin = 0; spin < i % 300; spin++)
      ; // the answer falls into every moment of the other's way to sleep
    if (write(fd, &byte, 1) != 1)
      return NULL;
  }
}

/* The other side is a thread; this one sleeps on the eventfd whenever it finds nothing. */
static void no_wake_up_is_lost(int engine) {
  struct client *c = open_small(engine);
  uint32_t ring = (uint32_t)c->ring;
  int event = ul_event_fd(ring);
  struct pair p = unix_pair(c);
  fcntl(p.theirs, F_SETFL, 0);
  pthread_t thread;
  void *result;
  CHECK(!pthread_create(&thread, NULL, pong, &p.theirs));
  uint32_t slot = submit_recv(c, p.ours, true);
  int got = 0, sleeps = 0;
  submit(c, UL_OP_SEND, UL_C_QUIET, p.ours, 0, 1, 0);
  while (got < PING_PONGS) {
    int n = tick(c, 0);
    if (!n) {
      CHECK_EQ(ul_notify(ring, 1), 0);
      n = tick(c, 0);
      if (!n) {
        sleeps++;
        if (!readable(event, PATIENCE))
          FAIL("a wake-up was lost after %d rounds", got);
        empty(event);
      }
      CHECK_EQ(ul_notify(ring, 0), 0);
    }
    for (uint32_t i = 0; i < c->seen_count; i++)
      if (c->seen[i].c.slot == slot) {
        CHECK_EQ(c->seen[i].c.result, 1);
        if (++got < PING_PONGS)
          submit(c, UL_OP_SEND, UL_C_QUIET, p.ours, 0, 1, 0);
      }
    forget_seen(c);
  }
  shutdown(p.ours, SHUT_WR);
  pthread_join(thread, &result);
  CHECK(result);
  CHECK(sleeps > PING_PONGS / 100);
  close(p.theirs);
  shut(c);
}

static void no_wake_up_is_lost_in_a_wait(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  fcntl(p.theirs, F_SETFL, 0);
  pthread_t thread;
  void *result;
  CHECK(!pthread_create(&thread, NULL, pong, &p.theirs));
  uint32_t slot = submit_recv(c, p.ours, true);
  int got = 0, rounds = PING_PONGS / 5;
  submit(c, UL_OP_SEND, UL_C_QUIET, p.ours, 0, 1, 0);
  while (got < rounds) {
    double start = ul_now_ms();
    tick(c, (double)PATIENCE * MS);
    CHECK(ul_now_ms() - start < PATIENCE - 1);
    for (uint32_t i = 0; i < c->seen_count; i++)
      if (c->seen[i].c.slot == slot && ++got < rounds)
        submit(c, UL_OP_SEND, UL_C_QUIET, p.ours, 0, 1, 0);
    forget_seen(c);
  }
  shutdown(p.ours, SHUT_WR);
  pthread_join(thread, &result);
  CHECK(result);
  close(p.theirs);
  shut(c);
}

int main(void) {
  RUN(bounded_waits);
  RUN(waits_of_many_lengths);
  RUN(unbounded_wait_ends_with_an_event);
  RUN(host_cuts_waits);
  RUN(notifies_when_something_waits);
  RUN(blocked_send_goes_on_asleep);
  RUN(notify_stays_on);
  RUN(flushed_commands_notify);
  RUN(notify_with_timeouts);
  RUN(notify_with_a_full_completion_array);
  RUN(no_wake_up_is_lost);
  RUN(no_wake_up_is_lost_in_a_wait);
  return check_failures != 0;
}
