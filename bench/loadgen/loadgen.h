/*
 * loadgen.h - the parts of the load generator and what passes between them.
 *
 *   options.c     the command line, checked           connection.c  one socket: open, send, receive, verify
 *   histogram.c   latencies                           steady.c      closed and open loop
 *   server.c      the server's CPU time and memory    short_lived.c one request per connection
 *   stream.c      the bytes sent and expected         gathering.c   idle connections, bursts
 *   report.c      the line of JSON                    main.c        puts them together
 *
 * One thread, one epoll instance, edge-triggered; one clock call per epoll_wait, not per request.
 */
#ifndef LOADGEN_H
#define LOADGEN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

enum mode { MODE_CLOSED, MODE_OPEN, MODE_SHORT, MODE_IDLE, MODE_BURST };
enum kind { KIND_ECHO, KIND_HTTP };

struct options {
  enum mode mode;
  enum kind kind;
  struct in_addr host;
  uint16_t port;
  uint32_t connections;
  uint32_t size;
  uint32_t depth;
  uint32_t sources; // source addresses, from 127.0.0.2 up; 1: the kernel's choice
  double rate;      // requests per second, open loop
  double seconds;
  double warmup;
  uint64_t requests; // 0: no bound but the time
  const char *path;
  int server_pid; // 0: none
  bool verify, spin;
};

extern const char *const mode_names[];
extern const char *const kind_names[];
extern struct options options;
void options_parse(int argc, char **argv);

/* 64 steps per power of two: a value is off by at most 1.6 %. */
#define HISTOGRAM_STEPS 64
struct histogram {
  uint64_t counts[(64 - 6) * HISTOGRAM_STEPS];
  uint64_t total;
  uint64_t max;
};
void histogram_clear(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t value, uint64_t times);
uint64_t histogram_percentile(const struct histogram *h, double percent);

enum failure {
  FAIL_CONNECT,
  FAIL_RESET,
  FAIL_CLOSED,
  FAIL_WRONG_BYTES,
  FAIL_BAD_REPLY,
  FAIL_TIMEOUT,
  FAIL_KINDS
};
extern const char *const failure_names[FAIL_KINDS];

struct server_usage {
  uint64_t cpu_ns; // summed over all threads
  uint64_t rss_bytes, anonymous_bytes;
  bool known;
};
struct server_usage server_usage_read(int pid, bool with_memory);

/* What one run measured. Counters are of the measured window only; errors are of the whole run. */
struct measurement {
  uint64_t requests, bytes, late_sends;
  uint64_t spun_ns; // with --spin: time that went into asking in vain
  uint64_t errors[FAIL_KINDS];
  int connect_errno; // of the last failed connect
  struct histogram latency;
  uint64_t start_ns, end_ns, client_cpu_start_ns, client_cpu_end_ns;
  struct server_usage server_before, server_start, server_end; // before: idle only, without a connection
};
extern struct measurement measured;
void window_open(void); // clears the counters and reads the clocks
void window_close(void);
uint64_t now_ns(void);
void report_print(void);
int report_exit_status(void); // says on stderr what errors there were
#define EXIT_WRONG 1          // a wrong byte or reply

/*
 * The endless stream of bytes that a connection sends, and for echo also expects. Byte p of a connection is
 * bytes[(phase + p) % period]; `window` bytes can be taken from any place below `period` without wrapping.
 */
struct stream {
  uint8_t *bytes;
  size_t period, window;
  size_t request_bytes, reply_bytes; // of one message
  char *reply;                       // http: the reply learned first
  size_t reply_head_bytes;           // http: its length up to the body
};
extern struct stream stream;
void stream_prepare(void); // http: asks the server once, to learn the reply

enum connection_state { CONN_NONE, CONN_CONNECTING, CONN_OPEN, CONN_LOST };
struct connection {
  int fd;
  enum connection_state state;
  uint32_t send_place, check_place; // in the stream's period
  uint64_t unsent;                  // bytes that may go out and have not
  uint64_t partial;                 // bytes of the reply that is arriving
  uint32_t oldest, newest;          // into stamps, counting up: requests without a reply
  uint64_t *stamps;                 // when each was due; a ring of connection_stamps
};
extern uint32_t connection_stamps; // a power of two
struct connection *connections_allocate(uint32_t count, uint32_t outstanding);
bool connection_open(struct connection *c, uint32_t index);
void connection_request(struct connection *c, uint64_t due_ns);
bool connection_flush(struct connection *c);                    // false: lost, and counted
int64_t connection_receive(struct connection *c, uint64_t now); // replies completed; -1: lost, and counted
void connection_close(struct connection *c);
static inline uint32_t connection_outstanding(const struct connection *c) {
  return c->newest - c->oldest;
}
void connections_gather(struct connection *all, uint32_t count); // opens in waves, one request on each

void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
int epoll_make(void);
void epoll_watch(int epoll, struct connection *c);
int epoll_wait_until(int epoll, struct epoll_event *events, int limit, uint64_t now, uint64_t until_ns);

void run_closed(void);
void run_open(void);
void run_short(void);
void run_idle(void);
void run_burst(void);

#endif
