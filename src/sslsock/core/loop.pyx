"""The event loop: descriptors, timers and calls of one thread.

Owns what it waits with (`poller`) and what is planned (`schedule.pyx`). Knows nothing of TLS or of sockets: a `Watcher` (a
channel, a listener) says what to do when its descriptor is ready.

Descriptors are watched edge-triggered (epoll(7), "Level-triggered and edge-triggered"), once: a connection then costs one
epoll_ctl in its life, and a second when a send is refused for the first time (`await_room`), however often it is blocked or
paused. The price is that whoever stops before the kernel has nothing left must come back by itself: `plan_again`.

A turn: wait, descriptors, timers, planned calls, watchers that have more to do, flushes. What the kernel holds already is read
before a deadline counts (`catch_up`). It is the same whether the loop runs by itself (`run`) or nested in another loop
(`dispatch`, called when `fileno()` is readable). A handler may call `dispatch` again; each such level works in scratch memory
of its own, for the outer one is still in use, and first takes over what the outer one had still to do: an edge or a call that
waits for the handler to return would never come to a handler that waits for it.

Events carry the address of a watcher. A watcher closed in a turn is kept in `graves` until a turn ends, so an event that is
already in a batch never points to freed memory.

Some watchers (the sides of a relay) need no Python: the lowest bit of the address in their events says so. While only such
events come, the loop waits and works without the GIL (`nogil_turns`); what they have to tell Python they `plan_report`.
"""

import os
from collections import deque

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

cimport linux
from run_queue cimport run_queue_add, run_queue_next, run_queue_remove
from linux cimport epoll_event, errno
from poller cimport poller_arm, poller_close, poller_init, poller_leave, poller_open, poller_takes, poller_wake, poller_wake_once
from sslsock.core.ownership cimport Owned, running_host
from sslsock.core.schedule cimport Timer, TimerHeap, WorkQueue

cdef enum:
    NOGIL = 1  # in an event's address: its watcher works without the GIL
    BATCH = 256  # events taken at once
    HOST_ROUNDS = 7  # further turns before a host loop has its own
    NOGIL_TIME = 100000000  # nanoseconds that `run` works without a look at signals, which only the GIL's holder can take


cdef object logger():
    """The log "sslsock". Only what has gone wrong comes here, and logging takes long to load."""
    import logging
    return logging.getLogger("sslsock")


cdef int64_t monotonic_ns() noexcept nogil:
    cdef linux.timespec now
    linux.clock_gettime(linux.CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1000000000 + now.tv_nsec


cdef class Watcher:
    """One descriptor in a loop's set."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1

    cdef int start_watching(self, int fd, uint32_t events) except -1:
        """Whatever raises, nothing is watched then."""
        cdef epoll_event event
        cdef int error
        cdef object number = fd, before = self.loop.watchers.get(number)
        event.events = events | linux.EPOLLET
        event.data.u64 = self.address()
        # What needs memory comes first: once the set has the address, the object must not go.
        if before is not None:
            # Its descriptor was closed behind our back. If a duplicate is open, the set still has its address.
            self.loop.lost.append(before)
        self.loop.watchers[number] = self
        if linux.epoll_ctl(self.loop.poller.epoll, linux.EPOLL_CTL_ADD, fd, &event) < 0:
            error = errno
            if before is None:
                del self.loop.watchers[number]
            else:
                self.loop.watchers[number] = self.loop.lost.pop()
            raise OSError(error, os.strerror(error))
        self.fd, self.number = fd, number
        self.events = event.events
        self.loop.nogil_count += self.is_nogil
        return 0

    cdef uint64_t address(self) noexcept nogil:
        """What its events carry."""
        return <uint64_t> <void *> self | (NOGIL if self.is_nogil else 0)

    cdef int take_over_watch(self, Watcher before, uint32_t events) except -1:
        """Watch the descriptor of `before` in its place. What is ready now is announced anew."""
        cdef epoll_event event
        cdef int fd = before.fd
        event.events = events | linux.EPOLLET
        event.data.u64 = self.address()
        if linux.epoll_ctl(self.loop.poller.epoll, linux.EPOLL_CTL_MOD, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        before.fd = -1
        self.loop.bury(before)
        self.fd, self.number = fd, before.number
        self.events = event.events
        self.loop.nogil_count += self.is_nogil - before.is_nogil
        self.loop.watchers[self.number] = self
        return 0

    cdef void await_room(self) noexcept nogil:
        """From now on EPOLLOUT is announced too, now if there is room. Asked for when the kernel has refused something: most
        connections never fill its buffer, and an edge for each of them costs a turn. (EPOLL_CTL_MOD allocates nothing: it
        fails for none that is watched.)"""
        cdef epoll_event event
        if self.events & linux.EPOLLOUT or self.fd < 0:
            return
        self.events |= linux.EPOLLOUT
        event.events = self.events
        event.data.u64 = self.address()
        linux.epoll_ctl(self.loop.poller.epoll, linux.EPOLL_CTL_MOD, self.fd, &event)

    cdef void stop_watching(self) noexcept:
        """Out of the set at once; it needs no memory. The caller closes the descriptor, if it is his, after this."""
        cdef epoll_event event
        cdef int fd = self.fd
        if fd < 0:
            return
        self.fd = -1
        if self.is_nogil:
            self.loop.nogil_count -= 1
            run_queue_remove(&self.loop.nogil_again, &self.again_node)
            run_queue_remove(&self.loop.reports, &self.report_node)
        if self.loop.watchers.get(self.number) is not self:
            return  # the number means another watcher's descriptor by now
        linux.epoll_ctl(self.loop.poller.epoll, linux.EPOLL_CTL_DEL, fd, &event)
        self.loop.bury(self)
        del self.loop.watchers[self.number]

    cdef void plan_again(self) noexcept:
        """Have `on_again` called in the next turn: there is work that no edge will announce."""
        if not self.again_planned:
            self.loop.again.planned.append(self)  # may fail, and is then tried again
            self.again_planned = True
            self.loop.plan_turn()

    cdef void plan_flush(self) noexcept:
        """Have `on_flush` called at the end of this turn."""
        if not self.flush_planned:
            self.loop.flushes.planned.append(self)
            self.flush_planned = True
            self.loop.plan_turn()

    cdef void plan_again_nogil(self) noexcept nogil:
        """`plan_again` for one that works without the GIL: `on_again_nogil` is called."""
        run_queue_add(&self.loop.nogil_again, &self.again_node, <void *> self)

    cdef void plan_report(self) noexcept nogil:
        """Have `on_report` called, with the GIL, in this turn or the next."""
        run_queue_add(&self.loop.reports, &self.report_node, <void *> self)

    cdef void on_event_nogil(self, uint32_t events) noexcept nogil:
        pass

    cdef void on_again_nogil(self) noexcept nogil:
        pass

    cdef void on_report(self) noexcept:
        pass

    cdef void on_event(self, uint32_t events) noexcept:
        pass

    cdef void on_again(self) noexcept:
        pass

    cdef void on_flush(self) noexcept:
        pass

    cdef size_t waiting_output(self) noexcept:
        """Bytes that the system has not taken yet."""
        return 0

    cdef void on_loop_closed(self) noexcept:
        self.stop_watching()

    cdef void on_fork(self) noexcept:
        """In a forked child: do nothing more, also if it is called from one of your methods."""


@cython.final
cdef class Watch(Watcher):
    """A descriptor of the caller's, watched for a Python callback."""

    cdef void on_event(self, uint32_t events) noexcept:
        callback = self.callback
        try:
            if callback is not None:
                callback(events)
        except BaseException as exc:
            self.loop.report("exception in a watch callback", exc, callback)

    def close(self):
        """Stop watching; the descriptor stays the caller's."""
        if self.loop is None:
            return
        if not self.loop.is_closed and not self.loop.left:
            self.loop.require()
        self.callback = None
        self.stop_watching()


@cython.final
cdef class Scratch:
    """One set of scratch memory, for one level of nested turns."""

    def __cinit__(self):
        cdef size_t size = RECEIVE_SIZE + PLAIN_SIZE + SEND_SIZE + GATHER_SIZE
        cdef char *memory = <char *> malloc(size)
        if memory == NULL:
            raise MemoryError
        self.block.receive = memory
        self.block.plain = self.block.receive + RECEIVE_SIZE
        self.block.send_ = self.block.plain + PLAIN_SIZE
        self.block.gather = self.block.send_ + SEND_SIZE

    def __dealloc__(self):
        free(self.block.receive)


cdef class Loop(Owned):
    """Descriptors, timers and calls of the thread that made it.

    Every method must be called in that thread, except `call_soon_threadsafe`; others raise RuntimeError elsewhere, after
    `close`, and in a forked child.
    """

    def __cinit__(self):
        cdef int error
        poller_init(&self.poller)
        self.watchers = {}
        self.lost = []
        self.timers = TimerHeap()
        self.soon = WorkQueue()
        self.again = WorkQueue()
        self.flushes = WorkQueue()
        self.foreign = deque()
        self.spare_scratch = []
        error = poller_open(&self.poller)
        if error:
            raise OSError(error, os.strerror(error))
        self.use_scratch(Scratch())
        self.enlist()

    def __dealloc__(self):
        poller_close(&self.poller)
        self.close_copies()

    @property
    def running(self):
        """True inside `run()`."""
        return self.is_running

    @property
    def dispatching(self):
        """True inside a turn: in `run()` or `dispatch()`."""
        return self.depth > 0

    @property
    def wake_fd(self):
        """A descriptor that wakes the loop when a byte is written to it (`signal.set_wakeup_fd`)."""
        return self.poller.wake_write

    @property
    def _turned(self):
        """Whether it has had a turn yet: bool."""
        return self.has_turned

    @property
    def unsent(self):
        """Bytes of all its connections that the system has not taken yet: int."""
        cdef Watcher watcher
        cdef size_t size = 0
        for watcher in self.watchers.values():
            size += watcher.waiting_output()
        return size

    @property
    def watching(self):
        """How many descriptors are watched."""
        return len(self.watchers)

    @property
    def idle(self):
        """True when there is nothing left to wait for."""
        return not (
            self.watchers or self.soon.planned or self.foreign or self.again.planned or self.flushes.planned
            or self.holds > 0 or self.timers.waits() or self.escaped is not None
        )

    def fileno(self):
        """The descriptor that is readable when `dispatch()` has work: int."""
        self.require_owner()
        return self.poller.epoll

    def time(self):
        """Seconds of the monotonic clock that timers use: float."""
        return monotonic_ns() / 1e9

    # calls

    def call_soon(self, callback, *args):
        """Call `callback(*args)` in the next turn."""
        self.require()
        if not callable(callback):
            raise TypeError(f"a callable is needed, not {type(callback).__name__}")
        self.soon.planned.append((callback, args))
        self.plan_turn()

    def call_later(self, double seconds, callback, *args):
        """Call `callback(*args)` once, in `seconds` (float, not less than 0). Returns a Timer."""
        self.require()
        if not callable(callback):
            raise TypeError(f"a callable is needed, not {type(callback).__name__}")
        if not seconds >= 0:
            raise ValueError("seconds must not be negative")
        return self.plan(seconds, callback, args, False)

    def call_soon_threadsafe(self, callback, *args):
        """Call `callback(*args)` in the loop's thread; may be called from any thread, and from a signal handler."""
        if self.left:
            raise RuntimeError("this event loop belongs to the parent process: a forked child must make its own")
        if self.is_closed:
            raise RuntimeError("the event loop is closed")
        if not callable(callback):
            raise TypeError(f"a callable is needed, not {type(callback).__name__}")
        self.foreign.append((callback, args))
        poller_wake_once(&self.poller)

    cdef Timer plan(self, double seconds, object callback, tuple args, bint background):
        cdef double limit = 1e9  # thirty years: keeps the sum inside 64 bits
        cdef int64_t when = monotonic_ns() + <int64_t> ((seconds if seconds < limit else limit) * 1e9)
        cdef Timer timer = self.timers.plan(when, callback, args, background)
        if when < self.poller.armed:
            poller_arm(&self.poller, when)
        return timer

    cdef void plan_turn(self) noexcept:
        """There is work that no descriptor announces. Inside a turn it is found; otherwise somebody must be told."""
        if self.depth > 0 or self.host_planned:
            return
        # A host that does not run now may never run again, and whoever turns the loop in its place is told by the descriptor.
        if self.host_call_soon is not None and (self.host is None or running_host() is self.host):
            # One call at a time: a turn of the host is several of ours, and if each asked for the next, they would multiply.
            if self.asked_host is self.host_call_soon:
                return
            self.asked_host = self.host_call_soon
            try:
                self.host_call_soon(self._host_called)
                return
            except BaseException as exc:  # the host has been closed: whoever comes next finds the pipe
                self.host_call_soon = None
                if not isinstance(exc, Exception):
                    self.escaped = exc
        self.host_planned = True
        poller_wake(&self.poller)

    def _host_called(self):
        """What `host_call_soon` is given: the turn that was asked for."""
        self.asked_host = None
        self._host_turn()

    def _host_turn(self):
        """What a host loop calls when `fileno()` is readable.

        Under load it goes on while descriptors keep coming: a turn of asyncio costs more than several of ours."""
        cdef int rounds = 0
        if self.is_closed or not self.in_own_thread():
            return
        while self.turn(0) > 0 and rounds < HOST_ROUNDS:
            rounds += 1

    def watch(self, int fd, uint32_t events, callback):
        """Call `callback(events)` on each edge of `events` (epoll bits) at `fd`. Returns a Watch; OSError if epoll refuses."""
        self.require()
        cdef Watch watch = Watch.__new__(Watch)
        watch.loop = self
        watch.callback = callback
        watch.start_watching(fd, events)
        return watch

    def _hold(self):
        """Something outside the loop is awaited (a name lookup): `run` goes on until `_release`."""
        self.require()
        self.holds += 1

    def _release(self):
        """End of a `_hold`."""
        if not self.in_own_thread():
            self.require()
        self.holds -= 1

    cdef void bury(self, Watcher watcher) noexcept:
        if self.depth > 0 and not watcher.buried:
            watcher.buried = True
            watcher.next_grave, self.graves = self.graves, watcher

    cdef void empty_graves(self) noexcept:
        cdef Watcher watcher
        while self.graves is not None:  # one by one: the end of one may close others, and a chain of ends would nest
            watcher = self.graves
            self.graves, watcher.next_grave = watcher.next_grave, None
            watcher.buried = False

    # scratch

    cdef Scratch enter_scratch(self):
        """Give the code that follows a scratch of its own, for the current one is still in use. Returns the outer one."""
        cdef Scratch outer = self.scratch_owner
        self.use_scratch(<Scratch> self.spare_scratch.pop() if self.spare_scratch else Scratch())
        return outer

    cdef void leave_scratch(self, Scratch outer) noexcept:
        cdef Scratch inner = self.scratch_owner
        self.use_scratch(outer)
        self.spare_scratch.append(inner)  # may fail

    cdef void use_scratch(self, Scratch scratch) noexcept:
        self.scratch_owner = scratch
        self.scratch = scratch.block

    # turns

    def run(self):
        """Run until nothing is left to wait for or `stop()` is called. RuntimeError when it runs already."""
        self.require()
        if self.is_running or self.depth > 0:
            raise RuntimeError("the event loop is running already")
        self.is_running = True
        try:
            while not self.idle:
                self.turn(INT64_MAX)
                PyErr_CheckSignals()
                if self.stopping:
                    break
            if self.left:  # a signal's handler has forked
                self.require_owner()
        finally:
            self.is_running = False
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
        cdef int64_t patience = INT64_MAX
        if timeout is not None:
            if not timeout >= 0:
                raise ValueError("timeout must not be negative")
            patience = <int64_t> (min(timeout, 1e9) * 1e9)
        cdef int count = self.turn(patience)
        PyErr_CheckSignals()
        return count

    cdef int turn(self, int64_t patience) except -1:
        cdef epoll_event events[BATCH]
        cdef int milliseconds, done = 0
        cdef int64_t due
        cdef Scratch outer = None

        if self.depth > 0:
            outer = self.enter_scratch()
            # What the outer turn has still to do: it may be what the handler that called waits for.
            self.soon.take_over()
            self.again.take_over()
            self.flushes.take_over()
        self.depth += 1
        self.has_turned = True
        self.host_planned = False
        try:
            if self.batch_next < self.batch_count:
                done = self.batch_count - self.batch_next
                self.run_events()
            if patience == 0 or done or self.soon.planned or self.foreign or self.again.planned or self.flushes.planned \
                    or self.reports.first != NULL or self.escaped is not None or (self.stopping and self.is_running):
                milliseconds = 0
            else:
                milliseconds = -1 if patience == INT64_MAX else <int> min((patience + 999999) // 1000000, 1000000000)
            done += self.serve(events, milliseconds)
            due = self.due()
            if due:
                done += self.catch_up(events)
                self.run_timers(due)
            self.run_calls()
            self.run_again()
            self.run_flushes()
            self.run_reports()
        finally:
            self.batch, self.batch_next, self.batch_count = NULL, 0, 0
            self.depth -= 1
            if outer is not None:
                self.leave_scratch(outer)
        if self.graves is not None:  # a nested turn has worked off the batches of the outer ones: no event is left of anybody
            self.empty_graves()
        if self.depth == 0 and not self.is_running and self.unfinished():
            self.plan_turn()
        if self.escaped is not None:
            escaped, self.escaped = self.escaped, None
            raise escaped
        if self.left:  # a handler has forked and returned in the child
            self.require_owner()
        return done

    cdef int serve(self, epoll_event *events, int milliseconds) except -1:
        """Wait, and do what is ready. Returns how many events there were."""
        cdef int count, done = 0
        if self.nogil_count:
            with nogil:
                count = self.nogil_turns(events, milliseconds, &done)
        else:
            if milliseconds == 0:
                count = linux.epoll_wait(self.poller.epoll, events, BATCH, 0)
            else:
                with nogil:
                    count = linux.epoll_wait(self.poller.epoll, events, BATCH, milliseconds)
            self.full = count == BATCH
        count = max(count, 0)  # below 0 is EINTR: signals are looked at by who called the turn
        self.batch, self.batch_next, self.batch_count = events, 0, count
        self.run_reports()  # with the batch in place: what they call may turn the loop, which then works it off
        self.run_events()
        return count + done

    cdef int catch_up(self, epoll_event *events) except -1:
        """Do what the kernel has held ready since before a deadline: the wait may have ended by a signal, its batch may have been
        full, and a process that was stopped for a while finds all its deadlines past. Returns how many events there were."""
        cdef Py_ssize_t rounds = len(self.watchers) // BATCH + 1  # the kernel's queue is fair, so that is once for each
        cdef int done = 0
        self.full = True
        while self.full and rounds > 0 and not self.left:
            rounds -= 1
            done += self.serve(events, 0)
        self.run_again()
        return done

    cdef bint unfinished(self) noexcept:
        """There is work that no descriptor announces."""
        return bool(self.soon.planned or self.again.planned or self.flushes.planned) \
            or self.nogil_again.first != NULL or self.reports.first != NULL

    cdef int nogil_turns(self, epoll_event *events, int milliseconds, int *done) noexcept nogil:
        """Wait, and do what can be done without the GIL; `run` stays in here until there is something else to do. Returns how
        many events are left in `events`, -1 when a signal came; `done` grows by those that were dealt with."""
        cdef int count, number, rest
        cdef int64_t begun = 0
        cdef void *watcher
        while True:
            count = linux.epoll_wait(self.poller.epoll, events, BATCH, 0 if self.nogil_again.first != NULL else milliseconds)
            self.now = monotonic_ns()
            self.full = count == BATCH
            rest = 0
            for number in range(count):
                if events[number].data.u64 & NOGIL:
                    watcher = <void *> (events[number].data.u64 - NOGIL)
                    if (<Watcher> watcher).fd >= 0:
                        (<Watcher> watcher).on_event_nogil(events[number].events)
                else:
                    events[rest] = events[number]
                    rest += 1
            if count > 0:
                done[0] += count - rest
            self.run_again_nogil()
            if rest or count < 0:
                return rest if rest else count
            if milliseconds >= 0 or self.reports.first != NULL or not self.is_running or self.depth > 1:
                return 0
            if begun == 0:
                begun = self.now
            elif self.now - begun > NOGIL_TIME:
                return 0

    cdef void run_again_nogil(self) noexcept nogil:
        """Those that were planned before; what they plan waits for the next round."""
        cdef run_node *last = self.nogil_again.last
        cdef run_node *first
        while self.nogil_again.first != NULL:
            first = self.nogil_again.first
            (<Watcher> run_queue_next(&self.nogil_again)).on_again_nogil()
            if first == last:
                break

    cdef void run_reports(self) noexcept:
        cdef Watcher watcher
        while self.reports.first != NULL and not self.left:
            watcher = <Watcher> run_queue_next(&self.reports)
            watcher.on_report()

    cdef void run_events(self) noexcept:
        # Here and below: a handler that forked returns in the child as well, where the turn is over (`leave_to_parent`).
        cdef epoll_event event
        cdef Watcher watcher
        while self.batch_next < self.batch_count and not self.left:
            event = self.batch[self.batch_next]
            self.batch_next += 1
            if not poller_takes(&self.poller, &event):
                watcher = <Watcher> event.data.ptr
                if watcher.fd >= 0:
                    watcher.on_event(event.events)

    cdef int64_t due(self) noexcept:
        """The time, if a timer is due; else 0."""
        cdef int64_t now, earliest = self.timers.earliest()
        if earliest == INT64_MAX:
            return 0
        now = monotonic_ns()
        if earliest <= now:
            return now
        if earliest < self.poller.armed:
            poller_arm(&self.poller, earliest)
        return 0

    cdef void run_timers(self, int64_t now) noexcept:
        """Those that were due at `now`."""
        cdef Timer timer
        cdef int64_t earliest = self.timers.earliest()
        while earliest <= now and not self.left:
            timer = self.timers.take()
            callback, args = timer.callback, timer.args
            timer.callback = timer.args = None
            if callback is not None:  # a cancelled one stays where there was no memory to take it out
                self.call(callback, args)
            earliest = self.timers.earliest()
        if earliest < self.poller.armed and not self.left:
            poller_arm(&self.poller, earliest)

    cdef void run_calls(self) noexcept:
        """The calls planned before this turn; what they plan waits for the next, so that a chain of calls starves nobody."""
        cdef Py_ssize_t count
        if self.soon.planned:
            self.soon.begin()
            while self.soon.more() and not self.left:
                callback, args = <tuple> self.soon.next()
                self.call(callback, args)
            self.soon.end()
        count = len(self.foreign)
        while count > 0 and self.foreign and not self.left:  # a nested turn takes from it too
            count -= 1
            callback, args = self.foreign.popleft()
            self.call(callback, args)

    cdef void run_again(self) noexcept:
        cdef Watcher watcher
        if self.again.planned:
            self.again.begin()
            while self.again.more() and not self.left:
                watcher = <Watcher> self.again.next()
                watcher.again_planned = False
                watcher.on_again()
            self.again.end()

    cdef void run_flushes(self) noexcept:
        cdef Watcher watcher
        if self.flushes.planned:
            self.flushes.begin()
            while self.flushes.more() and not self.left:
                watcher = <Watcher> self.flushes.next()
                watcher.flush_planned = False
                watcher.on_flush()
            self.flushes.end()

    cdef void call(self, object callback, tuple args) noexcept:
        try:
            callback(*args)
        except BaseException as exc:
            self.report("exception in a planned call", exc, callback)

    def report(self, message, exception, source=None):
        """Give an exception that came out of a handler to `exception_handler` (default: the log "sslsock", with traceback).
        One that ends programs (KeyboardInterrupt, SystemExit) leaves `run` or `dispatch` when the turn is over instead; the
        next turn, when none is under way."""
        cdef bint told = False
        if not isinstance(exception, Exception):
            self.escaped = exception
            if not self.is_closed:
                self.plan_turn()
            return
        raised = None
        try:
            if self.exception_handler is not None:
                self.exception_handler(self, {"message": message, "exception": exception, "source": source})
                told = True
        except BaseException as exc:
            raised, told = exc, not isinstance(exc, Exception)
        try:
            if raised is not None and not told:
                logger().error("exception in the exception handler", exc_info=raised)
            if not told:
                logger().error("%s (%r)", message, source, exc_info=(type(exception), exception, exception.__traceback__))
        except BaseException as exc:
            raised = exc
        if raised is not None and not isinstance(raised, Exception):
            self.escaped = raised

    cdef void report_call(self, object consumer, str method, object exception) noexcept:
        """`report` what has come out of a consumer's method. Programs know that by the name which `_handler_names` of the consumer,
        a dict, gives it."""
        name = method
        try:
            name = consumer._handler_names.get(method, method)
        except Exception:
            pass  # a consumer that gives none
        self.report(f"exception in {name}", exception, consumer)

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
        cdef list watchers = list(self.watchers.values()), timers = list(self.timers.timers)
        queues = WorkQueue(), WorkQueue(), WorkQueue()
        self.is_closed = True  # from here on nothing needs memory
        for watcher in watchers:
            (<Watcher> watcher).on_loop_closed()
        for timer in timers:
            (<Timer> timer).cancel()
        self.soon, self.again, self.flushes = queues
        self.foreign.clear()
        poller_close(&self.poller)

    # in a forked child

    cdef void leave_to_parent(self):
        """Nothing that this process does with the loop reaches its parent any more, wherever in a turn it goes on.

        Descriptors are shared by what they refer to: a child that waited on the epoll set would take its parent's events, one that
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
        self.host_call_soon = self.asked_host = None
        for watcher in self.watchers.values():
            if not isinstance(watcher, Watch):  # whose descriptor is the program's
                self.copies.append(watcher.fd)
            watcher.fd = -1
            watcher.on_fork()
        self.watchers, self.graves = {}, None
        self.timers = TimerHeap()
        self.soon, self.again, self.flushes = WorkQueue(), WorkQueue(), WorkQueue()
        self.foreign = deque()
        self.nogil_again.first = self.reports.first = NULL
        self.batch, self.batch_next, self.batch_count = NULL, 0, 0

    cdef void close_copies(self) noexcept:
        """The child's own descriptors: that ends nothing as long as the parent has its."""
        if self.copies is not None:
            for fd in self.copies:
                linux.close(fd)
            self.copies = []
