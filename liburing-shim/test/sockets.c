/*
 * sockets.c - accept, connect, recv and send one by one: what each reports, in the good cases and the bad.
 */
#include "check.h"

/* ---- recv
 * -------------------------------------------------------------------------------------------------------- */

static void multishot_recv(int engine) {
  struct client *c = open_small(engine);
  struct pair p = tcp_pair(c);
  uint32_t slot = submit_recv(c, p.ours, true);
  for (int i = 0; i < 300; i++) {
    char out[32];
    int length = snprintf(out, sizeof out, "message %d", i);
    CHECK_EQ(write(p.theirs, out, (size_t)length), length);
    struct seen *s = next_of(c, slot);
    CHECK_EQ(s->c.flags, UL_F_MORE | UL_F_BUFFER);
    CHECK_EQ(s->c.result, length);
    CHECK(!memcmp(s->bytes, out, (size_t)length));
  }
  CHECK_EQ(c->header->in_flight, 1);
  close(p.theirs);
  CHECK_EQ(finish(c, slot), 0);
  CHECK_EQ(c->header->no_buffers, 0);
  shut(c);
}

static void single_recv_takes_one(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t first = submit_recv(c, p.ours, false);
  CHECK_EQ(write(p.theirs, "one", 3), 3);
  struct seen *s = next_of(c, first);
  CHECK_EQ(s->c.flags, UL_F_BUFFER);
  CHECK(!memcmp(s->bytes, "one", 3));
  CHECK_EQ(write(p.theirs, "two", 3), 3);
  idle_ms(c, 5);
  CHECK_EQ(untaken(c, first), 0);
  s = next_of(c, submit_recv(c, p.ours, false)); // what waits in the socket is found
  CHECK(s->c.result == 3 && !memcmp(s->bytes, "two", 3));
  close(p.theirs);
  CHECK_EQ(finish(c, submit_recv(c, p.ours, false)), 0);
  CHECK_EQ(finish(c, submit_recv(c, p.ours, true)), 0);
  shut(c);
}

/* Single-shot and multishot receives on one ring: with incremental buffers the order of completions is the
   order in which the bytes were put there, or connections would see each other's data. */
static void mixed_recv_keep_their_bytes(int engine) {
  struct client *c = open_small(engine);
  struct pair p[32];
  uint32_t slot[32];
  for (int i = 0; i < 32; i++)
    p[i] = i % 3 ? unix_pair(c) : tcp_pair(c);
  for (int round = 0; round < 200; round++) {
    for (int i = 0; i < 32; i++) {
      if (!round || i % 2 == 0)
        slot[i] = submit_recv(c, p[i].ours, i % 2);
      if (round % 3 == i % 3)
        tick(c, UL_WAIT_FLUSH);
    }
    for (int i = 31; i >= 0; i--) {
      char out[64];
      memset(out, i + 1, sizeof out);
      CHECK_EQ(write(p[i].theirs, out, (size_t)i + 10), i + 10);
    }
    for (int i = 0; i < 32; i++) {
      for (int got = 0; got < i + 10;) { // in two parts where a buffer ends
        if (got && i % 2 == 0)
          slot[i] = submit_recv(c, p[i].ours, false);
        struct seen *s = next_of(c, slot[i]);
        CHECK(s->c.result > 0);
        for (int k = 0; k < s->c.result; k++)
          if (s->bytes[k] != i + 1)
            FAIL("connection %d got a byte of connection %d", i, s->bytes[k] - 1);
        got += s->c.result;
      }
    }
    forget_seen(c);
  }
  for (int i = 0; i < 32; i++)
    close(p[i].theirs);
  shut(c);
}

static void recv_finds_half_close(int engine) {
  struct client *c = open_small(engine);
  struct pair p = tcp_pair(c);
  uint32_t recv_slot = submit_recv(c, p.ours, true);
  CHECK_EQ(write(p.theirs, "last words", 10), 10);
  shutdown(p.theirs, SHUT_WR);
  struct seen *s = next_of(c, recv_slot);
  CHECK_EQ(s->c.result, 10);
  CHECK_EQ(finish(c, recv_slot), 0);
  memcpy(c->arena, "answer", 6); // the other direction is open
  CHECK_EQ(finish(c, submit_send(c, p.ours, 0, 6)), 6);
  char in[16];
  CHECK_EQ(read(p.theirs, in, sizeof in), 6);
  CHECK_EQ(finish(c, submit(c, UL_OP_SHUTDOWN, 0, p.ours, 0, SHUT_WR, 0)), 0);
  CHECK_EQ(read(p.theirs, in, sizeof in), 0);
  close_owned(c, p.ours);
  close(p.theirs);
  shut(c);
}

static void reset(int fd) {
  struct linger now = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

static void recv_finds_reset(int engine) {
  struct client *c = open_small(engine);
  struct pair p = tcp_pair(c);
  uint32_t slot = submit_recv(c, p.ours, true);
  tick(c, 0);
  reset(p.theirs);
  CHECK_EQ(finish(c, slot), -ECONNRESET);
  p = tcp_pair(c); // and when the reset was there first
  reset(p.theirs);
  CHECK_EQ(finish(c, submit_recv(c, p.ours, true)), -ECONNRESET);
  shut(c);
}

static void recv_on_what_cannot_receive(int engine) {
  struct client *c = open_small(engine);
  uint16_t port;
  int listener = tcp_listener(c, &port), unconnected = ul_socket((uint32_t)c->ring, AF_INET);
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK_EQ(finish(c, submit_recv(c, unconnected, true)), -ENOTCONN);
  CHECK_EQ(finish(c, submit_recv(c, file, true)), -ENOTSOCK);
  CHECK_EQ(finish(c, submit_send(c, file, 0, 1)), -ENOTSOCK);
  CHECK_EQ(finish(c, submit_recv(c, 3000, true)), -EBADF);
  CHECK_EQ(finish(c, submit_send(c, 3000, 0, 1)), -EBADF);
  CHECK_EQ(finish(c, submit(c, UL_OP_ACCEPT, 0, 3000, 0, 0, 0)), -EBADF);
  CHECK_EQ(finish(c, submit(c, UL_OP_POLL, 0, 3000, 0, POLLIN, 0)), -EBADF);
  CHECK_EQ(finish(c, submit(c, UL_OP_SHUTDOWN, 0, 3000, 0, SHUT_RD, 0)), -EBADF);
  CHECK_EQ(finish(c, submit(c, UL_OP_SHUTDOWN, 0, unconnected, 0, SHUT_RD, 0)), -ENOTCONN);
  close(file);
  close_owned(c, listener);
  shut(c);
}

/* A descriptor of somebody else's, blocking: the tick must not block, and nothing must stick to its number.
 */
static void foreign_sockets(int engine) {
  struct client *c = open_small(engine);
  for (int round = 0; round < 50; round++) {
    int fds[2];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    uint32_t slot = submit_recv(c, fds[0], round % 2);
    tick(c, 0);
    CHECK_EQ(write(fds[1], "x", 1), 1);
    struct seen *s = next_of(c, slot);
    CHECK(s->c.result == 1 && s->bytes[0] == 'x');
    CHECK_EQ(finish(c, submit_send(c, fds[0], 0, 5)), 5);
    if (round % 2) {
      uint32_t cancel = submit_cancel(c, slot);
      CHECK_EQ(finish(c, slot), -ECANCELED);
      finish(c, cancel);
    }
    forget_seen(c);
    close(fds[0]); // by its owner: the ring knows nothing of it
    close(fds[1]);
  }
  shut(c);
}

static void no_buffers(struct client *c, int connections) {
  struct pair p[64];
  uint32_t slot[64];
  char chunk[64];
  memset(chunk, 'z', sizeof chunk);
  for (int i = 0; i < connections; i++) {
    p[i] = unix_pair(c);
    slot[i] = submit_recv(c, p[i].ours, true);
  }
  tick(c, 0);
  for (int i = 0; i < connections; i++)
    CHECK_EQ(write(p[i].theirs, chunk, sizeof chunk), sizeof chunk);
  // One harvest finds all of them readable and has buffers for some.
  uint64_t received = 0, ended = 0;
  double until = ul_now_ms() + PATIENCE;
  bool some_ended = false;
  while (received < (uint64_t)connections * sizeof chunk) {
    CHECK(ul_now_ms() < until);
    tick(c, 10 * MS);
    for (uint32_t k = 0; k < c->seen_count; k++) {
      const struct seen *s = &c->seen[k];
      CHECK(s->c.result == -ENOBUFS || s->c.result > 0);
      received += s->c.result > 0 ? (uint64_t)s->c.result : 0;
      ended += s->c.result == -ENOBUFS;
      if (s->c.flags & UL_F_MORE)
        continue;
      CHECK_EQ(s->c.result, -ENOBUFS);
      some_ended = true;
      for (int i = 0; i < connections; i++)
        if (slot[i] == s->c.slot) {
          slot[i] = submit_recv(c, p[i].ours, true); // recovery
          break;
        }
    }
    forget_seen(c);
  }
  CHECK(some_ended);
  CHECK_EQ(c->header->no_buffers, ended);
  CHECK_EQ(received, (uint64_t)connections * sizeof chunk);
  for (int i = 0; i < connections; i++)
    close(p[i].theirs);
}

static void recv_without_buffers(int engine) {
  struct ul_config config = small_config(engine);
  config.buffer_count = 16;
  config.buffer_bytes = 64;
  struct client *c = open_with(config);
  no_buffers(c, 40);
  shut(c);
}

static void recv_with_one_buffer(int engine) {
  struct ul_config config = small_config(engine);
  config.buffer_count = 1;
  config.buffer_bytes = 64;
  struct client *c = open_with(config);
  no_buffers(c, 5);
  shut(c);
}

/* A byte out of band in the middle: a receive stops in front of it although there is more behind. */
static void recv_past_urgent_data(int engine) {
  struct client *c = open_small(engine);
  struct pair p = tcp_pair(c);
  uint32_t slot = submit_recv(c, p.ours, true);
  int total = 0;
  for (int round = 0; round < 5; round++) {
    CHECK_EQ(send(p.theirs, "before", 6, 0), 6);
    CHECK_EQ(send(p.theirs, "!", 1, MSG_OOB), 1);
    CHECK_EQ(send(p.theirs, "after", 5, 0), 5);
    for (int got = 0; got < 11;) {
      struct seen *s = next_of(c, slot);
      CHECK(s->c.result > 0);
      got += s->c.result;
      total += s->c.result;
    }
  }
  CHECK_EQ(total, 55);
  close(p.theirs);
  shut(c);
}

/* Descriptors passed along with the bytes: a receive stops behind them. Nobody takes them: they are closed.
 */
static void recv_past_passed_descriptors(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t slot = submit_recv(c, p.ours, true);
  tick(c, 0);
  int descriptors = open_descriptors();
  for (int round = 0; round < 5; round++) {
    union {
      struct cmsghdr header;
      char space[CMSG_SPACE(sizeof(int))];
    } passed = {
        .header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&passed.header), &p.theirs, sizeof(int));
    struct iovec bytes = {"with", 4};
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &passed, .msg_controllen = sizeof passed};
    CHECK_EQ(send(p.theirs, "before", 6, 0), 6);
    CHECK_EQ(sendmsg(p.theirs, &message, 0), 4);
    CHECK_EQ(send(p.theirs, "after", 5, 0), 5);
    for (int got = 0; got < 15;) {
      struct seen *s = next_of(c, slot);
      CHECK(s->c.result > 0);
      got += s->c.result;
    }
  }
  CHECK_EQ(open_descriptors(), descriptors);
  close(p.theirs);
  shut(c);
}

/* Its owner closes a descriptor that is polled, and the number comes back as a socket of the ring's. */
static void number_reused_behind_our_back(int engine) {
  struct client *c = open_small(engine);
  uint16_t port;
  int listener = tcp_listener(c, &port), event = eventfd(0, EFD_CLOEXEC);
  submit(c, UL_OP_POLL, 0, event, 0, POLLIN, 0);
  tick(c, 0);
  close(event);
  int fd = ul_socket((uint32_t)c->ring, AF_INET);
  CHECK_EQ(fd, event);
  *(struct ul_address *)c->arena = loopback(port);
  uint32_t connect_slot = submit(c, UL_OP_CONNECT, 0, fd, 0, 0, 0);
  int accepted = finish(c, submit(c, UL_OP_ACCEPT, 0, listener, 0, 0, 0));
  CHECK_EQ(finish(c, connect_slot), 0);
  uint32_t slot = submit_recv(c, fd, true);
  tick(c, 0);
  CHECK_EQ(finish(c, submit_send(c, accepted, 0, 5)), 5);
  CHECK_EQ(next_of(c, slot)->c.result, 5);
  shut(c);
}

/* ---- accept and connect
 * ------------------------------------------------------------------------------------------ */

static void multishot_accept(int engine) {
  struct client *c = open_small(engine);
  uint16_t port;
  int listener = tcp_listener(c, &port), theirs[100], ours[100];
  uint32_t slot = submit(c, UL_OP_ACCEPT, UL_C_MULTISHOT, listener, 0, 0, 0);
  for (int i = 0; i < 50; i++)
    theirs[i] = tcp_connect(port);
  tick(c, 0);
  for (int i = 50; i < 100; i++)
    theirs[i] = tcp_connect(port);
  for (int i = 0; i < 100; i++) {
    struct seen *s = next_of(c, slot);
    CHECK_EQ(s->c.flags, UL_F_MORE);
    ours[i] = s->c.result;
    CHECK(ours[i] > 2 && (fcntl(ours[i], F_GETFD) & FD_CLOEXEC));
    CHECK_EQ(!(fcntl(ours[i], F_GETFL) & O_NONBLOCK), engine != UL_ENGINE_EPOLL);
  }
  CHECK_EQ(c->header->fds_live, 101);
  struct ul_address name;
  CHECK_EQ(ul_name((uint32_t)c->ring, ours[7], 1, &name), 0);
  CHECK_EQ(name.family, AF_INET);
  CHECK_EQ(finish(c, submit_send(c, ours[99], 0, 3)), 3);
  uint32_t cancel = submit_cancel(c, slot);
  CHECK_EQ(finish(c, slot), -ECANCELED);
  CHECK_EQ(finish(c, cancel), 0);
  for (int i = 0; i < 100; i++) {
    close(theirs[i]);
    if (i % 2)
      close_owned(c, ours[i]);
  }
  CHECK_EQ(c->header->fds_live, 51);
  shut(c); // closes the rest
}

static void single_accept(int engine) {
  struct client *c = open_small(engine);
  uint16_t port;
  int listener = tcp_listener(c, &port), first = tcp_connect(port), second = tcp_connect(port);
  struct seen *s = next_of(c, submit(c, UL_OP_ACCEPT, 0, listener, 0, 0, 0));
  CHECK(s->c.result > 2 && s->c.flags == 0);
  idle_ms(c, 5);
  CHECK_EQ(c->header->fds_live, 2);
  s = next_of(c, submit(c, UL_OP_ACCEPT, 0, listener, 0, 0, 0));
  CHECK(s->c.result > 2 && s->c.flags == 0);
  uint32_t waiting = submit(c, UL_OP_ACCEPT, 0, listener, 0, 0, 0);
  idle_ms(c, 5);
  CHECK_EQ(untaken(c, waiting), 0);
  int third = tcp_connect(port);
  CHECK(finish(c, waiting) > 2);
  close(first);
  close(second);
  close(third);
  shut(c);
}

static void accept_on_a_foreign_blocking_listener(int engine) {
  struct client *c = open_small(engine);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof name;
  CHECK(!bind(listener, (struct sockaddr *)&name, sizeof name) && !listen(listener, 10));
  CHECK(!getsockname(listener, (struct sockaddr *)&name, &length));
  uint32_t slot = submit(c, UL_OP_ACCEPT, UL_C_MULTISHOT, listener, 0, 0, 0);
  for (int i = 0; i < 3; i++) {
    idle_ms(c, 2);
    close(tcp_connect(ntohs(name.sin_port)));
    CHECK(next_of(c, slot)->c.result > 2);
  }
  shut(c);
  close(listener);
}

static void accept_without_descriptors(int engine) {
  struct client *c = open_small(engine);
  uint16_t port;
  int listener = tcp_listener(c, &port), theirs[10], accepted = 0;
  for (int i = 0; i < 10; i++)
    theirs[i] = tcp_connect(port);
  struct rlimit limit, low;
  getrlimit(RLIMIT_NOFILE, &limit);
  low = limit;
  low.rlim_cur = (rlim_t)theirs[9] + 5; // 4 more fit: descriptors are handed out from the lowest
  setrlimit(RLIMIT_NOFILE, &low);
  uint32_t slot = submit(c, UL_OP_ACCEPT, UL_C_MULTISHOT, listener, 0, 0, 0);
  int32_t error = 0;
  double until = ul_now_ms() + PATIENCE;
  while (!error && ul_now_ms() < until) {
    struct seen *s = next_of(c, slot);
    if (s->c.flags & UL_F_MORE)
      accepted++;
    else
      error = s->c.result;
  }
  setrlimit(RLIMIT_NOFILE, &limit);
  CHECK_EQ(error, -EMFILE);
  CHECK_EQ(accepted, 4);
  // Recovery: those that wait in the backlog are found although nothing new arrives.
  slot = submit(c, UL_OP_ACCEPT, UL_C_MULTISHOT, listener, 0, 0, 0);
  for (; accepted < 10; accepted++)
    CHECK(next_of(c, slot)->c.result > 2);
  for (int i = 0; i < 10; i++)
    close(theirs[i]);
  shut(c);
}

static int32_t connect_to(struct client *c, const struct ul_address *address, int *fd) {
  *fd = ul_socket((uint32_t)c->ring, address->family);
  CHECK(*fd >= 0);
  memcpy(c->arena, address, sizeof *address);
  uint32_t slot = submit(c, UL_OP_CONNECT, 0, *fd, 0, 0, 0);
  tick(c, UL_WAIT_FLUSH);
  memset(c->arena, 0xff, sizeof *address); // the address has been read by then
  return finish(c, slot);
}

static void connects(int engine) {
  struct client *c = open_small(engine);
  uint16_t port;
  int listener = tcp_listener(c, &port), fd;
  struct ul_address address = loopback(port);
  uint32_t accept = submit(c, UL_OP_ACCEPT, 0, listener, 0, 0, 0);
  CHECK_EQ(connect_to(c, &address, &fd), 0);
  int accepted = finish(c, accept);
  memcpy(c->arena, "hello", 5);
  CHECK_EQ(finish(c, submit_send(c, fd, 0, 5)), 5);
  struct seen *s = next_of(c, submit_recv(c, accepted, false));
  CHECK(s->c.result == 5 && !memcmp(s->bytes, "hello", 5));
  close_owned(c, fd);
  CHECK_EQ(finish(c, submit_recv(c, accepted, false)), 0);
  close_owned(c, listener);
  shut(c);
}

static void connect_refused(int engine) {
  struct client *c = open_small(engine);
  uint16_t port;
  int listener = tcp_listener(c, &port), fd;
  close_owned(c, listener);
  idle_ms(c, 20); // a ring may keep the listener for a moment
  struct ul_address address = loopback(port);
  CHECK_EQ(connect_to(c, &address, &fd), -ECONNREFUSED);
  close_owned(c, fd);
  address = (struct ul_address){.family = AF_UNIX, .path_length = 10, .path = "\0no-one---"};
  CHECK_EQ(connect_to(c, &address, &fd), -ECONNREFUSED);
  address = (struct ul_address){.family = AF_UNIX, .path_length = 17, .path = "/nowhere/at/all/x"};
  CHECK_EQ(connect_to(c, &address, &fd), -ENOENT);
  shut(c);
}

static void unix_listener(int engine) {
  struct client *c = open_small(engine);
  struct ul_address address = {.family = AF_UNIX, .path_length = 20};
  snprintf(address.path + 1, sizeof address.path - 1, "ul-%d-%d", getpid(), engine);
  int listener = ul_listen((uint32_t)c->ring, &address, 10, 0), fd;
  CHECK(listener >= 0);
  uint32_t accept = submit(c, UL_OP_ACCEPT, 0, listener, 0, 0, 0);
  CHECK_EQ(connect_to(c, &address, &fd), 0);
  int accepted = finish(c, accept);
  CHECK(accepted >= 0);
  CHECK_EQ(finish(c, submit_send(c, accepted, 0, 100)), 100);
  CHECK_EQ(next_of(c, submit_recv(c, fd, false))->c.result, 100);
  shut(c);
}

/* ---- send
 * -------------------------------------------------------------------------------------------------------- */

static void fill(struct client *c, uint32_t length) {
  for (uint32_t i = 0; i < length; i++)
    c->arena[i] = (uint8_t)(i * 7 + i / 251);
}

static void send_blocks_and_goes_on(int engine, bool tcp, uint8_t flags) {
  struct client *c = open_small(engine);
  struct pair p = tcp ? tcp_pair(c) : unix_pair(c);
  uint32_t length = 4000000, got = 0;
  uint8_t in[50000];
  fill(c, length);
  CHECK_EQ(ul_set_option((uint32_t)c->ring, p.ours, UL_O_SEND_BUFFER, 20000), 0);
  uint32_t slot = submit(c, UL_OP_SEND, flags, p.ours, 0, length, 0);
  idle_ms(c, 10);
  CHECK_EQ(untaken(c, slot), 0); // not before all of it is with the kernel
  CHECK(c->header->sends_blocked >= 1);
  double until = ul_now_ms() + PATIENCE;
  while (got < length) {
    tick(c, 0.1 * MS);
    ssize_t n = read(p.theirs, in, sizeof in);
    for (ssize_t i = 0; i < n; i++)
      if (in[i] != (uint8_t)((got + i) * 7 + (got + i) / 251))
        FAIL("byte %u is wrong", got + (uint32_t)i);
    got += n > 0 ? (uint32_t)n : 0;
    CHECK(ul_now_ms() < until);
  }
  CHECK_EQ(finish(c, slot), length);
  CHECK_EQ(c->header->bytes_sent, length);
  close(p.theirs);
  shut(c);
}
static void send_blocks_unix(int engine) {
  send_blocks_and_goes_on(engine, false, 0);
}
static void send_blocks_tcp(int engine) {
  send_blocks_and_goes_on(engine, true, 0);
}
static void quiet_send_blocks(int engine) {
  send_blocks_and_goes_on(engine, true, UL_C_QUIET);
}

static void send_to_a_closed_peer(int engine) {
  struct client *c = open_small(engine);
  for (int quiet = 0; quiet < 2; quiet++) {
    struct pair p = unix_pair(c);
    close(p.theirs);
    CHECK_EQ(finish(c, submit(c, UL_OP_SEND, quiet ? UL_C_QUIET : 0, p.ours, 0, 10, 0)), -EPIPE);
    p = tcp_pair(c);
    reset(p.theirs);
    int32_t result = finish(c, submit(c, UL_OP_SEND, quiet ? UL_C_QUIET : 0, p.ours, 0, 10, 0));
    CHECK(result == -ECONNRESET || result == -EPIPE);
    CHECK_EQ(finish(c, submit(c, UL_OP_SEND, quiet ? UL_C_QUIET : 0, p.ours, 0, 10, 0)), -EPIPE);
  }
  shut(c);
}

static void peer_vanishes_under_a_blocked_send(int engine) {
  struct client *c = open_small(engine);
  for (int tcp = 0; tcp < 2; tcp++) {
    struct pair p = tcp ? tcp_pair(c) : unix_pair(c);
    uint32_t slot = submit_send(c, p.ours, 0, 4000000);
    if (tcp)
      ul_set_option((uint32_t)c->ring, p.ours, UL_O_SEND_BUFFER, 20000);
    idle_ms(c, 5);
    CHECK_EQ(untaken(c, slot), 0);
    reset(p.theirs);
    int32_t result = finish(c, slot);
    CHECK(result == -ECONNRESET || result == -EPIPE);
  }
  shut(c);
}

/* The failures stand behind more completions than fit: until they have been seen, no send has succeeded. */
static void failed_sends_behind_a_full_array(int engine) {
  struct ul_config config = small_config(engine);
  config.completion_capacity = 8;
  struct client *c = open_with(config);
  uint32_t slots[60];
  struct pair good = unix_pair(c);
  for (int i = 0; i < 60; i++) {
    struct pair p = i % 3 ? unix_pair(c) : good;
    if (i % 3)
      close(p.theirs);
    slots[i] = submit(c, UL_OP_SEND, i % 2 ? UL_C_QUIET : 0, p.ours, 0, 10, 0);
  }
  for (int i = 0; i < 60; i++)
    CHECK_EQ(finish(c, slots[i]), i % 3 ? -EPIPE : 10);
  close(good.theirs);
  shut(c);
}

/* A quiet send does not end a wait; its completion comes with the next one that matters. */
static void quiet_sends_are_reported_later(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t slots[20];
  for (int i = 0; i < 20; i++)
    slots[i] = submit(c, UL_OP_SEND, UL_C_QUIET, p.ours, (uint32_t)i, 1, 0);
  uint32_t nop = submit_nop(c);
  CHECK_EQ(finish(c, nop), 0);
  for (int i = 0; i < 20; i++)
    CHECK_EQ(finish(c, slots[i]), 1);
  close(p.theirs);
  shut(c);
}

/* Many sends on one socket, one behind the other in the same tick: in the order in which they were given. */
static void sends_keep_their_order(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  uint32_t last = 0;
  for (uint32_t i = 0; i < 200; i++) {
    c->arena[i] = (uint8_t)i;
    last = submit_send(c, p.ours, i, 1);
  }
  CHECK_EQ(finish(c, last), 1);
  uint8_t in[300];
  CHECK_EQ(read(p.theirs, in, sizeof in), 200);
  for (int i = 0; i < 200; i++)
    CHECK_EQ(in[i], (uint8_t)i);
  close(p.theirs);
  shut(c);
}

int main(void) {
  RUN(multishot_recv);
  RUN(single_recv_takes_one);
  RUN(mixed_recv_keep_their_bytes);
  RUN(recv_finds_half_close);
  RUN(recv_finds_reset);
  RUN(recv_on_what_cannot_receive);
  RUN(foreign_sockets);
  RUN(recv_without_buffers);
  RUN(recv_with_one_buffer);
  RUN(recv_past_urgent_data);
  RUN(recv_past_passed_descriptors);
  RUN(number_reused_behind_our_back);
  RUN(multishot_accept);
  RUN(single_accept);
  RUN(accept_on_a_foreign_blocking_listener);
  RUN(accept_without_descriptors);
  RUN(connects);
  RUN(connect_refused);
  RUN(unix_listener);
  RUN(send_blocks_unix);
  RUN(send_blocks_tcp);
  RUN(quiet_send_blocks);
  RUN(send_to_a_closed_peer);
  RUN(peer_vanishes_under_a_blocked_send);
  RUN(failed_sends_behind_a_full_array);
  RUN(quiet_sends_are_reported_later);
  RUN(sends_keep_their_order);
  return check_failures != 0;
}
