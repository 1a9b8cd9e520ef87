/*
 * operations.c - cancellation of every kind of operation, polls, timeouts.
 */
#include "check.h"

#define HOUR 3600000000000ull // nanoseconds

/* ---- cancel
 * ------------------------------------------------------------------------------------------------------ */

static void expect_cancelled(struct client *c, uint32_t slot) {
  uint32_t cancel = submit_cancel(c, slot);
  CHECK_EQ(finish(c, slot), -ECANCELED);
  CHECK_EQ(finish(c, cancel), 0);
}

static void cancels_every_kind(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c), full = tcp_pair(c);
  uint16_t port;
  int listener = tcp_listener(c, &port);
  uint32_t slots[] = {
      submit(c, UL_OP_ACCEPT, 0, listener, 0, 0, 0),
      submit(c, UL_OP_ACCEPT, UL_C_MULTISHOT, listener, 0, 0, 0),
      submit_recv(c, p.ours, false),
      submit_recv(c, p.ours, true),
      submit_send(c, full.ours, 0, 4 << 20),
      submit(c, UL_OP_POLL, 0, p.ours, 0, POLLIN, 0),
      submit(c, UL_OP_POLL, UL_C_MULTISHOT, p.ours, 0, POLLIN, 0),
      submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, HOUR),
  };
  idle_ms(c, 5);
  CHECK_EQ(c->header->in_flight, 8);
  for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
    expect_cancelled(c, slots[i]);
  // What has ended is not there any more, and neither is what never was.
  for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
    CHECK_EQ(finish(c, submit(c, UL_OP_CANCEL, 0, -1, slots[i], 3, 0)), -ENOENT);
  CHECK_EQ(finish(c, submit(c, UL_OP_CANCEL, 0, -1, UINT32_MAX, 1, 0)), -ENOENT);
  for (uint32_t own = 1; own < 5; own++) // the engine's own operations cannot be named
    for (uint32_t generation = 0; generation < 2; generation++)
      CHECK_EQ(finish(c, submit(c, UL_OP_CANCEL, 0, -1, UL_MAX_SLOTS + own, generation, 0)), -ENOENT);
  // The descriptors are as good as before.
  CHECK_EQ(write(p.theirs, "abc", 3), 3);
  CHECK_EQ(next_of(c, submit_recv(c, p.ours, false))->c.result, 3);
  close_owned(c, p.ours);
  close_owned(c, full.ours);
  close_owned(c, listener);
  close(p.theirs);
  close(full.theirs);
  shut(c);
}

static void cancels_a_connect(int engine) {
  struct client *c = open_small(engine);
  // A listener whose backlog is full does not answer: the connect stays under way.
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[20];
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof name;
  CHECK(!bind(listener, (struct sockaddr *)&name, sizeof name) && !listen(listener, 0));
  CHECK(!getsockname(listener, (struct sockaddr *)&name, &length));
  *(struct ul_address *)c->arena = loopback(ntohs(name.sin_port));
  uint32_t slots[20];
  for (int i = 0; i < 20; i++) {
    fds[i] = ul_socket((uint32_t)c->ring, AF_INET);
    slots[i] = submit(c, UL_OP_CONNECT, 0, fds[i], 0, 0, 0);
  }
  idle_ms(c, 20);
  int under_way = 0;
  for (int i = 0; i < 20; i++) {
    if (untaken(c, slots[i]))
      continue;
    under_way++;
    expect_cancelled(c, slots[i]);
  }
  CHECK(under_way > 0);
  shut(c);
  close(listener);
}

/* The slot is given to the next command at once: a late cancellation must not hit it. */
static void cancel_names_a_generation(int engine) {
  struct client *c = open_small(engine);
  uint32_t slot = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, HOUR);
  tick(c, 0);
  CHECK_EQ(finish(c, submit(c, UL_OP_CANCEL, 0, -1, slot, c->live[slot] + 1, 0)), -ENOENT);
  CHECK_EQ(finish(c, submit(c, UL_OP_CANCEL, 0, -1, slot, c->live[slot] - 1, 0)), -ENOENT);
  CHECK_EQ(c->header->in_flight, 1);
  expect_cancelled(c, slot);
  shut(c);
}

static void cancels_itself_or_a_cancel(int engine) {
  struct client *c = open_small(engine);
  uint32_t slot = submit(c, UL_OP_CANCEL, 0, -1, c->next_slot, c->generation + 1, 0); // itself
  int32_t result = finish(c, slot);
  CHECK(result == -ENOENT || result == -EALREADY);
  uint32_t timeout = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, HOUR);
  uint32_t first = submit_cancel(c, timeout), second = submit_cancel(c, first),
           third = submit_cancel(c, timeout);
  CHECK_EQ(finish(c, timeout), -ECANCELED);
  CHECK_EQ(finish(c, first), 0);
  CHECK(finish(c, second) != 0);
  CHECK(finish(c, third) != 0);
  shut(c);
}

/* Command and cancellation in one tick, and the cancellation in a later one without a harvest between. */
static void cancel_in_the_same_tick(int engine) {
  struct client *c = open_small(engine);
  struct pair p = tcp_pair(c);
  for (int round = 0; round < 200; round++) {
    uint32_t slot = submit_recv(c, p.ours, round % 2);
    if (round % 3 == 0)
      tick(c, UL_WAIT_FLUSH);
    uint32_t cancel = submit_cancel(c, slot);
    CHECK_EQ(finish(c, slot), -ECANCELED);
    finish(c, cancel);
  }
  close(p.theirs);
  shut(c);
}

/* Data and cancellation cross: every byte is delivered, or is still in the socket. */
static void cancel_races_data(int engine, bool multishot) {
  struct client *c = open_small(engine);
  struct pair p = tcp_pair(c);
  uint64_t written = 0, received = 0;
  uint8_t next_out = 0, next_in = 0;
  for (int round = 0; round < 2000; round++) {
    uint32_t slot = submit_recv(c, p.ours, multishot);
    if (round % 2)
      tick(c, round % 4 == 1 ? 0 : UL_WAIT_FLUSH);
    uint8_t out[8];
    for (int i = 0; i < 8; i++)
      out[i] = next_out++;
    CHECK_EQ(write(p.theirs, out, sizeof out), sizeof out);
    written += sizeof out;
    if (round % 5 == 0)
      tick(c, UL_WAIT_FLUSH);
    uint32_t cancel = submit_cancel(c, slot);
    finish(c, cancel);
    int32_t end = 1;
    while (end > 0) { // all completions of the slot, in order
      struct seen *s = next_of(c, slot);
      for (int i = 0; i < s->c.result; i++)
        CHECK_EQ(s->bytes[i], next_in++);
      received += s->c.result > 0 ? (uint64_t)s->c.result : 0;
      end = s->c.flags & UL_F_MORE ? 1 : s->c.result > 0 ? 0 : s->c.result;
    }
    CHECK(end == 0 || end == -ECANCELED);
    forget_seen(c);
  }
  while (received < written) {
    struct seen *s = next_of(c, submit_recv(c, p.ours, false));
    for (int i = 0; i < s->c.result; i++)
      CHECK_EQ(s->bytes[i], next_in++);
    CHECK(s->c.result > 0);
    received += (uint64_t)s->c.result;
  }
  CHECK_EQ(received, written);
  CHECK_EQ(c->header->in_flight, 0);
  close(p.theirs);
  shut(c);
}
static void cancel_races_multishot_recv(int engine) {
  cancel_races_data(engine, true);
}
static void cancel_races_single_recv(int engine) {
  cancel_races_data(engine, false);
}

/* A connection that comes while its accept is cancelled belongs to the ring or stays in the backlog. */
static void cancel_races_accept(int engine) {
  struct client *c = open_small(engine);
  uint16_t port;
  int listener = tcp_listener(c, &port), accepted = 0;
  for (int round = 0; round < 300; round++) {
    uint32_t slot = submit(c, UL_OP_ACCEPT, round % 2 ? UL_C_MULTISHOT : 0, listener, 0, 0, 0);
    if (round % 3)
      tick(c, UL_WAIT_FLUSH);
    close(tcp_connect(port));
    uint32_t cancel = submit_cancel(c, slot);
    finish(c, cancel);
    for (bool more = true; more;) {
      struct seen *s = next_of(c, slot);
      CHECK(s->c.result >= 0 || s->c.result == -ECANCELED);
      more = s->c.flags & UL_F_MORE;
      if (s->c.result >= 0) {
        accepted++;
        close_owned(c, s->c.result);
      }
    }
    forget_seen(c);
  }
  uint32_t rest = submit(c, UL_OP_ACCEPT, UL_C_MULTISHOT, listener, 0, 0, 0);
  for (; accepted < 300; accepted++)
    CHECK(next_of(c, rest)->c.result > 2);
  shut(c);
}

static void cancel_of_a_blocked_send(int engine) {
  struct client *c = open_small(engine);
  for (int tcp = 0; tcp < 2; tcp++) {
    struct pair p = tcp ? tcp_pair(c) : unix_pair(c);
    uint32_t first = submit_send(c, p.ours, 0, 4 << 20);
    idle_ms(c, 3);
    uint32_t cancel = submit_cancel(c, first);
    int32_t result = finish(c, first);
    CHECK(result == -ECANCELED || result > 0);
    finish(c, cancel);
    // The socket can be sent on again once there is space.
    uint8_t in[65536];
    double until = ul_now_ms() + PATIENCE;
    uint32_t second = submit_send(c, p.ours, 0, 1000);
    while (!untaken(c, second)) {
      CHECK(ul_now_ms() < until);
      tick(c, 1 * MS);
      (void)!read(p.theirs, in, sizeof in);
    }
    CHECK_EQ(finish(c, second), 1000);
    close_owned(c, p.ours);
    close(p.theirs);
  }
  shut(c);
}

/* ---- poll
 * -------------------------------------------------------------------------------------------------------- */

static void poll_on_pipe_and_eventfd(int engine) {
  struct client *c = open_small(engine);
  int pipes[2], event = eventfd(0, EFD_CLOEXEC);
  CHECK(!pipe2(pipes, O_CLOEXEC));
  uint32_t in = submit(c, UL_OP_POLL, 0, pipes[0], 0, POLLIN, 0);
  uint32_t out = submit(c, UL_OP_POLL, 0, pipes[1], 0, POLLOUT, 0);
  uint32_t count = submit(c, UL_OP_POLL, 0, event, 0, POLLIN, 0);
  CHECK_EQ(finish(c, out), POLLOUT);
  idle_ms(c, 3);
  CHECK_EQ(untaken(c, in) + untaken(c, count), 0);
  CHECK_EQ(write(pipes[1], "x", 1), 1);
  CHECK_EQ(finish(c, in), POLLIN);
  CHECK_EQ(finish(c, submit(c, UL_OP_POLL, 0, pipes[0], 0, POLLIN, 0)), POLLIN); // still: level
  uint64_t one = 1;
  CHECK_EQ(write(event, &one, 8), 8);
  CHECK_EQ(finish(c, count), POLLIN);
  CHECK_EQ(finish(c, submit(c, UL_OP_POLL, 0, event, 0, POLLIN | POLLOUT, 0)), POLLIN | POLLOUT);
  close(pipes[1]);
  CHECK_EQ(finish(c, submit(c, UL_OP_POLL, 0, pipes[0], 0, POLLIN, 0)), POLLIN | POLLHUP);
  close(pipes[0]);
  close(event);
  shut(c);
}

static void multishot_poll(int engine) {
  struct client *c = open_small(engine);
  int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  uint32_t slot = submit(c, UL_OP_POLL, UL_C_MULTISHOT, event, 0, POLLIN, 0);
  tick(c, 0);
  for (int i = 0; i < 100; i++) {
    uint64_t one = 1;
    CHECK_EQ(write(event, &one, 8), 8);
    struct seen *s = next_of(c, slot);
    CHECK_EQ(s->c.result, POLLIN);
    CHECK_EQ(s->c.flags, UL_F_MORE);
    CHECK_EQ(read(event, &one, 8), 8);
    tick(c, 0);
    for (uint32_t k = 0; k < c->seen_count; k++) // one write may be reported twice, never not at all
      c->seen[k].taken = true;
  }
  uint32_t cancel = submit_cancel(c, slot);
  CHECK_EQ(finish(c, slot), -ECANCELED);
  CHECK_EQ(finish(c, cancel), 0);
  close(event);
  shut(c);
}

static void several_polls_on_one_descriptor(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t slots[10];
  for (int i = 0; i < 10; i++)
    slots[i] = submit(c, UL_OP_POLL, 0, p.ours, 0, i % 2 ? POLLIN : POLLIN | POLLRDHUP, 0);
  uint32_t cancelled = submit(c, UL_OP_POLL, 0, p.ours, 0, POLLIN, 0);
  idle_ms(c, 3);
  expect_cancelled(c, cancelled);
  CHECK_EQ(write(p.theirs, "x", 1), 1);
  for (int i = 0; i < 10; i++)
    CHECK_EQ(finish(c, slots[i]), POLLIN);
  uint32_t hangup = submit(c, UL_OP_POLL, 0, p.ours, 0, POLLRDHUP, 0);
  idle_ms(c, 3);
  CHECK_EQ(untaken(c, hangup), 0);
  close(p.theirs);
  CHECK_EQ(finish(c, hangup) & POLLRDHUP, POLLRDHUP);
  shut(c);
}

static void poll_beside_recv(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t poll_slot = submit(c, UL_OP_POLL, 0, p.ours, 0, POLLOUT, 0),
           recv_slot = submit_recv(c, p.ours, true);
  CHECK_EQ(finish(c, poll_slot), POLLOUT);
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(write(p.theirs, "x", 1), 1);
    CHECK_EQ(next_of(c, recv_slot)->c.result, 1);
    CHECK_EQ(finish(c, submit(c, UL_OP_POLL, 0, p.ours, 0, POLLOUT, 0)), POLLOUT);
  }
  close(p.theirs);
  shut(c);
}

static void poll_on_a_file(int engine) {
  struct client *c = open_small(engine);
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  for (int i = 0; i < 3; i++) { // a regular file is always ready, as poll(2) has it
    CHECK_EQ(finish(c, submit(c, UL_OP_POLL, 0, file, 0, POLLIN, 0)), POLLIN);
    CHECK_EQ(finish(c, submit(c, UL_OP_POLL, 0, file, 0, POLLIN | POLLOUT, 0)), POLLIN | POLLOUT);
  }
  close(file);
  shut(c);
}

/* ---- timeouts
 * ---------------------------------------------------------------------------------------------------- */

static void timeouts_in_order(int engine) {
  struct client *c = open_small(engine);
  static const uint32_t order_ms[] = {30, 10, 50, 20, 40, 15, 5, 45, 25, 35};
  uint32_t slots[10], cancelled[5];
  double start = ul_now_ms(), ended[10];
  for (int i = 0; i < 10; i++) {
    slots[i] = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, order_ms[i] * 1000000ull);
    if (i % 2 == 0)
      cancelled[i / 2] = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, (order_ms[i] + 1) * 1000000ull);
  }
  for (int i = 0; i < 5; i++)
    submit_cancel(c, cancelled[i]);
  for (uint32_t done = 0; done < 10;) {
    uint32_t from = c->seen_count;
    tick(c, INFINITY);
    for (uint32_t k = from; k < c->seen_count; k++)
      for (int i = 0; i < 10; i++)
        if (c->seen[k].c.slot == slots[i]) {
          CHECK_EQ(c->seen[k].c.result, -ETIME);
          ended[i] = ul_now_ms() - start;
          done++;
        }
  }
  for (int i = 0; i < 10; i++) {
    CHECK(ended[i] >= order_ms[i]);
    CHECK(ended[i] < order_ms[i] + 20);
  }
  for (int i = 0; i < 5; i++)
    CHECK_EQ(finish(c, cancelled[i]), -ECANCELED);
  CHECK_EQ(finish(c, submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 0)), -ETIME);
  expect_cancelled(c, submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, INT64_MAX));
  shut(c);
}

/* A heap of a thousand, a random half cancelled: the rest ends in order. */
static void many_timeouts(int engine) {
  struct client *c = open_small(engine);
  uint64_t seed = 3, due[1000];
  uint32_t slots[1000];
  bool gone[1000];
  for (int i = 0; i < 1000; i++) {
    due[i] = 1000000u + random_below(&seed, 50000000);
    slots[i] = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, due[i]);
  }
  tick(c, UL_WAIT_FLUSH);
  for (int i = 0; i < 1000; i++)
    if ((gone[i] = random_below(&seed, 2)))
      submit_cancel(c, slots[i]);
  double until = ul_now_ms() + PATIENCE;
  while (c->live_count) {
    CHECK(ul_now_ms() < until);
    tick(c, 20 * MS);
  }
  uint64_t before = 0;
  for (uint32_t k = 0; k < c->seen_count; k++) {
    int i = 0;
    while (i < 1000 && slots[i] != c->seen[k].c.slot)
      i++;
    if (i == 1000 || c->seen[k].c.result == -ECANCELED)
      continue;
    CHECK_EQ(c->seen[k].c.result, -ETIME);
    CHECK(due[i] + 5000000 > before); // staged within five milliseconds
    before = due[i] > before ? due[i] : before;
  }
  shut(c);
}

/* Found by the fuzzer: with the reading side shut a blocked send is tried over and over by the kernel, a
 * cancellation in the same batch does not find it, and it then waited for ever for a peer that does not read.
 */
static void cancel_of_a_send_that_is_tried_again(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  CHECK_EQ(finish(c, submit(c, UL_OP_SHUTDOWN, 0, p.ours, 0, SHUT_RD, 0)), 0);
  for (uint32_t length = 200000; length <= 1000000; length += 50000) {
    uint32_t send = submit_send(c, p.ours, 0, length);
    tick(c, 0);
    uint32_t cancel = submit_cancel(c, send);
    int32_t result = finish(c, cancel);
    CHECK(result == 0 || result == -ENOENT || result == -EALREADY);
    result = finish(c, send); // fails here when it is never found
    CHECK(result == -ECANCELED || result == -EINTR || result == (int32_t)length);
  }
  close(p.theirs);
  shut(c);
}

int main(void) {
  RUN(cancels_every_kind);
  RUN(cancels_a_connect);
  RUN(cancel_names_a_generation);
  RUN(cancels_itself_or_a_cancel);
  RUN(cancel_in_the_same_tick);
  RUN(cancel_races_multishot_recv);
  RUN(cancel_races_single_recv);
  RUN(cancel_races_accept);
  RUN(cancel_of_a_blocked_send);
  RUN(poll_on_pipe_and_eventfd);
  RUN(multishot_poll);
  RUN(several_polls_on_one_descriptor);
  RUN(poll_beside_recv);
  RUN(poll_on_a_file);
  RUN(timeouts_in_order);
  RUN(many_timeouts);
  RUN(cancel_of_a_send_that_is_tried_again);
  return check_failures != 0;
}
