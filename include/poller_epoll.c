#include "poller.h"

#ifndef SSLSOCK_KQUEUE

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <sys/timerfd.h>

#include "system.h"

_Static_assert(POLLIN == EPOLLIN && POLLPRI == EPOLLPRI && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR && POLLHUP == EPOLLHUP
                   && POLLRDHUP == EPOLLRDHUP,
               "poll(2) and epoll(7) have the same bits");

void poller_init(poller *poller)
{
    poller->set = poller->timer = poller->wake_read = poller->wake_write = -1;
    poller->woken = 0;
    poller->armed = INT64_MAX;
}

int poller_open(poller *poller)
{
    int ends[2];

    poller->set = epoll_create1(EPOLL_CLOEXEC);
    if (poller->set < 0)
        return errno;
    poller->timer = timerfd_create(MONOTONIC_CLOCK, TFD_NONBLOCK | TFD_CLOEXEC);
    if (poller->timer < 0 || open_pipe(ends) < 0)
        return errno;
    /* A pipe, not an eventfd: signal.set_wakeup_fd writes single bytes. */
    poller->wake_read = ends[0];
    poller->wake_write = ends[1];
    return poller_add(poller, poller->timer, POLLIN, POLLER_TIMER, 0) < 0 || poller_add(poller, poller->wake_read, POLLIN, POLLER_WAKER, 0) < 0
               ? errno
               : 0;
}

static void shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void poller_close(poller *poller)
{
    shut(&poller->set);
    shut(&poller->timer);
    shut(&poller->wake_read);
    shut(&poller->wake_write);
}

/* The descriptor `own`, or none, in place of `shared`. */
static void replace(int *shared, int own)
{
    if (own < 0 || dup3(own, *shared, O_CLOEXEC) < 0)
        shut(shared);
    shut(&own);
}

void poller_leave(poller *poller)
{
    int ends[2];

    if (poller->set < 0)
        return;
    shut(&poller->timer);
    replace(&poller->set, epoll_create1(EPOLL_CLOEXEC));
    if (open_pipe(ends) < 0)
        ends[0] = ends[1] = -1;
    replace(&poller->wake_read, ends[0]);
    replace(&poller->wake_write, ends[1]);
}

void poller_arm(poller *poller, int64_t when)
{
    struct itimerspec at = {.it_value = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000}};

    poller->armed = when;
    timerfd_settime(poller->timer, TFD_TIMER_ABSTIME, &at, NULL);
}

void poller_wake(poller *poller)
{
    ssize_t written = write(poller->wake_write, "w", 1);

    (void) written; /* a full pipe wakes as well */
}

void poller_hear(poller *poller)
{
    char rest[256];

    while (read(poller->wake_read, rest, sizeof rest) == sizeof rest)
        ;
    /* Last: were it 0 before, what comes meanwhile would be read here with its mark left behind, and nobody would write again. Who comes
     * from now on writes; what was planned before is seen. */
    __atomic_exchange_n(&poller->woken, 0, __ATOMIC_ACQ_REL);
}

void poller_rewind(poller *poller)
{
    uint64_t expirations;
    ssize_t size = read(poller->timer, &expirations, sizeof expirations);

    (void) size;
    poller->armed = INT64_MAX;
}

#endif
