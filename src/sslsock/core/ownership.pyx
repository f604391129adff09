"""Whose a loop is: of one thread of one process. Every use begins with a look at that (`require_owner`)."""

import os
from weakref import WeakSet

from cpython.ref cimport Py_INCREF

cimport system
from shared_value cimport load_int, load_thread, store_int

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()


# Counts the forks that led to this process: what has another count belongs to a parent. They are counted also where Python does
# not learn of them.
cdef int forks = 0


cdef void count_fork() noexcept nogil:
    global forks
    forks += 1


system.pthread_atfork(NULL, NULL, count_fork)

cdef object alive = WeakSet()  # all of this process

cdef str OTHER_THREAD = "this belongs to the event loop of another thread: use the _async twin or call_soon_threadsafe"


def _leave_to_parents():
    """In a forked child, before it goes on: it may do so in the middle of a turn, when a handler has forked."""
    cdef Owned one
    for one in list(alive):
        if one.fork_count != forks and not one.left:
            one.left = True
            one.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parents)


cdef class Owned:
    """What belongs to the thread that makes it. Base of `Loop`."""

    def __cinit__(self):
        self.owner = PyThread_get_thread_ident()
        self.fork_count = forks

    # The only one of a loop's layers that may use its attributes here: those of a derived class do not exist where the making of
    # a base has failed.
    def __dealloc__(self):
        self.close_copies()

    cdef int enlist(self) except -1:
        """From now on forks are told to it: it is whole."""
        alive.add(self)
        return 0

    cdef void leave_to_parent(self):
        """In a forked child: leave alone what the parent goes on with."""

    cdef bint thread_is_here(self):
        """For `leave_to_parent`: whether it is this thread's. No other thread exists in the child. What another was doing may be
        half done, so nothing of its loop is looked at, or ever freed."""
        if self.owner == PyThread_get_thread_ident():
            store_int(self.is_closed, True)
            return True
        Py_INCREF(self)
        return False

    cdef void close_copies(self) noexcept:
        """The child's own descriptors: that ends nothing as long as the parent has its."""
        if self.copies is not None:
            for fd in self.copies:
                system.close(fd)
            self.copies = []

    cdef bint in_own_thread(self) noexcept:
        return load_thread(self.owner) == PyThread_get_thread_ident() and self.fork_count == forks

    cdef int require_here(self) except -1:
        """For what is possible after the loop was closed, and in a child: not in another thread."""
        if load_thread(self.owner) != PyThread_get_thread_ident() and self.fork_count == forks:
            raise RuntimeError(OTHER_THREAD)
        return 0

    cdef int require_owner(self) except -1:
        if self.fork_count != forks:
            raise RuntimeError("this event loop belongs to the parent process: a forked child must make its own")
        if load_int(self.is_closed):
            raise RuntimeError("the event loop is closed")
        if load_thread(self.owner) != PyThread_get_thread_ident():
            raise RuntimeError(OTHER_THREAD)
        return 0

    def in_thread(self):
        """True in the loop's own thread and process."""
        return self.in_own_thread()

    @property
    def closed(self):
        """True after `close()`, and in a forked child."""
        return bool(load_int(self.is_closed))

    @property
    def _of_parent(self):
        """Whether it belongs to the process that this one was forked from: bool."""
        return self.fork_count != forks

    @property
    def thread_id(self):
        """Identifier of the loop's thread, as `threading.get_ident()` gives it."""
        return load_thread(self.owner)
