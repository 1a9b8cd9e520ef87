/*
 * restrict.c - runs a command under the restrictions that machines without io_uring have.
 *
 *   restrict [RESTRICTION]... COMMAND [ARGUMENT]...
 *
 *   EPERM, ENOSYS   a seccomp filter lets io_uring_setup fail with this errno, as container runtimes do
 *   profile=FILE    a seccomp filter as profile.ts writes it down: what is not in it fails with EPERM
 *   uid=N           as user and group N, without capabilities
 *   no-admin        without CAP_SYS_ADMIN, as the same user
 *   memlock=BYTES   RLIMIT_MEMLOCK, soft and hard
 *   nofile=N        RLIMIT_NOFILE, soft and hard
 *   sysctl=N        kernel.io_uring_disabled is N while the command runs. It applies to the whole machine, so
 * it is put back by this process, also when it is told to end, or when the one that started it dies
 *
 * Exit status: the command's; 125 when a restriction could not be put in place (the message says which).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SYSCTL "/proc/sys/kernel/io_uring_disabled"

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

static volatile pid_t child;

static void fail(const char *what) {
  fprintf(stderr, "restrict: %s: %s\n", what, strerror(errno));
  exit(125);
}

static void limit(int resource, const char *value) {
  struct rlimit both = {strtoull(value, NULL, 10), strtoull(value, NULL, 10)};
  if (setrlimit(resource, &both))
    fail("setrlimit");
}

static void become(const char *value) {
  uid_t id = (uid_t)strtoul(value, NULL, 10);
  if (setgroups(0, NULL) || setgid(id) || setuid(id))
    fail("setuid");
}

/* Any other architecture's system calls pass: a filter for tests has nobody to keep out. */
static void filter(int error) {
  struct sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog all = {sizeof program / sizeof *program, program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all))
    fail("seccomp");
}

/* Lines `NUMBER ERRNO INDEX MASK VALUE`: the system call of that number fails with ERRNO, or is allowed (0),
 * where the lower half of its argument INDEX, masked, is VALUE. INDEX -1: always. The first that fits counts.
 */
static void filter_of(const char *path) {
  static struct sock_filter program[BPF_MAXINSNS];
  unsigned short length = 0;
  FILE *file = fopen(path, "re");
  if (!file)
    fail(path);
  const struct sock_filter head[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
  };
  for (size_t i = 0; i < sizeof head / sizeof *head; i++)
    program[length++] = head[i];
  unsigned number, error, mask, value;
  int index;
  while (length < BPF_MAXINSNS - 8 &&
         fscanf(file, "%u %u %d %u %u", &number, &error, &index, &mask, &value) == 5) {
    const struct sock_filter rule[] = {
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, index < 0 ? 1 : 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 offsetof(struct seccomp_data, args) + 8 * (unsigned)(index < 0 ? 0 : index)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, error ? SECCOMP_RET_ERRNO | error : SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++)
      if (index >= 0 || i == 0 || i == 4)
        program[length++] = rule[i];
  }
  fclose(file);
  program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog all = {length, program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all))
    fail("seccomp");
}

/* Returns false when the word is no restriction. */
static int apply(const char *word) {
  if (!strcmp(word, "EPERM"))
    filter(EPERM);
  else if (!strcmp(word, "ENOSYS"))
    filter(ENOSYS);
  else if (!strncmp(word, "profile=", 8))
    filter_of(word + 8);
  else if (!strncmp(word, "uid=", 4))
    become(word + 4);
  else if (!strcmp(word, "no-admin")) {
    if (prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0)) // root loses it at exec
      fail("dropping CAP_SYS_ADMIN");
  } else if (!strncmp(word, "memlock=", 8))
    limit(RLIMIT_MEMLOCK, word + 8);
  else if (!strncmp(word, "nofile=", 7))
    limit(RLIMIT_NOFILE, word + 7);
  else
    return 0;
  return 1;
}

/* ---- the sysctl ---- */

static void write_sysctl(char value) {
  int fd = open(SYSCTL, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, &value, 1) != 1)
    fail(SYSCTL);
  close(fd);
}

static char read_sysctl(void) {
  char value;
  int fd = open(SYSCTL, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || read(fd, &value, 1) != 1)
    fail(SYSCTL);
  close(fd);
  return value;
}

static void end_child(int signal) {
  kill(child, signal);
}

/* Returns in the child; the parent waits for it, puts the sysctl back and exits as it did. */
static void run_with_sysctl(char value) {
  static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
  sigset_t blocked, before;
  sigemptyset(&blocked);
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    sigaddset(&blocked, signals[i]);
  sigprocmask(SIG_BLOCK, &blocked, &before); // until there is a child to end
  char old = read_sysctl();
  if ((child = fork()) < 0)
    fail("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    write_sysctl(value);
    return;
  }
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    sigaction(signals[i], &(struct sigaction){.sa_handler = end_child, .sa_flags = SA_RESTART}, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigprocmask(SIG_SETMASK, &before, NULL);
  int status;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR)
    continue;
  write_sysctl(old);
  exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int main(int argc, char **argv) {
  (void)argc;
  char **word = argv + 1;
  if (*word && !strncmp(*word, "sysctl=", 7))
    run_with_sysctl((*word++)[7]);
  while (*word && apply(*word))
    word++;
  if (!*word) {
    fprintf(stderr, "usage: restrict [RESTRICTION]... COMMAND [ARGUMENT]...\n");
    return 125;
  }
  execvp(*word, word);
  fail(*word);
}
