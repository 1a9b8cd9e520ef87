/*
 * probe.c - what this kernel and this process are allowed: the facts, as JSON text
 * (src/reactor/capabilities.ts reads it and names the causes). Each feature is tried by doing it, with a ring
 * and sockets of its own, because a version number says nothing about backports, seccomp filters and limits.
 * Every wait is bounded, every descriptor closed; 3 ms in all.
 */
#include "engine.h"
#include "exports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Names that liburing 2.3 lacks (include/uapi/linux/io_uring.h). */
#define ENTER_NO_IOWAIT (1u << 7)
#define RECVSEND_BUNDLE (1u << 4)
#define PBUF_RING_INC   2
#define CQE_BUF_MORE    (1u << 4)

#define WAIT_MS      5 // for a completion that does not come
#define WRONG        1 // verdict: the operation went through and did the wrong thing
#define BUFFERS      16
#define BUFFER_BYTES 256
#define POOL_BYTES   (BUFFERS * BUFFER_BYTES)
#define BULK_BYTES   (4 << 20)  // more than a socket takes at once
#define BEST         (1u << 31) // set-up: the best flags that the kernel takes
#define NO_RING      (1u << 30) // set-up: none
#define ANY_FD       (-4096)    // expected result: a descriptor

/* The workbench of one try. Steps return 0, -errno or WRONG, and are chained: first ?: second ?: third. */
struct rig {
  struct io_uring_buf_ring *shared; // the ring of provided buffers, a page
  uint8_t *bulk;                    // BULK_BYTES; the provided buffers are its first POOL_BYTES
  struct io_uring ring;
  int near, far;              // connected unix stream sockets
  bool listens;               // a listener is at `address`
  struct sockaddr_in address; // on the loopback interface
  int extra;                  // a descriptor of the try's own
  int res[4];                 // by operation: its last completion
  unsigned flags[4], seen;    // likewise; seen: has come and was not asked for yet, as bits
  int fds[16], fd_count;      // to be closed afterwards
};

struct feature {
  const char *name, *since;
  unsigned setup;              // of the ring
  int (*begin)(struct rig *r); // prepares operation 1, or does all there is to do
  int rounds;                  // something comes in so often, and each time operation 1 completes...
  int res;                     // ...with this result...
  unsigned flags;              // ...and these flags,
  int (*end)(struct rig *r);   // and then this holds (may be NULL).
  const char *wrong;           // what is wrong where that is not so
};

/* ---- steps ---- */

static int checked(long result) {
  return result < 0 ? -errno : 0;
}
static int keep(struct rig *r, int *place, int fd) {
  *place = fd;
  if (fd >= 0)
    r->fds[r->fd_count++] = fd;
  return checked(fd);
}

/* PREP(operation, kind, arguments of io_uring_prep_kind): an entry for the next submission. */
#define PREP(operation, kind, ...)                                                                           \
  ({                                                                                                         \
    struct io_uring_sqe *sqe_ = io_uring_get_sqe(&r->ring);                                                  \
    io_uring_prep_##kind(sqe_, ##__VA_ARGS__);                                                               \
    sqe_->user_data = operation;                                                                             \
    sqe_;                                                                                                    \
  })

static int submit(struct rig *r) {
  int count = io_uring_submit(&r->ring);
  return count < 0 ? count : 0;
}

/* Submits, and takes completions up to the next of `operation`. */
static int await(struct rig *r, unsigned operation) {
  while (!(r->seen & 1u << operation)) {
    struct __kernel_timespec limit = {.tv_nsec = WAIT_MS * 1000000};
    struct io_uring_cqe *cqe = NULL;
    int taken = io_uring_submit_and_wait_timeout(&r->ring, &cqe, 1, &limit, NULL);
    if (!cqe)
      return taken < 0 ? taken : -ETIME;
    r->res[cqe->user_data & 3] = cqe->res;
    r->flags[cqe->user_data & 3] = cqe->flags;
    r->seen |= 1u << (cqe->user_data & 3);
    io_uring_cqe_seen(&r->ring, cqe);
  }
  r->seen &= ~(1u << operation);
  return 0;
}

static int expect(struct rig *r, int res, unsigned flags) {
  int error = await(r, 1), got = r->res[1];
  if (!error && res == ANY_FD)
    error = got < 0 ? got : keep(r, &r->extra, got);
  else if (!error && got != res)
    error = got < 0 ? got : WRONG;
  return error ?: (r->flags[1] & flags) == flags ? 0 : WRONG;
}

static int listen_on_loopback(struct rig *r, int *fd) {
  struct sockaddr *address = (struct sockaddr *)&r->address;
  socklen_t length = sizeof r->address;
  r->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  r->listens = true;
  return keep(r, fd, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) ?: checked(bind(*fd, address, length))
         ?: checked(listen(*fd, 4)) ?: checked(getsockname(*fd, address, &length));
}
static int dial(struct rig *r, int *fd) {
  return keep(r, fd, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))
             ?: checked(connect(*fd, (struct sockaddr *)&r->address, sizeof r->address));
}
static int use_tcp(struct rig *r) {
  int error = listen_on_loopback(r, &r->extra) ?: dial(r, &r->far);
  r->listens = false;
  return error ?: keep(r, &r->near, accept4(r->extra, NULL, NULL, SOCK_CLOEXEC));
}

/* Something comes in: a connection or a byte. */
static int poke(struct rig *r) {
  int fd;
  return r->listens ? dial(r, &fd) : checked(send(r->far, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void provide(struct rig *r, unsigned count, unsigned first) {
  for (unsigned i = 0; i < count; i++) {
    unsigned id = (first + i) % BUFFERS;
    uint8_t *buffer = r->bulk + id * BUFFER_BYTES;
    io_uring_buf_ring_add(r->shared, buffer, BUFFER_BYTES, (uint16_t)id, BUFFERS - 1, (int)i);
  }
  io_uring_buf_ring_advance(r->shared, (int)count);
}
/* Registers a ring of buffers, from which the operation takes them. */
static int with_buffers(struct rig *r, uint16_t ring_flags, struct io_uring_sqe *sqe, uint16_t flags) {
  struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)r->shared, .ring_entries = BUFFERS};
  reg.pad = ring_flags; // what liburing 2.3 calls it
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->ioprio |= flags;
  provide(r, BUFFERS, 0);
  return io_uring_register_buf_ring(&r->ring, &reg, 0);
}

/* ---- tries ---- */

/* A receive that finds nothing, and completes when something comes: by deferred work, where that is in force.
 */
static int begin_recv(struct rig *r) {
  PREP(1, recv, r->near, r->bulk, 1, 0);
  return submit(r);
}
static int begin_registered(struct rig *r) {
  int count = io_uring_register_ring_fd(&r->ring);
  return count < 0 ? count : begin_recv(r);
}
static int begin_eventfd(struct rig *r) {
  return keep(r, &r->extra, eventfd(0, EFD_CLOEXEC)) ?: io_uring_register_eventfd(&r->ring, r->extra)
         ?: begin_recv(r);
}
static int end_eventfd(struct rig *r) {
  struct pollfd ready = {.fd = r->extra, .events = POLLIN};
  return poll(&ready, 1, WAIT_MS) == 1 ? 0 : WRONG;
}

static int begin_buffer_ring(struct rig *r) {
  return with_buffers(r, 0, PREP(1, recv, r->near, NULL, 0, 0), 0);
}
static int begin_incremental(struct rig *r) {
  return with_buffers(r, PBUF_RING_INC, PREP(1, recv_multishot, r->near, NULL, 0, 0), 0);
}
static int begin_multishot_recv(struct rig *r) {
  return with_buffers(r, 0, PREP(1, recv_multishot, r->near, NULL, 0, 0), 0);
}
static int end_with_bytes(struct rig *r) {
  return r->bulk[0] == 'x' ? 0 : WRONG;
}

static int begin_multishot_accept(struct rig *r) {
  int fd, error = listen_on_loopback(r, &fd);
  PREP(1, multishot_accept, fd, NULL, NULL, SOCK_CLOEXEC);
  return error;
}

/* A send as engine_uring.c makes it, and a NOP: what the send posts has come when the NOP has. */
static int send_at_once(struct rig *r, unsigned bytes) {
  const int flags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_WAITALL;
  r->res[1] = r->seen = 0;
  PREP(1, send, r->near, r->bulk, bytes, flags)->flags |= IOSQE_CQE_SKIP_SUCCESS;
  PREP(2, nop);
  return await(r, 2);
}
static int try_skip_success(struct rig *r) {
  int error = send_at_once(r, 1);
  if (error || r->res[1] < 0)
    return error ?: r->res[1];
  if (r->seen || recv(r->far, r->bulk, 2, MSG_DONTWAIT) != 1)
    return WRONG; // it has to arrive, and to post nothing
  if ((error = send_at_once(r, BULK_BYTES)) || r->res[1] <= 0 || r->res[1] == BULK_BYTES)
    return error ?: WRONG; // the socket takes a part: it has to say how much
  while (send(r->near, r->bulk, BUFFER_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
    continue;
  error = send_at_once(r, 1);
  return error ?: r->res[1] == -EAGAIN ? 0 : WRONG; // the socket is full
}

static int begin_timeout(struct rig *r) {
  struct __kernel_timespec soon = {.tv_nsec = 1000};
  PREP(1, timeout, &soon, 0, 0);
  return submit(r);
}
static int begin_timeout_update(struct rig *r) {
  struct __kernel_timespec late = {.tv_sec = 9}, soon = {.tv_nsec = 1000};
  PREP(1, timeout, &late, 0, 0);
  PREP(2, timeout_update, &soon, 1, 0);
  return await(r, 2) ?: r->res[2];
}
static int begin_cancel(struct rig *r) {
  int error = begin_recv(r);
  PREP(2, cancel64, 1, 0);
  return error ?: await(r, 2) ?: r->res[2];
}

static int begin_poll(struct rig *r) {
  PREP(1, poll_multishot, r->near, POLLIN);
  return submit(r);
}
static int watch_near(struct rig *r, int *epoll) {
  struct epoll_event event = {.events = EPOLLIN};
  return keep(r, epoll, epoll_create1(EPOLL_CLOEXEC))
             ?: checked(epoll_ctl(*epoll, EPOLL_CTL_ADD, r->near, &event));
}
static int begin_poll_epoll(struct rig *r) {
  int epoll, error = watch_near(r, &epoll);
  PREP(1, poll_multishot, epoll, POLLIN);
  return error ?: submit(r);
}
static int try_epoll(struct rig *r) {
  struct epoll_event event;
  int epoll, error = watch_near(r, &epoll) ?: poke(r);
  return error ?: epoll_wait(epoll, &event, 1, WAIT_MS) == 1 ? 0 : WRONG;
}
static int try_epoll_pwait2(struct rig *r) {
  struct epoll_event event;
  struct timespec soon = {.tv_nsec = 1000};
  int epoll, error = watch_near(r, &epoll);
  return error ?: checked(syscall(SYS_epoll_pwait2, epoll, &event, 1, &soon, NULL, 0));
}

static int try_no_iowait(struct rig *r) {
  const unsigned flags = IORING_ENTER_GETEVENTS | ENTER_NO_IOWAIT;
  int taken = io_uring_enter((unsigned)r->ring.ring_fd, 0, 0, flags, NULL);
  return taken < 0 ? taken : 0;
}

/* Nothing comes: the minimum (liburing 2.3 calls it pad) goes by, then the limit. A kernel that does not know
 * it refuses. */
static int try_min_wait(struct rig *r) {
  struct __kernel_timespec limit = {.tv_nsec = 100000};
  struct io_uring_getevents_arg arg = {.pad = 10, .ts = (uint64_t)(uintptr_t)&limit};
  const unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
  int error = io_uring_enter2((unsigned)r->ring.ring_fd, 0, 2, flags, (sigset_t *)&arg, sizeof arg);
  return error == -ETIME ? 0 : error;
}

static int begin_send_zc(struct rig *r) {
  int error = use_tcp(r);
  PREP(1, send_zc, r->near, r->bulk, BUFFER_BYTES, MSG_NOSIGNAL, 0);
  return error;
}
static int end_with_notification(struct rig *r) {
  return expect(r, 0, IORING_CQE_F_NOTIF);
}

static uint8_t byte_of_stream(unsigned at) {
  return (uint8_t)(at ^ at >> 8);
}
static int begin_send_bundle(struct rig *r) {
  for (unsigned i = 0; i < POOL_BYTES; i++)
    r->bulk[i] = byte_of_stream(i);
  return with_buffers(r, 0, PREP(1, send, r->near, NULL, 0, MSG_NOSIGNAL), RECVSEND_BUNDLE);
}
static int end_in_order(struct rig *r) {
  uint8_t *got = r->bulk + POOL_BYTES;
  bool all = recv(r->far, got, POOL_BYTES, MSG_DONTWAIT) == POOL_BYTES;
  return all && !memcmp(r->bulk, got, POOL_BYTES) ? 0 : WRONG;
}

/* A stream in bursts: 6.13.11 to 6.14 hand the buffers out in another order than they fill them
   (axboe/liburing#1409, #1423). `at`: where in the pool, taken as endless, the next byte must land. */
static int bundled_stream(struct rig *r, uint16_t ring_flags) {
  uint8_t *burst = r->bulk + POOL_BYTES;
  unsigned at = 0, sent = 0, seen = 0, given = 0;
  int error = use_tcp(r);
  error = with_buffers(r, ring_flags, PREP(1, recv_multishot, r->near, NULL, 0, 0), RECVSEND_BUNDLE) ?: error;
  for (unsigned round = 0; round < 24 && !error; round++) {
    unsigned bytes = 1 + round * 397 % (POOL_BYTES / 2);
    for (unsigned i = 0; i < bytes; i++)
      burst[i] = byte_of_stream(sent++);
    error = checked(send(r->far, burst, bytes, MSG_DONTWAIT | MSG_NOSIGNAL));
    while (!error && seen < sent && !(error = await(r, 1))) {
      bool good = r->res[1] > 0 && r->flags[1] & IORING_CQE_F_MORE &&
                  r->flags[1] >> IORING_CQE_BUFFER_SHIFT == at / BUFFER_BYTES % BUFFERS;
      for (int i = 0; good && i < r->res[1]; i++)
        good = r->bulk[at++ % POOL_BYTES] == byte_of_stream(seen++);
      if (!good)
        return r->res[1] < 0 ? r->res[1] : WRONG;
      if (!(ring_flags & PBUF_RING_INC))
        at = (at + BUFFER_BYTES - 1) / BUFFER_BYTES * BUFFER_BYTES;
      provide(r, at / BUFFER_BYTES - given, given);
      given = at / BUFFER_BYTES;
    }
  }
  return error;
}
/* On the kind of buffer ring that the engine has. */
static int try_recv_bundles(struct rig *r) {
  int error = bundled_stream(r, PBUF_RING_INC);
  return error == -EINVAL ? bundled_stream(r, 0) : error;
}

static int begin_restricted(struct rig *r) {
  struct io_uring_restriction only = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP};
  int error = io_uring_register_restrictions(&r->ring, &only, 1) ?: io_uring_enable_rings(&r->ring);
  PREP(2, nop);
  PREP(1, recv, r->near, r->bulk, 1, 0);
  return error ?: await(r, 2) ?: r->res[2];
}
static int begin_direct(struct rig *r) {
  int error = io_uring_register_files_sparse(&r->ring, 4);
  PREP(1, socket_direct_alloc, AF_UNIX, SOCK_STREAM, 0, 0);
  return error;
}

#define MORE IORING_CQE_F_MORE
static const struct feature features[] = {
    {"io_uring_setup", "5.1", 0, begin_recv, 1, 1, 0, NULL, ""}, // first: the others need it
    {"single_issuer", "6.0", IORING_SETUP_SINGLE_ISSUER, begin_recv, 1, 1, 0, NULL, ""},
    {"defer_taskrun", "6.1", IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, begin_recv, 1, 1, 0,
     NULL, ""},
    {"coop_taskrun", "5.19", IORING_SETUP_COOP_TASKRUN, begin_recv, 1, 1, 0, NULL, ""},
    {"registered_ring", "5.18", BEST, begin_registered, 1, 1, 0, NULL, ""},
    {"eventfd", "5.2", BEST, begin_eventfd, 1, 1, 0, end_eventfd, "a completion did not set it off"},
    {"buffer_ring", "5.19", BEST, begin_buffer_ring, 1, 1, IORING_CQE_F_BUFFER, end_with_bytes,
     "the buffer is empty"},
    {"incremental_buffers", "6.12", BEST, begin_incremental, 2, 1, CQE_BUF_MORE, end_with_bytes,
     "two receives did not share a buffer"},
    {"multishot_accept", "5.19", BEST, begin_multishot_accept, 2, ANY_FD, MORE, NULL, "it ended by itself"},
    {"multishot_recv", "6.0", BEST, begin_multishot_recv, 2, 1, MORE, end_with_bytes, "it ended by itself"},
    {"cqe_skip_success", "5.17", BEST, try_skip_success, 0, 0, 0, NULL,
     "a send that succeeded posted a completion, or one that failed did not"},
    {"timeout", "5.4", BEST, begin_timeout, 1, -ETIME, 0, NULL, "it ended otherwise than with ETIME"},
    {"timeout_update", "5.11", BEST, begin_timeout_update, 1, -ETIME, 0, NULL,
     "it did not fire at its new time"},
    {"async_cancel", "5.5", BEST, begin_cancel, 1, -ECANCELED, 0, NULL, "the operation was not cancelled"},
    {"poll_multishot", "5.13", BEST, begin_poll, 2, POLLIN, MORE, NULL, "it ended by itself"},
    {"poll_epoll", "5.13", BEST, begin_poll_epoll, 1, POLLIN, MORE, NULL, "it ended by itself"},
    {"no_iowait", "6.15", BEST, try_no_iowait, 0, 0, 0, NULL, ""},
    {"min_wait", "6.12", BEST, try_min_wait, 0, 0, 0, NULL, ""},
    {"send_zc", "6.0", BEST, begin_send_zc, 1, BUFFER_BYTES, MORE, end_with_notification,
     "no notification that the memory is free"},
    {"send_bundles", "6.10", BEST, begin_send_bundle, 1, POOL_BYTES, 0, end_in_order,
     "not all, or out of order"},
    {"recv_bundles", "6.10", BEST, try_recv_bundles, 0, 0, 0, NULL,
     "buffers are handed out in another order than filled (axboe/liburing#1409)"},
    {"restrictions", "5.10", BEST | IORING_SETUP_R_DISABLED, begin_restricted, 1, -EACCES, 0, NULL,
     "an operation that is not allowed was taken"},
    {"direct_descriptors", "5.19", BEST, begin_direct, 1, 0, 0, NULL, ""},
    {"epoll", "2.6", NO_RING, try_epoll, 0, 0, 0, NULL, "a readable socket was not reported"},
    {"epoll_pwait2", "5.11", NO_RING, try_epoll_pwait2, 0, 0, 0, NULL, ""},
};

/* ---- the text ---- */

static int open_ring(struct rig *r, unsigned setup) {
  unsigned flags = setup & ~(BEST | NO_RING), best = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  int error = setup & NO_RING ? 0 : io_uring_queue_init(32, &r->ring, setup & BEST ? flags | best : flags);
  if (error == -EINVAL && setup & BEST)
    error = io_uring_queue_init(32, &r->ring, flags);
  if (error || setup & NO_RING)
    r->ring.ring_fd = -1;
  return error;
}

static int try(const struct feature *f) {
  const size_t size = 4096 + BULK_BYTES;
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return -ENOMEM;
  struct rig r = {.shared = memory, .bulk = (uint8_t *)memory + 4096, .ring.ring_fd = -1};
  int pair[2], error = checked(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  if (!error) {
    keep(&r, &r.near, pair[0]);
    keep(&r, &r.far, pair[1]);
    error = open_ring(&r, f->setup) ?: f->begin(&r);
  }
  for (int i = 0; i < f->rounds && !error; i++)
    error = poke(&r) ?: expect(&r, f->res, f->flags);
  if (!error && f->end)
    error = f->end(&r);
  if (r.ring.ring_fd >= 0)
    io_uring_queue_exit(&r.ring);
  for (int i = 0; i < r.fd_count; i++)
    close(r.fds[i]);
  munmap(memory, size);
  return error;
}

int32_t ul_probe(char *out, uint32_t capacity) {
  const size_t count = sizeof features / sizeof *features;
  size_t used = 0;
  int setup_error = 0;
  for (size_t i = 0; i < count; i++) {
    const struct feature *f = &features[i];
    // Without io_uring the rest of it says nothing new.
    int error = setup_error && !(f->setup & NO_RING) ? setup_error : try(f);
    if (i == 0)
      setup_error = error;
    size_t left = used < capacity && out ? capacity - used : 0;
    used += (size_t)snprintf(
        left ? out + used : NULL, left,
        "%s{\"name\":\"%s\",\"since\":\"%s\",\"ok\":%s,\"errno\":\"%s\",\"wrong\":\"%s\"}%s",
        i ? "," : "{\"features\":[", f->name, f->since, error ? "false" : "true",
        error < 0 ? strerrorname_np(-error) : "", error == WRONG ? f->wrong : "", i == count - 1 ? "]}" : "");
  }
  return out && used < capacity ? (int32_t)used : -ENOSPC;
}
