/*
 * buffer_ring.c - see buffer_ring.h. liburing 2.3 lacks the names for incremental consumption; the kernel's
 * numbers are given here (include/uapi/linux/io_uring.h, 6.12).
 */
#include "buffer_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PBUF_RING_INC   2         // io_uring_buf_reg.flags, which liburing 2.3 calls pad
#define CQE_BUFFER_MORE (1u << 4) // the kernel goes on filling this buffer

static size_t shared_bytes(const struct buffer_ring *b) {
  return b->count * sizeof(struct io_uring_buf);
}

int buffer_ring_open(struct buffer_ring *b, struct ring *r, struct ul_ring *ring, struct ul_config *config) {
  b->base = ring->buffers;
  b->count = config->buffer_count;
  b->size = config->buffer_bytes;
  b->used = calloc(b->count, sizeof *b->used);
  b->finished = calloc(b->count, sizeof *b->finished);
  void *memory = mmap(NULL, shared_bytes(b), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  b->shared = memory == MAP_FAILED ? NULL : memory;
  if (!b->used || !b->finished || !b->shared)
    return ul_fail(config, UL_STEP_BUFFERS, ENOMEM, "allocating the buffer ring");
  struct io_uring_buf_reg reg = {
      .ring_addr = (uint64_t)(uintptr_t)b->shared, .ring_entries = b->count, .bgid = BUFFER_GROUP};
  reg.pad = PBUF_RING_INC;
  int error = config->disable & UL_FEATURE_INCREMENTAL ? -EINVAL
                                                       : io_uring_register_buf_ring(&r->uring, &reg, 0);
  b->incremental = !error;
  if (error == -EINVAL) {
    reg.pad = 0;
    error = io_uring_register_buf_ring(&r->uring, &reg, 0);
  }
  if (error) {
    munmap(b->shared, shared_bytes(b));
    b->shared = NULL;
    return ul_fail(config, UL_STEP_BUFFERS, -error, "registering the buffer ring");
  }
  r->features |= UL_FEATURE_BUFFER_RING | (b->incremental ? UL_FEATURE_INCREMENTAL : 0);
  for (uint32_t i = 0; i < b->count; i++)
    b->finished[b->finished_count++] = (uint16_t)i;
  buffer_ring_recycle(b, ring);
  return 0;
}

void buffer_ring_close(struct buffer_ring *b) {
  if (b->shared)
    munmap(b->shared, shared_bytes(b));
  free(b->used);
  free(b->finished);
}

uint32_t buffer_ring_take(struct buffer_ring *b, const struct io_uring_cqe *cqe) {
  uint32_t id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
  uint32_t offset = id * b->size + b->used[id];
  // An end of stream or an error takes nothing from an incremental buffer, whatever the flags say: the kernel
  // has not moved on from it, and handing it back would put it into the ring twice.
  if (b->incremental && cqe->res <= 0)
    return offset;
  if (b->incremental)
    b->used[id] += (uint32_t)cqe->res;
  if (!b->incremental || !(cqe->flags & CQE_BUFFER_MORE))
    b->finished[b->finished_count++] = (uint16_t)id;
  return offset;
}

void buffer_ring_recycle(struct buffer_ring *b, struct ul_ring *ring) {
  uint32_t count = b->finished_count;
  if (!count)
    return;
  int mask = io_uring_buf_ring_mask(b->count);
  for (uint32_t i = 0; i < count; i++) {
    uint16_t id = b->finished[i];
    b->used[id] = 0;
    io_uring_buf_ring_add(b->shared, b->base + (size_t)id * b->size, b->size, id, mask, (int)i);
  }
  io_uring_buf_ring_advance(b->shared, (int)count);
  b->finished_count = 0;
  ring->header->buffers_lent = 0;
}
