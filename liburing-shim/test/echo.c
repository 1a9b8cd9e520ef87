/*
 * echo.c - bytes come back as they were sent: many connections, random chunks, over socket pairs and TCP,
 * with every limit made small in turn and every optional feature switched off in turn.
 */
#include "check.h"

#define CONNECTIONS_MAX 64
#define REGION          16384 // bytes of the arena per connection

struct connection {
  struct pair pair;
  uint32_t recv_slot, send_slot;
  bool receiving, sending, ended, closed, peer_done;
  uint8_t *queue; // received, not sent yet
  size_t queued, queue_capacity;
  uint64_t written, read; // by the peer
};

struct echo {
  struct connection all[CONNECTIONS_MAX];
  int by_slot[4096];
  int count, closed;
  bool multishot;
  uint64_t bytes, no_buffers;
};

static uint8_t byte_at(int connection, uint64_t position) {
  uint64_t seed = position / 8 * 64 + (uint64_t)connection;
  return (uint8_t)(random_next(&seed) >> (position % 8 * 8));
}

static void receive(struct client *c, struct echo *e, int i) {
  e->all[i].recv_slot = submit_recv(c, e->all[i].pair.ours, e->multishot);
  e->all[i].receiving = true;
  e->by_slot[e->all[i].recv_slot] = i;
}

static void go_on(struct client *c, struct echo *e, int i) {
  struct connection *n = &e->all[i];
  if (n->queued && !n->sending) {
    uint32_t length = n->queued < REGION ? (uint32_t)n->queued : REGION;
    memcpy(c->arena + i * REGION, n->queue, length);
    memmove(n->queue, n->queue + length, n->queued - length);
    n->queued -= length;
    n->send_slot = submit(c, UL_OP_SEND, i % 2 ? UL_C_QUIET : 0, n->pair.ours, (uint32_t)i * REGION, length,
                          0);
    n->sending = true;
    e->by_slot[n->send_slot] = i;
  }
  if (n->ended && !n->sending && !n->queued && !n->closed) {
    e->by_slot[submit(c, UL_OP_CLOSE, 0, n->pair.ours, 0, 0, 0)] = i;
    n->closed = true;
  }
}

static void on_completion(struct client *c, const struct ul_completion *done) {
  struct echo *e = c->user;
  int i = e->by_slot[done->slot];
  struct connection *n = &e->all[i];
  switch (done->op) {
  case UL_OP_RECV:
    CHECK(n->receiving);
    n->receiving = done->flags & UL_F_MORE;
    if (done->result > 0) {
      if (n->queued + (size_t)done->result > n->queue_capacity) {
        n->queue_capacity = 2 * (n->queued + (size_t)done->result);
        n->queue = realloc(n->queue, n->queue_capacity);
      }
      memcpy(n->queue + n->queued, c->buffers + done->buffer_offset, (size_t)done->result);
      n->queued += (size_t)done->result;
    } else if (done->result == 0) {
      n->ended = true;
    } else {
      CHECK_EQ(done->result, -ENOBUFS);
      e->no_buffers++;
    }
    if (!n->receiving && !n->ended)
      receive(c, e, i);
    break;
  case UL_OP_SEND:
    CHECK(done->result > 0 && done->result <= REGION);
    n->sending = false;
    break;
  default:
    CHECK_EQ(done->op, UL_OP_CLOSE);
    CHECK_EQ(done->result, 0);
    e->closed++;
    return;
  }
  go_on(c, e, i);
}

/* The peer's side of a connection: random chunks out, everything in and compared. */
static void peer(struct echo *e, int i, uint64_t *seed) {
  struct connection *n = &e->all[i];
  uint8_t chunk[20000];
  if (n->written < e->bytes) {
    size_t length = random_below(seed, random_below(seed, 4) ? 300 : sizeof chunk) + 1;
    if (length > e->bytes - n->written)
      length = e->bytes - n->written;
    for (size_t k = 0; k < length; k++)
      chunk[k] = byte_at(i, n->written + k);
    ssize_t sent = send(n->pair.theirs, chunk, length, MSG_NOSIGNAL);
    CHECK(sent > 0 || errno == EAGAIN);
    n->written += sent > 0 ? (uint64_t)sent : 0;
    if (n->written == e->bytes)
      shutdown(n->pair.theirs, SHUT_WR);
  }
  if (n->peer_done || random_below(seed, 3) == 0)
    return;
  ssize_t got = recv(n->pair.theirs, chunk, random_below(seed, sizeof chunk) + 1, 0);
  if (got == 0) {
    CHECK_EQ(n->read, e->bytes);
    n->peer_done = true;
    close(n->pair.theirs);
  }
  for (ssize_t k = 0; k < got; k++)
    if (chunk[k] != byte_at(i, n->read + (uint64_t)k))
      FAIL("connection %d: byte %llu is wrong", i, (unsigned long long)n->read + (unsigned long long)k);
  n->read += got > 0 ? (uint64_t)got : 0;
}

static void echo(struct ul_config config, int connections, uint64_t bytes, bool tcp, bool multishot) {
  struct client *c = open_with(config);
  struct echo *e = calloc(1, sizeof *e);
  uint64_t seed = 42;
  e->count = connections;
  e->bytes = bytes;
  e->multishot = multishot;
  c->on_completion = on_completion;
  c->user = e;
  for (int i = 0; i < connections; i++) {
    e->all[i].pair = tcp ? tcp_pair(c) : unix_pair(c);
    receive(c, e, i);
  }
  double until = ul_now_ms() + 20000;
  for (int done = 0; done < connections || e->closed < connections;) {
    done = 0;
    for (int i = 0; i < connections; i++) {
      if (!e->all[i].peer_done)
        peer(e, i, &seed);
      done += e->all[i].peer_done;
    }
    if (random_below(&seed, 4) == 0)
      tick(c, UL_WAIT_FLUSH);
    tick(c, random_below(&seed, 2) ? 0 : 0.05 * MS);
    if (ul_now_ms() > until)
      FAIL("%d of %d connections are through, %d closed", done, connections, e->closed);
  }
  CHECK_EQ(c->header->bytes_received, bytes * (uint64_t)connections);
  CHECK_EQ(c->header->bytes_sent, bytes * (uint64_t)connections);
  CHECK_EQ(c->header->no_buffers, e->no_buffers);
  CHECK_EQ(c->header->fds_live, 0);
  shut(c);
  for (int i = 0; i < connections; i++)
    free(e->all[i].queue);
  free(e);
}

static void echo_unix(int engine) {
  echo(small_config(engine), 16, 200000, false, true);
}
static void echo_tcp(int engine) {
  echo(small_config(engine), 16, 200000, true, true);
}
static void echo_single_shot(int engine) {
  echo(small_config(engine), 16, 100000, true, false);
}
static void echo_many(int engine) {
  echo(small_config(engine), 64, 30000, true, true);
}
static void echo_few_buffers(int engine) {
  struct ul_config config = small_config(engine);
  config.buffer_count = 2;
  config.buffer_bytes = 256;
  echo(config, 8, 50000, false, true);
  config.buffer_count = 1;
  config.buffer_bytes = 64;
  echo(config, 3, 10000, true, true);
}
static void echo_small_submission_queue(int engine) {
  struct ul_config config = small_config(engine);
  config.submission_entries = 8;
  echo(config, 32, 40000, true, true);
  echo(config, 32, 40000, true, false);
}
static void echo_small_completion_array(int engine) {
  struct ul_config config = small_config(engine);
  config.completion_capacity = 8;
  echo(config, 32, 40000, true, true);
}
static void echo_completion_queue_overflow(int engine) {
  struct ul_config config = small_config(engine);
  config.submission_entries = 8;
  config.completion_entries = 16;
  echo(config, 48, 30000, false, true);
}
static void echo_everything_small(int engine) {
  struct ul_config config = small_config(engine);
  config.submission_entries = 8;
  config.completion_entries = 16;
  config.completion_capacity = 8;
  config.command_capacity = 8;
  config.slot_capacity = 256;
  config.buffer_count = 4;
  config.buffer_bytes = 512;
  echo(config, 16, 20000, true, true);
}

static void without(int engine, uint32_t features) {
  struct ul_config config = small_config(engine);
  config.disable = features;
  struct client *c = open_with(config);
  CHECK_EQ(c->header->features & features, 0);
  shut(c);
  echo(config, 12, 60000, true, true);
}
static void echo_without_incremental(int engine) {
  without(engine, UL_FEATURE_INCREMENTAL);
}
static void echo_without_multishot_recv(int engine) {
  without(engine, UL_FEATURE_MULTISHOT_RECV);
}
static void echo_without_multishot_accept(int engine) {
  without(engine, UL_FEATURE_MULTISHOT_ACCEPT);
}
static void echo_without_skip_success(int engine) {
  without(engine, UL_FEATURE_SKIP_SUCCESS);
}
static void echo_without_registered_ring(int engine) {
  without(engine, UL_FEATURE_REGISTERED_RING);
}
static void echo_without_defer_taskrun(int engine) {
  without(engine, UL_FEATURE_DEFER_TASKRUN);
}
static void echo_without_single_issuer(int engine) {
  without(engine, UL_FEATURE_SINGLE_ISSUER);
}
static void echo_without_anything(int engine) {
  without(engine, ~(uint32_t)UL_FEATURE_BUFFER_RING);
}

int main(void) {
  RUN(echo_unix);
  RUN(echo_tcp);
  RUN(echo_single_shot);
  RUN(echo_many);
  RUN(echo_few_buffers);
  RUN(echo_small_submission_queue);
  RUN(echo_small_completion_array);
  RUN(echo_completion_queue_overflow);
  RUN(echo_everything_small);
  RUN(echo_without_incremental);
  RUN(echo_without_multishot_recv);
  RUN(echo_without_multishot_accept);
  RUN(echo_without_skip_success);
  RUN(echo_without_registered_ring);
  RUN(echo_without_defer_taskrun);
  RUN(echo_without_single_issuer);
  RUN(echo_without_anything);
  return check_failures != 0;
}
