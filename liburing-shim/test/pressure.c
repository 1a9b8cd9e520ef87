/*
 * pressure.c - a kernel short of memory: it takes no submission entries for a while, or no long queues.
 * io_uring_enter and io_uring_enter2 stand here in place of liburing's.
 */
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static int refusing;       // errno of every io_uring_enter, or 0
static int refusals = 1e9; // so many are refused, and no more

int io_uring_enter2(unsigned fd, unsigned count, unsigned want, unsigned flags, sigset_t *argument,
                    size_t size);
int io_uring_enter2(unsigned fd, unsigned count, unsigned want, unsigned flags, sigset_t *argument,
                    size_t size) {
  if (refusing && refusals-- > 0)
    return -refusing;
  long taken = syscall(SYS_io_uring_enter, fd, count, want, flags, argument, size);
  return taken < 0 ? -errno : (int)taken;
}

int io_uring_enter(unsigned fd, unsigned count, unsigned want, unsigned flags, sigset_t *mask);
int io_uring_enter(unsigned fd, unsigned count, unsigned want, unsigned flags, sigset_t *mask) {
  return io_uring_enter2(fd, count, want, flags, mask, _NSIG / 8);
}

static struct client *open_shortest(int engine) {
  struct ul_config config = small_config(engine);
  config.submission_entries = 8;
  return open_with(config);
}

/* One operation of each kind finds no submission entry: a close happens all the same, the others later. */
static void nothing_is_lost(int engine) {
  static const int errors[] = {ENOMEM, EAGAIN, EBUSY, EINTR};
  for (size_t k = 0; k < sizeof errors / sizeof *errors; k++) {
    struct client *c = open_shortest(engine);
    struct pair p = unix_pair(c), q = tcp_pair(c), closing = unix_pair(c);
    uint16_t port;
    int listener = tcp_listener(c, &port), dial = ul_socket((uint32_t)c->ring, AF_INET);
    uint32_t nops[20], sends[4], far = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 3600000000000ull);
    *(struct ul_address *)c->arena = loopback(port);
    for (int i = 0; i < 4; i++)
      memset(c->arena + 4096 + 1000 * i, 'a' + i, 1000);
    tick(c, 0);
    refusing = errors[k];
    for (int i = 0; i < 20; i++)
      nops[i] = submit_nop(c);
    uint32_t recv = submit_recv(c, p.ours, true), once = submit_recv(c, p.ours, false);
    for (uint32_t i = 0; i < 4; i++)
      sends[i] = submit_send(c, q.ours, 4096 + 1000 * i, 1000);
    uint32_t accept = submit(c, UL_OP_ACCEPT, 0, listener, 0, 0, 0);
    uint32_t connecting = submit(c, UL_OP_CONNECT, 0, dial, 0, 0, 0);
    uint32_t soon = submit(c, UL_OP_TIMEOUT, 0, -1, 0, 0, 1000);
    uint32_t cancel = submit_cancel(c, far), cancelled = submit_cancel(c, once);
    uint32_t poll = submit(c, UL_OP_POLL, 0, p.ours, 0, POLLOUT, 0);
    uint32_t close_slot = submit(c, UL_OP_CLOSE, 0, closing.ours, 0, 0, 0);
    tick(c, UL_WAIT_FLUSH);
    CHECK_EQ(finish(c, close_slot), 0);
    CHECK_EQ(read(closing.theirs, &port, 1), 0); // the end: it is closed
    for (int i = 0; i < 10; i++)
      tick(c, 1 * MS);
    refusing = 0;
    for (int i = 0; i < 20; i++)
      CHECK_EQ(finish(c, nops[i]), 0);
    CHECK_EQ(finish(c, once), -ECANCELED);
    finish(c, cancelled); // ENOENT where it was never armed
    CHECK_EQ(finish(c, far), -ECANCELED);
    CHECK_EQ(finish(c, cancel), 0);
    CHECK_EQ(finish(c, connecting), 0);
    CHECK(finish(c, accept) > 2);
    CHECK_EQ(finish(c, soon), -ETIME);
    CHECK_EQ(finish(c, poll), POLLOUT);
    uint8_t in[4000];
    for (int i = 0; i < 4; i++)
      CHECK_EQ(finish(c, sends[i]), 1000);
    CHECK_EQ(read(q.theirs, in, sizeof in), 4000);
    CHECK(!memcmp(in, c->arena + 4096, sizeof in)); // in their order
    CHECK_EQ(write(p.theirs, "x", 1), 1);
    CHECK_EQ(next_of(c, recv)->c.result, 1);
    close(p.theirs);
    close(q.theirs);
    close(closing.theirs);
    shut(c);
  }
}

/* The host sleeps on the eventfd: it is called back, because nobody else will hand over what waits. */
static void comes_back_for_what_waits(int engine) {
  struct client *c = open_shortest(engine);
  int event = ul_event_fd((uint32_t)c->ring);
  uint64_t ignored;
  uint32_t slots[20];
  CHECK_EQ(ul_notify((uint32_t)c->ring, 1), 0);
  tick(c, 0);
  refusing = ENOMEM;
  for (int i = 0; i < 20; i++)
    slots[i] = submit_nop(c);
  tick(c, UL_WAIT_FLUSH);
  for (int i = 0; i < 40; i++) {
    struct pollfd look = {.fd = event, .events = POLLIN};
    if (i == 3)
      refusing = 0;
    CHECK(c->live_count == 0 || poll(&look, 1, PATIENCE) == 1);
    if (look.revents)
      CHECK_EQ(read(event, &ignored, sizeof ignored), sizeof ignored);
    tick(c, 0);
  }
  for (int i = 0; i < 20; i++)
    CHECK_EQ(untaken(c, slots[i]), 1);
  shut(c);
}

/* A send that the kernel takes only when the host is asleep already goes out without a completion entry. */
static void comes_back_for_a_silent_send(int engine) {
  struct client *c = open_shortest(engine);
  struct pair p = tcp_pair(c);
  struct pollfd look = {.fd = ul_event_fd((uint32_t)c->ring), .events = POLLIN};
  uint64_t ignored;
  // The eventfd has told of all entries so far: otherwise the kernel signals it without a new one.
  CHECK_EQ(ul_notify((uint32_t)c->ring, 1), 0);
  CHECK_EQ(finish(c, submit_nop(c)), 0);
  if (poll(&look, 1, 0) == 1)
    CHECK_EQ(read(look.fd, &ignored, sizeof ignored), sizeof ignored);
  CHECK_EQ(ul_notify((uint32_t)c->ring, 0), 0);
  refusing = EBUSY;
  uint32_t send = submit_send(c, p.ours, 4096, 10);
  tick(c, 0);
  CHECK_EQ(ul_notify((uint32_t)c->ring, 1), 0);
  refusals = 1; // the harvest's own; what follows it is taken
  tick(c, 0);
  refusing = 0;
  refusals = 1e9;
  CHECK(c->live_count == 0 || poll(&look, 1, PATIENCE) == 1);
  CHECK_EQ(finish(c, send), 10);
  close(p.theirs);
  shut(c);
}

/* As where RLIMIT_MEMLOCK counts. For good: this test is the last. */
static void shorter_queues_where_memory_lacks(int engine) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 256, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
  CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
  struct ul_config config = {.engine = (uint32_t)engine};
  int ring = ul_open(&config);
  CHECK(ring >= 0);
  if (engine != UL_ENGINE_EPOLL) {
    CHECK_EQ(config.submission_entries, 256);
    CHECK_EQ(config.completion_entries, 4096);
  }
  CHECK_EQ(ul_close((uint32_t)ring), 0);
}

int main(void) {
  RUN(nothing_is_lost);
  RUN(comes_back_for_what_waits);
  RUN(comes_back_for_a_silent_send);
  RUN(shorter_queues_where_memory_lacks);
  return check_failures != 0;
}
