/*
 * shim.c - the hot path, the same on every engine: validation of commands, the slot table, the descriptor
 * table, and ul_tick, the one call of each round. rings.c opens and closes what this works on.
 *
 * Nothing that TypeScript passes can fault: every field of a command is checked before an engine sees it.
 */
#include "engine.h"
#include "exports.h"

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

uint64_t ul_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

double ul_now_ms(void) {
  return (double)ul_now_ns() / 1e6;
}

void ul_signal(int event_fd) {
  uint64_t one = 1;
  ssize_t ignored = write(event_fd, &one, sizeof one); // EAGAIN: it is readable already
  (void)ignored;
}

/* ---- completions ---- */

void ul_emit(struct ul_ring *ring, uint32_t index, int32_t result, uint32_t flags, uint32_t buffer_offset) {
  struct ul_slot *slot = &ring->slots[index];
  struct ul_completion *out = &ring->completions[ring->completion_count++];
  *out = (struct ul_completion){index, slot->generation, result, flags, buffer_offset, slot->op, {0, 0}};
  ring->header->completions++;
  if (flags & UL_F_MORE)
    return;
  if (slot->fd >= 0 && slot->op != UL_OP_CLOSE)
    ring->fds[slot->fd].ops--;
  slot->op = 0;
  ring->header->in_flight--;
}

static void defer(struct ul_ring *ring, struct ul_deferred entry) {
  // Each slot is in here at most once, and ul_tick makes room for the refusals: it cannot run over.
  ring->deferred[ring->deferred_tail++ % ring->deferred_capacity] = entry;
}

void ul_complete_later(struct ul_ring *ring, uint32_t index, int32_t result) {
  ring->slots[index].over = true;
  defer(ring,
        (struct ul_deferred){index, ring->slots[index].generation, result, ring->slots[index].op, true});
}

static void reject(struct ul_ring *ring, const struct ul_command *command, int error) {
  ring->header->rejected++;
  defer(ring, (struct ul_deferred){command->slot, command->generation, -error, command->op, false});
}

static void emit_deferred(struct ul_ring *ring) {
  // Begun anew when empty, so that the queue's memory is touched only as far as it was ever full.
  if (!ul_has_deferred(ring)) {
    ring->deferred_head = ring->deferred_tail = 0;
    return;
  }
  while (ul_has_deferred(ring) && ul_room(ring)) {
    struct ul_deferred entry = ring->deferred[ring->deferred_head++ % ring->deferred_capacity];
    if (entry.held) {
      ul_emit(ring, entry.slot, entry.result, 0, 0);
    } else {
      struct ul_completion *out = &ring->completions[ring->completion_count++];
      *out = (struct ul_completion){entry.slot, entry.generation, entry.result, 0, 0, entry.op, {0, 0}};
      ring->header->completions++;
    }
  }
}

/* ---- descriptors ---- */

int ul_own(struct ul_ring *ring, int fd, int family) {
  if ((uint32_t)fd >= ring->fd_capacity) {
    close(fd);
    return -EMFILE;
  }
  // `ops` stays: operations on a foreign descriptor, closed under them, may still hold the number.
  ring->fds[fd].owned = 1;
  ring->fds[fd].family = (uint8_t)family;
  ring->header->fds_opened++;
  ring->header->fds_live++;
  return fd;
}

void ul_disown(struct ul_ring *ring, int fd) {
  ring->fds[fd].owned = 0;
  ring->header->fds_closed++;
  ring->header->fds_live--;
}

bool ul_owned(const struct ul_ring *ring, int fd) {
  return fd >= 0 && (uint32_t)fd < ring->fd_capacity && ring->fds[fd].owned;
}

/* ---- commands ---- */

static bool in_arena(const struct ul_ring *ring, uint32_t offset, uint32_t length) {
  return offset <= ring->header->arena_bytes && length <= ring->header->arena_bytes - offset;
}

/* Returns 0, or the errno with which the command is refused. */
static int validate(const struct ul_ring *ring, const struct ul_command *c) {
  if (c->op < UL_OP_NOP || c->op > UL_OP_CLOSE || c->reserved || !c->generation)
    return EINVAL;
  if (c->slot >= ring->header->slot_capacity || ring->slots[c->slot].op)
    return EINVAL;
  bool multishot = c->op == UL_OP_ACCEPT || c->op == UL_OP_RECV || c->op == UL_OP_POLL;
  uint8_t allowed = multishot ? UL_C_MULTISHOT : c->op == UL_OP_SEND ? UL_C_QUIET : 0;
  if (c->flags & ~allowed)
    return EINVAL;
  bool has_fd = c->op != UL_OP_NOP && c->op != UL_OP_TIMEOUT && c->op != UL_OP_CANCEL;
  if (has_fd ? c->fd < 0 || (uint32_t)c->fd >= ring->fd_capacity : c->fd != -1)
    return EINVAL;
  if (has_fd && ring->fds[c->fd].ops == UINT16_MAX)
    return EBUSY;
  struct sockaddr_storage address;
  switch (c->op) {
  case UL_OP_CONNECT:
    if (c->offset % _Alignof(struct ul_address) || !in_arena(ring, c->offset, sizeof(struct ul_address)) ||
        !ul_to_sockaddr((const struct ul_address *)(ring->arena + c->offset), &address))
      return EINVAL;
    return 0;
  case UL_OP_SEND:
    return c->length && c->length <= INT32_MAX && in_arena(ring, c->offset, c->length) ? 0 : EINVAL;
  case UL_OP_POLL:
    return c->length && !(c->length & ~(uint32_t)(POLLIN | POLLPRI | POLLOUT | POLLRDHUP)) ? 0 : EINVAL;
  case UL_OP_TIMEOUT:
    return c->argument <= INT64_MAX ? 0 : EINVAL;
  case UL_OP_SHUTDOWN:
    return c->length <= SHUT_RDWR ? 0 : EINVAL;
  case UL_OP_CLOSE:
    return !ring->fds[c->fd].owned ? EINVAL : ring->fds[c->fd].ops ? EBUSY : 0;
  default:
    return 0;
  }
}

static void take(struct ul_ring *ring, const struct ul_command *command) {
  ring->header->commands++;
  int error = validate(ring, command);
  if (error) {
    reject(ring, command, error);
    return;
  }
  struct ul_slot *slot = &ring->slots[command->slot];
  *slot = (struct ul_slot){.generation = command->generation,
                           .fd = command->fd,
                           .offset = command->offset,
                           .length = command->length,
                           .op = command->op,
                           .flags = command->flags};
  struct ul_slot *target = NULL;
  ring->header->in_flight++;
  if (command->op == UL_OP_CLOSE)
    ul_disown(ring, command->fd);
  else if (command->fd >= 0)
    ring->fds[command->fd].ops++;
  switch (command->op) {
  case UL_OP_NOP:
    if (ring->header->engine != UL_ENGINE_EPOLL)
      break; // a ring has its own: readers measure it
    ul_complete_later(ring, command->slot, 0);
    return;
  case UL_OP_CANCEL:
    if (command->offset < ring->slot_capacity) // above are the engine's own operations
      target = &ring->slots[command->offset];
    if (!target || target == slot || !target->op || target->generation != command->length) {
      ul_complete_later(ring, command->slot, -ENOENT);
      return;
    }
    target->cancelled = 1; // stops an engine from arming it again behind the cancellation's back
    break;
  case UL_OP_TIMEOUT:
    slot->offset = (uint32_t)command->argument;
    slot->length = (uint32_t)(command->argument >> 32);
    break;
  case UL_OP_SHUTDOWN:
    // A system call: IORING_OP_SHUTDOWN is always handed to a kernel worker thread, which costs more than the
    // entry.
    ring->header->system_calls++;
    ul_complete_later(ring, command->slot,
                      !ul_owned(ring, command->fd)                  ? -EBADF
                      : shutdown(command->fd, (int)command->length) ? -errno
                                                                    : 0);
    return;
  default:
    break;
  }
  ring->engine->stage(ring, command->slot);
}

int32_t ul_tick(uint32_t handle, uint32_t count, double wait_ns) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring)
    return -EBADF;
  if (count > ring->header->command_capacity || wait_ns != wait_ns)
    return -EINVAL;
  struct ul_header *header = ring->header;
  // Refusals that nobody has harvested yet take places in the queue, and what is in flight may come to need
  // one each; a tick must not run over it. One without commands makes room, whatever the sum.
  if (count &&
      ring->deferred_tail - ring->deferred_head + count + header->in_flight > ring->deferred_capacity)
    return -EBUSY;
  header->ticks++;
  bool harvest = wait_ns >= 0;
  if (harvest) {
    ring->completion_count = 0;
    ring->engine->recycle(ring);
    header->wait_expired = 0;
    header->host_ready = 0;
  }
  for (uint32_t i = 0; i < count; i++) {
    struct ul_command command = ring->commands[i];
    take(ring, &command);
  }
  if (!harvest) {
    int flushed = ring->engine->flush(ring);
    // Asleep, the host looks only when the eventfd speaks, and of what waits here no engine speaks.
    if (ring->sleeping && ul_has_deferred(ring))
      ul_signal(ring->event_fd);
    return flushed;
  }
  emit_deferred(ring);
  if (wait_ns > 0)
    header->waits++;
  int error = ring->engine->harvest(ring, ring->completion_count ? 0 : wait_ns);
  emit_deferred(ring); // what the harvest itself found out, such as a failed continuation
  if (ring->sleeping && !ul_room(ring))
    ul_signal(ring->event_fd); // there may be more than fitted
  header->now_ms = ul_now_ms();
  return error < 0 && !ring->completion_count ? error : (int32_t)ring->completion_count;
}
