/* The poller (poller.h) of Linux: an epoll set, a timerfd, and a pipe. poll(2)'s bits are epoll's. */
#ifndef SSLSOCK_POLLER_EPOLL_H
#define SSLSOCK_POLLER_EPOLL_H

#include <sys/epoll.h>

#define POLLER_EDGE ((uint32_t) EPOLLET)

typedef struct epoll_event poller_event;

typedef struct {
    int set, timer, wake_read, wake_write; /* -1: not open */
    int woken;
    int64_t armed;
} poller;

static inline int poller_wait(poller *poller, poller_event *events, int most, int milliseconds)
{
    return epoll_wait(poller->set, events, most, milliseconds);
}

static inline int poller_add(poller *poller, int fd, uint32_t events, uint64_t data, int known)
{
    poller_event event = {.events = events, .data.u64 = data};

    (void) known; /* the set knows better */
    return epoll_ctl(poller->set, EPOLL_CTL_ADD, fd, &event);
}

static inline int poller_change(poller *poller, int fd, uint32_t events, uint64_t data)
{
    poller_event event = {.events = events, .data.u64 = data};

    return epoll_ctl(poller->set, EPOLL_CTL_MOD, fd, &event);
}

/* Once in a connection's life: later edges of room come by themselves. EPOLL_CTL_MOD allocates nothing. */
static inline void poller_await_room(poller *poller, int fd, uint32_t *events, uint64_t data)
{
    if (!(*events & EPOLLOUT)) {
        *events |= EPOLLOUT;
        poller_change(poller, fd, *events, data);
    }
}

static inline int poller_remove(poller *poller, int fd)
{
    return epoll_ctl(poller->set, EPOLL_CTL_DEL, fd, NULL);
}

#endif
