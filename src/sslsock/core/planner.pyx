"""What a loop has planned for the program: timers, calls, and what becomes of the exceptions that come out of them."""

from collections import deque

from libc.stdint cimport INT64_MAX, int64_t

from poller cimport poller_arm
from shared_value cimport load_int
from sslsock.core.nesting cimport Nested
from sslsock.core.schedule cimport Timer, TimerHeap, WorkQueue, monotonic_ns


cdef object logger():
    """The log "sslsock". Only what has gone wrong comes here, and logging takes long to load."""
    import logging
    return logging.getLogger("sslsock")


cdef class Planner(Nested):
    """A loop's timers and calls."""

    def __cinit__(self):
        self.timers = TimerHeap()
        self.soon = WorkQueue()
        self.foreign = deque()

    def time(self):
        """Seconds of the monotonic clock that timers use: float."""
        return monotonic_ns() / 1e9

    # planning

    def call_soon(self, callback, *args):
        """Call `callback(*args)` in the next turn."""
        self.require()
        if not callable(callback):
            raise TypeError(f"a callable is needed, not {type(callback).__name__}")
        self.soon.append((callback, args))
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
        if not callable(callback):
            raise TypeError(f"a callable is needed, not {type(callback).__name__}")
        if not self.plan_from_elsewhere((callback, args)):
            raise RuntimeError("the event loop is closed")

    cdef bint plan_from_elsewhere(self, object work) except -1:
        """From any thread: have it among `foreign`, and the loop awake. False: it is closed."""
        if self.left:
            raise RuntimeError("this event loop belongs to the parent process: a forked child must make its own")
        if load_int(self.is_closed):
            return False
        self.foreign.append(work)  # has a lock of its own, and waiting for that lets go of others: the loop may be closed now
        return self.wake()

    cdef Timer plan(self, double seconds, object callback, tuple args, bint background):
        cdef double limit = 1e9  # thirty years: keeps the sum inside 64 bits
        cdef int64_t when = monotonic_ns() + <int64_t> ((seconds if seconds < limit else limit) * 1e9)
        cdef Timer timer = self.timers.plan(when, callback, args, background)
        if when < self.poller.armed:
            poller_arm(&self.poller, when)
        return timer

    def _hold(self):
        """Something outside the loop is awaited (a name lookup): `run` goes on until `_release`."""
        self.require()
        self.holds += 1

    def _release(self):
        """End of a `_hold`."""
        if not self.in_own_thread():
            self.require()
        self.holds -= 1

    # what a turn does of it

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
            timer = self.timers.first()
            callback, args = timer.callback, timer.args
            timer.callback = timer.args = None
            if callback is not None:  # a cancelled one stays where there was no memory to take it out
                self.call(callback, args)
            earliest = self.timers.earliest()
        if earliest < self.poller.armed and not self.left:
            poller_arm(&self.poller, earliest)

    cdef void run_calls(self) noexcept:
        """The calls planned before this turn; what they plan waits for the next, so that a chain of calls starves nobody."""
        cdef Py_ssize_t count = self.soon.count
        while count > 0 and self.soon.count and not self.left:  # a nested turn takes from it too
            count -= 1
            callback, args = <tuple> self.soon.take()
            self.call(callback, args)
        count = len(self.foreign)
        while count > 0 and self.foreign and not self.left:
            count -= 1
            callback, args = self.foreign.popleft()
            self.call(callback, args)

    cdef void call(self, object callback, tuple args) noexcept:
        try:
            callback(*args)
        except BaseException as exc:
            self.report("exception in a planned call", exc, callback)

    # what goes wrong in it

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
