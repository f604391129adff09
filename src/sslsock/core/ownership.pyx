"""Whose a loop is: of one thread of one process, and part of the asyncio loop that runs there.

Every use begins with a look at that (`require`). Outside a turn it also looks which asyncio loop runs in the thread, its
host: whoever has something of this loop in a coroutine wants it to be served there.
"""

import os
import sys
from weakref import WeakSet

from cpython.ref cimport Py_INCREF

cimport linux

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()


cdef object get_running_loop = None  # asyncio's, once the program has imported it


cpdef object running_host():
    """The asyncio loop that runs in this thread, or None."""
    global get_running_loop
    if get_running_loop is None:
        # asyncio is never imported here: a program that has a running asyncio loop has done so. It lacks the function while
        # another thread is still importing it.
        get_running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
        if get_running_loop is None:
            return None
    return get_running_loop()


# Counts the forks that led to this process: what has another count belongs to a parent. They are counted also where Python does
# not learn of them.
cdef int forks = 0


cdef void count_fork() noexcept nogil:
    global forks
    forks += 1


linux.pthread_atfork(NULL, NULL, count_fork)

cdef object alive = WeakSet()  # all of this process


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
            self.is_closed = True
            self.host = None
            return True
        Py_INCREF(self)
        return False

    cdef bint in_own_thread(self) noexcept:
        return self.owner == PyThread_get_thread_ident() and self.fork_count == forks

    cdef int require_owner(self) except -1:
        if self.fork_count != forks:
            raise RuntimeError("this event loop belongs to the parent process: a forked child must make its own")
        if self.is_closed:
            raise RuntimeError("the event loop is closed")
        if self.owner != PyThread_get_thread_ident():
            raise RuntimeError("this belongs to the event loop of another thread: use the _async twin or call_soon_threadsafe")
        return 0

    cdef int require(self) except -1:
        """What every method begins with that only the loop's thread may call."""
        self.require_owner()
        if self.depth == 0:
            self.look_for_host()
        return 0

    cdef int require_thread(self) except -1:
        """For what is possible after the loop was closed: to read what has been received."""
        if not self.in_own_thread():
            self.require_owner()
        elif self.depth == 0 and not self.is_closed:
            self.look_for_host()
        return 0

    cdef int look_for_host(self) except -1:
        """Outside a turn: whoever has something of this loop in a running asyncio loop wants it to be served there."""
        host = running_host()
        if host is not None and host is not self.host:
            self.follow(host)
        return 0

    def follow(self, host):
        """Become part of `host`, an asyncio loop of this thread, which need not run yet: for a derived class to do."""

    cdef int meet_host(self) except -1:
        if self.depth == 0 and not self.is_closed and self.in_own_thread():
            self.look_for_host()
        return 0

    def _meet(self):
        """Attach to the asyncio loop that runs here, if this is the loop's own thread. Never raises for another thread, a closed loop
        or a forked child."""
        self.meet_host()

    def check(self):
        """Raise RuntimeError unless this is the loop's own thread and process and it is not closed."""
        self.require()

    def _check_owner(self):
        """As `check`, which also attaches the loop to the asyncio loop that runs here; this does not."""
        self.require_owner()

    def in_thread(self):
        """True in the loop's own thread and process."""
        return self.in_own_thread()

    @property
    def closed(self):
        """True after `close()`, and in a forked child."""
        return self.is_closed

    @property
    def _of_parent(self):
        """Whether it belongs to the process that this one was forked from: bool."""
        return self.fork_count != forks

    @property
    def thread_id(self):
        """Identifier of the loop's thread, as `threading.get_ident()` gives it."""
        return self.owner
