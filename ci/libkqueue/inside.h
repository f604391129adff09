/* libkqueue is compiled with this in front. It asks a socket for its error, which clears it, where a kqueue only looks; and it keeps the
 * descriptor that can be waited for to itself. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/epoll.h>
#include <sys/socket.h>

int shim_epoll_create1(int flags);
int shim_getsockopt(int fd, int level, int name, void *value, socklen_t *size);

#define epoll_create1 shim_epoll_create1
#define getsockopt shim_getsockopt
