"""What an asyncio loop does most, in C: its queue of calls, its timers, its readers and writers, its turns.

`LoopCore` stands before asyncio.SelectorEventLoop among the bases of `sslsock.aio.EventLoop`; what it does not define is
asyncio's own. It drives a `Loop` of ours (`core`), in whose set its readers and writers stand beside channels: a turn is one
of that loop, with the calls that are due in it.

In debug mode calls are asyncio's own handles, which remember where they were planned and what takes long.
"""

import asyncio

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t

from poller cimport POLLERR, POLLHUP, POLLIN, POLLOUT
from shared_value cimport load_int, load_size, store_int
from sslsock.core.asyncio_handle cimport Handle, TimerHandle
from sslsock.core.loop cimport Loop
from sslsock.core.reactor cimport LevelWatcher
from sslsock.core.schedule cimport Timed, TimedHeap, WorkQueue, monotonic_ns
from sslsock.core.scratch cimport Scratch

from sslsock.core.event_loop import EventLoop

cdef extern from "Python.h":
    object PyContext_CopyCurrent()

cdef object Future = asyncio.Future
# From CPython 3.14 on: `cancel` waits, in another thread, for the end of a callback that runs.
cdef object ThreadSafeHandle = getattr(asyncio.events, "_ThreadSafeHandle", None)

cdef double LONGEST = 1e9  # seconds, thirty years: keeps times inside 64 bits


cdef inline int64_t nanoseconds(double seconds) noexcept:
    return <int64_t> (min(max(seconds, -LONGEST), LONGEST) * 1e9)


@cython.final
cdef class ForeignTimer(Timed):
    """One of asyncio's own timer handles in the heap."""

    cdef object handle


@cython.final
cdef class ReadyWatch(LevelWatcher):
    """A descriptor that is watched for a reader, a writer or both."""

    cdef int change(self, object reader, object writer) except -1:
        """From now on these; None: for none. The handles that were there are cancelled."""
        cdef uint32_t events = (POLLIN if reader is not None else 0) | (POLLOUT if writer is not None else 0)
        before_reader, before_writer = self.reader, self.writer
        if events == 0:
            del self.owner.files[self.number]
        self.want(self.number, events)
        self.reader, self.writer = reader, writer
        if before_reader is not None and before_reader is not reader:
            before_reader.cancel()
        if before_writer is not None and before_writer is not writer:
            before_writer.cancel()
        return 0

    cdef void on_event(self, uint32_t events) noexcept:
        events &= self.events | POLLERR | POLLHUP  # a change counts at once
        try:
            if self.reader is not None and events & ~<uint32_t> POLLOUT:
                self.owner.ready.append(self.reader)
            if self.writer is not None and events & ~<uint32_t> POLLIN:
                self.owner.ready.append(self.writer)
        except BaseException as exc:
            self.loop.report("a ready descriptor could not be told", exc, self.owner)


@cython.no_gc_clear  # what ends in the same cycle may still plan and cancel calls
cdef class LoopCore:
    """The part of `EventLoop` in C."""

    def __cinit__(self, *args, **kwargs):
        self.core = EventLoop()
        self.core.host = self
        self.ready = WorkQueue()
        self.timers = TimedHeap()
        self.files = {}
        self.foreign_timers = {}
        self.attributes = self.__dict__
        self.own_clock = type(self).time is not LoopCore.time

    # What asyncio's own methods of a loop set and ask for.

    @property
    def _debug(self):
        return bool(load_int(self.debug))

    @_debug.setter
    def _debug(self, value):
        store_int(self.debug, bool(value))

    @property
    def _closed(self):
        return bool(load_int(self.closed))

    @_closed.setter
    def _closed(self, value):
        store_int(self.closed, bool(value))

    @property
    def _stopping(self):
        return bool(load_int(self.stopping))

    @_stopping.setter
    def _stopping(self, value):
        store_int(self.stopping, bool(value))

    def get_debug(self):
        """Whether the loop is in debug mode: bool."""
        return bool(load_int(self.debug))

    def is_closed(self):
        """Whether the loop was closed: bool."""
        return bool(load_int(self.closed))

    cdef int check_open(self) except -1:
        if load_int(self.closed):
            raise RuntimeError("Event loop is closed")
        if self.core.left:
            raise RuntimeError("this event loop belongs to the parent process: a forked child must make its own")
        return 0

    def _check_closed(self):
        self.check_open()

    # Calls

    def time(self):
        """Seconds of the monotonic clock: float."""
        return monotonic_ns() * 1e-9

    cdef bint time_is_replaced(self) except -1:
        """By a subclass, or in the loop itself: tests do both, to decide what time it is."""
        return self.own_clock or "time" in self.attributes

    cdef int64_t now(self) except? -1:
        """What `time` says, in nanoseconds."""
        return nanoseconds(self.time()) if self.time_is_replaced() else monotonic_ns()

    def create_future(self):
        """A new asyncio.Future of this loop."""
        return Future(loop=self)

    cdef Handle planned(self, Handle handle, object callback, tuple args, object context):
        handle._loop = self
        handle.callback = callback
        handle.arguments = args
        handle._context = PyContext_CopyCurrent() if context is None else context
        return handle

    def call_soon(self, callback, *args, context=None):
        """Call `callback(*args)` in the next turn. Returns a Handle."""
        cdef Handle handle
        self.check_open()
        if load_int(self.debug):
            self._check_thread()
            self._check_callback(callback, "call_soon")
            return self._call_soon(callback, args, context)
        handle = self.planned(Handle.__new__(Handle), callback, args, context)
        if self.core.in_own_thread():
            self.ready.append(handle)
        else:  # asyncio lets it pass, but in debug mode
            self.queue_from_elsewhere(handle)
        return handle

    def _call_soon(self, callback, args, context):
        if load_int(self.debug):
            handle = asyncio.Handle(callback, args, self, context)
        else:
            handle = self.planned(Handle.__new__(Handle), callback, args, context)
        self.ready.append(handle)
        return handle

    cdef int queue_from_elsewhere(self, object handle) except -1:
        """From any thread: have the call made, by the thread that the loop runs in or is going to run in."""
        cdef bint is_open = not load_int(self.core.is_closed)
        if is_open:
            self.ready.append(handle)
            is_open = self.core.wake()  # the last to know whether it is
        if not is_open:
            raise RuntimeError("Event loop is closed")
        return 0

    cdef int hand_over(self, object method, object handle) except -1:
        """Have `method(handle)` called in the loop's thread."""
        if not self.core.plan_from_elsewhere((method, (handle,))):
            raise RuntimeError("Event loop is closed")
        return 0

    def _take_in_timer(self, handle):
        if not handle._cancelled:
            self.timers.add(<TimerHandle> handle)

    cdef int claim(self) except -1:
        """For what only the loop's thread may do. A loop that does not run belongs to the thread that uses it."""
        if not self.core.in_own_thread():
            if load_int(self.core.is_running):
                self.core.require_here()
            self.core.move_to_thread()
        return 0

    def call_soon_threadsafe(self, callback, *args, context=None):
        """`call_soon`, from any thread and from signal handlers."""
        self.check_open()
        if load_int(self.debug):
            self._check_callback(callback, "call_soon_threadsafe")
        if ThreadSafeHandle is not None:
            handle = ThreadSafeHandle(callback, args, self, context)
            if load_int(self.debug):
                del handle._source_traceback[-1]  # its own __init__, which comes after the caller
        elif load_int(self.debug):
            handle = asyncio.Handle(callback, args, self, context)
        else:
            handle = self.planned(Handle.__new__(Handle), callback, args, context)
        self.queue_from_elsewhere(handle)
        return handle

    def call_later(self, delay, callback, *args, context=None):
        """Call `callback(*args)` in `delay` seconds. Returns a TimerHandle."""
        if delay is None:
            raise TypeError("delay must not be None")
        now = self.time() if self.time_is_replaced() else monotonic_ns() * 1e-9
        return self.plan_at(now + delay, callback, args, context)

    def call_at(self, when, callback, *args, context=None):
        """Call `callback(*args)` when the loop's clock says `when`. Returns a TimerHandle."""
        if when is None:
            raise TypeError("when cannot be None")
        return self.plan_at(when, callback, args, context)

    cdef object plan_at(self, object when, object callback, tuple args, object context):
        cdef TimerHandle handle
        cdef ForeignTimer entry
        cdef double seconds = when
        self.check_open()
        cdef int64_t at = nanoseconds(seconds)
        if load_int(self.debug):
            self._check_thread()
            self._check_callback(callback, "call_at")
            entry = ForeignTimer.__new__(ForeignTimer)
            entry.when = at
            entry.handle = asyncio.TimerHandle(when, callback, args, self, context)
            entry.handle._scheduled = True
            self.foreign_timers[id(entry.handle)] = entry
            self.timers.add(entry)
            return entry.handle
        handle = <TimerHandle> self.planned(TimerHandle.__new__(TimerHandle), callback, args, context)
        handle._when = when
        (<Timed> handle).when = at
        if self.core.in_own_thread():
            self.timers.add(handle)
        else:
            self.hand_over(self._take_in_timer, handle)
        return handle

    def _timer_handle_cancelled(self, handle):
        cdef Timed entry
        if not self.core.in_own_thread():
            if not load_int(self.closed):
                self.hand_over(self._timer_handle_cancelled, handle)
            return
        if type(handle) is TimerHandle:
            entry = <TimerHandle> handle
        else:
            entry = self.foreign_timers.pop(id(handle), None)
            if entry is None:
                return
        if entry.index >= 0:
            self.timers.remove(entry)

    def _add_callback(self, handle):
        if not handle._cancelled:
            self.ready.append(handle)

    def _add_callback_signalsafe(self, handle):
        if not handle._cancelled:
            self.queue_from_elsewhere(handle)

    def _write_to_self(self):
        self.core.wake()

    # Readers and writers

    cdef ReadyWatch watch_of(self, object file):
        """The one of `file` (a descriptor, or an object with fileno), or None."""
        cdef ReadyWatch watch
        try:
            watch = self.files.get(descriptor_of(file))
        except ValueError:  # closed, perhaps: it is known by itself
            watch = self.watch_of_closed(file)
            if watch is None:
                raise
        return watch

    cdef ReadyWatch watch_of_closed(self, object file):
        cdef ReadyWatch watch
        for watch in self.files.values():
            if watch.file is file:
                return watch
        return None

    cdef object add_watch(self, object file, object callback, tuple args, object context, bint writes):
        cdef ReadyWatch watch
        self.check_open()
        self.claim()
        if load_int(self.debug):
            handle = asyncio.Handle(callback, args, self, context)
        else:
            handle = self.planned(Handle.__new__(Handle), callback, args, context)
        number = descriptor_of(file)
        watch = self.files.get(number)
        if watch is None:
            watch = ReadyWatch.__new__(ReadyWatch)
            watch.loop = self.core
            watch.owner = self
            watch.file = file
            watch.want(number, POLLOUT if writes else POLLIN)
            self.files[number] = watch
        if writes:
            watch.change(watch.reader, handle)
        else:
            watch.change(handle, watch.writer)
        return handle

    def _add_reader(self, fd, callback, *args, context=None):
        return self.add_watch(fd, callback, args, context, False)

    def _add_writer(self, fd, callback, *args, context=None):
        return self.add_watch(fd, callback, args, context, True)

    cdef bint remove_watch(self, object file, bint writes) except -1:
        """False: there was none."""
        cdef ReadyWatch watch
        if load_int(self.closed):
            return False
        self.claim()
        watch = self.watch_of(file)
        if watch is None or (watch.writer if writes else watch.reader) is None:
            return False
        watch.change(watch.reader if writes else None, None if writes else watch.writer)
        return True

    def _remove_reader(self, fd):
        return bool(self.remove_watch(fd, False))

    def _remove_writer(self, fd):
        return bool(self.remove_watch(fd, True))

    def _watched(self, file):
        """What is watched of it: (file, descriptor, POLLIN and POLLOUT, (reader, writer)), or None."""
        cdef ReadyWatch watch = self.watch_of(file)
        if watch is None:
            return None
        return watch.file, watch.fd, watch.events, (watch.reader, watch.writer)

    # Turns

    def _run_once(self):
        """One turn."""
        cdef Loop core = self.core
        cdef Scratch outer = core.begin_turn()
        cdef double seconds = -1
        try:
            if load_size(self.ready.count) or load_int(self.stopping):
                seconds = 0
            elif self.timers.entries:
                seconds = max(self.timers.earliest() - self.now(), 0) * 1e-9
            core.wait(seconds)
            core.run_due()
            core.run_calls()
            self.run_ready()
            core.run_rest()
        finally:
            core.end_turn(outer)
        core.raise_escaped()
        PyErr_CheckSignals()

    cdef void run_ready(self) noexcept:
        """The calls that are in the queue now, after those whose time has come; what they plan waits for the next turn. Each that has
        written is followed by a flush, so that nobody waits for the rest of the turn."""
        cdef Py_ssize_t count
        try:
            if self.timers.entries:
                self.run_due_timers()
        except BaseException as exc:
            self.core.report("the timers that are due could not be queued", exc, self)
        count = load_size(self.ready.count)
        while count > 0 and load_size(self.ready.count) and not self.core.left:
            count -= 1
            if not self.run_one(self.ready.take()):
                return
            if self.core.flushes.count:
                self.core.run_flushes()

    cdef void run_due_timers(self):
        cdef Timed entry
        cdef int64_t now = self.now()
        while self.timers.earliest() <= now:
            entry = self.timers.take()
            if type(entry) is ForeignTimer:
                handle = (<ForeignTimer> entry).handle
                handle._scheduled = False
                self.foreign_timers.pop(id(handle), None)
            else:
                handle = entry
            self.ready.append(handle)

    cdef bint run_one(self, object handle) noexcept:
        """False when it has raised what ends the turn (KeyboardInterrupt, SystemExit): the calls behind it stay queued."""
        cdef bint goes_on = True
        try:
            if type(handle) is Handle or type(handle) is TimerHandle:
                (<Handle> handle).run()
            elif not handle._cancelled:
                if load_int(self.debug):
                    self._run_debug(handle)
                else:
                    handle._run()
        except BaseException as exc:
            self.core.escaped = exc
            goes_on = False
        return goes_on

    # Beginning and end

    def _begin_run(self):
        """The loop is going to run in this thread."""
        self.check_open()
        self.core.move_to_thread()
        store_int(self.core.is_running, True)

    def _end_run(self):
        store_int(self.core.is_running, False)

    def _close_core(self):
        """Close every channel and forget what is planned."""
        self.ready.clear()
        self.timers.clear()
        self.foreign_timers.clear()
        if not self.core.left:
            self.core.move_to_thread()
        self.core.close()
        self.files.clear()


cdef object descriptor_of(object file):
    """The descriptor that `file` is or has, as the `selectors` module takes it."""
    if isinstance(file, int):
        number = file
    else:
        try:
            number = int(file.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {file!r}") from None
    if number < 0:
        raise ValueError(f"Invalid file descriptor: {number}")
    return number
