/*
 * exports.h - the functions that TypeScript calls, and nothing else. A ring is known by its handle, a small
 * number; it belongs to the thread that opened it. Errors are negated errnos. -EBADF: no such ring on this
 * thread.
 */
#ifndef UL_EXPORTS_H
#define UL_EXPORTS_H

#include "abi.h"

#define UL_EXPORT __attribute__((visibility("default")))

/* rings.c; ul_tick: shim.c */
UL_EXPORT int32_t ul_abi_version(void);
/* Opens a ring. Returns its handle; on failure config->reason tells why. */
UL_EXPORT int32_t ul_open(struct ul_config *config);
/* -EBUSY while operations are in flight. Closes what the ring still owns. */
UL_EXPORT int32_t ul_close(uint32_t ring);
/* The shared mapping (struct ul_header first); stays mapped for the life of the process. */
UL_EXPORT void *ul_region(uint32_t ring);
/* Takes `count` commands; flushes (UL_WAIT_FLUSH), or harvests completions and returns how many, having slept
   up to wait_ns unless there was something to report. */
UL_EXPORT int32_t ul_tick(uint32_t ring, uint32_t count, double wait_ns);
/* 1: the event descriptor becomes readable when there is something to harvest. Tick once more before relying
 * on it. */
UL_EXPORT int32_t ul_notify(uint32_t ring, uint32_t on);
UL_EXPORT int32_t ul_event_fd(uint32_t ring);
/* Waits are cut short when this descriptor (the epoll instance of the runtime's loop) becomes readable. Once
 * per ring. */
UL_EXPORT int32_t ul_watch(uint32_t ring, int32_t fd);

/* socket.c: set-up that is not hot. Descriptors that come out of here are owned by the ring. */
UL_EXPORT int32_t ul_listen(uint32_t ring, const struct ul_address *address, int32_t backlog, uint32_t flags);
UL_EXPORT int32_t ul_socket(uint32_t ring, uint32_t family);
/* Takes ownership of a stream socket or listener that somebody else opened. */
UL_EXPORT int32_t ul_adopt(uint32_t ring, int32_t fd);
/* Address of this end (peer 0) or of the other (peer 1). */
UL_EXPORT int32_t ul_name(uint32_t ring, int32_t fd, uint32_t peer, struct ul_address *out);
UL_EXPORT int32_t ul_set_option(uint32_t ring, int32_t fd, uint32_t option, int32_t value);
/* The value, or a negated errno. UL_O_ERROR: the negated pending error itself. */
UL_EXPORT int32_t ul_get_option(uint32_t ring, int32_t fd, uint32_t option);
/* Numeric addresses and names, by the system's resolver (it may block). Returns how many were written. */
UL_EXPORT int32_t ul_resolve(const char *host, struct ul_address *out, uint32_t capacity);

/* probe.c */
/* What this kernel and this process are allowed, as JSON text. Returns its bytes, or -ENOSPC. */
UL_EXPORT int32_t ul_probe(char *out, uint32_t capacity);

#endif
