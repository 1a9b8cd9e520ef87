/*
 * threads.c - a thread that ends without closing its rings: its descriptors close, peers see the end, and the
 * table has room for others.
 */
#include "check.h"

#define SENT (4u << 20)
#define FILL 0x55

static int open_fds(void) {
  int count = 0;
  for (int fd = 0; fd < 1024; fd++)
    count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

struct left_behind {
  int engine;
  uint16_t port;
  int peer; // of the test's
};

/* Opens a ring with an accept, a receive, a send that nobody takes and a timer in flight, and just ends. */
static void *leave(void *argument) {
  struct left_behind *left = argument;
  struct ul_config config = small_config(left->engine);
  int ring = ul_open(&config);
  if (ring < 0)
    return NULL;
  struct ul_header *header = ul_region((uint32_t)ring);
  struct ul_command *commands = (struct ul_command *)((uint8_t *)header + header->command_offset);
  struct ul_address at = {.family = AF_INET, .ip = {127, 0, 0, 1}};
  int listener = ul_listen((uint32_t)ring, &at, 16, 0);
  ul_name((uint32_t)ring, listener, 0, &at);
  left->port = at.port;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(at.port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  left->peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(left->peer, (struct sockaddr *)&to, sizeof to))
    return NULL;
  commands[0] = (struct ul_command){
      .op = UL_OP_ACCEPT, .flags = UL_C_MULTISHOT, .fd = listener, .slot = 1, .generation = 1};
  struct ul_completion *completions = (struct ul_completion *)((uint8_t *)header + header->completion_offset);
  if (ul_tick((uint32_t)ring, 1, 1000 * MS) != 1 || completions[0].result < 0)
    return NULL;
  int accepted = completions[0].result;
  commands[0] = (struct ul_command){
      .op = UL_OP_RECV, .flags = UL_C_MULTISHOT, .fd = accepted, .slot = 2, .generation = 1};
  memset((uint8_t *)header + header->arena_offset, FILL, SENT);
  commands[1] = (struct ul_command){
      .op = UL_OP_SEND, .fd = accepted, .slot = 3, .generation = 1, .length = SENT};
  commands[2] = (struct ul_command){
      .op = UL_OP_TIMEOUT, .fd = -1, .slot = 4, .generation = 1, .argument = 60000000000u};
  ul_tick((uint32_t)ring, 3, 0);
  return left;
}

static void a_thread_leaves_its_ring(int engine) {
  int before = open_fds();
  for (int i = 0; i < 300; i++) { // more than there may be rings
    struct left_behind left = {.engine = engine, .peer = -1};
    pthread_t thread;
    void *done;
    CHECK_EQ(pthread_create(&thread, NULL, leave, &left), 0);
    pthread_join(thread, &done);
    CHECK(done != NULL);
    // What was sent, and not what has become of its memory; then the end or a reset, and not nothing.
    struct timeval patience = {.tv_sec = PATIENCE / 1000};
    setsockopt(left.peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    static uint8_t bytes[1 << 20];
    ssize_t got;
    while ((got = read(left.peer, bytes, sizeof bytes)) > 0)
      CHECK(bytes[0] == FILL && !memcmp(bytes, bytes + 1, (size_t)got - 1));
    if (got < 0 && errno != ECONNRESET)
      FAIL("read: %s", strerror(errno));
    close(left.peer);
  }
  // The kernel lets go of a ring a moment after it was closed.
  for (int i = 0; i < PATIENCE && open_fds() != before; i++)
    usleep(1000);
  CHECK_EQ(open_fds(), before);
}

int main(void) {
  RUN(a_thread_leaves_its_ring);
  return check_failures ? 1 : 0;
}
