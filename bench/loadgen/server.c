/*
 * server.c - what the server costs, read from outside: CPU time from /proc/PID/task/TID/schedstat (first
 * field, ns on a CPU) summed over all threads, memory from /proc/PID/smaps_rollup (exact, unlike statm and
 * status). Anonymous memory is what the process has allocated; RSS also counts the pages of its binary that
 * it has happened to touch.
 */
#include "loadgen.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_text(const char *path, char *text, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return false;
  ssize_t got = read(fd, text, size - 1);
  close(fd);
  text[got > 0 ? got : 0] = 0;
  return got > 0;
}

static bool read_cpu(int pid, uint64_t *cpu_ns) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  DIR *tasks = opendir(path);
  if (!tasks)
    return false;
  *cpu_ns = 0;
  for (struct dirent *entry; (entry = readdir(tasks));) {
    int tid = atoi(entry->d_name);
    snprintf(path, sizeof path, "/proc/%d/task/%d/schedstat", pid, tid);
    if (tid > 0 && read_text(path, text, sizeof text)) // a thread may end between readdir and here
      *cpu_ns += strtoull(text, NULL, 10);
  }
  closedir(tasks);
  return true;
}

static uint64_t kilobytes_after(const char *text, const char *name) {
  const char *line = strstr(text, name);
  return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

static bool read_memory(int pid, struct server_usage *usage) {
  char path[64], text[2048];
  snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
  if (!read_text(path, text, sizeof text))
    return false;
  usage->rss_bytes = kilobytes_after(text, "\nRss:");
  usage->anonymous_bytes = kilobytes_after(text, "\nAnonymous:");
  return usage->rss_bytes > 0;
}

/* Reading the memory walks the page tables of the server, so it is left out at the ends of a timed window. */
struct server_usage server_usage_read(int pid, bool with_memory) {
  struct server_usage usage = {0};
  if (pid > 0)
    usage.known = read_cpu(pid, &usage.cpu_ns) && (!with_memory || read_memory(pid, &usage));
  return usage;
}
