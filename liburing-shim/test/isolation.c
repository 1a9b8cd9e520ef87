/*
 * isolation.c - what a ring may do to descriptors that are not its own, and what a new program would inherit.
 */
#include "check.h"

static bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

/* Another ring's sockets, the rings' own descriptors, the process's: closing and shutting down are refused.
 */
static void foreign_descriptors_stay_open(int engine) {
  struct client *a = open_small(engine), *b = open_small(engine);
  uint32_t ring = (uint32_t)a->ring;
  struct pair p = unix_pair(b);
  uint16_t port;
  int files[2];
  CHECK(!pipe2(files, O_CLOEXEC));
  const int foreign[] = {
      p.ours,   p.theirs, tcp_listener(b, &port), ul_event_fd((uint32_t)b->ring), ul_event_fd(ring),
      files[0], files[1], STDERR_FILENO};
  const int count = sizeof foreign / sizeof *foreign;
  for (int i = 0; i < count; i++) {
    struct ul_address name;
    CHECK_EQ(finish(a, submit(a, UL_OP_SHUTDOWN, 0, foreign[i], 0, SHUT_RDWR, 0)), -EBADF);
    a->commands[0] = (struct ul_command){.op = UL_OP_CLOSE, .fd = foreign[i], .slot = 4000, .generation = 1};
    CHECK_EQ(ul_tick(ring, 1, 0), 1);
    CHECK_EQ(a->completions[0].result, -EINVAL);
    CHECK_EQ(ul_name(ring, foreign[i], 0, &name), -EBADF);
    CHECK_EQ(ul_set_option(ring, foreign[i], UL_O_LINGER, 0), -EBADF);
    CHECK_EQ(ul_get_option(ring, foreign[i], UL_O_LINGER), -EBADF);
    CHECK(is_open(foreign[i]));
  }
  shut(a);
  for (int i = 0; i < count; i++)
    CHECK(is_open(foreign[i]) == (i != 4)); // its own eventfd has gone with it
  CHECK_EQ(write(p.theirs, "x", 1), 1);
  CHECK_EQ(finish(b, submit_recv(b, p.ours, false)), 1);
  close(files[0]);
  close(files[1]);
  close(p.theirs);
  shut(b);
}

/* The ring's own epoll or io_uring descriptor, found by its number: a command does not hurt it. */
static void own_machinery_is_out_of_reach(int engine) {
  bool before[256];
  for (int fd = 0; fd < 256; fd++)
    before[fd] = is_open(fd);
  struct client *c = open_small(engine);
  for (int fd = 3; fd < 256; fd++) {
    if (before[fd] || !is_open(fd))
      continue;
    CHECK_EQ(finish(c, submit(c, UL_OP_SHUTDOWN, 0, fd, 0, SHUT_RDWR, 0)), -EBADF);
    c->commands[0] = (struct ul_command){.op = UL_OP_CLOSE, .fd = fd, .slot = 4000, .generation = 1};
    CHECK_EQ(ul_tick((uint32_t)c->ring, 1, 0), 1);
    CHECK_EQ(c->completions[0].result, -EINVAL);
    uint32_t recv = submit_recv(c, fd, false);
    tick(c, 0);
    submit_cancel(c, recv); // the poll engine waits until it is readable
    CHECK(finish(c, recv) < 0);
    CHECK(finish(c, submit_send(c, fd, 0, 8)) < 0);
    CHECK(is_open(fd));
  }
  CHECK_EQ(finish(c, submit_nop(c)), 0);
  shut(c);
}

/* Receives of many connections in one batch, on buffers as small as they get: each finds its own bytes. */
static void bytes_stay_with_their_connection(int engine) {
  struct ul_config config = small_config(engine);
  config.buffer_bytes = 64;
  struct client *c = open_with(config);
  struct pair p[40];
  uint32_t slots[40];
  uint8_t bytes[50];
  for (int i = 0; i < 40; i++) {
    p[i] = unix_pair(c);
    slots[i] = submit_recv(c, p[i].ours, true);
  }
  tick(c, 0);
  for (int i = 0; i < 40; i++) {
    memset(bytes, i, sizeof bytes);
    CHECK_EQ(write(p[i].theirs, bytes, (size_t)(i % 50) + 1), i % 50 + 1);
  }
  for (int i = 0; i < 40; i++) {
    for (int got = 0; got < i % 50 + 1;) {
      struct seen *s = next_of(c, slots[i]);
      for (int k = 0; k < s->c.result; k++)
        CHECK_EQ(s->bytes[k], i);
      got += s->c.result;
    }
    close(p[i].theirs);
  }
  shut(c);
}

/* The ring's, its eventfds, sockets it opened, accepted (either way) and adopted. */
static void everything_is_close_on_exec(int engine) {
  bool before[256];
  for (int fd = 0; fd < 256; fd++)
    before[fd] = is_open(fd);
  struct client *c = open_small(engine);
  uint16_t ports[2];
  int theirs[4], pair[2], count = 0;
  uint32_t slots[2];
  for (int i = 0; i < 2; i++)
    slots[i] = submit(c, UL_OP_ACCEPT, i ? UL_C_MULTISHOT : 0, tcp_listener(c, &ports[i]), 0, 0, 0);
  CHECK(ul_socket((uint32_t)c->ring, AF_INET) >= 0);
  CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair)); // as another program would hand them on
  CHECK_EQ(ul_adopt((uint32_t)c->ring, pair[0]), pair[0]);
  close(pair[1]);
  tick(c, 0);
  for (int i = 0; i < 4; i++)
    theirs[i] = tcp_connect(ports[i % 2]);
  CHECK(next_of(c, slots[0])->c.result >= 0);
  CHECK(next_of(c, slots[1])->c.result >= 0);
  CHECK_EQ(ul_notify((uint32_t)c->ring, 1), 0);
  tick(c, 0);
  for (int fd = 0; fd < 256; fd++) {
    int flags = before[fd] ? -1 : fcntl(fd, F_GETFD);
    if (flags >= 0 && !(flags & FD_CLOEXEC))
      FAIL("descriptor %d would be inherited", fd);
    count += flags >= 0;
  }
  CHECK(count >= 4 + 8); // theirs; ring, eventfd, listeners, socket, adopted, two or more accepted
  for (int i = 0; i < 4; i++)
    close(theirs[i]);
  shut(c);
}

int main(void) {
  RUN(foreign_descriptors_stay_open);
  RUN(own_machinery_is_out_of_reach);
  RUN(bytes_stay_with_their_connection);
  RUN(everything_is_close_on_exec);
  return check_failures != 0;
}
