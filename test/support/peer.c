/*
 * peer.c - TCP clients that behave in ways a well-meaning client does not. One process, one mode:
 *
 *   peer VERDICT MODE PORT [name=number...]      VERDICT: a file that gets "ok ..." or "fail ..." at the end
 *
 *   hold    connect `count`, send `bytes` on each, and never read; stays until killed
 *   reset   connect, send `bytes`, read `wait` bytes, close with SO_LINGER 0: the other side sees a reset
 *   half    connect, send `bytes`, end the sending side, read to the end: "ok READ HASH"
 *   drip    send `bytes`, one at a time, `delay` microseconds between; end; read to the end
 *   slow    read to the end, `chunk` bytes at a time with `delay` microseconds between: "ok READ HASH"
 *   short   `total` connections, `parallel` at a time: connect, send `bytes`, read them back, close; from
 * `sources` addresses 127.0.0.x in turn burst   `total` connections: connect, send `bytes`, close at once;
 * with a reset if `hard`
 *   echo    `count` connections send `bytes` each in random chunks, check every byte that comes back
 *   echo1   one connection: `total` times, one after the other, send `bytes` and read them back
 *
 * Byte i of connection c is (i * 31 + c * 17 + i / 251) & 255. HASH is FNV-1a of what was read, 32 bits.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *verdict_file;
static struct sockaddr_in server;
static long count = 1, bytes = 0, wait_bytes = 0, delay = 0, chunk = 1024, total = 1, parallel = 1, seed = 1,
            sources = 1, hard = 0;

static void verdict(const char *format, ...) {
  char name[4096];
  snprintf(name, sizeof name, "%s.new", verdict_file);
  FILE *file = fopen(name, "w");
  if (!file)
    _exit(2);
  va_list args;
  va_start(args, format);
  vfprintf(file, format, args);
  va_end(args);
  fclose(file);
  rename(name, verdict_file);
  _exit(strncmp(format, "ok", 2) ? 1 : 0);
}

static uint8_t byte_at(long connection, long i) {
  return (uint8_t)(i * 31 + connection * 17 + i / 251);
}

static void fill(uint8_t *out, long connection, long from, long length) {
  for (long i = 0; i < length; i++)
    out[i] = byte_at(connection, from + i);
}

static uint32_t random_number(void) {
  static uint32_t state;
  if (!state)
    state = (uint32_t)seed * 2654435761u | 1;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

static int dial(int flags) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0)
    verdict("fail socket: %s", strerror(errno));
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (sources > 1) {
    static uint32_t next;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + next++ % (uint32_t)sources);
    // The port is picked at the connect, when the whole address is known.
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from))
      verdict("fail bind: %s", strerror(errno));
  }
  if (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
    verdict("fail connect: %s", strerror(errno));
  return fd;
}

static void send_bytes(int fd, long connection, long length) {
  uint8_t buffer[65536];
  for (long done = 0; done < length;) {
    long part = length - done < (long)sizeof buffer ? length - done : (long)sizeof buffer;
    fill(buffer, connection, done, part);
    ssize_t n = send(fd, buffer, (size_t)part, MSG_NOSIGNAL);
    if (n < 0)
      verdict("fail send after %ld: %s", done, strerror(errno));
    done += n;
  }
}

static void read_to_end(int fd) {
  uint8_t *buffer = malloc((size_t)chunk);
  uint32_t hash = 2166136261u;
  long length = 0;
  for (;;) {
    ssize_t n = read(fd, buffer, (size_t)chunk);
    if (n < 0)
      verdict("fail read after %ld: %s", length, strerror(errno));
    if (n == 0)
      verdict("ok %ld %u", length, hash);
    for (ssize_t i = 0; i < n; i++)
      hash = (hash ^ buffer[i]) * 16777619u;
    length += n;
    if (delay)
      usleep((useconds_t)delay);
  }
}

static void mode_hold(void) {
  for (long i = 0; i < count; i++)
    send_bytes(dial(0), i, bytes);
  for (;;)
    pause();
}

static void reset_on_close(int fd) {
  struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

static void mode_reset(void) {
  int fd = dial(0);
  send_bytes(fd, 0, bytes);
  uint8_t buffer[4096];
  for (long done = 0; done < wait_bytes;) {
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0)
      verdict("fail the end came after %ld bytes", done);
    done += n;
  }
  reset_on_close(fd);
  close(fd);
  verdict("ok");
}

static void mode_half(void) {
  int fd = dial(0);
  send_bytes(fd, 0, bytes);
  shutdown(fd, SHUT_WR);
  read_to_end(fd);
}

static void mode_drip(void) {
  int fd = dial(0);
  for (long i = 0; i < bytes; i++) {
    uint8_t one = byte_at(0, i);
    if (send(fd, &one, 1, MSG_NOSIGNAL) != 1)
      verdict("fail send after %ld: %s", i, strerror(errno));
    usleep((useconds_t)delay);
  }
  delay = 0;
  shutdown(fd, SHUT_WR);
  read_to_end(fd);
}

static void mode_burst(void) {
  for (long i = 0; i < total; i++) {
    int fd = dial(0);
    send_bytes(fd, i, bytes);
    if (hard)
      reset_on_close(fd);
    close(fd);
  }
  verdict("ok %ld", total);
}

/* One connection of the modes that have many. */
struct connection {
  int fd;
  long number, sent, got;
  bool ended;
};

static void step_send(struct connection *c) {
  uint8_t buffer[70000];
  while (c->sent < bytes) {
    long most = random_number() % 4 ? 1 + random_number() % 2000 : 1 + random_number() % 70000;
    long part = bytes - c->sent < most ? bytes - c->sent : most;
    fill(buffer, c->number, c->sent, part);
    ssize_t n = send(c->fd, buffer, (size_t)part, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
      return;
    if (n < 0)
      verdict("fail send on %ld after %ld: %s", c->number, c->sent, strerror(errno));
    c->sent += n;
    if (random_number() % 3 == 0)
      return; // others have their turn, and the reader of this one, too
  }
  if (!c->ended) {
    c->ended = true;
    shutdown(c->fd, SHUT_WR);
  }
}

/* Returns true at the end of the stream. */
static bool step_read(struct connection *c) {
  static uint8_t buffer[65536];
  for (;;) {
    ssize_t n = recv(c->fd, buffer, 1 + random_number() % sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
      return false;
    if (n < 0)
      verdict("fail read on %ld after %ld: %s", c->number, c->got, strerror(errno));
    if (n == 0)
      return true;
    for (ssize_t i = 0; i < n; i++)
      if (buffer[i] != byte_at(c->number, c->got + i))
        verdict("fail byte %ld of %ld is %u", c->got + i, c->number, buffer[i]);
    c->got += n;
  }
}

static void mode_echo(void) {
  struct connection *all = calloc((size_t)count, sizeof *all);
  int poll = epoll_create1(EPOLL_CLOEXEC);
  for (long i = 0; i < count; i++) {
    all[i] = (struct connection){.fd = dial(0), .number = i};
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = &all[i]};
    epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event);
  }
  struct epoll_event events[256];
  for (long left = count; left;) {
    int n = epoll_wait(poll, events, 256, -1);
    for (int i = 0; i < n; i++) {
      struct connection *c = events[i].data.ptr;
      if (!c->ended && events[i].events & EPOLLOUT) {
        step_send(c);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (c->ended)
          epoll_ctl(poll, EPOLL_CTL_MOD, c->fd, &event);
      }
      if (!step_read(c))
        continue;
      if (c->got != bytes)
        verdict("fail %ld ended after %ld of %ld bytes", c->number, c->got, bytes);
      close(c->fd);
      left--;
    }
  }
  verdict("ok %ld", count);
}

static void mode_echo1(void) {
  uint8_t message[4096], answer[4096];
  int fd = dial(0);
  for (long i = 0; i < total; i++) {
    fill(message, i, 0, bytes);
    if (send(fd, message, (size_t)bytes, MSG_NOSIGNAL) != bytes)
      verdict("fail send %ld: %s", i, strerror(errno));
    for (long got = 0; got < bytes;) {
      ssize_t n = recv(fd, answer + got, (size_t)(bytes - got), 0);
      if (n <= 0)
        verdict("fail read %ld: %s", i, n ? strerror(errno) : "the end");
      got += n;
    }
    if (memcmp(message, answer, (size_t)bytes))
      verdict("fail answer %ld differs", i);
  }
  verdict("ok %ld", total);
}

static void mode_short(void) {
  struct connection *all = calloc((size_t)parallel, sizeof *all);
  int poll = epoll_create1(EPOLL_CLOEXEC);
  long begun = 0, done = 0;
  uint8_t message[4096], answer[4096];
  for (; begun < parallel && begun < total; begun++) {
    struct connection *c = &all[begun];
    *c = (struct connection){.fd = dial(SOCK_NONBLOCK), .number = begun};
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event);
  }
  struct epoll_event events[256];
  while (done < total) {
    int n = epoll_wait(poll, events, 256, -1);
    for (int i = 0; i < n; i++) {
      struct connection *c = events[i].data.ptr;
      if (!c->sent) {
        fill(message, c->number, 0, bytes);
        if (send(c->fd, message, (size_t)bytes, MSG_NOSIGNAL) != bytes)
          verdict("fail send on %ld: %s", c->number, strerror(errno));
        c->sent = bytes;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poll, EPOLL_CTL_MOD, c->fd, &event);
        continue;
      }
      ssize_t got = recv(c->fd, answer, sizeof answer, 0);
      if (got <= 0)
        verdict("fail read on %ld: %s", c->number, got ? strerror(errno) : "the end");
      for (ssize_t k = 0; k < got; k++)
        if (answer[k] != byte_at(c->number, c->got + k))
          verdict("fail byte %ld of %ld is %u", c->got + k, c->number, answer[k]);
      c->got += got;
      if (c->got < bytes)
        continue;
      // A reset instead of TIME_WAIT: the ports of this machine would not last for 100,000 connections.
      if (c->number % 8)
        reset_on_close(c->fd);
      close(c->fd);
      done++;
      if (begun >= total)
        continue;
      *c = (struct connection){.fd = dial(SOCK_NONBLOCK), .number = begun++};
      struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
      epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event);
    }
  }
  verdict("ok %ld", done);
}

static const struct {
  const char *name;
  void (*run)(void);
} modes[] = {{"hold", mode_hold},   {"reset", mode_reset}, {"half", mode_half},
             {"drip", mode_drip},   {"slow", mode_half},   {"short", mode_short},
             {"burst", mode_burst}, {"echo", mode_echo},   {"echo1", mode_echo1}};

static const struct {
  const char *name;
  long *value;
} settings[] = {{"count", &count},     {"bytes", &bytes}, {"wait", &wait_bytes},   {"delay", &delay},
                {"chunk", &chunk},     {"total", &total}, {"parallel", &parallel}, {"seed", &seed},
                {"sources", &sources}, {"hard", &hard}};

int main(int argc, char **argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (argc < 4)
    return 2;
  verdict_file = argv[1];
  server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 4; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (!value)
      return 2;
    *value++ = 0;
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++)
      if (!strcmp(settings[k].name, argv[i]))
        *settings[k].value = atol(value);
  }
  for (size_t k = 0; k < sizeof modes / sizeof *modes; k++)
    if (!strcmp(modes[k].name, argv[2]))
      modes[k].run();
  return 2;
}
