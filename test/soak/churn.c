/*
 * churn.c - peers of the soak: very many connections of every kind at once, well-meaning and not, each byte
 * that comes back compared. One process, one epoll instance.
 *
 *   churn ECHO_PORT PROMISE_PORT IMPATIENT_PORT [name=number...]
 *
 * Settings: seconds, rate (connections begun per second), most (open at a time), seed, sources (addresses
 * 127.0.0.2 and up), long (connections kept open all the time), grace (seconds for all to end afterwards).
 * SIGTERM ends the run early. Prints one line of JSON a second and a last one with "over":true. Exit status 1
 * when anything was lost: a connection that was to give back all it was sent and did not.
 *
 *   short       sends up to 2 KB, reads them back, closes
 *   half        sends up to 100 KB, ends its side, reads to the end
 *   slow reader sends up to 600 KB, reads a little at a time
 *   slow writer sends a few bytes at a time
 *   long        echoes for seconds, then as half
 *   reset       sends, reads, and at a random point closes with SO_LINGER 0
 *   drop        connects and closes at once, fifty at a time; every other one with a reset
 *   silent      says something to the impatient port and nothing more: the server is to end it
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PERIOD      65521 // a prime: no chunk size divides it, so a lost or doubled chunk shows
#define WINDOW      (1 << 18)
#define MS          1000000ull
#define SECOND      1000000000ull
#define TURN_NS     (2 * MS) // slow connections are looked after this often
#define BURST       50
#define SILENT_WAIT (600 * SECOND) // the server's idle timeout is far shorter
#define LONG_BEHIND (64 * 1024)    // bytes that a long connection has on the way at most

enum kind { SHORT, HALF, SLOW_READER, SLOW_WRITER, LONG, RESET, DROP, SILENT, KINDS };
static const char *const kind_names[] = {"short", "half",  "slow reader", "slow writer",
                                         "long",  "reset", "drop",        "silent"};
/* Of 1000 connections; what is left over is short. */
static const unsigned shares[] = {
    [HALF] = 20, [SLOW_READER] = 3, [SLOW_WRITER] = 10, [RESET] = 50, [SILENT] = 4};
#define DROP_BURSTS_OF_1000 1

struct connection {
  int fd;
  enum kind kind;
  uint32_t place; // of its stream in the pattern
  uint64_t want, sent, got;
  uint64_t cut;     // reset: when sent + got has come this far
  uint64_t due_ns;  // slow ones: not before this
  uint64_t ends_ns; // long: no more is sent after it; silent: lost after it
  bool readable, writable, ended;
};

static long seconds = 10, rate = 1000, most = 1200, seed = 1, sources = 200, keep_long = 40, grace = 300;
static uint16_t ports[3];
static struct connection *all;
static long open_count, long_count;
static int poller;
static uint8_t pattern[PERIOD + WINDOW];
static uint64_t now_ns, opened[KINDS], completed[KINDS], lost[KINDS], bytes_checked, connect_errors;
static volatile sig_atomic_t stopping;

static uint64_t clock_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static uint32_t random_number(void) {
  static uint64_t state;
  if (!state)
    state = (uint64_t)seed * 0x9e3779b97f4a7c15ull | 1;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (uint32_t)(state >> 32);
}

static uint64_t random_between(uint64_t least, uint64_t greatest) {
  return least + random_number() % (greatest - least + 1);
}

static void release(struct connection *c) {
  close(c->fd);
  c->fd = -1;
  open_count--;
  long_count -= c->kind == LONG;
}

static void complete(struct connection *c) {
  completed[c->kind]++;
  release(c);
}

static void lose(struct connection *c, const char *why) {
  if (lost[c->kind]++ < 5)
    fprintf(stderr, "churn: lost %s: %s (%s); wanted %" PRIu64 ", sent %" PRIu64 ", got %" PRIu64 "\n",
            kind_names[c->kind], why, errno ? strerror(errno) : "no error", c->want, c->sent, c->got);
  release(c);
}

static void close_hard(struct connection *c) {
  struct linger hard = {.l_onoff = 1, .l_linger = 0};
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  complete(c);
}

static struct connection *free_connection(void) {
  static long next;
  for (long i = 0; i < most; i++) {
    struct connection *c = &all[next];
    next = (next + 1) % most;
    if (c->fd < 0)
      return c;
  }
  return NULL;
}

static struct connection *dial(enum kind kind) {
  struct connection *c = free_connection();
  if (!c)
    return NULL;
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  static uint32_t source;
  struct sockaddr_in from = {.sin_family = AF_INET};
  from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + source++ % (uint32_t)sources);
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct sockaddr_in to = {.sin_family = AF_INET};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(kind == SILENT ? ports[2] : ports[random_number() % 8 == 0]);
  if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) ||
      (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)) {
    if (connect_errors++ < 5)
      fprintf(stderr, "churn: connect: %s\n", strerror(errno));
    if (fd >= 0)
      close(fd);
    return NULL;
  }
  *c = (struct connection){.fd = fd, .kind = kind, .place = random_number() % PERIOD, .due_ns = now_ns};
  opened[kind]++;
  open_count++;
  long_count += kind == LONG;
  return c;
}

static void watch(struct connection *c) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

static void begin(enum kind kind) {
  struct connection *c = dial(kind);
  if (!c)
    return;
  switch (kind) {
  case SHORT:
    c->want = random_between(1, random_number() % 16 ? 256 : 2048);
    break;
  case HALF:
    c->want = random_between(0, 100000);
    break;
  case SLOW_READER:
    c->want = random_between(50000, 600000);
    break;
  case SLOW_WRITER:
    c->want = random_between(50, 1500);
    break;
  case LONG:
    c->want = UINT64_MAX;
    c->ends_ns = now_ns + random_between(2, 30) * SECOND;
    break;
  case RESET:
    c->want = random_between(1, random_number() % 4 ? 5000 : 200000);
    c->cut = random_between(0, 2 * c->want - 1);
    break;
  default:
    c->want = 10;
    c->ends_ns = now_ns + SILENT_WAIT;
  }
  watch(c);
}

static void begin_burst(void) {
  struct connection *burst[BURST];
  for (int i = 0; i < BURST; i++)
    burst[i] = dial(DROP);
  for (int i = 0; i < BURST; i++) {
    if (burst[i] && i % 2)
      close_hard(burst[i]);
    else if (burst[i])
      complete(burst[i]);
  }
}

static uint64_t lesser(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

/* How much may be sent now. */
static uint64_t send_room(const struct connection *c) {
  uint64_t left = c->want - c->sent;
  if (c->kind == SLOW_WRITER)
    return now_ns < c->due_ns ? 0 : lesser(left, random_between(1, 30));
  if (c->kind == LONG)
    return now_ns < c->due_ns || c->sent - c->got >= LONG_BEHIND
               ? 0
               : lesser(left, random_number() % 8 ? random_between(1, 2000) : random_between(1, 32000));
  if (c->kind == RESET)
    return lesser(left, c->sent + c->got < c->cut ? c->cut - c->sent - c->got : 0);
  return lesser(left, WINDOW);
}

/* Returns false when the connection is over. */
static bool step_send(struct connection *c) {
  if (c->kind == LONG && !c->ended && (now_ns >= c->ends_ns || stopping))
    c->want = c->sent;
  while (c->writable && !c->ended && c->sent < c->want) {
    uint64_t room = send_room(c);
    if (!room)
      break;
    errno = 0;
    ssize_t n = send(c->fd, pattern + (c->place + c->sent) % PERIOD, room, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
      c->writable = false;
      break;
    }
    if (n < 0)
      return lose(c, "send"), false;
    c->sent += (uint64_t)n;
    if (c->kind == SLOW_WRITER)
      c->due_ns = now_ns + random_between(1, 20) * MS;
    if (c->kind == LONG)
      c->due_ns = now_ns + random_between(0, 40) * MS;
  }
  bool halves = c->kind == HALF || c->kind == LONG || c->kind == SLOW_READER;
  if (halves && c->writable && !c->ended && c->sent == c->want) {
    c->ended = true;
    shutdown(c->fd, SHUT_WR);
  }
  return true;
}

static void end_of_stream(struct connection *c) {
  if (c->kind == SILENT)
    complete(c);
  else if (c->ended && c->got == c->want)
    complete(c);
  else
    lose(c, "the stream ended early");
}

/* Returns false when the connection is over. */
static bool step_receive(struct connection *c) {
  static uint8_t chunk[WINDOW];
  while (c->readable) {
    uint64_t room = sizeof chunk;
    if (c->kind == SLOW_READER) {
      if (now_ns < c->due_ns)
        return true;
      room = random_between(1000, 16000);
    }
    if (c->kind == RESET && c->cut > c->sent + c->got)
      room = lesser(room, c->cut - c->sent - c->got);
    errno = 0;
    ssize_t n = recv(c->fd, chunk, room, 0);
    if (n < 0 && errno == EAGAIN) {
      c->readable = false;
      return true;
    }
    if (n < 0 && c->kind == SILENT && errno == ECONNRESET)
      return complete(c), false;
    if (n < 0)
      return lose(c, "receive"), false;
    if (n == 0)
      return end_of_stream(c), false;
    if (c->got + (uint64_t)n > c->sent)
      return lose(c, "more came back than was sent"), false;
    if (memcmp(chunk, pattern + (c->place + c->got) % PERIOD, (size_t)n))
      return lose(c, "wrong bytes"), false;
    c->got += (uint64_t)n;
    bytes_checked += (uint64_t)n;
    if (c->kind == SLOW_READER)
      c->due_ns = now_ns + random_between(2, 15) * MS;
    if ((c->kind == SHORT || c->kind == SLOW_WRITER) && c->got == c->want)
      return complete(c), false;
  }
  return true;
}

static void step(struct connection *c) {
  if (!step_send(c) || !step_receive(c))
    return;
  if (c->kind == RESET && c->sent + c->got >= c->cut)
    close_hard(c);
  else if (c->kind == SILENT && now_ns >= c->ends_ns)
    lose(c, "the server does not end it");
}

static void step_timed(void) {
  for (long i = 0; i < most; i++) {
    struct connection *c = &all[i];
    if (c->fd >= 0 && (c->kind == SLOW_READER || c->kind == SLOW_WRITER || c->kind == LONG ||
                       c->kind == SILENT || c->kind == RESET))
      step(c);
  }
}

static void begin_some(long count) {
  while (long_count < keep_long && open_count < most)
    begin(LONG);
  for (; count > 0 && open_count < most - BURST; count--) {
    if (random_number() % 1000 < DROP_BURSTS_OF_1000)
      begin_burst();
    unsigned draw = random_number() % 1000;
    enum kind kind = SHORT;
    for (enum kind k = HALF; k < KINDS; k++) {
      if (k >= sizeof shares / sizeof *shares || !shares[k])
        continue;
      if (draw < shares[k]) {
        kind = k;
        break;
      }
      draw -= shares[k];
    }
    begin(kind);
  }
}

static uint64_t sum(const uint64_t *values) {
  uint64_t total = 0;
  for (int i = 0; i < KINDS; i++)
    total += values[i];
  return total;
}

static void print_kinds(const char *name, const uint64_t *values) {
  printf(",\"%s\":{", name);
  for (int i = 0; i < KINDS; i++)
    printf("%s\"%s\":%" PRIu64, i ? "," : "", kind_names[i], values[i]);
  printf("}");
}

static void report(bool over) {
  printf("{\"over\":%s,\"open\":%ld,\"opened\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"bytes\":%" PRIu64,
         over ? "true" : "false", open_count, sum(opened), sum(lost) + connect_errors, bytes_checked);
  print_kinds("openedBy", opened);
  print_kinds("completedBy", completed);
  print_kinds("lostBy", lost);
  printf("}\n");
  fflush(stdout);
}

static void on_signal(int number) {
  (void)number;
  stopping = 1;
}

static void prepare(int argc, char **argv) {
  const struct {
    const char *name;
    long *value;
  } settings[] = {{"seconds", &seconds}, {"rate", &rate},      {"most", &most},  {"seed", &seed},
                  {"sources", &sources}, {"long", &keep_long}, {"grace", &grace}};
  for (int i = 0; i < 3; i++)
    ports[i] = (uint16_t)atoi(argv[1 + i]);
  for (int i = 4; i < argc; i++)
    for (size_t k = 0; k < sizeof settings / sizeof *settings; k++)
      if (!strncmp(argv[i], settings[k].name, strlen(settings[k].name)) &&
          argv[i][strlen(settings[k].name)] == '=')
        *settings[k].value = atol(strchr(argv[i], '=') + 1);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGTERM, on_signal);
  signal(SIGPIPE, SIG_DFL);
  for (size_t i = 0; i < sizeof pattern; i++)
    pattern[i] = i < PERIOD ? (uint8_t)random_number() : pattern[i - PERIOD];
  all = calloc((size_t)most, sizeof *all);
  for (long i = 0; i < most; i++)
    all[i].fd = -1;
  poller = epoll_create1(EPOLL_CLOEXEC);
}

int main(int argc, char **argv) {
  if (argc < 4)
    return 2;
  prepare(argc, argv);
  uint64_t ends_ns = clock_ns() + (uint64_t)seconds * SECOND, gives_up_ns = 0;
  uint64_t turn_ns = clock_ns(), report_ns = turn_ns + SECOND;
  double credit = 0;
  struct epoll_event events[256];
  for (;;) {
    int count = epoll_wait(poller, events, 256, 1);
    now_ns = clock_ns();
    for (int i = 0; i < count; i++) {
      struct connection *c = events[i].data.ptr;
      if (c->fd < 0)
        continue; // closed by an event before this one
      c->readable |= (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
      c->writable |= (events[i].events & (EPOLLOUT | EPOLLERR)) != 0;
      step(c);
    }
    if (now_ns >= report_ns) {
      report(false);
      report_ns = now_ns + SECOND;
    }
    if (!stopping && now_ns >= ends_ns)
      stopping = 1;
    if (stopping) {
      if (!gives_up_ns)
        gives_up_ns = now_ns + (uint64_t)grace * SECOND;
      if (!open_count || now_ns >= gives_up_ns)
        break;
    }
    if (now_ns - turn_ns < TURN_NS)
      continue;
    // After a stop of this process it does not catch up: that would be another burst.
    credit += (double)lesser(now_ns - turn_ns, 50 * MS) / 1e9 * (double)rate;
    turn_ns = now_ns;
    step_timed();
    if (!stopping)
      begin_some((long)credit);
    credit -= (double)(long)credit;
  }
  errno = 0;
  for (long i = 0; i < most; i++)
    if (all[i].fd >= 0)
      lose(&all[i], "it did not come to its end");
  report(true);
  return sum(lost) + connect_errors ? 1 : 0;
}
