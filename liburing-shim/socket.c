/*
 * socket.c - sockets outside the hot path: listen, socket, names, options, addresses. Plain system calls, the
 * same on every engine. Only descriptors that the ring owns are touched, so TypeScript cannot reach the
 * runtime's own.
 */
#include "engine.h"
#include "exports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

socklen_t ul_to_sockaddr(const struct ul_address *a, struct sockaddr_storage *out) {
  memset(out, 0, sizeof *out);
  if (a->family == AF_INET) {
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    in->sin_family = AF_INET;
    in->sin_port = htons(a->port);
    memcpy(&in->sin_addr, a->ip, sizeof in->sin_addr);
    return sizeof *in;
  }
  if (a->family == AF_INET6) {
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(a->port);
    in6->sin6_scope_id = a->scope;
    memcpy(&in6->sin6_addr, a->ip, sizeof in6->sin6_addr);
    return sizeof *in6;
  }
  if (a->family == AF_UNIX && a->path_length && a->path_length <= UL_PATH_BYTES) {
    struct sockaddr_un *un = (struct sockaddr_un *)out;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, a->path, a->path_length);
    bool terminated = a->path[0] && a->path_length < UL_PATH_BYTES;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + a->path_length + terminated);
  }
  return 0;
}

static void from_sockaddr(const struct sockaddr_storage *in, socklen_t length, struct ul_address *out) {
  memset(out, 0, sizeof *out);
  out->family = in->ss_family;
  if (in->ss_family == AF_INET) {
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)in;
    out->port = ntohs(in4->sin_port);
    memcpy(out->ip, &in4->sin_addr, sizeof in4->sin_addr);
  } else if (in->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)in;
    out->port = ntohs(in6->sin6_port);
    out->scope = in6->sin6_scope_id;
    memcpy(out->ip, &in6->sin6_addr, sizeof in6->sin6_addr);
  } else if (in->ss_family == AF_UNIX && length > offsetof(struct sockaddr_un, sun_path)) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)in;
    size_t bytes = length - offsetof(struct sockaddr_un, sun_path);
    if (bytes > UL_PATH_BYTES)
      bytes = UL_PATH_BYTES;
    if (un->sun_path[0])
      bytes = strnlen(un->sun_path, bytes);
    out->path_length = (uint32_t)bytes;
    memcpy(out->path, un->sun_path, bytes);
  }
}

static int set_int(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) ? -errno : 0;
}

/* The ring engines wait in the kernel and want blocking sockets; the epoll engine wants O_NONBLOCK. */
static int open_socket(const struct ul_ring *ring, int family) {
  int nonblock = ring->header->engine == UL_ENGINE_EPOLL ? SOCK_NONBLOCK : 0;
  int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | nonblock, 0);
  return fd < 0 ? -errno : fd;
}

int32_t ul_listen(uint32_t handle, const struct ul_address *address, int32_t backlog, uint32_t flags) {
  struct ul_ring *ring = ul_ring_of(handle);
  struct sockaddr_storage name;
  socklen_t length = address ? ul_to_sockaddr(address, &name) : 0;
  if (!ring)
    return -EBADF;
  if (!length || backlog < 1)
    return -EINVAL;
  bool tcp = address->family != AF_UNIX;
  int fd = open_socket(ring, address->family);
  if (fd < 0)
    return fd;
  int error = 0;
  if (tcp && !(flags & UL_L_EXCLUSIVE))
    error = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (!error && tcp && (flags & UL_L_REUSE_PORT))
    error = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (!error && address->family == AF_INET6)
    error = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, (flags & UL_L_IPV6_ONLY) != 0);
  if (!error && tcp && (flags & UL_L_NO_DELAY))
    error = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (!error && (bind(fd, (struct sockaddr *)&name, length) || listen(fd, backlog)))
    error = -errno;
  if (error) {
    close(fd);
    return error;
  }
  return ul_own(ring, fd, address->family);
}

int32_t ul_socket(uint32_t handle, uint32_t family) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring)
    return -EBADF;
  if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
    return -EAFNOSUPPORT;
  int fd = open_socket(ring, (int)family);
  return fd < 0 ? fd : ul_own(ring, fd, (int)family);
}

int32_t ul_adopt(uint32_t handle, int32_t fd) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring)
    return -EBADF;
  if (fd < 0 || (uint32_t)fd >= ring->fd_capacity || ring->fds[fd].owned || ring->fds[fd].ops)
    return -EINVAL;
  int type = 0, family = 0;
  socklen_t length = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length))
    return -errno;
  getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
  if (type != SOCK_STREAM || (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
    return -EPROTOTYPE;
  int status = fcntl(fd, F_GETFL);
  bool nonblock = ring->header->engine == UL_ENGINE_EPOLL;
  if (fcntl(fd, F_SETFL, nonblock ? status | O_NONBLOCK : status & ~O_NONBLOCK) ||
      fcntl(fd, F_SETFD, FD_CLOEXEC))
    return -errno;
  return ul_own(ring, fd, family);
}

int32_t ul_name(uint32_t handle, int32_t fd, uint32_t peer, struct ul_address *out) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring || !out || !ul_owned(ring, fd))
    return -EBADF;
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  if ((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&name, &length))
    return -errno;
  from_sockaddr(&name, length, out);
  return 0;
}

static const struct {
  int level, name;
} options[] = {
    [UL_O_NO_DELAY] = {IPPROTO_TCP, TCP_NODELAY},        [UL_O_KEEP_ALIVE] = {SOL_SOCKET, SO_KEEPALIVE},
    [UL_O_KEEP_IDLE] = {IPPROTO_TCP, TCP_KEEPIDLE},      [UL_O_LINGER] = {SOL_SOCKET, SO_LINGER},
    [UL_O_SEND_BUFFER] = {SOL_SOCKET, SO_SNDBUF},        [UL_O_RECEIVE_BUFFER] = {SOL_SOCKET, SO_RCVBUF},
    [UL_O_KEEP_INTERVAL] = {IPPROTO_TCP, TCP_KEEPINTVL}, [UL_O_ERROR] = {SOL_SOCKET, SO_ERROR},
};

int32_t ul_set_option(uint32_t handle, int32_t fd, uint32_t option, int32_t value) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring || !ul_owned(ring, fd))
    return -EBADF;
  if (option < UL_O_NO_DELAY || option >= UL_O_ERROR)
    return -EINVAL;
  if (option == UL_O_LINGER) {
    struct linger linger = {.l_onoff = value >= 0, .l_linger = value < 0 ? 0 : value};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) ? -errno : 0;
  }
  return set_int(fd, options[option].level, options[option].name, value);
}

int32_t ul_get_option(uint32_t handle, int32_t fd, uint32_t option) {
  struct ul_ring *ring = ul_ring_of(handle);
  if (!ring || !ul_owned(ring, fd))
    return -EBADF;
  if (option < UL_O_NO_DELAY || option > UL_O_ERROR)
    return -EINVAL;
  if (option == UL_O_LINGER) {
    struct linger linger = {0};
    socklen_t length = sizeof linger;
    if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length))
      return -errno;
    return linger.l_onoff ? linger.l_linger : -1;
  }
  int value = 0;
  socklen_t length = sizeof value;
  if (getsockopt(fd, options[option].level, options[option].name, &value, &length))
    return -errno;
  return option == UL_O_ERROR ? -value : value;
}

int32_t ul_resolve(const char *host, struct ul_address *out, uint32_t capacity) {
  if (!host || !out || !capacity)
    return -EINVAL;
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
  struct addrinfo *found = NULL;
  int error = getaddrinfo(host, NULL, &hints, &found);
  if (error)
    return error == EAI_SYSTEM ? -errno : error == EAI_MEMORY ? -ENOMEM : -ENOENT;
  int count = 0;
  for (struct addrinfo *i = found; i && (uint32_t)count < capacity; i = i->ai_next) {
    struct sockaddr_storage name = {0};
    if (i->ai_addrlen > sizeof name || (i->ai_family != AF_INET && i->ai_family != AF_INET6))
      continue;
    memcpy(&name, i->ai_addr, i->ai_addrlen);
    from_sockaddr(&name, i->ai_addrlen, &out[count++]);
  }
  freeaddrinfo(found);
  return count;
}
