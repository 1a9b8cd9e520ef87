/*
 * check.h - what the C tests share: one line per test and engine (`ok NAME/ENGINE` or `not ok NAME/ENGINE:
 * why`), and a client of the shim that behaves like the TypeScript side and checks on every tick what must
 * hold for every engine: completions belong to commands in flight, each command ends exactly once, and the
 * counters agree.
 */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include "../engine.h"
#include "../exports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MS       1e6  // nanoseconds
#define PATIENCE 5000 // milliseconds that something which must happen may take

static const char *const engine_names[] = {"", "uring", "poll", "epoll"};
static int check_failures;
static jmp_buf check_out;
static char check_name[160];

static inline void check_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));
static inline void check_fail(const char *file, int line, const char *format, ...) {
  va_list list;
  va_start(list, format);
  printf("not ok %s: ", check_name);
  vprintf(format, list);
  printf(" (%s:%d)\n", strrchr(file, '/') ? strrchr(file, '/') + 1 : file, line);
  fflush(stdout);
  va_end(list);
  check_failures++;
  longjmp(check_out, 1);
}

#define FAIL(...) check_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                                                                                     \
  do {                                                                                                       \
    if (!(condition))                                                                                        \
      FAIL("%s", #condition);                                                                                \
  } while (0)
#define CHECK_EQ(got, expected)                                                                              \
  do {                                                                                                       \
    long long got_ = (long long)(got), expected_ = (long long)(expected);                                    \
    if (got_ != expected_)                                                                                   \
      FAIL("%s is %lld, not %s (%lld)", #got, got_, #expected, expected_);                                   \
  } while (0)

typedef void test_function(int engine);

static inline void run_one(const char *name, test_function *function, int engine) {
  snprintf(check_name, sizeof check_name, "%s/%s", name, engine_names[engine]);
  if (setjmp(check_out))
    return;
  function(engine);
  printf("ok %s\n", check_name);
  fflush(stdout);
}

static inline void run_on_all(const char *name, test_function *function) {
  const char *only_engine = getenv("ONLY_ENGINE"), *only_test = getenv("ONLY_TEST");
  const char *skip_test = getenv("SKIP_TEST");
  if ((only_test && strcmp(only_test, name)) || (skip_test && !strcmp(skip_test, name)))
    return;
  for (int engine = UL_ENGINE_URING; engine <= UL_ENGINE_EPOLL; engine++)
    if (!only_engine || !strcmp(only_engine, engine_names[engine]))
      run_one(name, function, engine);
}
#define RUN(function) run_on_all(#function, function)

/* ---- random numbers
 * ---------------------------------------------------------------------------------------------- */

static inline uint64_t random_next(uint64_t *seed) { // splitmix64
  uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
static inline uint32_t random_below(uint64_t *seed, uint32_t bound) {
  return (uint32_t)(random_next(seed) % bound);
}

/* ---- a client
 * ---------------------------------------------------------------------------------------------------- */

/* A completion as it was seen, with a copy of its bytes. */
struct seen {
  struct ul_completion c;
  uint8_t *bytes;
  bool taken;
};

struct client {
  int engine, ring;
  struct ul_header *header;
  struct ul_command *commands;
  struct ul_completion *completions;
  uint8_t *arena, *buffers;
  uint32_t staged, next_slot, generation, live_count;
  uint32_t *live;    // by slot: generation in flight, or 0
  uint8_t *live_ops; // by slot
  bool *unhandled;   // by slot: ended, and the handler has not seen it yet, so it cannot be used again
  struct seen *seen;
  uint32_t seen_count, seen_capacity;
  /* When set, completions go here instead of into `seen`. */
  void (*on_completion)(struct client *c, const struct ul_completion *completion);
  void *user;
};

static inline struct ul_config small_config(int engine) {
  return (struct ul_config){.engine = (uint32_t)engine,
                            .slot_capacity = 4096,
                            .command_capacity = 512,
                            .completion_capacity = 512,
                            .arena_bytes = 4u << 20,
                            .buffer_count = 64,
                            .buffer_bytes = 16384};
}

static inline struct client *open_with(struct ul_config config) {
  struct client *c = calloc(1, sizeof *c);
  c->engine = (int)config.engine;
  c->ring = ul_open(&config);
  if (c->ring < 0)
    FAIL("ul_open: %d, step %u: %s", c->ring, config.error_step, config.reason);
  c->header = ul_region((uint32_t)c->ring);
  uint8_t *base = (uint8_t *)c->header;
  c->commands = (struct ul_command *)(base + c->header->command_offset);
  c->completions = (struct ul_completion *)(base + c->header->completion_offset);
  c->arena = base + c->header->arena_offset;
  c->buffers = base + c->header->buffer_offset;
  c->live = calloc(c->header->slot_capacity, sizeof *c->live);
  c->live_ops = calloc(c->header->slot_capacity, 1);
  c->unhandled = calloc(c->header->slot_capacity, 1);
  return c;
}

static inline struct client *open_small(int engine) {
  return open_with(small_config(engine));
}

static inline void remember(struct client *c, const struct ul_completion *completion) {
  if (c->seen_count == c->seen_capacity) {
    c->seen_capacity = c->seen_capacity ? 2 * c->seen_capacity : 64;
    c->seen = realloc(c->seen, c->seen_capacity * sizeof *c->seen);
  }
  struct seen *s = &c->seen[c->seen_count++];
  *s = (struct seen){.c = *completion};
  if (completion->flags & UL_F_BUFFER) {
    s->bytes = malloc((size_t)completion->result);
    memcpy(s->bytes, c->buffers + completion->buffer_offset, (size_t)completion->result);
  }
}

/* One tick; checks what must hold. Returns the number of completions, or -errno. */
static inline int tick(struct client *c, double wait_ns) {
  uint32_t count = c->staged;
  c->staged = 0;
  int n = ul_tick((uint32_t)c->ring, count, wait_ns);
  if (n < 0)
    FAIL("ul_tick(%u, %g) is %d", count, wait_ns, n);
  if (wait_ns < 0)
    return n;
  CHECK((uint32_t)n <= c->header->completion_capacity);
  for (int i = 0; i < n; i++) {
    struct ul_completion *done = &c->completions[i];
    CHECK(done->slot < c->header->slot_capacity);
    if (!c->live[done->slot] || c->live[done->slot] != done->generation)
      FAIL("completion for slot %u generation %u, which is not in flight (op %u result %d)", done->slot,
           done->generation, done->op, done->result);
    CHECK_EQ(done->op, c->live_ops[done->slot]);
    CHECK_EQ(done->reserved[0] | done->reserved[1], 0);
    if (done->flags & UL_F_MORE)
      CHECK(done->result >= 0);
    if (done->flags & UL_F_BUFFER) {
      CHECK(done->op == UL_OP_RECV && done->result > 0);
      CHECK((uint64_t)done->buffer_offset + (uint32_t)done->result <=
            (uint64_t)c->header->buffer_count * c->header->buffer_bytes);
    } else {
      CHECK(done->op != UL_OP_RECV || done->result <= 0);
    }
    if (!(done->flags & UL_F_MORE)) {
      c->live[done->slot] = 0;
      c->unhandled[done->slot] = true;
      c->live_count--;
    }
  }
  CHECK_EQ(c->header->in_flight, c->live_count);
  // Handed on after the check of the counters: handlers stage more.
  struct ul_completion *copy = malloc(((size_t)n + 1) * sizeof *copy);
  memcpy(copy, c->completions, (size_t)n * sizeof *copy);
  for (int i = 0; i < n; i++) {
    c->unhandled[copy[i].slot] = false;
    if (c->on_completion)
      c->on_completion(c, &copy[i]);
    else
      remember(c, &copy[i]);
  }
  free(copy);
  return n;
}

/* Stages a command in a free slot; returns the slot. */
static inline uint32_t submit(struct client *c, uint8_t op, uint8_t flags, int fd, uint32_t offset,
                              uint32_t length, uint64_t argument) {
  if (c->staged == c->header->command_capacity)
    tick(c, UL_WAIT_FLUSH);
  CHECK(c->live_count < c->header->slot_capacity);
  while (c->live[c->next_slot] || c->unhandled[c->next_slot])
    c->next_slot = (c->next_slot + 1) % c->header->slot_capacity;
  uint32_t slot = c->next_slot;
  c->next_slot = (c->next_slot + 1) % c->header->slot_capacity;
  c->commands[c->staged++] = (struct ul_command){.op = op,
                                                 .flags = flags,
                                                 .fd = fd,
                                                 .slot = slot,
                                                 .generation = ++c->generation,
                                                 .offset = offset,
                                                 .length = length,
                                                 .argument = argument};
  c->live[slot] = c->generation;
  c->live_ops[slot] = op;
  c->live_count++;
  return slot;
}

static inline uint32_t submit_recv(struct client *c, int fd, bool multishot) {
  return submit(c, UL_OP_RECV, multishot ? UL_C_MULTISHOT : 0, fd, 0, 0, 0);
}
static inline uint32_t submit_cancel(struct client *c, uint32_t slot) {
  return submit(c, UL_OP_CANCEL, 0, -1, slot, c->live[slot], 0);
}
static inline uint32_t submit_send(struct client *c, int fd, uint32_t offset, uint32_t length) {
  return submit(c, UL_OP_SEND, 0, fd, offset, length, 0);
}
static inline uint32_t submit_nop(struct client *c) {
  return submit(c, UL_OP_NOP, 0, -1, 0, 0, 0);
}

/* The next completion of a slot that nobody has taken yet; ticks until it is there. */
static inline struct seen *next_of(struct client *c, uint32_t slot) {
  double until = ul_now_ms() + PATIENCE;
  for (;;) {
    for (uint32_t i = 0; i < c->seen_count; i++)
      if (c->seen[i].c.slot == slot && !c->seen[i].taken) {
        c->seen[i].taken = true;
        return &c->seen[i];
      }
    if (ul_now_ms() > until)
      FAIL("no completion for slot %u in %d ms", slot, PATIENCE);
    tick(c, 50 * MS);
  }
}

/* The result of the terminal completion; what came before it is skipped. */
static inline int32_t finish(struct client *c, uint32_t slot) {
  for (;;) {
    struct seen *s = next_of(c, slot);
    if (!(s->c.flags & UL_F_MORE))
      return s->c.result;
  }
}

static inline int untaken(struct client *c, uint32_t slot) {
  int count = 0;
  for (uint32_t i = 0; i < c->seen_count; i++)
    count += c->seen[i].c.slot == slot && !c->seen[i].taken;
  return count;
}

static inline void forget_seen(struct client *c) {
  for (uint32_t i = 0; i < c->seen_count; i++)
    free(c->seen[i].bytes);
  c->seen_count = 0;
}

/* Ticks without sleeping for a while: what should not happen gets its chance. */
static inline void idle_ms(struct client *c, double ms) {
  for (double until = ul_now_ms() + ms; ul_now_ms() < until;)
    tick(c, 1 * MS);
}

/* Cancels everything, drains, closes. */
static inline void shut(struct client *c) {
  double until = ul_now_ms() + PATIENCE;
  c->on_completion = NULL;
  tick(c, 0);
  for (uint32_t slot = 0; slot < c->header->slot_capacity && c->live_count; slot++)
    if (c->live[slot] && c->live_ops[slot] != UL_OP_CANCEL)
      submit_cancel(c, slot);
  while (c->live_count) {
    if (ul_now_ms() > until)
      FAIL("%u commands are still in flight after all were cancelled", c->live_count);
    tick(c, 10 * MS);
  }
  CHECK_EQ(ul_close((uint32_t)c->ring), 0);
  forget_seen(c);
  free(c->seen);
  free(c->live);
  free(c->live_ops);
  free(c->unhandled);
  free(c);
}

/* ---- sockets
 * ----------------------------------------------------------------------------------------------------- */

/* A connected pair: `ours` owned by the ring, `theirs` a plain descriptor of the test that does not block. */
struct pair {
  int ours, theirs;
};

static inline void not_blocking(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static inline struct pair unix_pair(struct client *c) {
  int fds[2];
  CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  CHECK_EQ(ul_adopt((uint32_t)c->ring, fds[0]), fds[0]);
  not_blocking(fds[1]);
  return (struct pair){fds[0], fds[1]};
}

static inline struct ul_address loopback(uint16_t port) {
  return (struct ul_address){.family = AF_INET, .port = port, .ip = {127, 0, 0, 1}};
}

/* A TCP listener of the ring's; *port is its port. */
static inline int tcp_listener(struct client *c, uint16_t *port) {
  struct ul_address any = loopback(0), name;
  int fd = ul_listen((uint32_t)c->ring, &any, 512, 0);
  CHECK(fd >= 0);
  CHECK_EQ(ul_name((uint32_t)c->ring, fd, 0, &name), 0);
  *port = name.port;
  return fd;
}

/* A plain socket of the test, connected (the listener's backlog answers). */
static inline int tcp_connect(uint16_t port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in name = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  CHECK(fd >= 0 && !connect(fd, (struct sockaddr *)&name, sizeof name));
  not_blocking(fd);
  return fd;
}

static inline struct pair tcp_pair(struct client *c) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof name;
  CHECK(!bind(listener, (struct sockaddr *)&name, sizeof name) && !listen(listener, 1));
  CHECK(!getsockname(listener, (struct sockaddr *)&name, &length));
  int theirs = tcp_connect(ntohs(name.sin_port));
  int ours = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  close(listener);
  CHECK_EQ(ul_adopt((uint32_t)c->ring, ours), ours);
  return (struct pair){ours, theirs};
}

static inline void close_owned(struct client *c, int fd) {
  CHECK_EQ(finish(c, submit(c, UL_OP_CLOSE, 0, fd, 0, 0, 0)), 0);
}

static inline int open_descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 4096; fd++)
    count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

#endif
