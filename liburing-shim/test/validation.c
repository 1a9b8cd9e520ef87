/*
 * validation.c - commands that are not sound: each is refused with a completion, none reaches an engine, none
 * faults.
 */
#include "check.h"

#define LARGE 0x7fffffff

/* Hands over one raw record; returns the result of its completion. */
static int32_t raw(struct client *c, struct ul_command command) {
  uint64_t rejected = c->header->rejected;
  c->commands[0] = command;
  int n = ul_tick((uint32_t)c->ring, 1, 0);
  CHECK_EQ(n, 1);
  CHECK_EQ(c->completions[0].slot, command.slot);
  CHECK_EQ(c->completions[0].generation, command.generation);
  CHECK_EQ(c->completions[0].flags, 0);
  CHECK_EQ(c->header->rejected, rejected + 1);
  CHECK_EQ(c->header->in_flight, c->live_count);
  return c->completions[0].result;
}

// Overriding the first fields of the record is what this is for.
#pragma clang diagnostic ignored "-Winitializer-overrides"
#define REFUSED(...)                                                                                         \
  CHECK_EQ(raw(c, (struct ul_command){.slot = 7, .generation = 1, .fd = -1, __VA_ARGS__}), -EINVAL)

static void refuses_unsound_commands(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t arena = c->header->arena_bytes;
  REFUSED(.op = 0);
  REFUSED(.op = 11);
  REFUSED(.op = 255);
  REFUSED(.op = UL_OP_NOP, .reserved = 1);
  REFUSED(.op = UL_OP_NOP, .generation = 0);
  REFUSED(.op = UL_OP_NOP, .slot = c->header->slot_capacity);
  REFUSED(.op = UL_OP_NOP, .slot = UINT32_MAX);
  REFUSED(.op = UL_OP_NOP, .slot = UL_MAX_SLOTS + 1);
  REFUSED(.op = UL_OP_NOP, .fd = 0);
  REFUSED(.op = UL_OP_NOP, .flags = UL_C_MULTISHOT);
  REFUSED(.op = UL_OP_NOP, .flags = 128);
  REFUSED(.op = UL_OP_RECV, .fd = p.ours, .flags = UL_C_QUIET);
  REFUSED(.op = UL_OP_RECV, .fd = p.ours, .flags = 4);
  REFUSED(.op = UL_OP_SEND, .fd = p.ours, .length = 1, .flags = UL_C_MULTISHOT);
  for (uint8_t op = UL_OP_ACCEPT; op <= UL_OP_CLOSE; op++) {
    bool has_fd = op != UL_OP_TIMEOUT && op != UL_OP_CANCEL;
    REFUSED(.op = op, .fd = has_fd ? -1 : 3, .length = 1);
    REFUSED(.op = op, .fd = has_fd ? INT32_MIN : 3, .length = 1);
    REFUSED(.op = op, .fd = LARGE, .length = 1);
    REFUSED(.op = op, .fd = 1 << 21, .length = 1);
  }
  REFUSED(.op = UL_OP_SEND, .fd = p.ours, .offset = 0, .length = 0);
  REFUSED(.op = UL_OP_SEND, .fd = p.ours, .offset = arena, .length = 1);
  REFUSED(.op = UL_OP_SEND, .fd = p.ours, .offset = 1, .length = arena);
  REFUSED(.op = UL_OP_SEND, .fd = p.ours, .offset = arena - 1, .length = 2);
  REFUSED(.op = UL_OP_SEND, .fd = p.ours, .offset = UINT32_MAX, .length = 2); // wraps around
  REFUSED(.op = UL_OP_SEND, .fd = p.ours, .offset = 2, .length = UINT32_MAX);
  REFUSED(.op = UL_OP_SEND, .fd = p.ours, .offset = 0x80000000u, .length = 0x80000000u);
  struct ul_address *address = (struct ul_address *)c->arena;
  *address = loopback(9);
  memcpy(c->arena + 256 + 2, address, sizeof *address);
  REFUSED(.op = UL_OP_CONNECT, .fd = p.ours, .offset = 256 + 2);
  REFUSED(.op = UL_OP_CONNECT, .fd = p.ours, .offset = arena);
  REFUSED(.op = UL_OP_CONNECT, .fd = p.ours, .offset = arena - 4);
  REFUSED(.op = UL_OP_CONNECT, .fd = p.ours, .offset = UINT32_MAX - 3);
  address->family = 77;
  REFUSED(.op = UL_OP_CONNECT, .fd = p.ours, .offset = 0);
  *address = (struct ul_address){.family = AF_UNIX, .path_length = UL_PATH_BYTES + 1};
  REFUSED(.op = UL_OP_CONNECT, .fd = p.ours, .offset = 0);
  address->path_length = 0;
  REFUSED(.op = UL_OP_CONNECT, .fd = p.ours, .offset = 0);
  REFUSED(.op = UL_OP_POLL, .fd = p.ours, .length = 0);
  REFUSED(.op = UL_OP_POLL, .fd = p.ours, .length = EPOLLET);
  REFUSED(.op = UL_OP_POLL, .fd = p.ours, .length = EPOLLONESHOT | POLLIN);
  REFUSED(.op = UL_OP_POLL, .fd = p.ours, .length = EPOLLEXCLUSIVE | POLLIN);
  REFUSED(.op = UL_OP_TIMEOUT, .argument = UINT64_MAX);
  REFUSED(.op = UL_OP_TIMEOUT, .argument = (uint64_t)INT64_MAX + 1);
  REFUSED(.op = UL_OP_SHUTDOWN, .fd = p.ours, .length = 3);
  REFUSED(.op = UL_OP_CLOSE, .fd = p.theirs); // not the ring's
  REFUSED(.op = UL_OP_CLOSE, .fd = 0);
  REFUSED(.op = UL_OP_CLOSE, .fd = c->header->slot_capacity);
  close(p.theirs);
  shut(c);
}

static void refuses_a_slot_in_use(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t slot = submit_recv(c, p.ours, true);
  tick(c, 0);
  CHECK_EQ(raw(c, (struct ul_command){.op = UL_OP_NOP, .slot = slot, .generation = c->live[slot], .fd = -1}),
           -EINVAL);
  CHECK_EQ(raw(c, (struct ul_command){.op = UL_OP_NOP, .slot = slot, .generation = 9999, .fd = -1}), -EINVAL);
  // The operation in it is none the worse for it.
  CHECK_EQ(write(p.theirs, "abc", 3), 3);
  struct seen *s = next_of(c, slot);
  CHECK_EQ(s->c.result, 3);
  CHECK(!memcmp(s->bytes, "abc", 3));
  close(p.theirs);
  shut(c);
}

static void close_of_a_busy_descriptor(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t slot = submit_recv(c, p.ours, true);
  tick(c, 0);
  CHECK_EQ(raw(c, (struct ul_command){.op = UL_OP_CLOSE, .slot = 9, .generation = 1, .fd = p.ours}), -EBUSY);
  CHECK_EQ(c->header->fds_live, 1);
  uint32_t cancel = submit_cancel(c, slot);
  CHECK_EQ(finish(c, cancel), 0);
  CHECK_EQ(finish(c, slot), -ECANCELED);
  close_owned(c, p.ours);
  CHECK_EQ(c->header->fds_live, 0);
  CHECK_EQ(raw(c, (struct ul_command){.op = UL_OP_CLOSE, .slot = 9, .generation = 2, .fd = p.ours}), -EINVAL);
  CHECK_EQ(read(p.theirs, &slot, 1), 0);
  close(p.theirs);
  shut(c);
}

/* Both in one tick: the close comes after a command on the same descriptor, and is refused. */
static void close_behind_a_command(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  memset(c->arena, 'x', 10);
  uint32_t recv = submit_recv(c, p.ours, false);
  uint32_t closing = submit(c, UL_OP_CLOSE, 0, p.ours, 0, 0, 0);
  int n = ul_tick((uint32_t)c->ring, c->staged, 0);
  c->staged = 0;
  CHECK_EQ(n, 1);
  CHECK_EQ(c->completions[0].slot, closing);
  CHECK_EQ(c->completions[0].result, -EBUSY);
  c->live[closing] = 0;
  c->live_count--;
  CHECK_EQ(c->header->in_flight, 1);
  close(p.theirs);
  CHECK_EQ(finish(c, recv), 0);
  shut(c);
}

/* Its owner closes a polled descriptor, and the number becomes a socket of the ring's: the poll still holds
 * it. */
static void close_of_a_reused_number(int engine) {
  struct client *c = open_small(engine);
  int event = eventfd(0, EFD_CLOEXEC);
  uint32_t slot = submit(c, UL_OP_POLL, 0, event, 0, POLLIN, 0);
  tick(c, 0);
  close(event);
  int fd = ul_socket((uint32_t)c->ring, AF_INET);
  CHECK_EQ(fd, event);
  CHECK_EQ(raw(c, (struct ul_command){.op = UL_OP_CLOSE, .slot = 9, .generation = 1, .fd = fd}), -EBUSY);
  uint32_t cancel = submit_cancel(c, slot);
  CHECK_EQ(finish(c, slot), -ECANCELED);
  CHECK_EQ(finish(c, cancel), 0);
  close_owned(c, fd);
  CHECK_EQ(c->header->fds_live, 0);
  shut(c);
}

static void refuses_calls(int engine) {
  struct client *c = open_small(engine);
  uint32_t ring = (uint32_t)c->ring;
  CHECK_EQ(ul_tick(ring, c->header->command_capacity + 1, 0), -EINVAL);
  CHECK_EQ(ul_tick(ring, UINT32_MAX, 0), -EINVAL);
  CHECK_EQ(ul_tick(ring, 0, (double)NAN), -EINVAL);
  CHECK_EQ(ul_tick(ring, 0, -0.0), 0);
  CHECK_EQ(ul_tick(ring, 0, (double)-INFINITY), 0);
  for (uint32_t bad = 5; bad < 5000; bad += 7)
    CHECK_EQ(ul_tick(bad, 0, 0), -EBADF);
  CHECK_EQ(ul_tick(UINT32_MAX, 0, 0), -EBADF);
  CHECK_EQ(ul_close(77), -EBADF);
  CHECK_EQ(ul_notify(77, 1), -EBADF);
  CHECK_EQ(ul_watch(77, 0), -EBADF);
  CHECK_EQ(ul_watch(ring, -1), -EINVAL);
  CHECK_EQ(ul_event_fd(77), -EBADF);
  CHECK(!ul_region(77));
  CHECK_EQ(ul_adopt(ring, -1), -EINVAL);
  CHECK_EQ(ul_adopt(ring, LARGE), -EINVAL);
  CHECK_EQ(ul_adopt(ring, ul_event_fd(ring)), -ENOTSOCK);
  CHECK_EQ(ul_listen(ring, NULL, 1, 0), -EINVAL);
  CHECK_EQ(ul_socket(ring, 12345), -EAFNOSUPPORT);
  CHECK_EQ(ul_set_option(ring, 0, UL_O_NO_DELAY, 1), -EBADF);
  CHECK_EQ(ul_get_option(ring, -5, UL_O_NO_DELAY), -EBADF);
  shut(c);
  CHECK_EQ(ul_tick(ring, 0, 0), -EBADF);
  CHECK_EQ(ul_close(ring), -EBADF);
}

static void refuses_configurations(int engine) {
  static const struct {
    size_t field;
    uint32_t value;
  } bad[] = {
      {offsetof(struct ul_config, submission_entries), 7},
      {offsetof(struct ul_config, submission_entries), 100},
      {offsetof(struct ul_config, submission_entries), UINT32_MAX},
      {offsetof(struct ul_config, completion_entries), 8},
      {offsetof(struct ul_config, slot_capacity), 1},
      {offsetof(struct ul_config, slot_capacity), UL_MAX_SLOTS + 1},
      {offsetof(struct ul_config, command_capacity), 65537},
      {offsetof(struct ul_config, completion_capacity), 7},
      {offsetof(struct ul_config, arena_bytes), (1u << 20) + 1},
      {offsetof(struct ul_config, arena_bytes), UINT32_MAX},
      {offsetof(struct ul_config, buffer_count), 65536},
      {offsetof(struct ul_config, buffer_count), 3},
      {offsetof(struct ul_config, buffer_bytes), 63},
      {offsetof(struct ul_config, buffer_bytes), 1u << 21},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct ul_config config = small_config(engine);
    *(uint32_t *)((char *)&config + bad[i].field) = bad[i].value;
    CHECK_EQ(ul_open(&config), -EINVAL);
    CHECK_EQ(config.error_step, UL_STEP_CONFIG);
    CHECK(config.reason[0]);
  }
  struct ul_config few = small_config(engine);
  few.submission_entries = 64;
  few.completion_entries = 32; // fewer than the kernel takes
  CHECK_EQ(ul_open(&few), -EINVAL);
  CHECK(strstr(few.reason, "completion_entries"));
  struct ul_config huge = small_config(engine);
  huge.buffer_count = 32768;
  huge.buffer_bytes = 65536;
  CHECK_EQ(ul_open(&huge), -EINVAL);
  huge.engine = 4;
  CHECK_EQ(ul_open(&huge), -EINVAL);
  CHECK_EQ(ul_open(NULL), -EINVAL);
}

static void *use_from_another_thread(void *argument) {
  struct client *c = argument;
  uint32_t ring = (uint32_t)c->ring;
  bool refused = ul_tick(ring, 0, 0) == -EBADF && ul_close(ring) == -EBADF && ul_notify(ring, 1) == -EBADF &&
                 !ul_region(ring) && ul_event_fd(ring) == -EBADF && ul_socket(ring, AF_INET) == -EBADF &&
                 ul_watch(ring, 0) == -EBADF;
  return refused ? argument : NULL;
}

static void belongs_to_its_thread(int engine) {
  struct client *c = open_small(engine);
  pthread_t thread;
  void *result;
  CHECK(!pthread_create(&thread, NULL, use_from_another_thread, c));
  pthread_join(thread, &result);
  CHECK(result == c);
  shut(c);
}

/* Refusals that nobody harvests: at some point the tick itself is refused, and nothing is lost. */
static void refusals_pile_up(int engine) {
  struct ul_config config = small_config(engine);
  config.slot_capacity = 16;
  config.command_capacity = config.completion_capacity = 8;
  struct client *c = open_with(config);
  struct pair p = unix_pair(c);
  uint32_t recv[14], seen = 0, refused = 0;
  for (int i = 0; i < 14; i++) {
    recv[i] = submit_recv(c, p.ours, false);
    if (i % 7 == 6)
      tick(c, 0);
  }
  CHECK_EQ(c->header->in_flight, 14);
  for (int round = 0; round < 20; round++) {
    for (uint32_t i = 0; i < 8; i++)
      c->commands[i] = (struct ul_command){.op = 99, .slot = i, .generation = 5};
    int result = ul_tick((uint32_t)c->ring, 8, UL_WAIT_FLUSH);
    CHECK(result == 0 || result == -EBUSY);
    refused += result == 0 ? 8 : 0;
  }
  CHECK(refused >= 16);
  close(p.theirs); // all receives end: places for them are needed on top of the refusals
  for (double until = ul_now_ms() + PATIENCE; seen < refused + 14;) {
    CHECK(ul_now_ms() < until);
    int n = ul_tick((uint32_t)c->ring, 0, 10 * MS);
    CHECK(n >= 0 && n <= 8);
    for (int i = 0; i < n; i++)
      CHECK(c->completions[i].op == 99 ? c->completions[i].result == -EINVAL : c->completions[i].result == 0);
    seen += (uint32_t)n;
  }
  CHECK_EQ(seen, refused + 14);
  CHECK_EQ(c->header->in_flight, 0);
  for (int i = 0; i < 14; i++)
    c->live[recv[i]] = 0;
  c->live_count = 0;
  shut(c);
}

/* Found by the fuzzer: completions known while staging count twice, in the queue and as in flight, and a tick
 * that only wanted to take them away was refused for want of room, for ever. */
static void an_empty_tick_makes_room(int engine) {
  struct ul_config config = small_config(engine);
  config.slot_capacity = 16;
  config.command_capacity = config.completion_capacity = 8;
  struct client *c = open_with(config);
  for (int i = 0; i < 8; i++)
    submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 3600000000000ull);
  tick(c, 0);
  int refused = 0, result = 0;
  for (; result == 0; refused += result == 0 ? 8 : 0) {
    for (uint32_t i = 0; i < 8; i++)
      c->commands[i] = (struct ul_command){.op = 99, .slot = i, .generation = 5};
    result = ul_tick((uint32_t)c->ring, 8, UL_WAIT_FLUSH);
  }
  CHECK_EQ(result, -EBUSY);
  CHECK_EQ(ul_tick((uint32_t)c->ring, 0, 0), 8); // room for eight, which end at once
  for (int i = 0; i < 8; i++)
    submit(c, UL_OP_SHUTDOWN, 0, 3000, 0, SHUT_RD, 0);
  CHECK_EQ(ul_tick((uint32_t)c->ring, c->staged, UL_WAIT_FLUSH), 0);
  c->staged = 0;
  for (refused -= 8; refused > 0; refused -= 8)
    CHECK_EQ(ul_tick((uint32_t)c->ring, 0, 0), 8);
  CHECK_EQ(tick(c, 0), 8);
  shut(c);
}

int main(void) {
  RUN(refuses_unsound_commands);
  RUN(refuses_a_slot_in_use);
  RUN(close_of_a_busy_descriptor);
  RUN(close_behind_a_command);
  RUN(close_of_a_reused_number);
  RUN(refuses_calls);
  RUN(refuses_configurations);
  RUN(belongs_to_its_thread);
  RUN(refusals_pile_up);
  RUN(an_empty_tick_makes_room);
  return check_failures != 0;
}
