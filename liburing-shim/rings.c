/*
 * rings.c - the life of a ring: its configuration, the shared mapping, opening and closing, and the table of
 * handles.
 *
 * A handle is an index into a table, good on the thread that opened the ring. A mapping that TypeScript has
 * seen is never unmapped, only emptied and used again: a stale view then reads zeros instead of crashing.
 */
#include "engine.h"
#include "exports.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define RINGS_MAX       256
#define FD_CAPACITY_MAX (1u << 21)

static struct ul_ring *rings[RINGS_MAX];
static pthread_mutex_t rings_lock = PTHREAD_MUTEX_INITIALIZER;
static __thread char thread_mark; // its address tells threads apart
/* Its destructor ends the rings that a thread leaves behind when it ends, as a terminated worker does. */
static pthread_key_t thread_key;
static pthread_once_t thread_key_made = PTHREAD_ONCE_INIT;

/* Mappings of closed rings, kept for the next ring of the same size. */
static struct {
  void *base;
  size_t size;
} spare[RINGS_MAX];

int ul_fail(struct ul_config *config, enum ul_open_step step, int error, const char *what) {
  config->error_step = step;
  const char *cause = "";
  if (step == UL_STEP_RING && error == EPERM)
    cause = ": io_uring is forbidden here (sysctl kernel.io_uring_disabled, or a seccomp filter)";
  else if (step == UL_STEP_RING && error == ENOSYS)
    cause = ": this kernel has no io_uring, or a seccomp filter hides it";
  else if (error == ENOMEM)
    cause = ": not enough memory, or RLIMIT_MEMLOCK is too low";
  else if (error == EMFILE)
    cause = ": RLIMIT_NOFILE is reached";
  snprintf(config->reason, sizeof config->reason, "%s failed with %s%s", what, strerrorname_np(error), cause);
  return -error;
}

struct ul_ring *ul_ring_of(uint32_t handle) {
  struct ul_ring *ring = handle < RINGS_MAX ? rings[handle] : NULL;
  return ring && ring->owner_thread == &thread_mark ? ring : NULL;
}

static uint32_t align(uint32_t offset) {
  return (offset + 4095) & ~4095u;
}

static bool power_of_two(uint32_t n) {
  return n && !(n & (n - 1));
}

static int check_config(struct ul_config *c) {
  // Readiness through the ring takes a whole buffer for each receive of a batch; the other engines put small
  // ones side by side.
  if (c->engine == UL_ENGINE_POLL && !c->buffer_count && !c->buffer_bytes) {
    c->buffer_count = 512;
    c->buffer_bytes = 16384;
  }
  static const struct {
    size_t field;
    uint32_t standard, least, most;
    bool power;
    const char *name;
  } rules[] = {
      {offsetof(struct ul_config, submission_entries), 1024, 8, 32768, true, "submission_entries"},
      {offsetof(struct ul_config, completion_entries), 16384, 16, 65536, true, "completion_entries"},
      {offsetof(struct ul_config, slot_capacity), 1u << 20, 16, UL_MAX_SLOTS, false, "slot_capacity"},
      {offsetof(struct ul_config, command_capacity), 4096, 8, 65536, false, "command_capacity"},
      {offsetof(struct ul_config, completion_capacity), 4096, 8, 65536, false, "completion_capacity"},
      {offsetof(struct ul_config, arena_bytes), 64u << 20, 1u << 20, 1u << 30, false, "arena_bytes"},
      {offsetof(struct ul_config, buffer_count), 8, 1, 32768, true, "buffer_count"},
      {offsetof(struct ul_config, buffer_bytes), 262144, 64, 1u << 20, true, "buffer_bytes"},
  };
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    uint32_t *value = (uint32_t *)((char *)c + rules[i].field);
    if (!*value)
      *value = rules[i].standard;
    if (*value < rules[i].least || *value > rules[i].most || (rules[i].power && !power_of_two(*value))) {
      c->error_step = UL_STEP_CONFIG;
      snprintf(c->reason, sizeof c->reason, "%s is %u: %s%u to %u is allowed", rules[i].name, *value,
               rules[i].power ? "a power of two from " : "", rules[i].least, rules[i].most);
      return -EINVAL;
    }
  }
  if (c->completion_entries < c->submission_entries) {
    c->error_step = UL_STEP_CONFIG;
    snprintf(c->reason, sizeof c->reason, "completion_entries must be at least submission_entries");
    return -EINVAL;
  }
  if ((uint64_t)c->buffer_count * c->buffer_bytes > 1u << 30 || c->arena_bytes % (1u << 20)) {
    c->error_step = UL_STEP_CONFIG;
    snprintf(c->reason, sizeof c->reason,
             "buffer_count x buffer_bytes must be at most 1 GiB, arena_bytes a multiple of 1 MiB");
    return -EINVAL;
  }
  return 0;
}

static void *map(size_t size) {
  void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return base == MAP_FAILED ? NULL : base;
}

/* The shared mapping: a spare one of the same size where there is one, because mappings are never given back.
 */
static void *map_shared(size_t size) {
  void *found = NULL;
  pthread_mutex_lock(&rings_lock);
  for (int i = 0; i < RINGS_MAX && !found; i++)
    if (spare[i].base && spare[i].size == size) {
      found = spare[i].base;
      spare[i].base = NULL;
    }
  pthread_mutex_unlock(&rings_lock);
  return found ? found : map(size);
}

static void spare_shared(void *base, size_t size) {
  // DONTNEED on a private anonymous mapping: the memory is gone, reads find zeros.
  madvise(base, size, MADV_DONTNEED);
  pthread_mutex_lock(&rings_lock);
  for (int i = 0; i < RINGS_MAX; i++)
    if (!spare[i].base) {
      spare[i].base = base;
      spare[i].size = size;
      break;
    }
  pthread_mutex_unlock(&rings_lock);
}

static int build(struct ul_ring *ring, struct ul_config *c) {
  uint32_t commands = align(sizeof(struct ul_header));
  uint32_t completions = align(commands + c->command_capacity * (uint32_t)sizeof(struct ul_command));
  uint32_t arena = align(completions + c->completion_capacity * (uint32_t)sizeof(struct ul_completion));
  uint32_t buffers = align(arena + c->arena_bytes);
  uint32_t total = align(buffers + c->buffer_count * c->buffer_bytes);
  char *base = map_shared(total);
  struct rlimit limit = {0};
  getrlimit(RLIMIT_NOFILE, &limit);
  ring->fd_capacity = limit.rlim_max > FD_CAPACITY_MAX ? FD_CAPACITY_MAX : (uint32_t)limit.rlim_max;
  // For what is deferred already and what may still be: see ul_tick. Only refusals can exceed it.
  ring->deferred_capacity = 2 * (c->slot_capacity + c->command_capacity);
  ring->slot_capacity = c->slot_capacity;
  ring->slots = map((size_t)c->slot_capacity * sizeof *ring->slots);
  ring->fds = map((size_t)ring->fd_capacity * sizeof *ring->fds);
  ring->deferred = map((size_t)ring->deferred_capacity * sizeof *ring->deferred);
  ring->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (!base || !ring->slots || !ring->fds || !ring->deferred)
    return ul_fail(c, UL_STEP_MEMORY, ENOMEM, "mapping memory");
  ring->header = (struct ul_header *)base;
  *ring->header = (struct ul_header){.abi_version = UL_ABI_VERSION,
                                     .engine = c->engine,
                                     .slot_capacity = c->slot_capacity,
                                     .command_capacity = c->command_capacity,
                                     .completion_capacity = c->completion_capacity,
                                     .command_offset = commands,
                                     .completion_offset = completions,
                                     .arena_offset = arena,
                                     .arena_bytes = c->arena_bytes,
                                     .buffer_offset = buffers,
                                     .buffer_count = c->buffer_count,
                                     .buffer_bytes = c->buffer_bytes,
                                     .total_bytes = total,
                                     .now_ms = ul_now_ms()};
  ring->commands = (struct ul_command *)(base + commands);
  ring->completions = (struct ul_completion *)(base + completions);
  ring->arena = (uint8_t *)base + arena;
  ring->buffers = (uint8_t *)base + buffers;
  if (ring->event_fd < 0)
    return ul_fail(c, UL_STEP_EVENTFD, errno, "eventfd");
  return ring->engine->open(ring, c);
}

/* `idle`: nothing is in flight. Otherwise the kernel ends it in its own time, and the mapping is not used
 * again. */
static void destroy(struct ul_ring *ring, bool idle) {
  if (ring->state)
    ring->engine->close(ring);
  for (uint32_t fd = 0; ring->fds && ring->header && ring->header->fds_live && fd < ring->fd_capacity; fd++)
    if (ring->fds[fd].owned) {
      ul_disown(ring, (int)fd);
      close((int)fd);
    }
  if (ring->event_fd >= 0)
    close(ring->event_fd);
  if (ring->slots)
    munmap(ring->slots, (size_t)ring->slot_capacity * sizeof *ring->slots);
  if (ring->fds)
    munmap(ring->fds, (size_t)ring->fd_capacity * sizeof *ring->fds);
  if (ring->deferred)
    munmap(ring->deferred, (size_t)ring->deferred_capacity * sizeof *ring->deferred);
  if (ring->header && idle)
    spare_shared(ring->header, ring->header->total_bytes);
  else if (ring->header)
    madvise(ring->header, ring->header->total_bytes, MADV_DONTNEED);
  free(ring);
}

/* Takes a ring of a thread out of the table. Others may be closing theirs. */
static struct ul_ring *take_ring_of(const void *mark) {
  struct ul_ring *found = NULL;
  pthread_mutex_lock(&rings_lock);
  for (int i = 0; i < RINGS_MAX && !found; i++)
    if (rings[i] && rings[i]->owner_thread == mark) {
      found = rings[i];
      rings[i] = NULL;
    }
  pthread_mutex_unlock(&rings_lock);
  return found;
}

/* Sockets are shut down before anything else: no send that is still in flight may find its bytes gone. */
static void end_rings_of_thread(void *mark) {
  for (struct ul_ring *ring; (ring = take_ring_of(mark));) {
    for (uint32_t fd = 0, left = ring->header->fds_live; left && fd < ring->fd_capacity; fd++)
      if (ring->fds[fd].owned) {
        shutdown((int)fd, SHUT_RDWR);
        left--;
      }
    destroy(ring, ring->header->in_flight == 0);
  }
}

static void make_thread_key(void) {
  pthread_key_create(&thread_key, end_rings_of_thread);
}

int32_t ul_open(struct ul_config *config) {
  static const struct ul_engine *const engines[] = {NULL, &ul_engine_uring, &ul_engine_poll,
                                                    &ul_engine_epoll};
  if (!config)
    return -EINVAL;
  config->error_step = UL_STEP_NONE;
  config->reason[0] = 0;
  if (config->engine < UL_ENGINE_URING || config->engine > UL_ENGINE_EPOLL)
    return ul_fail(config, UL_STEP_CONFIG, EINVAL, "choosing the engine");
  int error = check_config(config);
  if (error)
    return error;
  struct ul_ring *ring = calloc(1, sizeof *ring);
  if (!ring)
    return ul_fail(config, UL_STEP_MEMORY, ENOMEM, "allocating the ring");
  ring->event_fd = ring->host_fd = -1;
  ring->engine = engines[config->engine];
  ring->owner_thread = &thread_mark;
  error = build(ring, config);
  int handle = -1;
  if (!error) {
    pthread_mutex_lock(&rings_lock);
    for (int i = 0; i < RINGS_MAX && handle < 0; i++)
      if (!rings[i]) {
        rings[i] = ring;
        handle = i;
      }
    pthread_mutex_unlock(&rings_lock);
    if (handle < 0)
      error = ul_fail(config, UL_STEP_CONFIG, EMFILE, "opening one more ring in this process");
  }
  if (error) {
    destroy(ring, true);
    return error;
  }
  pthread_once(&thread_key_made, make_thread_key);
  pthread_setspecific(thread_key, &thread_mark);
  return handle;
}

int32_t ul_close(uint32_t handle) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring)
    return -EBADF;
  if (ring->header->in_flight)
    return -EBUSY;
  pthread_mutex_lock(&rings_lock);
  rings[handle] = NULL;
  pthread_mutex_unlock(&rings_lock);
  destroy(ring, true);
  return 0;
}

void *ul_region(uint32_t handle) {
  struct ul_ring *ring = ul_ring_of(handle);
  return ring ? ring->header : NULL;
}

int32_t ul_event_fd(uint32_t handle) {
  struct ul_ring *ring = ul_ring_of(handle);
  return ring ? ring->event_fd : -EBADF;
}

int32_t ul_notify(uint32_t handle, uint32_t on) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring)
    return -EBADF;
  int error = ring->engine->notify(ring, on != 0);
  if (!error)
    ring->sleeping = on != 0;
  return error;
}

int32_t ul_watch(uint32_t handle, int32_t fd) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring)
    return -EBADF;
  // Once: engines keep an operation on it in flight, and a host has one loop.
  if (ring->host_fd >= 0 || fd < 0)
    return -EINVAL;
  ring->host_fd = fd;
  return 0;
}

int32_t ul_abi_version(void) {
  return UL_ABI_VERSION;
}
