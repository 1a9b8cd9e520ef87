/*
 * abi.h - the records that pass between TypeScript and the shim. This file is the only source of the layout:
 * ffi/abi.ts is made from it by ffi/generate-abi.ts, and `make check` fails when the two differ.
 *
 * All records live in one shared mapping, little endian, naturally aligned:
 *
 *   | header | command array | completion array | send arena | receive buffers |
 *
 * TypeScript writes commands [0, n), calls ul_tick(ring, n, wait_ns), and reads completions [0, result). The
 * completion array belongs to TypeScript until the next tick that is not flush-only (wait_ns >= 0); so do the
 * receive buffers that those completions point into: they go back to the engine at the start of that tick.
 */
#ifndef UL_ABI_H
#define UL_ABI_H

#include <stddef.h>
#include <stdint.h>

#define UL_ABI_VERSION  1        // changed whenever a record changes; ul_abi_version() returns it
#define UL_MAX_SLOTS    16777216 // slots per ring at most; slot numbers above it are the engine's own
#define UL_REASON_BYTES 192      // bytes of the text in ul_config.reason
#define UL_PATH_BYTES   108      // bytes of a unix socket path, as in struct sockaddr_un
#define UL_WAIT_FLUSH   (-1)     // ul_tick: hand over the commands, harvest nothing
#define UL_ARENA_ALIGN  64       // alignment of the regions inside the mapping

enum ul_engine_id {
  UL_ENGINE_URING = 1, // completions through io_uring
  UL_ENGINE_POLL = 2,  // readiness through io_uring: POLL_ADD, then RECV or SEND
  UL_ENGINE_EPOLL = 3, // readiness through epoll
};

enum ul_op {
  UL_OP_NOP = 1,     // completes with 0
  UL_OP_ACCEPT = 2,  // fd; MULTISHOT allowed; result: an owned descriptor
  UL_OP_CONNECT = 3, // fd; offset: a struct ul_address in the arena
  UL_OP_RECV = 4,    // fd; MULTISHOT allowed; result: bytes in a receive buffer, 0 at end of stream
  UL_OP_SEND = 5, // fd; offset, length: the bytes in the arena; QUIET allowed; result: bytes sent, all unless
                  // failed
  UL_OP_POLL = 6, // fd; length: POLLIN, POLLOUT... as in poll(2); MULTISHOT allowed; result: the mask
  UL_OP_TIMEOUT = 7,  // argument: nanoseconds from now; completes with -ETIME
  UL_OP_CANCEL = 8,   // offset, length: slot and generation of the target; result: 0, -ENOENT or -EALREADY
  UL_OP_SHUTDOWN = 9, // fd: an owned descriptor, otherwise -EBADF; length: SHUT_RD, SHUT_WR, SHUT_RDWR
  UL_OP_CLOSE = 10,   // fd: an owned descriptor without operations in flight, otherwise -EBUSY
};

enum ul_command_flag {
  UL_C_MULTISHOT = 1, // completes many times, until a completion without UL_F_MORE
  UL_C_QUIET = 2,     // SEND: nobody waits for the completion; it does not cut a wait short
};

enum ul_completion_flag {
  UL_F_MORE = 1,   // not the terminal completion: the slot stays in flight
  UL_F_BUFFER = 2, // buffer_offset points at result bytes among the receive buffers
};

/* One operation that TypeScript asks for. */
struct ul_command {
  uint8_t op;          // enum ul_op
  uint8_t flags;       // enum ul_command_flag
  uint16_t reserved;   // 0
  int32_t fd;          // descriptor, or -1 where the operation has none
  uint32_t slot;       // index into the slot table; must be free
  uint32_t generation; // of that slot; never 0
  uint32_t offset;     // SEND, CONNECT: offset in the arena; CANCEL: target slot
  uint32_t length;     // SEND: bytes; POLL: mask; SHUTDOWN: how; CANCEL: target generation
  uint64_t argument;   // TIMEOUT: nanoseconds
};

/* One step of an operation's life. Exactly one without UL_F_MORE per command. */
struct ul_completion {
  uint32_t slot;          // of the command
  uint32_t generation;    // of the command
  int32_t result;         // >= 0, or a negated errno
  uint32_t flags;         // enum ul_completion_flag
  uint32_t buffer_offset; // with UL_F_BUFFER: offset of the bytes in the receive buffers
  uint32_t op;            // enum ul_op of the command
  uint32_t reserved[2];   // 0
};

/* Layout of the mapping, what the last tick saw, and the counters. Written by the shim only. */
struct ul_header {
  uint32_t abi_version;         // UL_ABI_VERSION
  uint32_t engine;              // enum ul_engine_id
  uint32_t features;            // enum ul_feature bits in use
  uint32_t slot_capacity;       // slots
  uint32_t command_capacity;    // records in the command array
  uint32_t completion_capacity; // records in the completion array
  uint32_t command_offset;      // bytes from the start of the mapping
  uint32_t completion_offset;   // bytes from the start of the mapping
  uint32_t arena_offset;        // bytes from the start of the mapping
  uint32_t arena_bytes;         // size of the send arena
  uint32_t buffer_offset;       // bytes from the start of the mapping
  uint32_t buffer_count;        // receive buffers
  uint32_t buffer_bytes;        // bytes of each receive buffer
  uint32_t total_bytes;         // size of the mapping
  double now_ms;                // CLOCK_MONOTONIC at the end of the last tick that harvested, milliseconds
  uint32_t wait_expired;   // 1: the bounded wait ran out (set by a tick, cleared by the next that harvests)
  uint32_t host_ready;     // 1: the watched host descriptor became readable (likewise)
  uint32_t in_flight;      // commands without their terminal completion
  uint32_t buffers_lent;   // receive buffers that the current completions point into
  uint32_t fds_live;       // owned descriptors that are open
  uint32_t reserved;       // 0
  uint64_t ticks;          // calls of ul_tick
  uint64_t system_calls;   // entries into the kernel made by the shim on behalf of ticks
  uint64_t commands;       // commands taken
  uint64_t completions;    // completions written
  uint64_t rejected;       // commands refused by validation
  uint64_t stale;          // completions for a slot that has ended: dropped
  uint64_t overflows;      // times the kernel's completion queue overflowed
  uint64_t no_buffers;     // receives that ended because no receive buffer was left
  uint64_t sends_blocked;  // sends that did not complete at once
  uint64_t fds_opened;     // descriptors accepted or opened
  uint64_t fds_closed;     // descriptors closed
  uint64_t waits;          // ticks that were allowed to sleep
  uint64_t bytes_received; // bytes delivered in receive buffers
  uint64_t bytes_sent;     // bytes taken by the kernel
};

enum ul_feature {
  UL_FEATURE_DEFER_TASKRUN = 1,     // completions are run by the waiting thread (6.1)
  UL_FEATURE_SINGLE_ISSUER = 2,     // one thread submits (6.0)
  UL_FEATURE_COOP_TASKRUN = 4,      // no interrupt for completions (5.19)
  UL_FEATURE_BUFFER_RING = 8,       // provided buffers through a ring (5.19)
  UL_FEATURE_INCREMENTAL = 16,      // one provided buffer serves several receives (6.12)
  UL_FEATURE_MULTISHOT_RECV = 32,   // one receive command, many completions (6.0)
  UL_FEATURE_MULTISHOT_ACCEPT = 64, // one accept command, many completions (5.19)
  UL_FEATURE_SKIP_SUCCESS = 128,    // sends that succeed at once post no completion entry (5.17)
  UL_FEATURE_REGISTERED_RING = 256, // the ring's descriptor is registered with itself (5.18)
  UL_FEATURE_NO_IOWAIT = 512,       // waiting is not accounted as I/O wait (6.15)
  UL_FEATURE_MIN_WAIT = 1024,       // a busy thread waits a little for company (6.12): gather.h
  UL_FEATURE_RESTRICTIONS = 2048,   // the kernel refuses all but the operations in ring.c's list (5.10)
};

/* What ul_open is told, and its answer. All sizes 0: the default. */
struct ul_config {
  uint32_t engine;              // enum ul_engine_id
  uint32_t disable;             // enum ul_feature bits not to use
  uint32_t submission_entries;  // submission queue, power of two
  uint32_t completion_entries;  // completion queue, power of two
  uint32_t slot_capacity;       // operations in flight at most
  uint32_t command_capacity;    // commands per tick at most
  uint32_t completion_capacity; // completions per tick at most
  uint32_t arena_bytes;         // send arena, multiple of 1 MiB
  uint32_t buffer_count;        // receive buffers, power of two, at most 32768
  uint32_t buffer_bytes;        // bytes each, power of two
  uint32_t error_step;          // answer: enum ul_open_step that failed
  uint32_t reserved;            // 0
  char reason[UL_REASON_BYTES]; // answer: what failed and its likely cause, NUL-terminated text
};

enum ul_open_step {
  UL_STEP_NONE = 0,
  UL_STEP_CONFIG = 1,    // a size is out of range
  UL_STEP_MEMORY = 2,    // the mapping
  UL_STEP_RING = 3,      // io_uring_setup, or epoll_create1
  UL_STEP_BUFFERS = 4,   // the provided buffer ring
  UL_STEP_EVENTFD = 5,   // the eventfd
  UL_STEP_SELF_TEST = 6, // an operation that must work did not
};

/* A socket address in one shape for every family. */
struct ul_address {
  uint16_t family;          // AF_INET, AF_INET6 or AF_UNIX
  uint16_t port;            // host byte order
  uint32_t scope;           // IPv6 scope id
  uint8_t ip[16];           // IPv4: the first four bytes; network byte order
  uint32_t path_length;     // AF_UNIX: bytes of path; a leading NUL is the abstract namespace
  char path[UL_PATH_BYTES]; // AF_UNIX
};

enum ul_listen_flag {
  UL_L_REUSE_PORT = 1, // SO_REUSEPORT
  UL_L_IPV6_ONLY = 2,  // IPV6_V6ONLY
  UL_L_NO_DELAY = 4,   // TCP_NODELAY, inherited by accepted sockets
  UL_L_EXCLUSIVE = 8,  // without SO_REUSEADDR
};

enum ul_option {
  UL_O_NO_DELAY = 1,       // TCP_NODELAY
  UL_O_KEEP_ALIVE = 2,     // SO_KEEPALIVE
  UL_O_KEEP_IDLE = 3,      // TCP_KEEPIDLE, seconds
  UL_O_LINGER = 4,         // SO_LINGER: seconds, negative is off; 0 makes close send a reset
  UL_O_SEND_BUFFER = 5,    // SO_SNDBUF, bytes
  UL_O_RECEIVE_BUFFER = 6, // SO_RCVBUF, bytes
  UL_O_KEEP_INTERVAL = 7,  // TCP_KEEPINTVL, seconds
  UL_O_ERROR = 8,          // SO_ERROR, read only
};

_Static_assert(sizeof(struct ul_command) == 32, "command record");
_Static_assert(offsetof(struct ul_command, fd) == 4, "command.fd");
_Static_assert(offsetof(struct ul_command, slot) == 8, "command.slot");
_Static_assert(offsetof(struct ul_command, generation) == 12, "command.generation");
_Static_assert(offsetof(struct ul_command, offset) == 16, "command.offset");
_Static_assert(offsetof(struct ul_command, length) == 20, "command.length");
_Static_assert(offsetof(struct ul_command, argument) == 24, "command.argument");
_Static_assert(sizeof(struct ul_completion) == 32, "completion record");
_Static_assert(offsetof(struct ul_completion, generation) == 4, "completion.generation");
_Static_assert(offsetof(struct ul_completion, result) == 8, "completion.result");
_Static_assert(offsetof(struct ul_completion, flags) == 12, "completion.flags");
_Static_assert(offsetof(struct ul_completion, buffer_offset) == 16, "completion.buffer_offset");
_Static_assert(offsetof(struct ul_completion, op) == 20, "completion.op");
_Static_assert(offsetof(struct ul_header, now_ms) == 56, "header.now_ms");
_Static_assert(offsetof(struct ul_header, wait_expired) == 64, "header.wait_expired");
_Static_assert(offsetof(struct ul_header, ticks) == 88, "header.ticks");
_Static_assert(sizeof(struct ul_header) == 200, "header");
_Static_assert(sizeof(struct ul_config) == 48 + UL_REASON_BYTES, "config");
_Static_assert(sizeof(struct ul_address) == 136, "address");

#endif
