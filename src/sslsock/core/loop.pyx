"""The event loop: descriptors, timers and calls of one thread, and the turns in which they have theirs.

A turn: wait, descriptors, timers, planned calls, watchers that have more to do, flushes. What the kernel holds already is read
before a deadline counts (`catch_up`). It is the same whether the loop runs by itself (`run`), is nested in another loop
(`dispatch`, called when `fileno()` is readable), or is turned part by part by an owner that has a queue of its own. A handler may
call `dispatch` again; each such level works in scratch memory of its own, for the outer one is still in use, and first takes over
what the outer one had still to do: an edge or a call that waits for the handler to return would never come to a handler that
waits for it.

It is built in layers, each of which knows those beneath: whose it is (ownership.pyx), what it is part of (nesting.pyx), what is
planned (planner.pyx), what is ready (reactor.pyx). None of them knows of TLS or of sockets.
"""

from collections import deque

from cpython.exc cimport PyErr_CheckSignals
cimport cython
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint32_t

cimport system
from poller cimport poller_close, poller_leave
from shared_value cimport load_thread, store_int, store_thread
from sslsock.core.reactor cimport LevelWatcher, Reactor, Watcher
from sslsock.core.schedule cimport Timer, TimerHeap, WorkQueue
from sslsock.core.scratch cimport Scratch
from sslsock.core.watch cimport LevelWatch, Watch

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef enum:
    HOST_ROUNDS = 7  # further turns before a host loop has its own


cdef class Loop(Reactor):
    """Descriptors, timers and calls of the thread that made it.

    Every method must be called in that thread, except `call_soon_threadsafe`; others raise RuntimeError elsewhere, after
    `close`, and in a forked child.
    """

    def __cinit__(self):
        self.enlist()

    @property
    def running(self):
        """True inside `run()`."""
        return self.is_running

    @property
    def _turned(self):
        """Whether it has had a turn yet: bool."""
        return self.has_turned

    @property
    def idle(self):
        """True when there is nothing left to wait for."""
        return self.is_idle()

    cdef bint is_idle(self) noexcept:
        return not (
            self.watched or self.soon.count or self.foreign or self.again.count or self.flushes.count
            or self.holds > 0 or self.timers.waits() or self.escaped is not None
        )

    def _has_watcher(self, int fd):
        """Whether a descriptor is that of a connection, a server or a watch of edges in this loop: bool."""
        watcher = self.watcher_of(fd) if fd >= 0 else None
        return watcher is not None and not isinstance(watcher, LevelWatcher)

    def watch(self, int fd, uint32_t events, callback):
        """Call `callback(events)` on each edge of `events` (`select.POLLIN` and its like) at `fd`. Returns a Watch; OSError if the
        system refuses."""
        self.require()
        cdef Watch watch = Watch.__new__(Watch)
        watch.loop = self
        watch.callback = callback
        watch.start_watching(fd, events)
        return watch

    def watch_level(self, int fd, uint32_t events, callback):
        """Call `callback(events)` in each turn in which `fd` is ready for `events` (`select.POLLIN` and its like). Returns a
        LevelWatch; OSError if the system refuses."""
        self.require()
        cdef LevelWatch watch = LevelWatch.__new__(LevelWatch)
        watch.loop = self
        watch.callback = callback
        watch.number = fd
        watch.want(fd, events)
        return watch

    # turns

    def run(self):
        """Run until nothing is left to wait for or `stop()` is called. RuntimeError when it runs already."""
        self.require()
        if self.is_running or self.depth > 0:
            raise RuntimeError("the event loop is running already")
        store_int(self.is_running, True)
        try:
            while not self.is_idle():
                self.turn(-1)
                PyErr_CheckSignals()
                if self.stopping:
                    break
            if self.left:  # a signal's handler has forked
                self.require_owner()
        finally:
            store_int(self.is_running, False)
            self.stopping = False
            if self.unfinished():
                self.plan_turn()

    def stop(self):
        """End `run()` after the current turn, or the next `run()` after its first; open connections stay as they are."""
        self.require()
        self.stopping = True
        self.plan_turn()

    def dispatch(self, timeout=0):
        """One turn: wait `timeout` seconds at most (None: until something happens), do what is ready. Returns the number of
        descriptors that were. May be called from a handler."""
        self.require()
        cdef double seconds = -1
        if timeout is not None:
            if not timeout >= 0:
                raise ValueError("timeout must not be negative")
            seconds = min(timeout, 1e9)
        cdef int count = self.turn(seconds)
        PyErr_CheckSignals()
        return count

    def _host_turn(self):
        """What a host loop calls when `fileno()` is readable.

        Under load it goes on while descriptors keep coming: a turn of asyncio costs more than several of ours."""
        cdef int rounds = 0
        if self.is_closed or not self.in_own_thread():
            return
        while self.turn(0) > 0 and rounds < HOST_ROUNDS:
            rounds += 1

    cdef int move_to_thread(self) except -1:
        """From now on it belongs to the thread that calls, as an asyncio loop belongs to the one that runs it."""
        cdef unsigned long here = PyThread_get_thread_ident()
        cdef Watcher watcher
        if self.depth > 0:
            raise RuntimeError("the event loop is in the middle of a turn")
        if load_thread(self.owner) == here:
            return 0
        with cython.critical_section(self):  # others may just plan something
            store_thread(self.owner, here)
        store_thread(self.timers.thread, here)
        for watcher in list(self.watchers):
            if watcher is not None:
                watcher.on_moved()
        return 0

    cdef int turn(self, double seconds) except -1:
        """One turn, which waits `seconds` at the most (below 0: until something happens). Returns how many events there were."""
        cdef Scratch outer = self.begin_turn()
        cdef int done = 0
        try:
            done = self.wait(seconds)
            done += self.run_due()
            self.run_calls()
            self.run_rest()
        finally:
            self.end_turn(outer)
        self.raise_escaped()
        return done

    # The parts of a turn. An owner that has a queue of its own (of calls, of timers) makes its turns of them, in this order, and
    # does its own work between them: inside, work is found without being announced, and nobody looks for a host.
    #
    #     outer = loop.begin_turn()
    #     try:
    #         loop.wait(seconds)
    #         loop.run_due()
    #         loop.run_calls()
    #         ...  # its own, perhaps with run_flushes() after each call
    #         loop.run_rest()
    #     finally:
    #         loop.end_turn(outer)
    #     loop.raise_escaped()

    cdef Scratch begin_turn(self):
        """A turn begins. One inside another gets scratch memory of its own: what is returned is the outer one's, for `end_turn`."""
        cdef Scratch outer = None
        if self.depth > 0:
            outer = self.enter_scratch()
        self.depth += 1
        self.has_turned = True
        self.host_planned = False
        return outer

    cdef int wait(self, double seconds) except -1:
        """Wait `seconds` at the most, without the GIL (0: not at all, and with it; below 0: until something happens), and tell the
        watchers of what is ready. It does not wait while there is work that no descriptor announces. Returns how many events there
        were."""
        cdef int milliseconds = 0, done = 0
        if self.batch_next < self.batch_count:
            done = self.batch_count - self.batch_next
            self.run_events()
        if seconds != 0 and not done and not self.in_haste():
            milliseconds = -1 if seconds < 0 else <int> min(ceil(seconds * 1000), 1e9)
        return done + self.serve(milliseconds)

    cdef int run_due(self) except -1:
        """The timers that are due, after all that was ready before them. Returns how many events that were."""
        cdef int64_t due = self.due()
        cdef int done = 0
        if due:
            done = self.catch_up()
            self.run_timers(due)
        return done

    cdef void run_rest(self) noexcept:
        """Watchers that have more to do, flushes, and what those that work without the GIL have to say."""
        self.run_again()
        self.run_flushes()
        self.run_reports()

    cdef void end_turn(self, Scratch outer) noexcept:
        """The turn is over, however it ended: let go of what has ended in it, and have what is left announced."""
        self.batch_next = self.batch_count = 0
        self.depth -= 1
        if outer is not None:
            self.leave_scratch(outer)
        if self.graves is not None:  # a nested turn has worked off the batches of the outer ones: no event is left of anybody
            self.empty_graves()
        if self.depth == 0 and not self.is_running and self.unfinished():
            self.plan_turn()

    cdef int raise_escaped(self) except -1:
        """What came out of a handler in the turn and ends programs. RuntimeError where a handler has forked, in the child."""
        if self.escaped is not None:
            escaped, self.escaped = self.escaped, None
            raise escaped
        if self.left:
            self.require_owner()
        return 0

    cdef bint in_haste(self) noexcept:
        """There is something to be done at once."""
        return bool(self.soon.count or self.foreign or self.again.count or self.flushes.count) \
            or self.reports.first != NULL or self.escaped is not None or (self.stopping and self.is_running)

    cdef bint unfinished(self) noexcept:
        """There is work that no descriptor announces."""
        return bool(self.soon.count or self.again.count or self.flushes.count) \
            or self.nogil_again.first != NULL or self.reports.first != NULL

    # the end

    def close(self):
        """Close every connection at once and give the descriptors back. No effect the second time; RuntimeError inside a
        turn or from another thread."""
        if self.left:
            self.close_copies()
            return
        if self.is_closed:
            return
        self.require_owner()
        if self.depth > 0:
            raise RuntimeError("the event loop cannot be closed from inside a turn: stop() it first")
        cdef list watchers = list(self.watchers), timers = list(self.timers.entries)
        with cython.critical_section(self):  # nobody wakes it any more
            store_int(self.is_closed, True)
        # from here on nothing needs memory
        for watcher in watchers:
            if watcher is not None:
                (<Watcher> watcher).on_loop_closed()
        for timer in timers:
            (<Timer> timer).drop()
        self.soon.clear()
        self.again.clear()
        self.flushes.clear()
        self.foreign.clear()
        self.close_mailbox()
        poller_close(&self.poller)

    # in a forked child

    cdef void leave_to_parent(self):
        """Nothing that this process does with the loop reaches its parent any more, wherever in a turn it goes on.

        Descriptors are shared by what they refer to: a child that waited on the set would take its parent's events, one that
        sent would send in the middle of its parent's records, and shutdown(2) ends the connection for both. So the child has
        neither the set nor a number of a connection left when the fork returns. Nothing is freed: destructors of the program
        may do things that only the parent should do.
        """
        cdef Watcher watcher
        poller_leave(&self.poller)
        self.copies = []
        self.inherited = [self.watchers, self.graves, self.timers, self.soon, self.foreign, self.again, self.flushes]
        if not self.thread_is_here():
            return
        self.host = self._host_call_soon = self.asked_host = None
        for watcher in self.watchers:
            if watcher is None:
                continue
            if not watcher.borrowed:
                self.copies.append(watcher.fd)
            watcher.fd = -1
            watcher.on_fork()
        self.watchers, self.graves = [], None
        self.watched = 0
        self.timers = TimerHeap()
        self.soon, self.again, self.flushes = WorkQueue(), WorkQueue(), WorkQueue()
        self.foreign = deque()
        self.nogil_again.first = self.reports.first = NULL
        self.mailbox = NULL
        self.batch_next = self.batch_count = 0
