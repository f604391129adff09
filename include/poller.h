/* The descriptors that a loop waits with: an epoll set, a timerfd, and a pipe that other threads and signal handlers write to. */
#ifndef SSLSOCK_POLLER_H
#define SSLSOCK_POLLER_H

#include <stdint.h>

#include <sys/epoll.h>

typedef struct {
    int epoll, timer, wake_read, wake_write; /* -1: not open */
    int woken; /* by `poller_wake_once`, and not heard yet */
    int64_t armed; /* when the timer fires: nanoseconds of CLOCK_MONOTONIC, INT64_MAX when it does not */
} poller;

/* Marks it as not open. */
void poller_init(poller *poller);

/* Returns 0, or errno; what has been opened by then is given back by `poller_close`. */
int poller_open(poller *poller);

void poller_close(poller *poller);

/* In a forked child: lets go of what it shares with its parent. `epoll` and `wake_write` go on to be a set and a pipe, of the
 * child's own and never used: a host loop and signal.set_wakeup_fd may have their numbers. */
void poller_leave(poller *poller);

/* Has the timer fire at `when`. */
void poller_arm(poller *poller, int64_t when);

/* What an event of the pipe and one of the timer ask for. */
void poller_hear(poller *poller);
void poller_rewind(poller *poller);

/* Makes the set readable. */
void poller_wake(poller *poller);

/* The same, unless such a call has not been heard yet. */
static inline void poller_wake_once(poller *poller)
{
    if (!poller->woken) {
        poller->woken = 1;
        poller_wake(poller);
    }
}

/* Whether the event is of the timer or the pipe; if so it has been dealt with. */
static inline int poller_takes(poller *poller, const struct epoll_event *event)
{
    /* Events of watchers carry an address; no object lies at so low a one. */
    if (event->data.u64 == (uint64_t) poller->wake_read * 2)
        poller_hear(poller);
    else if (event->data.u64 == (uint64_t) poller->timer * 2)
        poller_rewind(poller);
    else
        return 0;
    return 1;
}

#endif
