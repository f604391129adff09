#include "poller.h"

#ifdef SSLSOCK_KQUEUE

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "system.h"

void poller_init(poller *poller)
{
    poller->set = poller->wake_read = poller->wake_write = -1;
    poller->woken = 0;
    poller->armed = INT64_MAX;
}

/* Carries out the changes, each with EV_RECEIPT, and tells of no event. That there was nothing to delete is no failure, and neither is
 * EPIPE, with which macOS says that the reader of a pipe is gone: the filter stands, and tells so. */
static int apply(int set, struct kevent *changes, int count)
{
    const struct timespec none = {0, 0};
    int number, receipts = kevent(set, changes, count, changes, count, &none);

    if (receipts < 0)
        return -1;
    for (number = 0; number < receipts; number++) {
        if (changes[number].flags & EV_ERROR && changes[number].data != 0 && changes[number].data != ENOENT
            && changes[number].data != EPIPE) {
            errno = (int) changes[number].data;
            return -1;
        }
    }
    return 0;
}

static int add_filters(struct kevent *changes, int fd, uint32_t events, uint64_t data)
{
    unsigned flags = EV_ADD | EV_RECEIPT | (events & POLLER_EDGE ? EV_CLEAR : 0), lowest = 0;
    int count = 0;

#ifdef NOTE_OOB
    if (events & POLLPRI)
        lowest = NOTE_OOB;
#endif
    if (events & (POLLIN | POLLPRI | POLLRDHUP)) {
        EV_SET(&changes[count], fd, EVFILT_READ, flags, lowest, 0, (void *) (uintptr_t) data);
        count++;
    }
    if (events & POLLOUT) {
        EV_SET(&changes[count], fd, EVFILT_WRITE, flags, 0, 0, (void *) (uintptr_t) data);
        count++;
    }
    return count;
}

static int delete_filters(struct kevent *changes, int fd)
{
    EV_SET(&changes[0], fd, EVFILT_READ, EV_DELETE | EV_RECEIPT, 0, 0, NULL);
    EV_SET(&changes[1], fd, EVFILT_WRITE, EV_DELETE | EV_RECEIPT, 0, 0, NULL);
    return 2;
}

/* Whether `fd` is watched. */
static int stands(poller *poller, int fd)
{
    struct kevent changes[2];
    const struct timespec none = {0, 0};
    int receipts;

    EV_SET(&changes[0], fd, EVFILT_READ, EV_ENABLE | EV_RECEIPT, 0, 0, NULL);
    EV_SET(&changes[1], fd, EVFILT_WRITE, EV_ENABLE | EV_RECEIPT, 0, 0, NULL);
    receipts = kevent(poller->set, changes, 2, changes, 2, &none);
    return receipts == 2 && (changes[0].data == 0 || changes[1].data == 0);
}

/* As epoll: EV_ADD of what stands would change it, and a file would be readable until its end, which is never told. */
int poller_add(poller *poller, int fd, uint32_t events, uint64_t data, int known)
{
    struct kevent changes[2];
    struct stat status;

    if (fstat(fd, &status) < 0)
        return -1;
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) {
        errno = EPERM;
        return -1;
    }
    if (known && stands(poller, fd)) {
        errno = EEXIST;
        return -1;
    }
    return apply(poller->set, changes, add_filters(changes, fd, events, data));
}

int poller_change(poller *poller, int fd, uint32_t events, uint64_t data)
{
    struct kevent changes[4];
    int count = delete_filters(changes, fd);

    return apply(poller->set, changes, count + add_filters(changes + count, fd, events, data));
}

/* EV_ONESHOT: after that nothing is told until it is asked for again, and a connection that is not blocked has no news of each
 * acknowledgement. Memory that this takes the kernel waits for. */
void poller_await_room(poller *poller, int fd, uint32_t *events, uint64_t data)
{
    struct kevent change;

    if (*events & POLLOUT)
        return;
    EV_SET(&change, fd, EVFILT_WRITE, EV_ADD | EV_CLEAR | EV_ONESHOT | EV_RECEIPT, 0, 0, (void *) (uintptr_t) data);
    apply(poller->set, &change, 1);
}

int poller_remove(poller *poller, int fd)
{
    struct kevent changes[2];

    apply(poller->set, changes, delete_filters(changes, fd));
    return 0; /* a closed descriptor has taken its filters with it */
}

static uint32_t bits_of(const struct kevent *filter)
{
    int ended = filter->flags & EV_EOF, failed = ended && filter->fflags != 0; /* then they are the socket's error */
    uint32_t failure = failed ? POLLERR | POLLHUP : 0;

    if (filter->filter == EVFILT_WRITE)
        return POLLOUT | (ended ? POLLHUP : 0) | failure;
#ifdef NOTE_OOB
    if (!ended && filter->fflags & NOTE_OOB)
        return POLLIN | POLLPRI;
#endif
    return POLLIN | (ended ? POLLRDHUP : 0) | failure;
}

/* Both directions of one descriptor become one event: who was told of it twice in a turn would read twice. */
int poller_translate(const struct kevent *filters, int count, poller_event *events)
{
    int number, other, told = 0;

    for (number = 0; number < count; number++) {
        if (filters[number].filter == EVFILT_WRITE)
            continue;
        events[told].events = bits_of(&filters[number]);
        events[told++].data.ptr = filters[number].udata;
    }
    for (number = 0; number < count; number++) {
        if (filters[number].filter != EVFILT_WRITE)
            continue;
        for (other = told - 1; other >= 0 && events[other].data.ptr != filters[number].udata; other--)
            ;
        if (other < 0) {
            other = told++;
            events[other].events = 0;
            events[other].data.ptr = filters[number].udata;
        }
        events[other].events |= bits_of(&filters[number]);
    }
    return told;
}

void poller_arm(poller *poller, int64_t when)
{
    struct kevent change;
    struct timespec now;
    int64_t left;

    clock_gettime(MONOTONIC_CLOCK, &now);
    left = when - (now.tv_sec * INT64_C(1000000000) + now.tv_nsec);
    EV_SET(&change, 0, EVFILT_TIMER, EV_ADD | EV_ONESHOT | EV_RECEIPT, NOTE_NSECONDS, left > 1 ? left : 1,
           (void *) (uintptr_t) POLLER_TIMER);
    poller->armed = when;
    apply(poller->set, &change, 1);
}

void poller_rewind(poller *poller)
{
    poller->armed = INT64_MAX;
}

int poller_open(poller *poller)
{
    int ends[2];

    poller->set = kqueue();
    if (poller->set < 0)
        return errno;
    fcntl(poller->set, F_SETFD, FD_CLOEXEC);
    if (open_pipe(ends) < 0)
        return errno;
    poller->wake_read = ends[0];
    poller->wake_write = ends[1];
    return poller_add(poller, poller->wake_read, POLLIN, POLLER_WAKER, 0) < 0 ? errno : 0;
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
    shut(&poller->wake_read);
    shut(&poller->wake_write);
}

/* The descriptor `own`, or none, in place of `shared`. */
static void replace(int *shared, int own)
{
    if (own < 0 || dup2(own, *shared) < 0)
        shut(shared);
    else
        fcntl(*shared, F_SETFD, FD_CLOEXEC);
}

/* A child has no kqueue of its parent's (kqueue(2)). The number is free, if nobody has taken it since: it is taken before it can be
 * one of the new pipe's. */
void poller_leave(poller *poller)
{
    int ends[2], taken;

    if (poller->set < 0)
        return;
    if (fcntl(poller->set, F_GETFD) >= 0) {
        poller->set = -1;
    } else {
        taken = fcntl(poller->wake_read, F_DUPFD_CLOEXEC, poller->set);
        if (taken != poller->set)
            shut(&taken);
        poller->set = taken;
    }
    if (open_pipe(ends) < 0)
        ends[0] = ends[1] = -1;
    replace(&poller->set, ends[0]);
    replace(&poller->wake_read, ends[0]);
    replace(&poller->wake_write, ends[1]);
    shut(&ends[0]);
    shut(&ends[1]);
}

void poller_hear(poller *poller)
{
    char rest[256];

    while (read(poller->wake_read, rest, sizeof rest) == sizeof rest)
        ;
    __atomic_exchange_n(&poller->woken, 0, __ATOMIC_ACQ_REL); /* last: see poller_epoll.c */
}

void poller_wake(poller *poller)
{
    ssize_t written = write(poller->wake_write, "w", 1);

    (void) written; /* a full pipe wakes as well */
}

#endif
