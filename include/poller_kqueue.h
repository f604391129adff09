/* The poller (poller.h) of macOS: a kqueue with its own timer, and a pipe.
 *
 * A kqueue has a filter for each direction of a descriptor where epoll has one entry with bits. Filters go when the descriptor is closed,
 * also where a duplicate is open. */
#ifndef SSLSOCK_POLLER_KQUEUE_H
#define SSLSOCK_POLLER_KQUEUE_H

#include <errno.h>

#include <sys/types.h>

#include <sys/event.h>
#include <sys/time.h>

#define POLLER_EDGE 0x80000000u

typedef struct {
    uint32_t events;
    union {
        void *ptr;
        uint64_t u64;
    } data;
} poller_event;

typedef struct {
    int set, wake_read, wake_write; /* -1: not open */
    int woken;
    int64_t armed;
} poller;

/* The most that a wait brings, events of both directions counted. */
enum { POLLER_BATCH = 256 };

/* kevent(2) into poll(2)'s bits. Returns how many `events` there are: one for each descriptor, as of epoll. */
int poller_translate(const struct kevent *filters, int count, poller_event *events);

static inline int poller_wait(poller *poller, poller_event *events, int most, int milliseconds)
{
    struct kevent filters[POLLER_BATCH];
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    int count = kevent(poller->set, NULL, 0, filters, most < POLLER_BATCH ? most : POLLER_BATCH, milliseconds < 0 ? NULL : &time);

    return count > 0 ? poller_translate(filters, count, events) : count;
}

int poller_add(poller *poller, int fd, uint32_t events, uint64_t data, int known);
int poller_change(poller *poller, int fd, uint32_t events, uint64_t data);
void poller_await_room(poller *poller, int fd, uint32_t *events, uint64_t data);
int poller_remove(poller *poller, int fd);

#endif
