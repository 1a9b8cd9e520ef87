/*
 * engine.h - what an engine is, and what shim.c does for every engine.
 *
 * shim.c owns the mapping, the slot table, the descriptor table and the validation: a command that reaches
 * an engine is sound. An engine turns commands into kernel operations and kernel events into completions
 * through ul_emit. The rules that every engine keeps, so that they can be read (and compared) side by side:
 *
 *  - stage() never blocks and never fails: what goes wrong becomes a completion (ul_complete_later).
 *  - Completions are written only inside harvest(), and only while ul_room() says so; the rest stays where it
 * is.
 *  - Every staged slot gets exactly one ul_emit without UL_F_MORE. A cancelled operation ends with -ECANCELED
 * or with what it had achieved.
 *  - A send reports all its bytes, or an error. Engines continue short sends themselves.
 *  - Receives take a buffer only when there is something to receive, and end with -ENOBUFS when none is left.
 */
#ifndef UL_ENGINE_H
#define UL_ENGINE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE // first of all: POLLRDHUP, accept4, strerrorname_np
#endif

#include "abi.h"

#include <stdbool.h>
#include <sys/socket.h>

/* An operation in flight. op == 0: the slot is free. */
struct ul_slot {
  uint32_t generation;
  int32_t fd;
  uint32_t offset;   // SEND, CONNECT: in the arena; CANCEL: target slot; TIMEOUT: low half of the nanoseconds
  uint32_t length;   // SEND: bytes; POLL: mask; CANCEL: target generation; TIMEOUT: high half
  uint32_t done;     // SEND: bytes the kernel has taken
  uint32_t link;     // engine: next slot in a list of its own, or 0 where it keeps none
  uint8_t op;        // enum ul_op
  uint8_t flags;     // enum ul_command_flag
  uint8_t state;     // engine
  uint8_t cancelled; // a cancel has named it: the engine must not arm it again
  bool over;         // its end is known and waits for the next harvest (ul_complete_later)
};

/* A descriptor as the ring knows it. */
struct ul_fd {
  uint16_t ops;   // operations in flight on the number, whoever owned it when they began
  uint8_t owned;  // opened or accepted by this ring, and not closed yet
  uint8_t family; // AF_*, of owned sockets
};

/* A completion that did not come from the kernel: it waits for the next harvest. */
struct ul_deferred {
  uint32_t slot;
  uint32_t generation;
  int32_t result;
  uint8_t op;
  bool held; // the slot is in flight and ends with this
};

struct ul_ring {
  struct ul_header *header;
  struct ul_command *commands;
  struct ul_completion *completions;
  uint8_t *arena;
  uint8_t *buffers;
  uint32_t completion_count; // written since the last harvest began
  struct ul_slot *slots;
  struct ul_fd *fds;
  uint32_t slot_capacity, fd_capacity;
  struct ul_deferred *deferred; // ring of deferred_capacity entries
  uint32_t deferred_capacity, deferred_head, deferred_tail;
  int event_fd; // readable when completions wait and notify(true) is in force
  int host_fd;  // the runtime's own epoll descriptor, or -1
  bool sleeping;
  const struct ul_engine *engine;
  void *state; // the engine's own
  const void *owner_thread;
};

struct ul_engine {
  const char *name;
  /* Returns 0, or -errno with config->error_step and config->reason filled in. */
  int (*open)(struct ul_ring *ring, struct ul_config *config);
  /* Takes one valid command: its slot says all there is to know. */
  void (*stage)(struct ul_ring *ring, uint32_t slot);
  /* Hands what is staged to the kernel. Returns 0 or -errno. */
  int (*flush)(struct ul_ring *ring);
  /* Flushes, sleeps up to wait_ns (0: not at all; infinity allowed) unless there is something to report, and
     writes completions. Returns 0 or -errno; an interrupted wait is not an error. */
  int (*harvest)(struct ul_ring *ring, double wait_ns);
  /* true: from now on event_fd becomes readable when there is something to harvest (call harvest once more
     before relying on it). false: it stays silent. */
  int (*notify)(struct ul_ring *ring, bool on);
  /* Gives back receive buffers whose bytes TypeScript has consumed. */
  void (*recycle)(struct ul_ring *ring);
  /* Nothing is in flight any more; releases everything. Also called after a failed open. */
  void (*close)(struct ul_ring *ring);
};

extern const struct ul_engine ul_engine_uring, ul_engine_poll, ul_engine_epoll;

#define UL_NEVER UINT64_MAX // of CLOCK_MONOTONIC, nanoseconds

/* shim.c, rings.c */
static inline bool ul_room(const struct ul_ring *ring) {
  return ring->completion_count < ring->header->completion_capacity;
}
static inline bool ul_has_deferred(const struct ul_ring *ring) {
  return ring->deferred_head != ring->deferred_tail;
}
static inline uint64_t ul_timeout_ns(const struct ul_slot *slot) {
  return (uint64_t)slot->length << 32 | slot->offset;
}
/* Writes one completion; without UL_F_MORE it ends the slot. Needs ul_room. */
void ul_emit(struct ul_ring *ring, uint32_t slot, int32_t result, uint32_t flags, uint32_t buffer_offset);
/* Ends a slot with `result` at the next harvest. For results known while staging. */
void ul_complete_later(struct ul_ring *ring, uint32_t slot, int32_t result);
/* Puts a new descriptor under the ring's ownership; closes it and returns -EMFILE where the table has no
 * place for it. */
int ul_own(struct ul_ring *ring, int fd, int family);
/* Takes a descriptor out of the ring's ownership; the caller closes it. */
void ul_disown(struct ul_ring *ring, int fd);
bool ul_owned(const struct ul_ring *ring, int fd);
/* The ring of a handle, if it belongs to this thread. */
struct ul_ring *ul_ring_of(uint32_t handle);
/* Fills config->reason and error_step; returns -error. */
int ul_fail(struct ul_config *config, enum ul_open_step step, int error, const char *what);
uint64_t ul_now_ns(void); // CLOCK_MONOTONIC
double ul_now_ms(void);
/* Makes an eventfd readable. */
void ul_signal(int event_fd);

/* socket.c */
/* Converts; returns the length of the sockaddr, or 0 when the address is not valid. */
socklen_t ul_to_sockaddr(const struct ul_address *address, struct sockaddr_storage *out);

#endif
