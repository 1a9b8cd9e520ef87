/*
 * gather.c - the policy of gather.h against a simulated load, and the wait that it rests on: one that asks
 * for company ends when none comes.
 */
#include "../ring.h"
#include "check.h"

/*
 * A load in virtual time: what a wait brings and how long it lasts when each entry costs `work_us`, and the
 * peers send one each `apart_us`, at most `peers` of them unanswered (0: they do not wait for answers).
 */
struct load {
  double work_us, apart_us;
  uint32_t peers;
  double now_us, ran_us, next_us; // clocks; when the next entry comes
  uint32_t waiting;
};

static uint32_t arrive(struct load *l, double until_us) {
  for (; l->next_us <= until_us && (!l->peers || l->waiting < l->peers); l->next_us += l->apart_us)
    l->waiting++;
  return l->waiting;
}

/* One round: work on what came, then wait as gather.h asks. */
static void play(struct gather *g, struct load *l) {
  uint32_t want = g->want > 1 ? g->want : 1;
  double until = l->now_us + GATHER_WAIT_US;
  while (arrive(l, l->now_us) < want && (l->now_us < until || !l->waiting)) {
    bool stuck = l->peers && l->waiting == l->peers; // they all wait for us
    l->now_us = stuck ? until : l->next_us < until || !l->waiting ? l->next_us : until;
  }
  uint32_t got = l->waiting;
  // The system call is 1 us whatever it brings. Peers go on as soon as they have an answer.
  double took = 1 + got * l->work_us, done = l->now_us + took;
  l->waiting = 0;
  if (l->peers && l->next_us < l->now_us)
    l->next_us = l->now_us + l->apart_us;
  l->now_us = done;
  l->ran_us += took;
  if (gather_note(g, got))
    gather_window(g, (uint64_t)(l->now_us * 1e3) + 1, (uint64_t)(l->ran_us * 1e3) + 1);
}

/* Entries per microsecond over the second half of two virtual seconds, and the mean of `want` then. */
static double settle(struct gather *g, struct load *l, double *mean_want) {
  uint64_t rounds = 0, entries = 0, wants = 0;
  while (l->now_us < 1e6)
    play(g, l);
  double start = l->now_us;
  while (l->now_us < 2e6) {
    uint32_t before = g->entries;
    play(g, l);
    entries += g->entries >= before ? g->entries - before : 0;
    wants += g->want;
    rounds++;
  }
  *mean_want = (double)wants / (double)rounds;
  return (double)entries / (l->now_us - start);
}

static void a_thread_with_time_does_not_gather(void) {
  for (double apart = 12; apart < 200; apart *= 2) {
    struct gather g = {0};
    struct load l = {.work_us = 6, .apart_us = apart};
    double want;
    settle(&g, &l, &want);
    CHECK(want <= 1);
  }
}

/* One that has little time to spare gathers only what comes soon anyway. */
static void a_busy_thread_gathers_a_little(void) {
  struct gather g = {0};
  struct load l = {.work_us = 6, .apart_us = 7.7};
  double want;
  settle(&g, &l, &want);
  CHECK(want > 2 && want <= GATHER_FORM_US / 7.7);
}

static void a_saturated_thread_gathers(void) {
  struct gather g = {0};
  struct load l = {.work_us = 6, .apart_us = 6, .peers = 50};
  double want;
  settle(&g, &l, &want);
  CHECK(want > 16);
}

/* Few peers that all wait for their answers get none the later for it. */
static void few_peers_lose_nothing(void) {
  for (uint32_t peers = 1; peers <= 8; peers++) {
    struct load plain = {.work_us = 6, .apart_us = 2, .peers = peers}, gathered = plain;
    struct gather none = {0}, g = {0};
    double want, rate = 0, start;
    while (plain.now_us < 1e6)
      play(&none, &plain), none = (struct gather){0};
    start = plain.now_us;
    uint64_t entries = 0;
    while (plain.now_us < 2e6) {
      play(&none, &plain);
      entries += none.entries;
      none = (struct gather){0};
    }
    rate = (double)entries / (plain.now_us - start);
    CHECK(settle(&g, &gathered, &want) >= 0.85 * rate);
  }
}

static void never_asks_for_nothing_or_too_much(void) {
  uint64_t seed = 7;
  struct gather g = {0};
  uint64_t now = 1, ran = 1;
  for (int i = 0; i < 2000000; i++) {
    uint64_t took = 1 + random_below(&seed, 400000);
    now += took;
    ran += took * random_below(&seed, 101) / 100;
    if (gather_note(&g, random_below(&seed, 70)))
      gather_window(&g, now, ran);
    CHECK(g.want <= GATHER_MOST && g.hold <= GATHER_HOLD_MOST && g.waits <= 40000);
  }
}

/* One message for a wait that asks for eight. */
static void a_wait_for_company_ends_alone(int engine) {
  struct client *c = open_small(engine);
  struct pair p = unix_pair(c);
  submit_recv(c, p.ours, true);
  tick(c, 0);
  for (int i = 0; i < 20; i++) {
    if (engine != UL_ENGINE_EPOLL)
      ((struct ring *)ul_ring_of(c->ring)->state)->gather.want = 8; // the engines begin with their ring
    if (i % 2)
      CHECK_EQ(write(p.theirs, "x", 1), 1);
    double start = ul_now_ms();
    int got = 0;
    while (!(got = tick(c, i % 2 ? PATIENCE * MS : 5 * MS)) && !c->header->wait_expired)
      CHECK(ul_now_ms() - start < PATIENCE);
    CHECK_EQ(got, i % 2);
    CHECK(ul_now_ms() - start < PATIENCE - 1);
    CHECK_EQ(c->header->wait_expired, !(i % 2));
  }
  close(p.theirs);
  shut(c);
}

static void policy(int engine) {
  if (engine != UL_ENGINE_URING)
    return; // once: it knows no engine
  a_thread_with_time_does_not_gather();
  a_busy_thread_gathers_a_little();
  a_saturated_thread_gathers();
  few_peers_lose_nothing();
  never_asks_for_nothing_or_too_much();
}

int main(void) {
  RUN(policy);
  RUN(a_wait_for_company_ends_alone);
  return check_failures != 0;
}
