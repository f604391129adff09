/* The floor that a loop stands on: descriptors with the events that are waited for, a timer, and a waker for other threads and for
 * signal handlers. One interface; each kind of system has its implementation, a header with what the hot path calls and a C file:
 *
 *     poller_epoll.h    Linux: epoll(7), timerfd_create(2)
 *     poller_kqueue.h   macOS: kqueue(2)
 *
 * An implementation defines `poller_event`, with `events` and `data` (a union of `u64` and `ptr`), and `poller`, with
 *
 *     int set           the descriptor that is readable when a descriptor, the timer or the waker has something to tell
 *     int wake_write    one that wakes when a byte is written to it (signal.set_wakeup_fd)
 *     int woken         by `poller_wake_once`, and not heard yet
 *     int64_t armed     when the timer fires: nanoseconds of the monotonic clock, INT64_MAX when it does not
 *
 * Events are poll(2)'s bits, and POLLRDHUP: the peer has ended its direction. POLLHUP and POLLERR are told whatever is waited for. With
 * POLLER_EDGE each news is told once, else as long as it is so. `data` comes back with the event; it is more than POLLER_OWN. What
 * returns int returns 0, or -1 with errno, where nothing else is said. */
#ifndef SSLSOCK_POLLER_H
#define SSLSOCK_POLLER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* POLLRDHUP */
#endif
#include <stddef.h>
#include <stdint.h>

#include <poll.h>

#ifndef POLLRDHUP
#define POLLRDHUP 0x2000
#endif

/* Events with this `data` are the poller's own. */
enum { POLLER_TIMER = 4, POLLER_WAKER = 8, POLLER_OWN = 8 };

#ifdef SSLSOCK_KQUEUE
#include "poller_kqueue.h"
#else
#include "poller_epoll.h"
#endif

/* Marks it as not open. */
void poller_init(poller *poller);

/* Returns 0, or errno; what has been opened by then is given back by `poller_close`. */
int poller_open(poller *poller);

void poller_close(poller *poller);

/* In a forked child: lets go of what it shares with its parent. `set` and `wake_write` go on to be descriptors, of the child's own
 * and never used: a host loop and signal.set_wakeup_fd may have their numbers. */
void poller_leave(poller *poller);

/* Waits `milliseconds` at the most, -1: until there is something. Returns the number of events, -1 when a signal came. */
int poller_wait(poller *poller, poller_event *events, int most, int milliseconds);

/* Has `events` of `fd`, which is not watched yet, told with `data`. What is so already is told, too. known: there is a watcher of that
 * number, whose descriptor may have been closed; EEXIST if it has not. */
int poller_add(poller *poller, int fd, uint32_t events, uint64_t data, int known);

/* The same for one that is watched, in place of what was told of it. ENOENT: it has been closed meanwhile. */
int poller_change(poller *poller, int fd, uint32_t events, uint64_t data);

/* Has the room of `fd`, whose edges `*events` are told with `data`, told too: the next time that there is some, or at once. It takes no
 * memory, and cannot fail. */
void poller_await_room(poller *poller, int fd, uint32_t *events, uint64_t data);

/* Has nothing told of `fd` any more. Fails where it has been closed and a duplicate may still be told of. */
int poller_remove(poller *poller, int fd);

/* Has the timer fire at `when`. */
void poller_arm(poller *poller, int64_t when);

/* Ends the wait that is under way, or the next. */
void poller_wake(poller *poller);

/* The same, unless such a call has not been heard yet. */
static inline void poller_wake_once(poller *poller)
{
    if (!__atomic_exchange_n(&poller->woken, 1, __ATOMIC_ACQ_REL))
        poller_wake(poller);
}

/* What an event of the waker and one of the timer ask for. */
void poller_hear(poller *poller);
void poller_rewind(poller *poller);

/* Whether the event is the poller's own; if so it has been dealt with. */
static inline int poller_takes(poller *poller, const poller_event *event)
{
    if (event->data.u64 > POLLER_OWN)
        return 0;
    if (event->data.u64 == POLLER_WAKER)
        poller_hear(poller);
    else
        poller_rewind(poller);
    return 1;
}

#endif
