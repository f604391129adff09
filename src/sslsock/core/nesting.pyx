"""How a loop is part of another: of the asyncio loop that runs in its thread, its host.

What it shows is one descriptor, `poller.set`, readable when there is work. Outside a turn every use looks which asyncio loop
runs in the thread (`require`): whoever has something of this loop in a coroutine wants it to be served there. Work that no
descriptor announces (`plan_turn`) is told to the host, or by the descriptor.
"""

import os
import sys

cimport cython

from poller cimport poller_close, poller_init, poller_open, poller_wake, poller_wake_once
from shared_value cimport load_int, store_int
from sslsock.core.ownership cimport Owned

cdef object get_running_loop = None  # asyncio's, once the program has imported it; never changed then
cdef int is_found = 0
cdef object finding = object()  # its critical section


cpdef object running_host():
    """The asyncio loop that runs in this thread, or None."""
    global get_running_loop
    if not load_int(is_found):
        # asyncio is never imported here: a program that has a running asyncio loop has done so. It lacks the function while
        # another thread is still importing it.
        found = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
        if found is None:
            return None
        with cython.critical_section(finding):
            if not load_int(is_found):
                get_running_loop = found
                store_int(is_found, 1)
    return get_running_loop()


cdef class Nested(Owned):
    """A loop's descriptors and its host."""

    def __cinit__(self):
        cdef int error
        poller_init(&self.poller)
        error = poller_open(&self.poller)
        if error:
            raise OSError(error, os.strerror(error))

    def __dealloc__(self):
        poller_close(&self.poller)

    def fileno(self):
        """The descriptor that is readable when `dispatch()` has work: int."""
        self.require_owner()
        return self.poller.set

    @property
    def wake_fd(self):
        """A descriptor that wakes the loop when a byte is written to it (`signal.set_wakeup_fd`)."""
        return self.poller.wake_write

    @property
    def dispatching(self):
        """True inside a turn: in `run()` or `dispatch()`."""
        return self.depth > 0

    # use

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
        if self.in_own_thread() and self.depth == 0 and not self.is_closed:
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

    # work

    cdef void plan_turn(self) noexcept:
        """There is work that no descriptor announces. Inside a turn it is found; otherwise somebody must be told."""
        if self.depth > 0 or self.host_planned:
            return
        # A host that does not run now may never run again, and whoever turns the loop in its place is told by the descriptor.
        if self._host_call_soon is not None and (self.host is None or running_host() is self.host):
            # One call at a time: a turn of the host is several of ours, and if each asked for the next, they would multiply.
            if self.asked_host is self._host_call_soon:
                return
            self.asked_host = self._host_call_soon
            try:
                self._host_call_soon(self._host_called)
                return
            except BaseException as exc:  # the host has been closed: whoever comes next finds the pipe
                self._host_call_soon = None
                if not isinstance(exc, Exception):
                    self.escaped = exc
        self.host_planned = True
        poller_wake(&self.poller)

    cdef bint wake(self) noexcept:
        """From any thread: end the wait that is under way, or the next. False: the loop is closed."""
        cdef bint is_open
        with cython.critical_section(self):  # whoever closes the loop's descriptors has said so in one before
            is_open = not load_int(self.is_closed)
            if is_open:
                poller_wake_once(&self.poller)
        return is_open

    def _host_called(self):
        """What `_host_call_soon` is given: the turn that was asked for."""
        self.asked_host = None
        self._host_turn()
