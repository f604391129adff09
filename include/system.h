/* What is not the same on all systems, in one place: macOS lacks some of what Linux has. (What a loop waits with is in poller.h.) */
#ifndef SSLSOCK_SYSTEM_H
#define SSLSOCK_SYSTEM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4, pipe2, pthread_setname_np, memmem */
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* Bytes of a socket's name before what its family has in it. */
enum { NAME_HEAD = offsetof(struct sockaddr, sa_data), UNIX_PATH_SIZE = sizeof((struct sockaddr_un *) 0)->sun_path };

#ifdef __APPLE__

#define C_LIBRARY "libSystem"

/* The clock that Python's time.monotonic() reads: it rests while the machine sleeps, as the timers of a kqueue do. */
#define MONOTONIC_CLOCK CLOCK_UPTIME_RAW

#define st_mtim st_mtimespec

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* `forbid_sigpipe` has done it */
#endif
#define MSG_MORE 0 /* the next send has a packet of its own */

/* A write to a connection that is gone raises no SIGPIPE. */
static inline void forbid_sigpipe(int fd)
{
    int on = 1;

    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
}

/* -1: as `fd`, or it could not be done. */
static inline int prepare_descriptor(int fd)
{
    if (fd >= 0 && (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static inline int stream_socket(int family)
{
    int fd = prepare_descriptor(socket(family, SOCK_STREAM, 0));

    if (fd >= 0)
        forbid_sigpipe(fd);
    return fd;
}

static inline int accept_connection(int fd, struct sockaddr *peer, socklen_t *size)
{
    int connection = prepare_descriptor(accept(fd, peer, size));

    if (connection >= 0)
        forbid_sigpipe(connection);
    return connection;
}

static inline int open_pipe(int ends[2])
{
    if (pipe(ends) < 0)
        return -1;
    if (prepare_descriptor(ends[0]) >= 0) {
        if (prepare_descriptor(ends[1]) >= 0)
            return 0;
        close(ends[0]);
    } else {
        close(ends[1]);
    }
    return -1;
}

/* Bytes that the peer's system has not acknowledged, -1: not known. */
static inline int unacknowledged(int fd)
{
    int left = 0;
    socklen_t size = sizeof left;

    return getsockopt(fd, SOL_SOCKET, SO_NWRITE, &left, &size) < 0 ? -1 : left;
}

/* Throws away what has been received, `most` bytes or some more. */
static inline void discard_received(int fd, size_t most)
{
    char rest[16384];
    ssize_t size;

    do {
        size = recv(fd, rest, sizeof rest, MSG_DONTWAIT);
        if (size > 0)
            most -= (size_t) size < most ? (size_t) size : most;
    } while (size > 0 && most > 0);
}

/* There is none here: looks a thousand times a second. */
static inline int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until)
{
    const struct timespec pause = {0, 1000000};
    struct timespec now;
    int failed;

    while ((failed = pthread_mutex_trylock(mutex)) == EBUSY) {
        clock_gettime(CLOCK_REALTIME, &now);
        if (now.tv_sec > until->tv_sec || (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec))
            return ETIMEDOUT;
        nanosleep(&pause, NULL);
    }
    return failed;
}

static inline void name_this_thread(const char *name)
{
    pthread_setname_np(name);
}

#else

#include <features.h>

#include <linux/sockios.h>

#define TEXT_OF_NUMBER(number) #number
#define TEXT_OF(number) TEXT_OF_NUMBER(number)
/* musl names itself nowhere (wiki.musl-libc.org/faq.html). */
#ifdef __GLIBC__
#define C_LIBRARY "glibc " TEXT_OF(__GLIBC__) "." TEXT_OF(__GLIBC_MINOR__)
#else
#define C_LIBRARY "musl"
#endif

#define MONOTONIC_CLOCK CLOCK_MONOTONIC

static inline void forbid_sigpipe(int fd)
{
    (void) fd; /* each send says MSG_NOSIGNAL */
}

static inline int stream_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static inline int accept_connection(int fd, struct sockaddr *peer, socklen_t *size)
{
    return accept4(fd, peer, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static inline int open_pipe(int ends[2])
{
    return pipe2(ends, O_NONBLOCK | O_CLOEXEC);
}

/* tcp(7), SIOCOUTQ */
static inline int unacknowledged(int fd)
{
    int left = 0;

    return ioctl(fd, SIOCOUTQ, &left) < 0 ? -1 : left;
}

/* tcp(7), MSG_TRUNC */
static inline void discard_received(int fd, size_t most)
{
    recv(fd, NULL, most, MSG_TRUNC | MSG_DONTWAIT);
}

static inline void name_this_thread(const char *name)
{
    pthread_setname_np(pthread_self(), name);
}

#endif

/* Whether an error of accept(2) is that connection's trouble, not the listener's ("Error handling" there). */
static inline int accept_goes_on(int error)
{
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
#ifdef ENONET
    case ENONET:
#endif
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
        return 1;
    }
    return 0;
}

#endif
