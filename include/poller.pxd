"""The floor that a loop stands on (poller.h)."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "poller.h" nogil:
    uint32_t POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLRDHUP, POLLER_EDGE

    ctypedef union poller_data:
        void *ptr
        uint64_t u64

    ctypedef struct poller_event:
        uint32_t events
        poller_data data

    ctypedef struct poller:
        int set, wake_write
        int64_t armed

    void poller_init(poller *poller)
    int poller_open(poller *poller)
    void poller_close(poller *poller)
    void poller_leave(poller *poller)
    int poller_wait(poller *poller, poller_event *events, int most, int milliseconds)
    int poller_add(poller *poller, int fd, uint32_t events, uint64_t data, bint known)
    int poller_change(poller *poller, int fd, uint32_t events, uint64_t data)
    void poller_await_room(poller *poller, int fd, uint32_t *events, uint64_t data)
    int poller_remove(poller *poller, int fd)
    void poller_arm(poller *poller, int64_t when)
    void poller_wake(poller *poller)
    void poller_wake_once(poller *poller)
    bint poller_takes(poller *poller, const poller_event *event)
