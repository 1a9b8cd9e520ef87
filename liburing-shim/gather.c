/*
 * gather.c - see gather.h: what a window of waits says about how many entries the next ones should ask for.
 */
#include "gather.h"

static void shrink(struct gather *g) {
  uint32_t longer = g->hold_length * 2 + 2;
  g->hold = g->hold_length = longer < GATHER_HOLD_MOST ? longer : GATHER_HOLD_MOST;
  g->want -= g->want / 4 + 1;
}

static void grow(struct gather *g, uint32_t each, double rate) {
  uint32_t least = each > g->want ? each : g->want;
  uint32_t more = least + least / 4 + 1;
  double soon = rate * GATHER_FORM_US * 1000; // as many as come in that time
  double most = g->plain_percent < GATHER_SATURATED && soon < GATHER_MOST ? soon : GATHER_MOST;
  g->want = more < most ? more : (uint32_t)most;
  g->hold_length -= g->hold_length > 0;
}

void gather_window(struct gather *g, uint64_t now_ns, uint64_t ran_ns) {
  uint64_t passed = now_ns - g->began_ns;
  if (passed < GATHER_WINDOW_NS)
    return;
  uint64_t percent = (ran_ns - g->ran_ns) * 100 / passed;
  double rate = (double)g->entries / (double)passed;
  bool plain = g->want <= 1;
  if (plain) {
    g->plain_rate = rate;
    g->plain_percent = (uint32_t)percent;
  }
  bool bad = !plain && (percent < GATHER_LEAVE || rate * 100 < g->plain_rate * GATHER_RATE);
  bool again = bad && g->was_bad; // one alone may be a hiccup of the peers
  g->was_bad = bad && !again;
  if (again)
    shrink(g);
  else if (bad)
    ;
  else if (plain && percent < GATHER_ENTER)
    g->want = 1;
  else if (g->hold)
    g->hold--;
  else
    grow(g, g->entries / g->waits, rate);
  if (++g->windows >= GATHER_AGAIN)
    g->windows = 0, g->want = 1;
  g->began_ns = now_ns;
  g->ran_ns = ran_ns;
  g->waits = g->entries = 0;
}
