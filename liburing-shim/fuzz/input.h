/*
 * input.h - what records.c reads its program from: numbers out of the fuzzer's bytes, zeros when there are no
 * more; and addresses made of them, which reach nobody but this program itself.
 */
#ifndef INPUT_H
#define INPUT_H

#include "../test/check.h"

static struct { const uint8_t *at, *end; } in;

static uint8_t byte(void) {
  return in.at < in.end ? *in.at++ : 0;
}
static uint32_t number(int bytes) {
  uint32_t all = 0;
  while (bytes-- > 0)
    all = all << 8 | byte();
  return all;
}
/* Makes an address a loopback one; unix ones an abstract name of ours. */
static void tame(struct ul_address *a, uint16_t port) {
  a->port = port;
  memset(a->ip, 0, sizeof a->ip);
  a->ip[a->family == AF_INET ? 0 : 15] = a->family == AF_INET ? 127 : 1;
  a->ip[3] |= a->family == AF_INET;
  if (a->family == AF_UNIX)
    memcpy(a->path, "\0uringloop-fuzz", 15);
}

static struct ul_address any_address(void) {
  static const uint16_t families[] = {AF_INET, AF_INET6, AF_UNIX, AF_INET};
  uint8_t kind = byte();
  struct ul_address a = {.family = kind < 240 ? families[kind % 4] : kind, .path_length = kind % 128};
  a.path[UL_PATH_BYTES - 1] = (char)kind;
  return a;
}

#endif
