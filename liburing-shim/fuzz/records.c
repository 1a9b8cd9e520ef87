/*
 * records.c - libFuzzer's target: a string of bytes is a program of calls to the shim, on the engine that
 * FUZZ_ENGINE names. Sound commands and records of arbitrary bytes, ticks, notify, watch, sockets opened,
 * adopted and closed, and peers that write, read and leave. What must hold:
 *
 *  - no fault and no report of a sanitizer;
 *  - every record that was handed over ends exactly once, refused or not, with its own slot and operation;
 *  - a receive on a connection finds its own peer's bytes and no others;
 *  - counters agree, closing reaches zero in flight, and no descriptor stays open.
 *
 *   first bytes   limits of the ring, features to do without
 *   then          steps: what to do (see `steps`), and its arguments
 *
 * All traffic stays here: addresses are made loopback ones, and connects go to this program's own listeners.
 */
#include "input.h"

#include <sys/stat.h>

#define SLOTS       64
#define COMMANDS    32
#define PAIRS       6
#define OTHERS      16   // descriptors accepted or opened by a step
#define RECORDS_MAX 4096 // per input
#define ADDRESSES   16   // struct ul_address at the start of the arena
#define END_MS      20000
#define COUNT_EVERY 128 // inputs between two counts of this process's descriptors

/* A record that was handed over; its generation is its index here. */
struct record {
  uint32_t slot;
  int fd;
  uint8_t op, tag; // tag: all that a receive may find, or 0 where it may be anything
  bool ended;
};

struct connection {
  struct pair pair; // -1: closed
  int closing;      // commands to close `ours` that are under way
  bool mixed;       // the ring has sent through `theirs`: not only the peer's bytes come in
};

struct fuzz {
  struct client c;
  struct ul_ring *ring;
  struct connection pairs[PAIRS];
  int others[OTHERS], others_count;
  uint16_t port; // of the last listener
  struct record records[RECORDS_MAX + 1];
  uint32_t handed, ended, nameless; // nameless: records of generation 0, handed over and not ended
  int host_fd;
};

static struct fuzz *f;

static uint8_t tag_of(int pair) {
  return (uint8_t)('A' + pair);
}

/* Any descriptor: mostly a connection's, sometimes nonsense. */
static int any_fd(void) {
  uint8_t choice = byte();
  struct connection *any = &f->pairs[choice % PAIRS];
  if (choice < 140)
    return any->pair.ours;
  if (choice < 190 && f->others_count)
    return f->others[choice % (uint32_t)f->others_count];
  if (choice < 220)
    return any->pair.theirs;
  return choice < 230 ? f->ring->event_fd : choice < 240 ? 900 + choice : (int)number(4);
}

/* ---- commands ---- */

static uint32_t free_slot(uint32_t from) {
  for (uint32_t i = 0; i < SLOTS; i++)
    if (!f->ring->slots[(from + i) % SLOTS].op)
      return (from + i) % SLOTS;
  return SLOTS;
}

/* Puts a record in the batch and remembers what must come of it. */
static void stage(struct ul_command command) {
  struct client *c = &f->c;
  if (c->staged == COMMANDS || f->handed + c->staged - f->nameless >= RECORDS_MAX - COMMANDS)
    return;
  if (command.op == UL_OP_CONNECT && command.offset % _Alignof(struct ul_address) == 0 &&
      command.offset <= c->header->arena_bytes - sizeof(struct ul_address))
    tame((struct ul_address *)(c->arena + command.offset), command.slot % 4 ? f->port : 1);
  if (command.generation)
    command.generation = ++c->generation;
  struct record *r = &f->records[command.generation];
  *r = (struct record){.slot = command.slot, .fd = command.fd, .op = command.op};
  for (int i = 0; i < PAIRS; i++)
    f->pairs[i].mixed |= command.op == UL_OP_SEND && f->pairs[i].pair.theirs == command.fd;
  for (int i = 0; i < PAIRS && command.generation; i++)
    if (f->pairs[i].pair.ours == command.fd && command.fd >= 0) {
      r->tag = f->pairs[i].closing ? 0 : tag_of(i);
      f->pairs[i].closing += command.op == UL_OP_CLOSE;
    }
  c->commands[c->staged++] = command;
}

static void step_raw(void) {
  struct ul_command command;
  uint8_t *bytes = (uint8_t *)&command;
  for (size_t i = 0; i < sizeof command; i++)
    bytes[i] = byte();
  if (byte() % 2)
    command.fd = any_fd();
  stage(command);
}

static void step_command(void) {
  static const uint8_t flags[] = {0, UL_C_MULTISHOT, UL_C_QUIET, 0};
  struct ul_command command = {.op = 1 + byte() % 10, .fd = -1, .generation = 1};
  uint8_t how = byte();
  command.flags = flags[how % 4] &
                  (command.op == UL_OP_SEND ? UL_C_QUIET
                   : command.op == UL_OP_ACCEPT || command.op == UL_OP_RECV || command.op == UL_OP_POLL
                       ? UL_C_MULTISHOT
                       : 0);
  command.slot = how % 8 == 7 ? how % SLOTS : free_slot(how / 4 + f->c.staged);
  if (command.op != UL_OP_NOP && command.op != UL_OP_TIMEOUT && command.op != UL_OP_CANCEL)
    command.fd = any_fd();
  switch (command.op) {
  case UL_OP_CONNECT:
    command.offset = byte() % ADDRESSES * (uint32_t)sizeof(struct ul_address);
    *(struct ul_address *)(f->c.arena + command.offset) = any_address();
    break;
  case UL_OP_SEND:
    command.offset = number(2);
    command.length = 1 + number(how < 200 ? 1 : 3) % 300000;
    break;
  case UL_OP_POLL:
    command.length = byte() % 16;
    break;
  case UL_OP_TIMEOUT:
    command.argument = how < 20 ? (uint64_t)number(4) << 32 | number(4) : number(2) * 8;
    break;
  case UL_OP_CANCEL:
    command.offset = byte() % SLOTS;
    command.length = f->ring->slots[command.offset].generation + (how > 240);
    break;
  case UL_OP_SHUTDOWN:
    command.length = byte() % 4;
    break;
  default:
    break;
  }
  stage(command);
}

/* ---- completions ---- */

static void on_close(const struct record *r, int32_t result) {
  for (int i = 0; i < PAIRS; i++)
    if (f->pairs[i].pair.ours == r->fd && f->pairs[i].closing) {
      f->pairs[i].closing--;
      if (!result)
        f->pairs[i].pair.ours = -1;
    }
  for (int i = 0; i < f->others_count && !result; i++)
    if (f->others[i] == r->fd)
      f->others[i--] = f->others[--f->others_count];
}

static void remember_other(int fd) {
  if (fd >= 0 && f->others_count < OTHERS)
    f->others[f->others_count++] = fd;
}

static void take(const struct ul_completion *done) {
  struct client *c = &f->c;
  CHECK_EQ(done->reserved[0] | done->reserved[1], 0);
  if (!done->generation) { // refused for that reason alone
    CHECK_EQ(done->result, -EINVAL);
    CHECK(f->nameless > 0);
    f->nameless--;
    f->ended++;
    return;
  }
  CHECK(done->generation <= c->generation);
  struct record *r = &f->records[done->generation];
  CHECK(!r->ended);
  CHECK_EQ(done->slot, r->slot);
  CHECK_EQ(done->op, r->op);
  if (done->flags & UL_F_MORE)
    CHECK(done->result >= 0);
  if (done->flags & UL_F_BUFFER) {
    CHECK(done->op == UL_OP_RECV && done->result > 0);
    CHECK((uint64_t)done->buffer_offset + (uint32_t)done->result <=
          (uint64_t)c->header->buffer_count * c->header->buffer_bytes);
    for (int32_t i = 0; i < done->result && r->tag && !f->pairs[r->tag - tag_of(0)].mixed; i++)
      CHECK_EQ(c->buffers[done->buffer_offset + (uint32_t)i], r->tag);
  }
  if (done->op == UL_OP_ACCEPT && done->result >= 0)
    remember_other(done->result);
  if (done->flags & UL_F_MORE)
    return;
  r->ended = true;
  f->ended++;
  if (done->op == UL_OP_CLOSE)
    on_close(r, done->result);
}

static void tick_for(double wait_ns) {
  struct client *c = &f->c;
  uint32_t count = c->staged;
  int n = ul_tick((uint32_t)c->ring, count, wait_ns);
  if (n == -EBUSY) { // refusals have piled up; nothing of this was taken
    CHECK(count > 0);
    n = ul_tick((uint32_t)c->ring, 0, 0);
    wait_ns = 0;
  } else {
    c->staged = 0;
    f->handed += count;
    for (uint32_t i = 0; i < count; i++)
      f->nameless += !c->commands[i].generation;
  }
  if (n == -EAGAIN || n == -EINTR)
    return;
  if (n < 0 || n > (int)c->header->completion_capacity)
    FAIL("ul_tick(%u, %g) is %d", count, wait_ns, n);
  for (int i = 0; i < n && wait_ns >= 0; i++)
    take(&c->completions[i]);
  if (wait_ns >= 0 && n < (int)c->header->completion_capacity)
    CHECK_EQ(c->header->in_flight, f->handed - f->ended);
}

/* ---- the other calls ---- */

static void step_tick(void) {
  static const double waits[] = {0, 0, UL_WAIT_FLUSH, 1000, 50000, -0.0, 0, (double)-INFINITY};
  uint32_t ring = (uint32_t)f->c.ring;
  uint8_t how = byte();
  if (how == 255)
    CHECK_EQ(ul_tick(ring, number(4) | COMMANDS << 1, 0), -EINVAL);
  else if (how == 254)
    CHECK_EQ(ul_tick(ring, 0, (double)NAN), -EINVAL);
  else
    tick_for(waits[how % 8]);
}

static void step_open_pair(void) {
  int i = byte() % PAIRS, fds[2];
  struct connection *n = &f->pairs[i];
  if (n->pair.ours >= 0 || n->closing || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
    return;
  if (n->pair.theirs >= 0)
    close(n->pair.theirs);
  if (ul_adopt((uint32_t)f->c.ring, fds[0]) < 0) { // operations of before are still on the number
    close(fds[0]);
    fds[0] = -1;
  }
  not_blocking(fds[1]);
  *n = (struct connection){.pair = {fds[0], fds[1]}};
}

static void step_peer(void) {
  uint8_t how = byte(), bytes[2048];
  int i = how % PAIRS, fd = f->pairs[i].pair.theirs;
  size_t length = 1 + byte() * 8;
  memset(bytes, tag_of(i), sizeof bytes);
  if (how < 150)
    (void)!send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
  else if (how < 230)
    (void)!recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  else if (how < 245)
    shutdown(fd, how % 3);
  else if (fd >= 0) {
    close(fd);
    f->pairs[i].pair.theirs = -1;
  }
}

static void step_listen(void) {
  struct ul_address a = any_address(), name;
  tame(&a, 0);
  uint8_t how = byte();
  int fd = ul_listen((uint32_t)f->c.ring, how == 255 ? NULL : &a, how % 32, number(1));
  remember_other(fd);
  if (fd >= 0 && a.family == AF_INET && !ul_name((uint32_t)f->c.ring, fd, 0, &name))
    f->port = name.port;
}

static void step_socket(void) {
  static const uint32_t families[] = {AF_INET, AF_INET6, AF_UNIX};
  uint8_t how = byte();
  if (f->others_count < OTHERS)
    remember_other(ul_socket((uint32_t)f->c.ring, how < 200 ? families[how % 3] : number(4) | 64));
}

static void step_adopt(void) {
  uint8_t how = byte();
  struct pair *p = &f->pairs[how % PAIRS].pair;
  uint32_t ring = (uint32_t)f->c.ring;
  if (how < 100) {
    if (p->theirs >= 0 && f->others_count < OTHERS && ul_adopt(ring, p->theirs) >= 0) {
      remember_other(p->theirs);
      p->theirs = -1;
      f->pairs[how % PAIRS].mixed = true;
    }
  } else if (how < 200)
    CHECK(p->ours < 0 || ul_adopt(ring, p->ours) == -EINVAL || f->pairs[how % PAIRS].closing);
  else
    CHECK(ul_adopt(ring, how < 220 ? f->ring->event_fd : 900 + (int)number(3)) < 0);
}

static void step_option(void) {
  uint32_t ring = (uint32_t)f->c.ring, option = byte() % 12;
  int fd = any_fd(), value = (int)number(byte() % 2 ? 4 : 1);
  struct ul_address name;
  if (option != UL_O_LINGER || value <= 0) // closing then may take that long, as asked for
    ul_set_option(ring, fd, option, value);
  ul_get_option(ring, fd, option);
  ul_name(ring, fd, option % 3, &name);
}

static void step_host(void) {
  uint32_t ring = (uint32_t)f->c.ring;
  uint8_t how = byte();
  if (how < 200)
    ul_notify(ring, how % 2);
  else if (how < 220) {
    int expected = f->ring->host_fd < 0 ? 0 : -EINVAL;
    CHECK_EQ(ul_watch(ring, f->host_fd), expected);
  } else if (how < 240)
    ul_signal(f->host_fd);
  else if (f->c.header->in_flight)
    CHECK_EQ(ul_close(ring), -EBUSY);
  else
    CHECK_EQ(ul_close(ring + 1), -EBADF);
}

static void (*const steps[])(void) = {step_command, step_command, step_command, step_command,   step_tick,
                                      step_tick,    step_peer,    step_peer,    step_raw,       step_listen,
                                      step_socket,  step_adopt,   step_option,  step_open_pair, step_host};

/* ---- from begin to end ---- */

static int engine_of(void) {
  const char *name = getenv("FUZZ_ENGINE");
  for (int engine = UL_ENGINE_URING; engine <= UL_ENGINE_EPOLL; engine++)
    if (name && !strcmp(name, engine_names[engine]))
      return engine;
  fprintf(stderr, "FUZZ_ENGINE must be uring, poll or epoll\n");
  exit(2);
}

static void begin(void) {
  uint8_t limits = byte();
  struct ul_config config = {.engine = (uint32_t)engine_of(),
                             .slot_capacity = SLOTS,
                             .command_capacity = COMMANDS,
                             .completion_capacity = limits & 1 ? 8 : COMMANDS,
                             .submission_entries = limits & 2 ? 8 : 16,
                             .completion_entries = limits & 4 ? 16 : 128,
                             .arena_bytes = 1u << 20,
                             .buffer_count = limits & 8 ? 1 : 8,
                             .buffer_bytes = limits & 16 ? 64 : 4096};
  config.disable = limits & 32 ? number(2) & ~(uint32_t)UL_FEATURE_BUFFER_RING : 0;
  struct client *c = &f->c;
  c->ring = ul_open(&config);
  if (c->ring < 0)
    FAIL("ul_open: %d, step %u: %s", c->ring, config.error_step, config.reason);
  f->ring = ul_ring_of((uint32_t)c->ring);
  c->header = f->ring->header;
  c->commands = f->ring->commands;
  c->completions = f->ring->completions;
  c->arena = f->ring->arena;
  c->buffers = f->ring->buffers;
  f->host_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  f->port = 1;
  const struct linger at_once = {
      .l_onoff = 1}; // resets: a port that waits its time would soon be the last one
  for (int i = 0; i < PAIRS; i++) {
    struct pair *p = &f->pairs[i].pair;
    *p = i % 3 == 2 ? tcp_pair(c) : unix_pair(c);
    setsockopt(p->ours, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    setsockopt(p->theirs, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
}

/* Everything is cancelled, drained and closed. */
static void finish_all(void) {
  struct client *c = &f->c;
  double until = ul_now_ms() + END_MS;
  for (int i = 0; i < PAIRS; i++)
    if (f->pairs[i].pair.theirs >= 0)
      close(f->pairs[i].pair.theirs);
  while (f->handed != f->ended || c->staged) {
    if (ul_now_ms() > until)
      FAIL("%u records have not ended after all were cancelled", f->handed - f->ended);
    tick_for(c->staged ? 0 : 0.2 * MS);
    for (uint32_t slot = 0, at = 0; slot < SLOTS && c->staged < COMMANDS; slot++) {
      struct ul_slot *target = &f->ring->slots[slot];
      uint32_t place = target->op && target->op != UL_OP_CANCEL && !target->cancelled ? free_slot(at) : SLOTS;
      at = place + 1;
      if (place < SLOTS && c->generation < RECORDS_MAX)
        c->commands[c->staged++] = (struct ul_command){.op = UL_OP_CANCEL,
                                                       .fd = -1,
                                                       .slot = place,
                                                       .generation = ++c->generation,
                                                       .offset = slot,
                                                       .length = target->generation};
      if (place < SLOTS)
        f->records[c->generation] = (struct record){.slot = place, .fd = -1, .op = UL_OP_CANCEL};
    }
  }
  CHECK_EQ(c->header->in_flight, 0);
  CHECK_EQ(c->header->commands, f->handed);
  CHECK_EQ(c->header->fds_live, c->header->fds_opened - c->header->fds_closed);
  CHECK_EQ(ul_close((uint32_t)c->ring), 0);
  close(f->host_fd);
}

static void run_input(const uint8_t *data, size_t size) {
  memset(f, 0, sizeof *f);
  in.at = data;
  in.end = data + size;
  begin();
  while (in.at < in.end)
    steps[byte() % (sizeof steps / sizeof *steps)]();
  finish_all();
}

/* Sockets, rings, eventfds, epolls: the fuzzer's own files and pipes come and go. */
static int open_sockets(void) {
  struct stat about;
  int count = 0;
  for (int fd = 0; fd < 512; fd++)
    count += !fstat(fd, &about) && (S_ISSOCK(about.st_mode) || !(about.st_mode & S_IFMT));
  return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int runs, descriptors;
  f = f ? f : calloc(1, sizeof *f);
  strcpy(check_name, "records");
  if (setjmp(check_out))
    abort(); // check_fail has said why
  run_input(data, size);
  if (runs++ == 0)
    descriptors = open_sockets();
  else if (runs % COUNT_EVERY == 0)
    CHECK_EQ(open_sockets(), descriptors);
  return 0;
}
