// The layout of the records that pass between TypeScript and the shim, and their constants.
// Made from liburing-shim/abi.h by ffi/generate-abi.ts (`make abi`): change the header, not this file.

// constants
/** changed whenever a record changes; ul_abi_version() returns it */
export const ABI_VERSION = 1
/** slots per ring at most; slot numbers above it are the engine's own */
export const MAX_SLOTS = 16777216
/** bytes of the text in ul_config.reason */
export const REASON_BYTES = 192
/** bytes of a unix socket path, as in struct sockaddr_un */
export const PATH_BYTES = 108
/** ul_tick: hand over the commands, harvest nothing */
export const WAIT_FLUSH = -1
/** alignment of the regions inside the mapping */
export const ARENA_ALIGN = 64

// enum ul_engine_id
/** completions through io_uring */
export const ENGINE_URING = 1
/** readiness through io_uring: POLL_ADD, then RECV or SEND */
export const ENGINE_POLL = 2
/** readiness through epoll */
export const ENGINE_EPOLL = 3

// enum ul_op
/** completes with 0 */
export const OP_NOP = 1
/** fd; MULTISHOT allowed; result: an owned descriptor */
export const OP_ACCEPT = 2
/** fd; offset: a struct ul_address in the arena */
export const OP_CONNECT = 3
/** fd; MULTISHOT allowed; result: bytes in a receive buffer, 0 at end of stream */
export const OP_RECV = 4
/** fd; offset, length: the bytes in the arena; QUIET allowed; result: bytes sent, all unless failed */
export const OP_SEND = 5
/** fd; length: POLLIN, POLLOUT... as in poll(2); MULTISHOT allowed; result: the mask */
export const OP_POLL = 6
/** argument: nanoseconds from now; completes with -ETIME */
export const OP_TIMEOUT = 7
/** offset, length: slot and generation of the target; result: 0, -ENOENT or -EALREADY */
export const OP_CANCEL = 8
/** fd: an owned descriptor, otherwise -EBADF; length: SHUT_RD, SHUT_WR, SHUT_RDWR */
export const OP_SHUTDOWN = 9
/** fd: an owned descriptor without operations in flight, otherwise -EBUSY */
export const OP_CLOSE = 10

// enum ul_command_flag
/** completes many times, until a completion without UL_F_MORE */
export const C_MULTISHOT = 1
/** SEND: nobody waits for the completion; it does not cut a wait short */
export const C_QUIET = 2

// enum ul_completion_flag
/** not the terminal completion: the slot stays in flight */
export const F_MORE = 1
/** buffer_offset points at result bytes among the receive buffers */
export const F_BUFFER = 2

// struct ul_command
/** bytes */
export const COMMAND_SIZE = 32
/** uint8_t: enum ul_op */
export const COMMAND_OP = 0
/** uint8_t: enum ul_command_flag */
export const COMMAND_FLAGS = 1
/** int32_t: descriptor, or -1 where the operation has none */
export const COMMAND_FD = 4
/** uint32_t: index into the slot table; must be free */
export const COMMAND_SLOT = 8
/** uint32_t: of that slot; never 0 */
export const COMMAND_GENERATION = 12
/** uint32_t: SEND, CONNECT: offset in the arena; CANCEL: target slot */
export const COMMAND_OFFSET = 16
/** uint32_t: SEND: bytes; POLL: mask; SHUTDOWN: how; CANCEL: target generation */
export const COMMAND_LENGTH = 20
/** uint64_t: TIMEOUT: nanoseconds */
export const COMMAND_ARGUMENT = 24

// struct ul_completion
/** bytes */
export const COMPLETION_SIZE = 32
/** uint32_t: of the command */
export const COMPLETION_SLOT = 0
/** uint32_t: of the command */
export const COMPLETION_GENERATION = 4
/** int32_t: >= 0, or a negated errno */
export const COMPLETION_RESULT = 8
/** uint32_t: enum ul_completion_flag */
export const COMPLETION_FLAGS = 12
/** uint32_t: with UL_F_BUFFER: offset of the bytes in the receive buffers */
export const COMPLETION_BUFFER_OFFSET = 16
/** uint32_t: enum ul_op of the command */
export const COMPLETION_OP = 20

// struct ul_header
/** bytes */
export const HEADER_SIZE = 200
/** uint32_t: UL_ABI_VERSION */
export const HEADER_ABI_VERSION = 0
/** uint32_t: enum ul_engine_id */
export const HEADER_ENGINE = 4
/** uint32_t: enum ul_feature bits in use */
export const HEADER_FEATURES = 8
/** uint32_t: slots */
export const HEADER_SLOT_CAPACITY = 12
/** uint32_t: records in the command array */
export const HEADER_COMMAND_CAPACITY = 16
/** uint32_t: records in the completion array */
export const HEADER_COMPLETION_CAPACITY = 20
/** uint32_t: bytes from the start of the mapping */
export const HEADER_COMMAND_OFFSET = 24
/** uint32_t: bytes from the start of the mapping */
export const HEADER_COMPLETION_OFFSET = 28
/** uint32_t: bytes from the start of the mapping */
export const HEADER_ARENA_OFFSET = 32
/** uint32_t: size of the send arena */
export const HEADER_ARENA_BYTES = 36
/** uint32_t: bytes from the start of the mapping */
export const HEADER_BUFFER_OFFSET = 40
/** uint32_t: receive buffers */
export const HEADER_BUFFER_COUNT = 44
/** uint32_t: bytes of each receive buffer */
export const HEADER_BUFFER_BYTES = 48
/** uint32_t: size of the mapping */
export const HEADER_TOTAL_BYTES = 52
/** double: CLOCK_MONOTONIC at the end of the last tick that harvested, milliseconds */
export const HEADER_NOW_MS = 56
/** uint32_t: 1: the bounded wait ran out (set by a tick, cleared by the next that harvests) */
export const HEADER_WAIT_EXPIRED = 64
/** uint32_t: 1: the watched host descriptor became readable (likewise) */
export const HEADER_HOST_READY = 68
/** uint32_t: commands without their terminal completion */
export const HEADER_IN_FLIGHT = 72
/** uint32_t: receive buffers that the current completions point into */
export const HEADER_BUFFERS_LENT = 76
/** uint32_t: owned descriptors that are open */
export const HEADER_FDS_LIVE = 80
/** uint64_t: calls of ul_tick */
export const HEADER_TICKS = 88
/** uint64_t: entries into the kernel made by the shim on behalf of ticks */
export const HEADER_SYSTEM_CALLS = 96
/** uint64_t: commands taken */
export const HEADER_COMMANDS = 104
/** uint64_t: completions written */
export const HEADER_COMPLETIONS = 112
/** uint64_t: commands refused by validation */
export const HEADER_REJECTED = 120
/** uint64_t: completions for a slot that has ended: dropped */
export const HEADER_STALE = 128
/** uint64_t: times the kernel's completion queue overflowed */
export const HEADER_OVERFLOWS = 136
/** uint64_t: receives that ended because no receive buffer was left */
export const HEADER_NO_BUFFERS = 144
/** uint64_t: sends that did not complete at once */
export const HEADER_SENDS_BLOCKED = 152
/** uint64_t: descriptors accepted or opened */
export const HEADER_FDS_OPENED = 160
/** uint64_t: descriptors closed */
export const HEADER_FDS_CLOSED = 168
/** uint64_t: ticks that were allowed to sleep */
export const HEADER_WAITS = 176
/** uint64_t: bytes delivered in receive buffers */
export const HEADER_BYTES_RECEIVED = 184
/** uint64_t: bytes taken by the kernel */
export const HEADER_BYTES_SENT = 192

// enum ul_feature
/** completions are run by the waiting thread (6.1) */
export const FEATURE_DEFER_TASKRUN = 1
/** one thread submits (6.0) */
export const FEATURE_SINGLE_ISSUER = 2
/** no interrupt for completions (5.19) */
export const FEATURE_COOP_TASKRUN = 4
/** provided buffers through a ring (5.19) */
export const FEATURE_BUFFER_RING = 8
/** one provided buffer serves several receives (6.12) */
export const FEATURE_INCREMENTAL = 16
/** one receive command, many completions (6.0) */
export const FEATURE_MULTISHOT_RECV = 32
/** one accept command, many completions (5.19) */
export const FEATURE_MULTISHOT_ACCEPT = 64
/** sends that succeed at once post no completion entry (5.17) */
export const FEATURE_SKIP_SUCCESS = 128
/** the ring's descriptor is registered with itself (5.18) */
export const FEATURE_REGISTERED_RING = 256
/** waiting is not accounted as I/O wait (6.15) */
export const FEATURE_NO_IOWAIT = 512
/** a busy thread waits a little for company (6.12): gather.h */
export const FEATURE_MIN_WAIT = 1024
/** the kernel refuses all but the operations in ring.c's list (5.10) */
export const FEATURE_RESTRICTIONS = 2048

// struct ul_config
/** bytes */
export const CONFIG_SIZE = 240
/** uint32_t: enum ul_engine_id */
export const CONFIG_ENGINE = 0
/** uint32_t: enum ul_feature bits not to use */
export const CONFIG_DISABLE = 4
/** uint32_t: submission queue, power of two */
export const CONFIG_SUBMISSION_ENTRIES = 8
/** uint32_t: completion queue, power of two */
export const CONFIG_COMPLETION_ENTRIES = 12
/** uint32_t: operations in flight at most */
export const CONFIG_SLOT_CAPACITY = 16
/** uint32_t: commands per tick at most */
export const CONFIG_COMMAND_CAPACITY = 20
/** uint32_t: completions per tick at most */
export const CONFIG_COMPLETION_CAPACITY = 24
/** uint32_t: send arena, multiple of 1 MiB */
export const CONFIG_ARENA_BYTES = 28
/** uint32_t: receive buffers, power of two, at most 32768 */
export const CONFIG_BUFFER_COUNT = 32
/** uint32_t: bytes each, power of two */
export const CONFIG_BUFFER_BYTES = 36
/** uint32_t: answer: enum ul_open_step that failed */
export const CONFIG_ERROR_STEP = 40
/** char[UL_REASON_BYTES]: answer: what failed and its likely cause, NUL-terminated text */
export const CONFIG_REASON = 48

// enum ul_open_step
export const STEP_NONE = 0
/** a size is out of range */
export const STEP_CONFIG = 1
/** the mapping */
export const STEP_MEMORY = 2
/** io_uring_setup, or epoll_create1 */
export const STEP_RING = 3
/** the provided buffer ring */
export const STEP_BUFFERS = 4
/** the eventfd */
export const STEP_EVENTFD = 5
/** an operation that must work did not */
export const STEP_SELF_TEST = 6

// struct ul_address
/** bytes */
export const ADDRESS_SIZE = 136
/** uint16_t: AF_INET, AF_INET6 or AF_UNIX */
export const ADDRESS_FAMILY = 0
/** uint16_t: host byte order */
export const ADDRESS_PORT = 2
/** uint32_t: IPv6 scope id */
export const ADDRESS_SCOPE = 4
/** uint8_t[16]: IPv4: the first four bytes; network byte order */
export const ADDRESS_IP = 8
/** uint32_t: AF_UNIX: bytes of path; a leading NUL is the abstract namespace */
export const ADDRESS_PATH_LENGTH = 24
/** char[UL_PATH_BYTES]: AF_UNIX */
export const ADDRESS_PATH = 28

// enum ul_listen_flag
/** SO_REUSEPORT */
export const L_REUSE_PORT = 1
/** IPV6_V6ONLY */
export const L_IPV6_ONLY = 2
/** TCP_NODELAY, inherited by accepted sockets */
export const L_NO_DELAY = 4
/** without SO_REUSEADDR */
export const L_EXCLUSIVE = 8

// enum ul_option
/** TCP_NODELAY */
export const O_NO_DELAY = 1
/** SO_KEEPALIVE */
export const O_KEEP_ALIVE = 2
/** TCP_KEEPIDLE, seconds */
export const O_KEEP_IDLE = 3
/** SO_LINGER: seconds, negative is off; 0 makes close send a reset */
export const O_LINGER = 4
/** SO_SNDBUF, bytes */
export const O_SEND_BUFFER = 5
/** SO_RCVBUF, bytes */
export const O_RECEIVE_BUFFER = 6
/** TCP_KEEPINTVL, seconds */
export const O_KEEP_INTERVAL = 7
/** SO_ERROR, read only */
export const O_ERROR = 8
