"""The descriptors that a loop waits with (poller.h)."""

from libc.stdint cimport int64_t
from system cimport epoll_event


cdef extern from "poller.h" nogil:
    ctypedef struct poller:
        int epoll, timer, wake_read, wake_write
        int64_t armed

    void poller_init(poller *poller)
    int poller_open(poller *poller)
    void poller_close(poller *poller)
    void poller_leave(poller *poller)
    void poller_arm(poller *poller, int64_t when)
    void poller_wake(poller *poller)
    void poller_wake_once(poller *poller)
    bint poller_takes(poller *poller, const epoll_event *event)
