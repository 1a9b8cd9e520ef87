/*
 * fuzz.c - a million random records an engine, mixed with sound ones, under the sanitizers. What must hold:
 * no fault, commands that are taken end exactly once, refusals are -EINVAL or -EBUSY, the counters agree.
 *
 * FUZZ_RECORDS and FUZZ_SEED in the environment change the length and the start.
 */
#include "check.h"

#define SOCKETS   24
#define SLOTS     512
#define FD_UNUSED 900 // descriptors from here on are not open

struct fuzz {
  uint64_t seed;
  struct pair pairs[SOCKETS];
  uint32_t live[SLOTS]; // generation of what is in flight
  uint32_t live_count;
  uint64_t taken, refused, ended;
};

static uint32_t any_number(struct fuzz *f) {
  static const uint32_t edges[] = {0,   1,    2,    3,     4,          7,           8,          64,
                                   255, 4095, 4096, 65535, 0x7fffffff, 0x80000000u, 0xffffffffu};
  switch (random_below(&f->seed, 3)) {
  case 0:
    return edges[random_below(&f->seed, sizeof edges / sizeof *edges)];
  case 1:
    return random_below(&f->seed, 1000);
  default:
    return (uint32_t)random_next(&f->seed);
  }
}

/* A descriptor of the fuzz's own sockets, one that is not open, or nonsense; never one below 3. */
static int any_fd(struct fuzz *f) {
  struct pair *p = &f->pairs[random_below(&f->seed, SOCKETS)];
  switch (random_below(&f->seed, 8)) {
  case 0:
    return FD_UNUSED + (int)random_below(&f->seed, 5000);
  case 1:
    return -(int)random_below(&f->seed, 3);
  case 2:
    return p->theirs;
  case 3:
    return (int)(0x01000000u | random_below(&f->seed, 0x7effffffu));
  default:
    return p->ours;
  }
}

static struct ul_command any_command(struct fuzz *f, struct client *c) {
  uint32_t wild = random_below(&f->seed, 4) == 0;
  struct ul_command command = {.op = (uint8_t)(wild ? any_number(f) : 1 + random_below(&f->seed, 10)),
                               .flags = (uint8_t)(wild ? any_number(f) : random_below(&f->seed, 3)),
                               .reserved = wild && random_below(&f->seed, 2) ? 1 : 0,
                               .fd = any_fd(f),
                               .slot = wild ? any_number(f) : random_below(&f->seed, SLOTS),
                               // No number twice: a refusal must not look like the end of a sound record.
                               .generation = wild && random_below(&f->seed, 2) ? 0 : ++c->generation,
                               .offset = any_number(f),
                               .length = any_number(f),
                               .argument = random_below(&f->seed, 50000)};
  switch (command.op) {
  case UL_OP_NOP:
  case UL_OP_TIMEOUT:
    command.fd = wild ? command.fd : -1;
    command.argument = wild ? random_next(&f->seed) : command.argument;
    break;
  case UL_OP_CANCEL:
    command.fd = wild ? command.fd : -1;
    command.offset = random_below(&f->seed, SLOTS);
    command.length = random_below(&f->seed, 5) ? f->live[command.offset] : command.length;
    break;
  case UL_OP_CONNECT:
    command.offset = random_below(&f->seed, 4) ? 136 * random_below(&f->seed, 64) : command.offset;
    break;
  case UL_OP_SEND:
    if (!wild) {
      command.offset = random_below(&f->seed, 10000) + 16384;
      command.length = random_below(&f->seed, 3000);
    }
    break;
  case UL_OP_SHUTDOWN:
    command.length = random_below(&f->seed, 40) ? 3 : random_below(&f->seed, 3); // seldom: it ends a socket
    break;
  case UL_OP_CLOSE:
    if (random_below(&f->seed, 20))
      command.fd = -1;
    break;
  case UL_OP_POLL:
    command.length = wild ? command.length : random_below(&f->seed, 16);
    break;
  default:
    break;
  }
  return command;
}

static void take_completions(struct fuzz *f, struct client *c, int n) {
  for (int i = 0; i < n; i++) {
    struct ul_completion *done = &c->completions[i];
    bool live = done->slot < SLOTS && f->live[done->slot] && f->live[done->slot] == done->generation;
    if (!live) { // a refusal
      CHECK(done->result == -EINVAL || done->result == -EBUSY);
      CHECK_EQ(done->flags, 0);
      f->refused++;
      continue;
    }
    if (done->flags & UL_F_BUFFER)
      CHECK((uint64_t)done->buffer_offset + (uint32_t)done->result <=
            (uint64_t)c->header->buffer_count * c->header->buffer_bytes);
    if (!(done->flags & UL_F_MORE)) {
      f->live[done->slot] = 0;
      f->live_count--;
      f->ended++;
    }
  }
}

/* What shim.c accepts, judged by its counters: a record was taken when in_flight grew. Ticks of one record
 * tell. */
static void one_record(struct fuzz *f, struct client *c) {
  struct ul_command command = any_command(f, c);
  uint64_t rejected = c->header->rejected;
  c->commands[0] = command;
  bool flush = random_below(&f->seed, 4) == 0;
  int n = ul_tick((uint32_t)c->ring, 1, flush ? UL_WAIT_FLUSH : 0);
  if (flush && n == -EBUSY) {
    take_completions(f, c, ul_tick((uint32_t)c->ring, 0, 0));
    return;
  }
  CHECK(n >= 0);
  if (c->header->rejected == rejected) {
    CHECK(command.slot < SLOTS && command.generation && !f->live[command.slot]);
    f->live[command.slot] = command.generation;
    f->live_count++;
    f->taken++;
  }
  if (!flush) {
    take_completions(f, c, n);
    CHECK_EQ(c->header->in_flight, f->live_count);
  }
}

static void batch(struct fuzz *f, struct client *c, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    c->commands[i] = any_command(f, c);
    // Sound or not is not known one by one in a batch: only records that are refused for certain.
    c->commands[i].slot |= SLOTS;
    if (random_below(&f->seed, 2))
      c->commands[i].generation = 0;
  }
  uint64_t rejected = c->header->rejected;
  int n = ul_tick((uint32_t)c->ring, count, 0);
  CHECK(n >= 0);
  CHECK_EQ(c->header->rejected, rejected + count);
  take_completions(f, c, n);
}

static void open_sockets(struct fuzz *f, struct client *c) {
  for (int i = 0; i < SOCKETS; i++) {
    if (i % 6 == 5) {
      uint16_t port;
      int listener = tcp_listener(c, &port);
      f->pairs[i] = (struct pair){listener, tcp_connect(port)};
    } else {
      f->pairs[i] = i % 2 ? tcp_pair(c) : unix_pair(c);
    }
  }
}

/* Ends everything and begins anew: shutdowns and closes have used the sockets up. */
static void start_over(struct fuzz *f, struct client *c) {
  double until = ul_now_ms() + PATIENCE;
  for (int i = 0; i < SOCKETS; i++) {
    close(f->pairs[i].theirs);
    f->pairs[i] = (struct pair){0, 0};
  }
  while (f->live_count) {
    if (ul_now_ms() > until)
      FAIL("%u operations are still in flight after all were cancelled", f->live_count);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
      uint32_t free_slot = 0;
      while (free_slot < SLOTS && f->live[free_slot])
        free_slot++;
      if (!f->live[slot] || free_slot == SLOTS)
        continue;
      c->commands[0] = (struct ul_command){.op = UL_OP_CANCEL,
                                           .fd = -1,
                                           .slot = free_slot,
                                           .generation = ++c->generation,
                                           .offset = slot,
                                           .length = f->live[slot]};
      f->live[free_slot] = c->generation;
      f->live_count++;
      f->taken++;
      take_completions(f, c, ul_tick((uint32_t)c->ring, 1, 0));
    }
    take_completions(f, c, ul_tick((uint32_t)c->ring, 0, 1 * MS));
  }
  CHECK_EQ(c->header->in_flight, 0);
  CHECK_EQ(ul_close((uint32_t)c->ring), 0);
  free(c->live);
  free(c->live_ops);
  free(c->unhandled);
  free(c);
}

static struct client *begin(struct fuzz *f, int engine) {
  struct ul_config config = small_config(engine);
  config.slot_capacity = SLOTS;
  config.completion_capacity = 64;
  config.buffer_count = 16;
  config.buffer_bytes = 1024;
  struct client *c = open_with(config);
  struct ul_address *address = (struct ul_address *)c->arena;
  for (int i = 0; i < 64; i++) { // for CONNECT: sound ones, refused ones, nonsense
    address[i] = loopback((uint16_t)(i < 32 ? 1 : random_below(&f->seed, 65536)));
    if (i % 4 == 3)
      address[i].family = (uint16_t)random_below(&f->seed, 12);
  }
  open_sockets(f, c);
  return c;
}

static void a_million_records(int engine) {
  const char *records = getenv("FUZZ_RECORDS"), *seed = getenv("FUZZ_SEED");
  uint64_t total = records ? strtoull(records, NULL, 10) : 1000000, done = 0;
  struct fuzz *f = calloc(1, sizeof *f);
  f->seed = seed ? strtoull(seed, NULL, 10) : 1;
  int descriptors = open_descriptors();
  while (done < total) {
    struct client *c = begin(f, engine);
    for (int round = 0; round < 4000 && done < total; round++) {
      for (int i = 0; i < 4; i++)
        one_record(f, c);
      batch(f, c, 1 + random_below(&f->seed, 8));
      done += 5;
      uint8_t bytes[500] = {0};
      if (round % 3 == 0)
        (void)!send(f->pairs[random_below(&f->seed, SOCKETS)].theirs, bytes, random_below(&f->seed, 500) + 1,
                    MSG_NOSIGNAL | MSG_DONTWAIT);
      if (round % 5 == 0)
        (void)!recv(f->pairs[random_below(&f->seed, SOCKETS)].theirs, bytes, sizeof bytes, MSG_DONTWAIT);
    }
    start_over(f, c);
  }
  CHECK_EQ(open_descriptors(), descriptors);
  CHECK(f->taken > total / 10);
  CHECK_EQ(f->taken, f->ended);
  free(f);
}

int main(void) {
  RUN(a_million_records);
  return check_failures != 0;
}
