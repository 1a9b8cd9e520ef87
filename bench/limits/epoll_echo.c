/*
 * epoll_echo.c - the limit of readiness: the least that a server on epoll can cost.
 *
 * Shown here:
 *   - one receive and one send per event, no more: a receive that did not fill the buffer has taken all
 *     there was, so nobody asks a second time to hear EAGAIN;
 *   - level-triggered: what is left over is told again, and no loop per socket is needed;
 *   - the answer is sent straight from the receive buffer; only what the socket refuses is copied;
 *   - backpressure: while a rest waits, the socket is watched for writing alone, so a client that does not
 *     read stops being read from;
 *   - one accept per event of the listener costs a system call per connection, so a batch is taken each
 *     time;
 *   - the user data of epoll is the connection itself, and a connection is 24 bytes until it has a rest.
 *
 * Needs any Linux. Usage and common parts: serving.h.
 */
#define _GNU_SOURCE
#include "serving.h"

#include <errno.h>
#include <sys/epoll.h>

#define EVENTS        1024
#define RECEIVE_BYTES (1 << 18)
#define ACCEPTS       64

struct connection {
  int fd;
  uint8_t matched;                // http: see count_heads
  uint32_t rest_bytes, rest_sent; // what the socket did not take yet
  char *rest;
};

static int epoll, listener;
static bool http;
static char chunk[RECEIVE_BYTES];

static void watch(struct connection *c, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll, operation, c ? c->fd : listener, &event) < 0)
    die("epoll_ctl");
}

static void drop(struct connection *c) {
  close(c->fd);
  free(c->rest);
  free(c);
}

static void accept_some(void) {
  for (int i = 0; i < ACCEPTS; i++) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
      return;
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
      die("calloc");
    c->fd = fd;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
  }
}

static void keep_rest(struct connection *c, const char *bytes, size_t length) {
  c->rest = malloc(length);
  if (!c->rest)
    die("malloc");
  memcpy(c->rest, bytes, length);
  c->rest_bytes = (uint32_t)length;
  c->rest_sent = 0;
  watch(c, EPOLL_CTL_MOD, EPOLLOUT);
}

static ssize_t send_all_it_takes(int fd, const char *bytes, size_t length) {
  ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
  return sent < 0 && errno == EAGAIN ? 0 : sent;
}

static void answer(struct connection *c, const char *bytes, size_t length) {
  ssize_t sent = send_all_it_takes(c->fd, bytes, length);
  if (sent < 0)
    drop(c);
  else if ((size_t)sent < length)
    keep_rest(c, bytes + sent, length - (size_t)sent);
}

static void answer_heads(struct connection *c, uint32_t heads) {
  if (heads <= REPLIES) {
    if (heads)
      answer(c, replies, heads * REPLY_BYTES);
    return;
  }
  char *many = malloc(heads * REPLY_BYTES);
  if (!many)
    die("malloc");
  for (uint32_t i = 0; i < heads; i++)
    memcpy(many + i * REPLY_BYTES, REPLY, REPLY_BYTES);
  answer(c, many, heads * REPLY_BYTES);
  free(many);
}

static void readable(struct connection *c) {
  ssize_t got = recv(c->fd, chunk, sizeof chunk, 0);
  if (got > 0 && http)
    answer_heads(c, count_heads(chunk, (size_t)got, &c->matched));
  else if (got > 0)
    answer(c, chunk, (size_t)got);
  else if (got == 0 || errno != EAGAIN)
    drop(c);
}

static void writable(struct connection *c) {
  ssize_t sent = send_all_it_takes(c->fd, c->rest + c->rest_sent, c->rest_bytes - c->rest_sent);
  if (sent < 0) {
    drop(c);
    return;
  }
  c->rest_sent += (uint32_t)sent;
  if (c->rest_sent < c->rest_bytes)
    return;
  free(c->rest);
  c->rest = NULL;
  watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

int main(int argc, char **argv) {
  http = serves_http(argc, argv);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  listener = listen_here();
  watch(NULL, EPOLL_CTL_ADD, EPOLLIN);
  static struct epoll_event events[EVENTS];
  for (;;) {
    int count = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (!c)
        accept_some();
      else if (c->rest)
        writable(c);
      else
        readable(c);
    }
  }
}
