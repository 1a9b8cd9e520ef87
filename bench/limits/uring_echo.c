/*
 * uring_echo.c - the limit of completions: the least that a server on io_uring can cost.
 *
 * Shown here, with the kernel that each needs:
 *   - SINGLE_ISSUER + DEFER_TASKRUN (6.0, 6.1): completions are made inside our own io_uring_enter, never
 *     by an interrupt in the middle of other work, and one lock is saved;
 *   - one multishot accept for all connections, into direct descriptors (5.19): no entry in the process's
 *     table, no reference counting per operation, and RLIMIT_NOFILE does not bound them;
 *   - one multishot recv per connection (6.0) into a provided buffer ring (5.19): memory is bound to a
 *     connection only while there is data, so an idle connection holds none;
 *   - a buffer holds a whole message (16 KB): messages cut over buffers of 4 KB cost five times as much;
 *   - BUFFERS=incremental (6.12): a message takes only its own bytes of a larger buffer. It saves memory,
 *     not time: about as fast for small messages, a sixth slower at 16 KB, where a message is cut at the
 *     end of a buffer. So it is not the default of a program that is to show the limit;
 *   - the echo is sent from the buffer it arrived in; the buffer goes back when its last send is complete;
 *   - one send in flight per connection, with MSG_WAITALL: the kernel retries a short send itself, in
 *     order;
 *   - all that a round of completions asks for is submitted by the one io_uring_enter that waits for the
 *     next round;
 *   - company (6.12): a busy server would wake for every few completions, and each wake costs a system call
 *     and a sleep. So it waits for a quarter more of them than last time, up to GATHER, but at most
 *     GATHER_MICROSECONDS. With fewer than GATHER_FROM at a time there is no company to wait for, and a
 *     request would only be late.
 *
 * User data: the connection's direct descriptor in the bits above 8, the operation in the lower 8. No
 * generation is needed, since a descriptor is closed only when none of its operations is in flight.
 *
 * A client that never reads would keep its buffers for ever; a real server bounds that. Usage and common
 * parts: serving.h.
 */
#define _GNU_SOURCE
#include "serving.h"

#include <errno.h>
#include <liburing.h>
#include <sys/mman.h>

#define SUBMISSIONS         4096
#define COMPLETIONS         32768
#define CONNECTIONS_MAX     32768
#define BUFFERS             512 // one for each message
#define BUFFER_BYTES        (1 << 14)
#define INCREMENTAL_BUFFERS 32 // few and large; a power of two, as BUFFERS
#define INCREMENTAL_BYTES   (1 << 16)
#define SLICES              65536
#define GROUP               0
#define GATHER              32
#define GATHER_MICROSECONDS 50
#define GATHER_FROM         4
#define NONE                UINT32_MAX

/* Names that liburing 2.3 lacks (include/uapi/linux/io_uring.h). */
#define PBUF_RING_INC   2          // io_uring_buf_reg.flags, which 2.3 calls pad
#define CQE_BUFFER_MORE (1u << 4)  // the kernel goes on filling this buffer
#define FEAT_MIN_WAIT   (1u << 15) // IORING_FEAT_MIN_TIMEOUT: getevents_arg.min_wait_usec, which 2.3 calls pad

enum operation { ACCEPT, RECEIVE, SEND, CLOSE };

/*
 * A piece of a buffer that waits to be sent, or is being sent: then it is the first of its connection's
 * list.
 */
struct slice {
  uint32_t next, offset, length;
  uint16_t buffer;
};

struct connection {
  uint32_t first, last;   // echo: slices
  uint32_t owed, sending; // http: replies owed, and how many of them are in the send in flight
  uint8_t matched;        // http: see count_heads
  bool receiving, in_send, broken;
};

/* A buffer goes back to the ring when the kernel has done with it (`finished`) and no slice of it waits. */
struct buffer {
  uint32_t used, slices;
  bool finished;
};

static struct io_uring ring;
static struct io_uring_buf_ring *group;
static char *memory;
static uint32_t buffer_count = BUFFERS, buffer_bytes = BUFFER_BYTES, in_ring;
static struct buffer buffers[BUFFERS];
static struct slice slices[SLICES];
static uint32_t free_slice = NONE, fresh_slices;
static struct connection connections[CONNECTIONS_MAX];
static uint32_t starved[CONNECTIONS_MAX], starved_count; // their recv ended for want of a buffer
static int listener;
static bool http, accepting;

static struct io_uring_sqe *submission(void) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  if (!sqe) {
    io_uring_submit(&ring);
    sqe = io_uring_get_sqe(&ring);
  }
  if (!sqe)
    die("submission queue");
  return sqe;
}

static void tag(struct io_uring_sqe *sqe, enum operation operation, uint32_t index) {
  io_uring_sqe_set_data64(sqe, (uint64_t)index << 8 | operation);
}

static void submit_accept(void) {
  struct io_uring_sqe *sqe = submission();
  io_uring_prep_multishot_accept_direct(sqe, listener, NULL, NULL, 0);
  tag(sqe, ACCEPT, 0);
  accepting = true;
}

static void submit_receive(uint32_t index) {
  struct io_uring_sqe *sqe = submission();
  io_uring_prep_recv_multishot(sqe, (int)index, NULL, 0, 0);
  sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
  sqe->buf_group = GROUP;
  tag(sqe, RECEIVE, index);
  connections[index].receiving = true;
}

/* Sends what comes next, if anything does and no send is in flight. */
static void submit_send(uint32_t index) {
  struct connection *c = &connections[index];
  if (c->in_send || c->broken || (http ? c->owed == 0 : c->first == NONE))
    return;
  const char *from = replies;
  size_t length;
  if (http) {
    c->sending = c->owed < REPLIES ? c->owed : REPLIES;
    length = c->sending * REPLY_BYTES;
  } else {
    struct slice *s = &slices[c->first];
    from = memory + (size_t)s->buffer * buffer_bytes + s->offset;
    length = s->length;
  }
  struct io_uring_sqe *sqe = submission();
  io_uring_prep_send(sqe, (int)index, from, length, MSG_WAITALL | MSG_NOSIGNAL);
  sqe->flags |= IOSQE_FIXED_FILE;
  tag(sqe, SEND, index);
  c->in_send = true;
}

static void give_back(uint16_t id) {
  struct buffer *b = &buffers[id];
  if (!b->finished || b->slices)
    return;
  *b = (struct buffer){0};
  in_ring++;
  io_uring_buf_ring_add(group, memory + (size_t)id * buffer_bytes, buffer_bytes, id,
                        io_uring_buf_ring_mask(buffer_count), 0);
  io_uring_buf_ring_advance(group, 1);
}

/* Once half of the pool is back, not at the first buffer: else the receives would end again one by one. */
static void feed_starved(void) {
  if (starved_count == 0 || in_ring < buffer_count / 2)
    return;
  for (; starved_count; starved_count--)
    submit_receive(starved[starved_count - 1]);
}

static void add_slice(struct connection *c, uint16_t buffer, uint32_t offset, uint32_t length) {
  uint32_t id = free_slice != NONE ? free_slice : fresh_slices++;
  if (id >= SLICES) {
    fputs("out of slices: a client sends and does not read\n", stderr);
    exit(1);
  }
  if (id == free_slice)
    free_slice = slices[id].next;
  slices[id] = (struct slice){.next = NONE, .buffer = buffer, .offset = offset, .length = length};
  buffers[buffer].slices++;
  *(c->first == NONE ? &c->first : &slices[c->last].next) = id;
  c->last = id;
}

static void drop_slice(struct connection *c) {
  uint32_t id = c->first;
  c->first = slices[id].next;
  slices[id].next = free_slice;
  free_slice = id;
  buffers[slices[id].buffer].slices--;
  give_back(slices[id].buffer);
}

/* Closes a connection when the other side is done and nothing of ours is in flight or unsent. */
static void close_if_over(uint32_t index) {
  struct connection *c = &connections[index];
  if (c->broken)
    while (!c->in_send && c->first != NONE)
      drop_slice(c);
  if (c->receiving || c->in_send || (!c->broken && (c->first != NONE || c->owed)))
    return;
  struct io_uring_sqe *sqe = submission();
  io_uring_prep_close_direct(sqe, index);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  tag(sqe, CLOSE, index);
  if (!accepting)
    submit_accept(); // the table was full
}

static void accepted(const struct io_uring_cqe *cqe) {
  accepting = cqe->flags & IORING_CQE_F_MORE;
  if (cqe->res >= 0) {
    connections[cqe->res] = (struct connection){.first = NONE};
    submit_receive((uint32_t)cqe->res);
  }
  if (!accepting && cqe->res != -ENFILE)
    submit_accept();
}

/* What arrived lies in the buffer behind what arrived there before; without F_BUF_MORE the buffer is ours
 * now. */
static void take(uint32_t index, const struct io_uring_cqe *cqe) {
  struct connection *c = &connections[index];
  uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
  struct buffer *b = &buffers[id];
  uint32_t offset = b->used, length = cqe->res > 0 ? (uint32_t)cqe->res : 0;
  b->used += length;
  if (!(cqe->flags & CQE_BUFFER_MORE)) {
    b->finished = true;
    in_ring--;
  }
  if (http)
    c->owed += count_heads(memory + (size_t)id * buffer_bytes + offset, length, &c->matched);
  else if (length)
    add_slice(c, id, offset, length);
  give_back(id);
}

static void received(uint32_t index, const struct io_uring_cqe *cqe) {
  struct connection *c = &connections[index];
  if (cqe->flags & IORING_CQE_F_BUFFER)
    take(index, cqe);
  submit_send(index);
  if (cqe->flags & IORING_CQE_F_MORE)
    return;
  if (cqe->res > 0) {
    submit_receive(index);
  } else if (cqe->res == -ENOBUFS) {
    starved[starved_count++] = index;
  } else {
    c->receiving = false;
    close_if_over(index);
  }
}

static void sent(uint32_t index, const struct io_uring_cqe *cqe) {
  struct connection *c = &connections[index];
  size_t wanted = http ? c->sending * REPLY_BYTES : slices[c->first].length;
  c->in_send = false;
  c->broken |= cqe->res != (int)wanted;
  if (http)
    c->owed -= c->sending;
  else
    drop_slice(c);
  submit_send(index);
  if (!c->receiving || c->broken)
    close_if_over(index);
}

static bool register_buffers(uint16_t flags) {
  struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)group, .ring_entries = buffer_count, .bgid = GROUP};
  reg.pad = flags;
  return io_uring_register_buf_ring(&ring, &reg, 0) == 0;
}

static void *map(size_t bytes) {
  void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED)
    die("mmap");
  return mapped;
}

static void open_ring(void) {
  struct io_uring_params params = {.cq_entries = COMPLETIONS,
                                   .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                            IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE};
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  unsigned table = files.rlim_cur < CONNECTIONS_MAX ? (unsigned)files.rlim_cur : CONNECTIONS_MAX;
  errno = -io_uring_queue_init_params(SUBMISSIONS, &ring, &params);
  if (errno)
    die("io_uring_setup");
  errno = -io_uring_register_files_sparse(&ring, table);
  if (errno)
    die("direct descriptors");
  if (io_uring_register_ring_fd(&ring) != 1)
    die("registered ring");
  group = map(BUFFERS * sizeof(struct io_uring_buf));
  const char *kind = getenv("BUFFERS");
  bool incremental = kind && strcmp(kind, "incremental") == 0;
  if (incremental) {
    buffer_count = INCREMENTAL_BUFFERS;
    buffer_bytes = INCREMENTAL_BYTES;
  }
  if (!register_buffers(incremental ? PBUF_RING_INC : 0))
    die("buffer ring");
  memory = map((size_t)buffer_count * buffer_bytes);
  for (uint32_t id = 0; id < buffer_count; id++) {
    buffers[id].finished = true;
    give_back((uint16_t)id);
  }
}

/* How many completions to wait for next: more than came, or fewer once waiting has been in vain twice. */
static unsigned company(unsigned waited_for, unsigned came) {
  static unsigned misses;
  misses = came < waited_for ? misses + 1 : 0;
  if (came < GATHER_FROM || !(ring.features & FEAT_MIN_WAIT))
    return 1;
  unsigned want = misses < 2 ? came + came / 4 + 1 : came - came / 4;
  return want < GATHER ? want : GATHER;
}

/* Submits all, and waits: for one without bound, for more than one only so long. -ETIME: none came in that
 * time. */
static int submit_and_gather(unsigned want) {
  if (want == 1)
    return io_uring_submit_and_wait(&ring, 1);
  struct io_uring_getevents_arg bound = {.pad = GATHER_MICROSECONDS};
  unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG | IORING_ENTER_REGISTERED_RING;
  io_uring_smp_store_release(ring.sq.ktail, ring.sq.sqe_tail);
  ring.sq.sqe_head = ring.sq.sqe_tail;
  return io_uring_enter2((unsigned)ring.enter_ring_fd, io_uring_sq_ready(&ring), want, flags,
                         (sigset_t *)&bound, sizeof bound);
}

int main(int argc, char **argv) {
  http = serves_http(argc, argv);
  listener = listen_here();
  open_ring();
  submit_accept();
  for (unsigned want = 1, count;; want = company(want, count)) {
    int status = submit_and_gather(want);
    if (status < 0 && status != -EINTR && status != -EBUSY && status != -ETIME)
      die("io_uring_enter");
    struct io_uring_cqe *cqe;
    unsigned head;
    count = 0;
    io_uring_for_each_cqe(&ring, head, cqe) {
      uint32_t index = (uint32_t)(cqe->user_data >> 8);
      switch ((enum operation)(cqe->user_data & 0xff)) {
      case ACCEPT:
        accepted(cqe);
        break;
      case RECEIVE:
        received(index, cqe);
        break;
      case SEND:
        sent(index, cqe);
        break;
      case CLOSE:
        break; // a failed close: nothing to undo
      }
      count++;
    }
    io_uring_cq_advance(&ring, count);
    feed_starved();
  }
}
