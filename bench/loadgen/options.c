/*
 * options.c - the command line. Every value is checked here, and a refusal names the option and what is
 * allowed.
 */
#include "loadgen.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE          2
#define SECONDS_DEFAULT     2.0
#define SECONDS_OF_REQUESTS 60.0 // the bound when only --requests is given
#define SOURCES_OF_SHORT    32

const char *const mode_names[] = {"closed", "open", "short", "idle", "burst", NULL};
const char *const kind_names[] = {"echo", "http", NULL};

struct options options = {.connections = 50, .size = 64, .depth = 1, .path = "/"};

static const char usage[] =
    "usage: loadgen --port N [options]      prints one line of JSON\n"
    "  --mode M           closed (default), open, short, idle or burst\n"
    "  --kind K           echo (default): sends --size bytes, wants the same back; http: GETs with one fixed "
    "reply\n"
    "  --host A           IPv4 address, default 127.0.0.1\n"
    "  --port N           1 to 65535\n"
    "  --connections N    0 (idle only) or 1 to 100000, default 50; short: how many at a time\n"
    "  --size N           bytes of an echo message, 1 to 1048576, default 64\n"
    "  --depth N          closed: requests outstanding per connection, 1 to 1024, default 1\n"
    "  --rate R           open: requests per second over all connections, 1 to 10000000\n"
    "  --seconds S        length of the measured window, 0.001 to 3600, default 2; idle: time held; burst: "
    "limit\n"
    "  --requests N       ends the window after N requests (within 60 s unless --seconds is given)\n"
    "  --warmup S         the same load before the window, 0 to 600, default 0\n"
    "  --sources N        source addresses from 127.0.0.2 up, 1 to 250; default 32 for short, else 1 per "
    "20000\n"
    "  --path P           http: the request target, default /\n"
    "  --verify           compares every byte received, not a sample of it\n"
    "  --spin             asks epoll without sleeping: the server never pays for waking this process\n"
    "  --server-pid N     reads that process's CPU time and memory too\n"
    "  --help\n"
    "exit status: 0; 1 a wrong byte or reply; 2 usage; 3 the run could not be made or nothing was answered\n";

static void refuse(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void refuse(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("loadgen: ", stderr);
  vfprintf(stderr, format, arguments);
  fputs(" (--help lists the options)\n", stderr);
  va_end(arguments);
  exit(EXIT_USAGE);
}

static double number(const char *name, const char *text, double low, double high, bool whole) {
  char *end;
  errno = 0;
  double value = strtod(text, &end);
  bool plain = (isdigit((unsigned char)text[0]) || text[0] == '.') && *end == 0 && errno == 0 &&
               !strpbrk(text, "xXpP");
  if (!plain || value < low || value > high || (whole && value != (double)(uint64_t)value))
    refuse("--%s %s: must be %s from %.10g to %.10g", name, text, whole ? "a whole number" : "a number", low,
           high);
  return value;
}

static int choice(const char *name, const char *text, const char *const *names) {
  char allowed[128] = "";
  for (int i = 0; names[i]; i++) {
    if (strcmp(text, names[i]) == 0)
      return i;
    snprintf(allowed + strlen(allowed), sizeof allowed - strlen(allowed), "%s%s", i ? ", " : "", names[i]);
  }
  refuse("--%s %s: must be one of %s", name, text, allowed);
}

enum {
  MODE = 1,
  KIND,
  HOST,
  PORT,
  CONNECTIONS,
  SIZE,
  DEPTH,
  RATE,
  SECONDS,
  REQUESTS,
  WARMUP,
  SOURCES,
  TARGET,
  VERIFY,
  SPIN,
  SERVER_PID,
  HELP
};

static const struct option names[] = {{"mode", required_argument, NULL, MODE},
                                      {"kind", required_argument, NULL, KIND},
                                      {"host", required_argument, NULL, HOST},
                                      {"port", required_argument, NULL, PORT},
                                      {"connections", required_argument, NULL, CONNECTIONS},
                                      {"size", required_argument, NULL, SIZE},
                                      {"depth", required_argument, NULL, DEPTH},
                                      {"rate", required_argument, NULL, RATE},
                                      {"seconds", required_argument, NULL, SECONDS},
                                      {"requests", required_argument, NULL, REQUESTS},
                                      {"warmup", required_argument, NULL, WARMUP},
                                      {"sources", required_argument, NULL, SOURCES},
                                      {"path", required_argument, NULL, TARGET},
                                      {"verify", no_argument, NULL, VERIFY},
                                      {"spin", no_argument, NULL, SPIN},
                                      {"server-pid", required_argument, NULL, SERVER_PID},
                                      {"help", no_argument, NULL, HELP},
                                      {0}};

static void set(int option, const char *name, const char *text) {
  switch (option) {
  case MODE:
    options.mode = (enum mode)choice(name, text, mode_names);
    break;
  case KIND:
    options.kind = (enum kind)choice(name, text, kind_names);
    break;
  case HOST:
    if (inet_pton(AF_INET, text, &options.host) != 1)
      refuse("--host %s: must be an IPv4 address such as 127.0.0.1", text);
    break;
  case PORT:
    options.port = (uint16_t)number(name, text, 1, 65535, true);
    break;
  case CONNECTIONS:
    options.connections = (uint32_t)number(name, text, 0, 100000, true);
    break;
  case SIZE:
    options.size = (uint32_t)number(name, text, 1, 1048576, true);
    break;
  case DEPTH:
    options.depth = (uint32_t)number(name, text, 1, 1024, true);
    break;
  case RATE:
    options.rate = number(name, text, 1, 1e7, false);
    break;
  case SECONDS:
    options.seconds = number(name, text, 0.001, 3600, false);
    break;
  case REQUESTS:
    options.requests = (uint64_t)number(name, text, 1, 1e15, true);
    break;
  case WARMUP:
    options.warmup = number(name, text, 0, 600, false);
    break;
  case SOURCES:
    options.sources = (uint32_t)number(name, text, 1, 250, true);
    break;
  case TARGET:
    if (text[0] != '/' || strpbrk(text, " \r\n"))
      refuse("--path %s: must begin with / and hold no blank", text);
    options.path = text;
    break;
  case VERIFY:
    options.verify = true;
    break;
  case SPIN:
    options.spin = true;
    break;
  case SERVER_PID:
    options.server_pid = (int)number(name, text, 1, 4194304, true);
    break;
  }
}

void options_parse(int argc, char **argv) {
  opterr = 0;
  for (int option, place = 0; (option = getopt_long(argc, argv, "", names, &place)) != -1;) {
    if (option == '?')
      refuse("%s: no such option, or its value is missing", argv[optind - 1]);
    if (option == HELP) {
      fputs(usage, stdout);
      exit(0);
    }
    set(option, names[place].name, optarg);
  }
  if (optind < argc)
    refuse("%s: not an option", argv[optind]);
  if (options.port == 0)
    refuse("--port: required, 1 to 65535");
  if (options.mode == MODE_OPEN && options.rate == 0)
    refuse("--rate: required with --mode open, 1 to 10000000");
  if (options.mode != MODE_OPEN && options.rate != 0)
    refuse("--rate: only with --mode open");
  if (options.mode != MODE_CLOSED && options.depth != 1)
    refuse("--depth: only with --mode closed");
  if (options.connections == 0 && options.mode != MODE_IDLE)
    refuse("--connections 0: only with --mode idle");
  if (options.host.s_addr == 0)
    options.host.s_addr = htonl(INADDR_LOOPBACK);
  if (options.sources == 0)
    options.sources = options.mode == MODE_SHORT ? SOURCES_OF_SHORT : 1 + options.connections / 20000;
  if (options.seconds == 0)
    options.seconds = options.requests ? SECONDS_OF_REQUESTS : SECONDS_DEFAULT;
}
