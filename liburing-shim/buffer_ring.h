/*
 * buffer_ring.h - receive buffers that the kernel picks from (provided buffer ring, 5.19). With incremental
 * consumption (6.12) one buffer serves receives until it is full, so small messages sit side by side in
 * memory.
 *
 * Life of a buffer: in the ring -> (a completion points into it) -> lent, once the kernel is done with it
 * -> in the ring again at the start of the next tick. Bytes of a buffer that the kernel still fills stay
 * valid until then too, because the kernel only ever appends to it.
 */
#ifndef UL_BUFFER_RING_H
#define UL_BUFFER_RING_H

#include "ring.h"

#define BUFFER_GROUP 1

struct buffer_ring {
  struct io_uring_buf_ring *shared; // with the kernel
  uint8_t *base;
  uint32_t count, size;
  uint32_t *used;     // bytes of each buffer that have been delivered
  uint16_t *finished; // buffers the kernel is done with, to go back at the next tick
  uint32_t finished_count;
  bool incremental;
};

int buffer_ring_open(struct buffer_ring *b, struct ring *r, struct ul_ring *ring, struct ul_config *config);
/* After ring_close, which unregisters it. */
void buffer_ring_close(struct buffer_ring *b);
/* Accounts for a completion entry that carries a buffer; returns the offset of its bytes in the receive
 * buffers. */
uint32_t buffer_ring_take(struct buffer_ring *b, const struct io_uring_cqe *cqe);
void buffer_ring_recycle(struct buffer_ring *b, struct ul_ring *ring);

#endif
