/* Probes that tell whether the other side of a quiet connection is still there (RFC 9293, 3.8.4). */
#ifndef SSLSOCK_KEEPALIVE_H
#define SSLSOCK_KEEPALIVE_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#ifndef TCP_KEEPIDLE
#define TCP_KEEPIDLE TCP_KEEPALIVE /* macOS */
#endif

/* A few, so that one that is lost ends nothing. */
enum { KEEPALIVE_PROBES = 4 };

/* The first probe after `seconds` without a byte, the others within as many again; 0: none. What accepts connections hands it on to
 * them (tcp(7)). A descriptor that has no such thing, as that of a UNIX socket, is left as it is. */
static inline void set_keepalive(int fd, int seconds)
{
    int on = seconds > 0, interval = (seconds + KEEPALIVE_PROBES - 1) / KEEPALIVE_PROBES, probes = KEEPALIVE_PROBES;

    if (on && setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds) < 0)
        return;
    if (on) {
        (void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
        (void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    }
    (void) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

#endif
