/*
 * server.c - an echo server on the shim under the sanitizers, for real traffic from another process
 * (test/system/sanitized.test.ts). check.h looks on: every completion is checked, and the end is a clean one.
 *
 *   build/server uring|poll|epoll     prints the port; on SIGTERM it closes everything, prints what it did
 *
 * Exit status 0: every operation ended once, every descriptor is closed, nothing has leaked.
 */
#include "../check.h"

#include <signal.h>

#define SLOTS  4096
#define REGION 16384 // bytes of the arena per connection
#define MOST   (SLOTS / 4)

struct connection {
  int fd;
  bool receiving, sending, ended, closing;
  uint8_t *queue; // received, not sent yet
  size_t queued, capacity;
};

static struct connection connections[MOST];
static int by_slot[SLOTS], open_connections, listener;
static uint32_t accept_slot;
static uint64_t accepted, resets;
static volatile sig_atomic_t stop;

static void on_signal(int signal) {
  (void)signal;
  stop = 1;
}

static void receive(struct client *c, int i) {
  connections[i].receiving = true;
  by_slot[submit_recv(c, connections[i].fd, i % 4 != 3)] = i; // some single-shot
}

static void go_on(struct client *c, int i) {
  struct connection *n = &connections[i];
  if (n->queued && !n->sending && !n->ended) {
    uint32_t length = n->queued < REGION ? (uint32_t)n->queued : REGION;
    memcpy(c->arena + i * REGION, n->queue, length);
    memmove(n->queue, n->queue + length, n->queued -= length);
    by_slot[submit(c, UL_OP_SEND, i % 2 ? UL_C_QUIET : 0, n->fd, (uint32_t)i * REGION, length, 0)] = i;
    n->sending = true;
  }
  if (n->ended && !n->sending && !n->receiving && !n->closing) {
    n->closing = true;
    by_slot[submit(c, UL_OP_CLOSE, 0, n->fd, 0, 0, 0)] = i;
  }
}

static void on_accept(struct client *c, const struct ul_completion *done) {
  if (done->result < 0) {
    CHECK(stop);
    return;
  }
  int i = 0;
  while (i < MOST && connections[i].fd)
    i++;
  CHECK(i < MOST);
  connections[i].fd = done->result;
  accepted++;
  open_connections++;
  CHECK_EQ(ul_set_option((uint32_t)c->ring, done->result, UL_O_NO_DELAY, 1), 0);
  receive(c, i);
}

static void on_received(struct client *c, struct connection *n, const struct ul_completion *done) {
  n->receiving = done->flags & UL_F_MORE;
  if (done->result > 0) {
    size_t length = (size_t)done->result;
    if (n->queued + length > n->capacity)
      n->queue = realloc(n->queue, n->capacity = 2 * (n->queued + length));
    memcpy(n->queue + n->queued, c->buffers + done->buffer_offset, length);
    n->queued += length;
  } else if (done->result != -ENOBUFS) {
    n->ended = true;
    resets += done->result < 0;
  }
  if (!n->receiving && !n->ended)
    receive(c, (int)(n - connections));
}

static void on_completion(struct client *c, const struct ul_completion *done) {
  int i = by_slot[done->slot];
  struct connection *n = &connections[i];
  switch (done->op) {
  case UL_OP_ACCEPT:
    on_accept(c, done);
    return;
  case UL_OP_RECV:
    on_received(c, n, done);
    break;
  case UL_OP_SEND:
    n->sending = false;
    n->ended |= done->result < 0;
    break;
  case UL_OP_CLOSE:
    CHECK_EQ(done->result, 0);
    free(n->queue);
    *n = (struct connection){0};
    open_connections--;
    return;
  default:
    return; // CANCEL
  }
  go_on(c, i);
}

static void serve(int engine) {
  struct ul_config config = small_config(engine);
  config.slot_capacity = SLOTS;
  config.arena_bytes = MOST * REGION;
  struct client *c = open_with(config);
  uint16_t port;
  c->on_completion = on_completion;
  listener = tcp_listener(c, &port);
  accept_slot = submit(c, UL_OP_ACCEPT, UL_C_MULTISHOT, listener, 0, 0, 0);
  tick(c, 0);
  printf("%u\n", port);
  fflush(stdout);
  while (!stop)
    tick(c, 20 * MS);
  submit_cancel(c, accept_slot);
  double until = ul_now_ms() + PATIENCE;
  while (open_connections || c->live[accept_slot]) { // the peers have gone: the ends of stream are under way
    CHECK(ul_now_ms() < until);
    tick(c, 10 * MS);
  }
  CHECK_EQ(c->header->stale, 0);
  CHECK_EQ(c->header->fds_live, 1);
  printf("accepted %llu received %llu sent %llu resets %llu\n", (unsigned long long)accepted,
         (unsigned long long)c->header->bytes_received, (unsigned long long)c->header->bytes_sent,
         (unsigned long long)resets);
  shut(c);
}

int main(int argc, char **argv) {
  signal(SIGTERM, on_signal);
  for (int engine = UL_ENGINE_URING; engine <= UL_ENGINE_EPOLL && argc == 2; engine++)
    if (!strcmp(argv[1], engine_names[engine]))
      run_one("server", serve, engine);
  return check_failures != 0 || !accepted;
}
