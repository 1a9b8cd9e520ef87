/*
 * limits.c - every queue filled to the brim, and rings opened and closed again and again.
 */
#include "check.h"

/* Freed memory is given back at once, so that the resident size tells of leaks. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "quarantine_size_mb=1";
}

static void more_commands_than_submission_entries(int engine) {
  struct ul_config config = small_config(engine);
  config.submission_entries = 8;
  config.buffer_count = 128;
  struct client *c = open_with(config);
  struct pair p[100];
  uint32_t nops[300], recvs[100];
  for (int i = 0; i < 100; i++) {
    p[i] = unix_pair(c);
    recvs[i] = submit_recv(c, p[i].ours, i % 2);
    for (int k = 0; k < 3; k++)
      nops[3 * i + k] = submit_nop(c);
    submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 3600000000000ull);
  }
  for (int i = 0; i < 300; i++)
    CHECK_EQ(finish(c, nops[i]), 0);
  for (int i = 0; i < 100; i++)
    CHECK_EQ(write(p[i].theirs, "x", 1), 1);
  for (int i = 0; i < 100; i++)
    CHECK_EQ(next_of(c, recvs[i])->c.result, 1);
  for (int i = 0; i < 100; i++)
    close(p[i].theirs);
  shut(c);
}

/* Connects by the hundred through eight entries: each address must live until its own entry is taken. */
static void addresses_live_until_submission(int engine) {
  struct ul_config config = small_config(engine);
  config.submission_entries = 8;
  struct client *c = open_with(config);
  uint16_t ports[4];
  int listeners[4], fds[100];
  uint32_t slots[100];
  for (int i = 0; i < 4; i++)
    listeners[i] = tcp_listener(c, &ports[i]);
  for (int i = 0; i < 100; i++) {
    ((struct ul_address *)c->arena)[i] = loopback(ports[i % 4]);
    fds[i] = ul_socket((uint32_t)c->ring, AF_INET);
    slots[i] = submit(c, UL_OP_CONNECT, 0, fds[i], (uint32_t)(i * sizeof(struct ul_address)), 0, 0);
  }
  for (int i = 0; i < 100; i++)
    CHECK_EQ(finish(c, slots[i]), 0);
  for (int i = 0; i < 100; i++) {
    struct ul_address name;
    CHECK_EQ(ul_name((uint32_t)c->ring, fds[i], 1, &name), 0);
    CHECK_EQ(name.port, ports[i % 4]);
  }
  CHECK(listeners[3] > 0);
  shut(c);
}

/* Many completions wait for an array of eight: none is lost, none comes twice (tick checks that). */
static void more_completions_than_fit(int engine) {
  struct ul_config config = small_config(engine);
  config.completion_capacity = 8;
  struct client *c = open_with(config);
  struct pair p[60];
  uint16_t port;
  int listener = tcp_listener(c, &port), event = eventfd(1, EFD_CLOEXEC), theirs[50];
  uint32_t accept = submit(c, UL_OP_ACCEPT, UL_C_MULTISHOT, listener, 0, 0, 0);
  for (int i = 0; i < 50; i++)
    theirs[i] = tcp_connect(port);
  uint32_t slots[60][4];
  for (int i = 0; i < 60; i++) {
    p[i] = unix_pair(c);
    CHECK_EQ(write(p[i].theirs, "x", 1), 1);
    slots[i][0] = submit_recv(c, p[i].ours, true);
    slots[i][1] = submit(c, UL_OP_SEND, i % 2 ? UL_C_QUIET : 0, p[i].ours, 0, 10, 0);
    slots[i][2] = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 1000);
    slots[i][3] = submit(c, UL_OP_POLL, i % 2 ? UL_C_MULTISHOT : 0, event, 0, POLLIN, 0);
  }
  double until = ul_now_ms() + 500;
  while (ul_now_ms() < until && c->header->completions < 60 * 4 + 50)
    CHECK(tick(c, 1 * MS) <= 8);
  for (int i = 0; i < 60; i++) {
    CHECK_EQ(next_of(c, slots[i][0])->c.result, 1);
    CHECK_EQ(finish(c, slots[i][1]), 10);
    CHECK_EQ(finish(c, slots[i][2]), -ETIME);
    CHECK_EQ(next_of(c, slots[i][3])->c.result, POLLIN);
  }
  for (int i = 0; i < 50; i++) {
    CHECK(next_of(c, accept)->c.result > 2);
    close(theirs[i]);
  }
  CHECK_EQ(untaken(c, accept), 0);
  for (int i = 0; i < 60; i++)
    close(p[i].theirs);
  shut(c);
  close(event);
}

static void completion_queue_overflows(int engine) {
  struct ul_config config = small_config(engine);
  config.submission_entries = 8;
  config.completion_entries = 16;
  struct client *c = open_with(config);
  struct pair p[200];
  uint32_t slots[200], nops[200];
  for (int i = 0; i < 200; i++) {
    p[i] = unix_pair(c);
    slots[i] = submit_recv(c, p[i].ours, true);
  }
  idle_ms(c, 2);
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < 200; i++) {
      CHECK_EQ(write(p[i].theirs, "abcdefgh", 8), 8);
      nops[i] = submit_nop(c);
    }
    tick(c, UL_WAIT_FLUSH);
    for (int i = 0; i < 200; i++) {
      CHECK_EQ(finish(c, nops[i]), 0);
      for (int got = 0; got < 8;) {
        struct seen *s = next_of(c, slots[i]);
        if (s->c.result > 0)
          CHECK(!memcmp(s->bytes, &"abcdefgh"[got], (size_t)s -> c.result));
        else
          CHECK_EQ(s->c.result, -ENOBUFS);
        got += s->c.result > 0 ? s->c.result : 0;
        if (!(s->c.flags & UL_F_MORE))
          slots[i] = submit_recv(c, p[i].ours, true);
      }
    }
    forget_seen(c);
  }
  if (engine != UL_ENGINE_EPOLL)
    CHECK(c->header->overflows > 0);
  for (int i = 0; i < 200; i++)
    close(p[i].theirs);
  shut(c);
}

/* Slots and deferred completions: cancels at the limit, on top of refusals that have not been harvested. */
static void every_place_taken(int engine) {
  struct ul_config config = small_config(engine);
  config.slot_capacity = 24;
  config.command_capacity = config.completion_capacity = 8;
  struct client *c = open_with(config);
  struct pair p = unix_pair(c);
  uint32_t recvs[12], generation = 100;
  for (uint32_t i = 0; i < 12; i++) {
    recvs[i] = submit_recv(c, p.ours, true);
    if (i % 4 == 3)
      tick(c, 0);
  }
  uint32_t refused = 0, seen[2] = {0, 0};
  for (int round = 0; round < 50; round++) {
    for (uint32_t i = 0; i < 8; i++)
      c->commands[i] = (struct ul_command){.op = 77, .slot = i, .generation = 1};
    refused += ul_tick((uint32_t)c->ring, 8, UL_WAIT_FLUSH) == 0 ? 8 : 0;
  }
  // Now cancellations as fast as they are taken: each ends two slots.
  uint32_t cancelled = 0;
  for (double until = ul_now_ms() + PATIENCE; seen[0] < refused || seen[1] < 24;) {
    CHECK(ul_now_ms() < until);
    uint32_t count = cancelled < 12 ? 6 : 0;
    for (uint32_t i = 0; i < count; i++)
      c->commands[i] = (struct ul_command){.op = UL_OP_CANCEL,
                                           .fd = -1,
                                           .slot = 12 + cancelled + i,
                                           .generation = ++generation,
                                           .offset = recvs[cancelled + i],
                                           .length = c->live[recvs[cancelled + i]]};
    int n = ul_tick((uint32_t)c->ring, count, 0);
    if (n == -EBUSY) {
      n = ul_tick((uint32_t)c->ring, 0, 0);
      count = 0;
    }
    CHECK(n >= 0);
    cancelled += count;
    for (int i = 0; i < n; i++) {
      bool refusal = c->completions[i].op == 77;
      CHECK_EQ(c->completions[i].result, refusal                              ? -EINVAL
                                         : c->completions[i].op == UL_OP_RECV ? -ECANCELED
                                                                              : 0);
      seen[!refusal]++;
    }
  }
  CHECK_EQ(c->header->in_flight, 0);
  memset(c->live, 0, 24 * sizeof *c->live);
  c->live_count = 0;
  close(p.theirs);
  shut(c);
}

static void close_while_busy(int engine) {
  struct client *c = open_small(engine);
  submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 3600000000000ull);
  tick(c, UL_WAIT_FLUSH);
  CHECK_EQ(ul_close((uint32_t)c->ring), -EBUSY);
  tick(c, 0);
  CHECK_EQ(ul_close((uint32_t)c->ring), -EBUSY);
  shut(c);
}

/* The number of a closed descriptor goes to the next socket at once, within one tick's commands where
 * possible. */
static void descriptor_numbers_are_reused(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  for (int round = 0; round < 500; round++) {
    int before = p.ours;
    uint32_t recv_slot = submit_recv(c, p.ours, true);
    if (round % 4 == 1) {
      CHECK_EQ(write(p.theirs, "old", 3), 3);
      CHECK_EQ(next_of(c, recv_slot)->c.result, 3);
      CHECK_EQ(write(p.theirs, "old", 3), 3); // stays unread: the next owner of the number must not see it
    }
    if (round % 4 == 2) // leaves a readable state behind
      shutdown(p.theirs, SHUT_WR);
    if (round % 4 == 3)
      CHECK_EQ(finish(c, submit_send(c, p.ours, 0, 4 << 20 >> 5)), 4 << 20 >> 5);
    finish(c, submit_cancel(c, recv_slot));
    finish(c, recv_slot);
    uint32_t closing = submit(c, UL_OP_CLOSE, 0, p.ours, 0, 0, 0);
    tick(c, round % 2 ? UL_WAIT_FLUSH : 0);
    int theirs = p.theirs;
    p = unix_pair(c);
    close(theirs);
    CHECK_EQ(p.ours, before);
    recv_slot = submit_recv(c, p.ours, true);
    CHECK_EQ(finish(c, closing), 0);
    idle_ms(c, 0.05);
    CHECK_EQ(untaken(c, recv_slot), 0);
    CHECK_EQ(write(p.theirs, "new", 3), 3);
    struct seen *s = next_of(c, recv_slot);
    CHECK(s->c.result == 3 && !memcmp(s->bytes, "new", 3));
    finish(c, submit_cancel(c, recv_slot));
    finish(c, recv_slot);
    forget_seen(c);
  }
  CHECK_EQ(c->header->fds_live, 1);
  close(p.theirs);
  shut(c);
}

static long resident_pages(void) {
  long size = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file) {
    if (fscanf(file, "%ld %ld", &size, &resident) != 2)
      resident = 0;
    fclose(file);
  }
  return resident;
}

static void one_life(int engine, int round) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  submit_recv(c, p.ours, true);
  CHECK_EQ(write(p.theirs, "x", 1), 1);
  CHECK_EQ(finish(c, submit_send(c, p.ours, 0, 1000)), 1000);
  if (round % 3 == 0) {
    CHECK_EQ(ul_notify((uint32_t)c->ring, 1), 0);
    tick(c, 0);
  }
  if (round % 2 == 0)
    close_owned(c, ul_socket((uint32_t)c->ring, AF_INET));
  close(p.theirs);
  shut(c);
}

static void opened_again_and_again(int engine) {
  one_life(engine, 0);
  int descriptors = open_descriptors();
  for (int round = 0; round < 50; round++)
    one_life(engine, round);
  long pages = resident_pages();
  for (int round = 0; round < 200; round++)
    one_life(engine, round);
  CHECK_EQ(open_descriptors(), descriptors);
  CHECK(resident_pages() < pages + 1024);
}

/* The mapping of a closed ring stays mapped: a stale view reads zeros. */
static void stale_views_read_zeros(int engine) {
  struct client *c = open_small(engine);
  volatile uint8_t *region = (uint8_t *)c->header;
  uint32_t size = c->header->total_bytes;
  memset(c->arena, 0xaa, c->header->arena_bytes);
  shut(c);
  for (uint32_t i = 0; i < size; i += 512)
    CHECK_EQ(region[i], 0);
}

static void many_rings_at_once(int engine) {
  struct client *c[40];
  struct pair p[40];
  uint32_t slots[40];
  for (int i = 0; i < 40; i++) {
    c[i] = open_small(engine);
    p[i] = unix_pair(c[i]);
    slots[i] = submit_recv(c[i], p[i].ours, true);
    tick(c[i], UL_WAIT_FLUSH);
  }
  for (int i = 0; i < 40; i++)
    CHECK_EQ(write(p[i].theirs, &i, sizeof i), sizeof i);
  for (int i = 0; i < 40; i++) {
    struct seen *s = next_of(c[i], slots[i]);
    CHECK(!memcmp(s->bytes, &i, sizeof i));
    close(p[i].theirs);
    shut(c[i]);
  }
}

int main(void) {
  RUN(more_commands_than_submission_entries);
  RUN(addresses_live_until_submission);
  RUN(more_completions_than_fit);
  RUN(completion_queue_overflows);
  RUN(every_place_taken);
  RUN(close_while_busy);
  RUN(descriptor_numbers_are_reused);
  RUN(opened_again_and_again);
  RUN(stale_views_read_zeros);
  RUN(many_rings_at_once);
  return check_failures != 0;
}
