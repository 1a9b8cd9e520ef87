/*
 * report.c - the line of JSON, and the exit status.
 *
 * Times of latency are in microseconds. `latency_from` says what they mean: "due" is the open loop, "reply"
 * the closed one, where a slow server slows the asking too, and p99 says little more than connections /
 * throughput.
 */
#include "loadgen.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SATURATED       0.9 // of one core
#define EXIT_NO_ANSWERS 3

const char *const failure_names[FAIL_KINDS] = {"connect",     "reset",     "closed",
                                               "wrong_bytes", "bad_reply", "timeout"};

static const char *const latency_from[] = {[MODE_CLOSED] = "reply",
                                           [MODE_OPEN] = "due",
                                           [MODE_SHORT] = "socket",
                                           [MODE_IDLE] = "socket",
                                           [MODE_BURST] = "start"};

static void print_errors(void) {
  printf(",\"errors\":{");
  for (int i = 0; i < FAIL_KINDS; i++)
    printf("%s\"%s\":%" PRIu64, i ? "," : "", failure_names[i], measured.errors[i]);
  printf("}");
  if (measured.connect_errno)
    printf(",\"connect_error\":\"%s\"", strerror(measured.connect_errno));
}

static void print_latency(void) {
  static const struct {
    const char *name;
    double percent;
  } rows[] = {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p999", 99.9}};
  printf(",\"latency_from\":\"%s\",\"latency_us\":{", latency_from[options.mode]);
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    printf("\"%s\":%.2f,", rows[i].name,
           (double)histogram_percentile(&measured.latency, rows[i].percent) / 1e3);
  printf("\"max\":%.2f}", (double)measured.latency.max / 1e3);
}

static void print_server(double seconds) {
  double cpu = (double)(measured.server_end.cpu_ns - measured.server_start.cpu_ns) / 1e9;
  printf(",\"server_cpu_seconds\":%.6f,\"server_cpu\":%.4f", cpu, cpu / seconds);
  // Idle connections have answered outside the window: there is nothing to divide by.
  if (measured.requests && options.mode != MODE_IDLE)
    printf(",\"server_cpu_us_per_request\":%.5f", cpu * 1e6 / (double)measured.requests);
  printf(",\"server_rss_bytes\":%" PRIu64 ",\"server_anonymous_bytes\":%" PRIu64,
         measured.server_end.rss_bytes, measured.server_end.anonymous_bytes);
  if (options.mode == MODE_IDLE)
    printf(",\"server_rss_bytes_before\":%" PRIu64 ",\"server_anonymous_bytes_before\":%" PRIu64,
           measured.server_before.rss_bytes, measured.server_before.anonymous_bytes);
}

void report_print(void) {
  double seconds = (double)(measured.end_ns - measured.start_ns) / 1e9;
  double client = (double)(measured.client_cpu_end_ns - measured.client_cpu_start_ns) / 1e9;
  double server = (double)(measured.server_end.cpu_ns - measured.server_start.cpu_ns) / 1e9;
  bool server_known = measured.server_start.known && measured.server_end.known;
  double busy = client - (double)measured.spun_ns / 1e9;
  bool client_full = busy >= SATURATED * seconds;
  bool server_full = server_known && server >= SATURATED * seconds;
  printf("{\"mode\":\"%s\",\"kind\":\"%s\",\"connections\":%u,\"request_bytes\":%zu,\"reply_bytes\":%zu,"
         "\"depth\":%u",
         mode_names[options.mode], kind_names[options.kind], options.connections, stream.request_bytes,
         stream.reply_bytes, options.depth);
  if (options.mode == MODE_OPEN)
    printf(",\"rate\":%.10g,\"late_sends\":%" PRIu64, options.rate, measured.late_sends);
  printf(",\"seconds\":%.6f,\"requests\":%" PRIu64 ",\"bytes\":%" PRIu64, seconds, measured.requests,
         measured.bytes);
  printf(",\"requests_per_second\":%.1f", seconds > 0 ? (double)measured.requests / seconds : 0);
  print_errors();
  print_latency();
  printf(",\"client_cpu_seconds\":%.6f,\"client_cpu\":%.4f,\"client_busy\":%.4f", client, client / seconds,
         busy / seconds);
  if (server_known)
    print_server(seconds);
  printf(",\"saturated\":[%s%s%s]}\n", client_full ? "\"client\"" : "", client_full && server_full ? "," : "",
         server_full ? "\"server\"" : "");
}

int report_exit_status(void) {
  for (int i = 0; i < FAIL_KINDS; i++)
    if (measured.errors[i])
      fprintf(stderr, "loadgen: %" PRIu64 " errors of kind %s\n", measured.errors[i], failure_names[i]);
  if (measured.errors[FAIL_WRONG_BYTES] || measured.errors[FAIL_BAD_REPLY])
    return EXIT_WRONG;
  return measured.requests || options.connections == 0 ? 0 : EXIT_NO_ANSWERS;
}
