/* Connections from an address that is another machine's (ip(7), IP_TRANSPARENT). */
#ifndef SSLSOCK_TRANSPARENT_H
#define SSLSOCK_TRANSPARENT_H

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#if defined(__linux__) && !defined(IPV6_TRANSPARENT)
#define IPV6_TRANSPARENT 75 /* linux/in6.h */
#endif
#if defined(__linux__) && !defined(IP_BIND_ADDRESS_NO_PORT)
#define IP_BIND_ADDRESS_NO_PORT 24 /* linux/in.h */
#endif

/* Let an unbound TCP socket be bound to any address of its family. Returns 0, or the errno: EPERM without CAP_NET_RAW or CAP_NET_ADMIN,
 * ENOTSUP where the system has no such thing. */
static inline int set_transparent(int fd, int family)
{
#ifdef __linux__
    int one = 1;
    int level = family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;

    if (setsockopt(fd, level, family == AF_INET6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &one, sizeof one) < 0)
        return errno;
    /* The port is chosen by connect(2), which knows the other end: one port will do for many of them. */
    (void) setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    return 0;
#else
    (void) fd;
    (void) family;
    return ENOTSUP;
#endif
}

#endif
