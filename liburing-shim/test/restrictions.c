/*
 * restrictions.c - what the kernel lets through the ring's own descriptor: the operations of ring.c's list
 * and no other, no registration, and a plain ring where the list is switched off.
 */
#include "check.h"
// After check.h: liburing 2.3 wants _GNU_SOURCE first.
#include "../ring.h"

#define FIRST_UNKNOWN 48 // operations of Linux 6.0: those that liburing 2.3 has names for
#define LAST_KNOWN    62 // and of later ones, which it does not

static const uint8_t used[] = {
    IORING_OP_NOP,     IORING_OP_ACCEPT,         IORING_OP_CONNECT,     IORING_OP_RECV,
    IORING_OP_SEND,    IORING_OP_CLOSE,          IORING_OP_POLL_ADD,    IORING_OP_POLL_REMOVE,
    IORING_OP_TIMEOUT, IORING_OP_TIMEOUT_REMOVE, IORING_OP_ASYNC_CANCEL};

/* Both ring engines begin with it. */
static struct ring *ring_of(struct client *c) {
  return ul_ring_of((uint32_t)c->ring)->state;
}

/* Puts one entry into the live ring, behind the shim's back. Returns its result. */
static int32_t slip_in(struct client *c, uint8_t opcode, uint8_t flags) {
  struct ring *r = ring_of(c);
  struct ul_ring *ring = ul_ring_of((uint32_t)c->ring);
  struct io_uring_sqe *sqe = ring_sqe(r, ring);
  CHECK(sqe);
  io_uring_prep_rw(opcode, sqe, -1, NULL, 0, 0);
  sqe->flags = flags;
  sqe->user_data = RING_OWN_NOTE;
  struct io_uring_cqe cqe = {0};
  for (int i = 0; i < 100; i++) {
    r->prompt = true;
    CHECK_EQ(ring_wait(r, ring), 0);
    while (ring_next(r, &cqe))
      if (cqe.user_data == RING_OWN_NOTE)
        return cqe.res;
  }
  FAIL("operation %u did not complete", opcode);
}

static bool is_used(uint8_t opcode) {
  for (size_t i = 0; i < sizeof used; i++)
    if (used[i] == opcode)
      return true;
  return false;
}

static void other_operations_are_refused(int engine) {
  if (engine == UL_ENGINE_EPOLL)
    return;
  struct client *c = open_small(engine);
  CHECK(c->header->features & UL_FEATURE_RESTRICTIONS);
  for (uint8_t opcode = 0; opcode <= LAST_KNOWN; opcode++) {
    if (opcode == IORING_OP_TIMEOUT || opcode == IORING_OP_ACCEPT)
      continue; // without arguments they wait, or fault
    int32_t result = slip_in(c, opcode, 0);
    // A kernel that does not know an operation says so first.
    if (is_used(opcode) ? result == -EACCES
                        : result != -EACCES && !(result == -EINVAL && opcode > FIRST_UNKNOWN))
      FAIL("operation %u is %d", opcode, result);
  }
  shut(c);
}

static void other_flags_are_refused(int engine) {
  if (engine == UL_ENGINE_EPOLL)
    return;
  struct client *c = open_small(engine);
  static const uint8_t flags[] = {IOSQE_FIXED_FILE, IOSQE_IO_DRAIN, IOSQE_IO_LINK, IOSQE_IO_HARDLINK,
                                  IOSQE_ASYNC};
  CHECK_EQ(slip_in(c, IORING_OP_NOP, 0), 0);
  for (size_t i = 0; i < sizeof flags; i++)
    CHECK_EQ(slip_in(c, IORING_OP_NOP, flags[i]), -EACCES);
  shut(c);
}

static void registrations_are_refused(int engine) {
  if (engine == UL_ENGINE_EPOLL)
    return;
  struct client *c = open_small(engine);
  struct io_uring *uring = &ring_of(c)->uring;
  char memory[64];
  struct iovec buffer = {memory, sizeof memory};
  struct io_uring_restriction nop = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP};
  CHECK_EQ(io_uring_register_buffers(uring, &buffer, 1), -EACCES);
  CHECK_EQ(io_uring_register_files_sparse(uring, 4), -EACCES);
  CHECK_EQ(io_uring_unregister_eventfd(uring), -EACCES);
  CHECK_EQ(io_uring_unregister_buf_ring(uring, 1), -EACCES);
  CHECK_EQ(io_uring_register_personality(uring), -EACCES);
  CHECK_EQ(io_uring_register_restrictions(uring, &nop, 1), -EACCES);
  CHECK_EQ(io_uring_enable_rings(uring), -EACCES);
  shut(c);
}

/* Closing takes the ring out of the thread's table of registered rings, which has sixteen places. */
static void registered_rings_are_given_back(int engine) {
  for (int i = 0; i < 40; i++) {
    struct client *c = open_small(engine);
    CHECK(engine == UL_ENGINE_EPOLL || (c->header->features & UL_FEATURE_REGISTERED_RING));
    shut(c);
  }
}

static void switched_off(int engine) {
  if (engine == UL_ENGINE_EPOLL)
    return;
  struct ul_config config = small_config(engine);
  config.disable = UL_FEATURE_RESTRICTIONS;
  struct client *c = open_with(config);
  CHECK_EQ(c->header->features & UL_FEATURE_RESTRICTIONS, 0);
  CHECK_EQ(slip_in(c, IORING_OP_NOP, IOSQE_ASYNC), 0);
  CHECK_EQ(slip_in(c, IORING_OP_READ, 0), -EBADF);
  shut(c);
}

int main(void) {
  RUN(other_operations_are_refused);
  RUN(other_flags_are_refused);
  RUN(registrations_are_refused);
  RUN(registered_rings_are_given_back);
  RUN(switched_off);
  return check_failures != 0;
}
