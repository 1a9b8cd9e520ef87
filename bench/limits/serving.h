/*
 * serving.h - what both limits share: the listener, and the fixed HTTP reply.
 *
 *   PORT=7000 build/uring_echo [echo|http]      prints `listening on 127.0.0.1:7000`; PORT=0 or none picks a
 * port
 *
 * Both take a backlog of 4096 and set TCP_NODELAY on the listener, from which Linux hands it down to what is
 * accepted.
 */
#ifndef SERVING_H
#define SERVING_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 4096

/* The same bytes as the TypeScript servers send. */
#define REPLY       "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!"
#define REPLY_BYTES (sizeof REPLY - 1)
#define REPLIES     64 // a pipeline's replies leave in one send from this table

static char replies[REPLIES * REPLY_BYTES];

static inline void die(const char *what) {
  perror(what);
  exit(1);
}

/* True for http, false for echo. */
static inline bool serves_http(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "echo";
  if (argc > 2 || (strcmp(mode, "echo") != 0 && strcmp(mode, "http") != 0)) {
    fprintf(stderr, "usage: PORT=0 %s [echo|http]\n", argv[0]);
    exit(2);
  }
  for (size_t i = 0; i < REPLIES; i++)
    memcpy(replies + i * REPLY_BYTES, REPLY, REPLY_BYTES);
  return strcmp(mode, "http") == 0;
}

static inline int listen_here(void) {
  const char *port = getenv("PORT");
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons(port ? (uint16_t)atoi(port) : 0),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) < 0 ||
      bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0 ||
      getsockname(fd, (struct sockaddr *)&address, &length) < 0)
    die("listen");
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  signal(SIGPIPE, SIG_IGN);
  printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

/* Counts the request heads that end in a chunk. `matched` carries how much of "\r\n\r\n" the last chunk ended
 * with. */
static inline uint32_t count_heads(const char *chunk, size_t length, uint8_t *matched) {
  static const char end[] = "\r\n\r\n";
  uint32_t heads = 0;
  for (size_t i = 0; i < length; i++) {
    if (*matched == 0) { // skip to where one may begin
      const char *next = memchr(chunk + i, '\r', length - i);
      if (!next)
        break;
      i = (size_t)(next - chunk);
    }
    *matched = chunk[i] == end[*matched] ? *matched + 1 : chunk[i] == '\r';
    if (*matched == 4) {
      *matched = 0;
      heads++;
    }
  }
  return heads;
}

#endif
