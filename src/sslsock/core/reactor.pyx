"""The descriptors of a loop: what waits for them, and who is told.

A `Watcher` (a channel, a listener) says what to do when its descriptor is ready. Events carry its address. One that is closed in
a turn is kept in `graves` until the turn ends, so an event that is already in a batch never points to freed memory.

Descriptors are watched edge-triggered (epoll(7), "Level-triggered and edge-triggered"), once: a connection then costs one
system call in its life (`poller_add`), and a second when a send is refused for the first time (`await_room`), however often it is
blocked or paused. The price is that whoever stops before the kernel has nothing left must come back by itself: `plan_again`. Those whose
readers are not ours to rule are watched level-triggered (`LevelWatcher`).

Some watchers (the sides of a relay) need no Python: the lowest bit of the address in their events says so. While only such
events come, the loop waits and works without the GIL (`nogil_turns`); what they have to tell Python they `plan_report`.
"""

import os

from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from posix.fcntl cimport F_GETFD, fcntl

cimport system
from poller cimport (
    POLLER_EDGE, poller_add, poller_await_room, poller_change, poller_event, poller_remove, poller_takes, poller_wait)
from run_queue cimport run_node, run_queue_add, run_queue_next, run_queue_remove
from sslsock.core.planner cimport Planner
from sslsock.core.schedule cimport WorkQueue, monotonic_ns
from sslsock.core.scratch cimport Scratch
from system cimport errno
from worker_pool cimport mailbox_close, mailbox_take, worker_job

cdef enum:
    NOGIL = 1  # in an event's address: its watcher works without the GIL
    BY_NUMBER = 2  # this is no address, but the descriptor's number, in the bits from NUMBER_SHIFT on
    NUMBER_SHIFT = 3
    NOGIL_TIME = 100000000  # nanoseconds that `run` works without a look at signals, which only the GIL's holder can take

cdef int64_t AGAIN_TIME = 1_000_000  # nanoseconds after a wait in which those that have more to do have their turns


cdef class Watcher:
    """One descriptor in a loop's set, told of edges."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1

    cdef int start_watching(self, int fd, uint32_t events) except -1:
        """Announce edges of `events`. Whatever raises, nothing is watched then."""
        return self.enter_set(fd, events | POLLER_EDGE)

    cdef int enter_set(self, int fd, uint32_t events) except -1:
        cdef int error
        cdef Watcher before = self.loop.watcher_of(fd)
        cdef bint displaces = before is not None and not isinstance(before, LevelWatcher)
        # What needs memory comes first: once the set has the address, the object must not go.
        if displaces:
            # Its descriptor was closed behind our back. If a duplicate is open, the set still has its address.
            self.loop.lost.append(before)
        if before is None:
            self.loop.make_place(fd)
        self.loop.watchers[fd] = self
        if poller_add(&self.loop.poller, fd, events, self.address(fd), before is not None) < 0:
            error = errno
            self.loop.watchers[fd] = before
            if displaces:
                self.loop.lost.pop()
            raise OSError(error, os.strerror(error))
        self.fd = fd
        self.loop.watched += before is None
        self.events = events
        self.loop.nogil_count += self.is_nogil
        return 0

    cdef uint64_t address(self, int fd) noexcept nogil:
        """What its events carry."""
        return <uint64_t> <void *> self | (NOGIL if self.is_nogil else 0)

    cdef int take_over_watch(self, Watcher before, uint32_t events) except -1:
        """Watch the descriptor of `before` in its place. What is ready now is announced anew."""
        cdef int fd = before.fd
        events |= POLLER_EDGE
        if poller_change(&self.loop.poller, fd, events, self.address(fd)) < 0:
            raise OSError(errno, os.strerror(errno))
        before.fd = -1
        self.loop.bury(before)
        self.fd = fd
        self.events = events
        self.loop.nogil_count += self.is_nogil - before.is_nogil
        self.loop.watchers[fd] = self
        return 0

    cdef void await_room(self) noexcept nogil:
        """POLLOUT is announced too, now if there is room. Asked for when the kernel has refused something: most connections never
        fill its buffer, and an edge for each of them costs a turn."""
        if self.fd >= 0:
            poller_await_room(&self.loop.poller, self.fd, &self.events, self.address(self.fd))

    cdef void stop_watching(self) noexcept:
        """Out of the set at once; it needs no memory. The caller closes the descriptor, if it is his, after this."""
        cdef int fd = self.fd
        if fd < 0:
            return
        self.fd = -1
        if self.is_nogil:
            self.loop.nogil_count -= 1
            run_queue_remove(&self.loop.nogil_again, &self.nodes().again)
            run_queue_remove(&self.loop.reports, &self.nodes().report)
        if self.loop.watcher_of(fd) is not self:
            return  # the number means another watcher's descriptor by now
        if poller_remove(&self.loop.poller, fd) < 0 and self.address(fd) & BY_NUMBER == 0:
            Py_INCREF(self)  # closed behind our back: if a duplicate is open, the set has the address for ever
        self.loop.bury(self)
        self.loop.watched -= 1
        self.loop.watchers[fd] = None

    cdef void plan_again(self) noexcept:
        """Have `on_again` called in the next turn: there is work that no edge will announce."""
        if not self.again_planned:
            self.loop.again.append(self)  # may fail, and is then tried again
            self.again_planned = True
            self.loop.plan_turn()

    cdef void plan_flush(self) noexcept:
        """Have `on_flush` called at the end of this turn."""
        if not self.flush_planned:
            self.loop.flushes.append(self)
            self.flush_planned = True
            self.loop.plan_turn()

    cdef nogil_nodes *nodes(self) noexcept nogil:
        """Of one that works without the GIL."""
        return NULL

    cdef void plan_again_nogil(self) noexcept nogil:
        """`plan_again` for one that works without the GIL: `on_again_nogil` is called."""
        run_queue_add(&self.loop.nogil_again, &self.nodes().again, <void *> self)

    cdef void plan_report(self) noexcept nogil:
        """Have `on_report` called, with the GIL, in this turn or the next."""
        run_queue_add(&self.loop.reports, &self.nodes().report, <void *> self)

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

    cdef void on_moved(self) noexcept:
        """The loop belongs to another thread now."""

    cdef void on_loop_closed(self) noexcept:
        self.stop_watching()

    cdef void on_fork(self) noexcept:
        """In a forked child: do nothing more, also if it is called from one of your methods."""


cdef class LevelWatcher(Watcher):
    """A descriptor that is told of on each turn while it is ready (level-triggered), as asyncio's readers and writers are. It stays
    its owner's. A derived class says what `on_event` does. POLLERR and POLLHUP come whatever is wanted, and so does, in the turn in which it has changed, what was wanted before."""

    def __cinit__(self, *args, **kwargs):
        self.borrowed = True

    cdef uint64_t address(self, int fd) noexcept nogil:
        """Not its address: programs close a descriptor before they say that nobody is to watch it, and when a duplicate is open
        then, the set keeps what it has been given."""
        return <uint64_t> fd << NUMBER_SHIFT | BY_NUMBER

    cdef int want(self, int fd, uint32_t events) except -1:
        """Be told of `events` (POLLIN, POLLOUT, POLLPRI) at `fd`, which is the same each time, from now on; of none: leave the
        set. OSError when the system refuses, and nothing has changed then."""
        if events == 0:
            self.stop_watching()
        elif self.fd < 0:
            self.number = fd
            self.enter_set(fd, events)
        elif events != self.events:
            if poller_change(&self.loop.poller, fd, events, self.address(fd)) < 0:
                # ENOENT: the descriptor was closed behind our back, and the number is another's by now.
                if errno != system.ENOENT or poller_add(&self.loop.poller, fd, events, self.address(fd), False) < 0:
                    raise OSError(errno, os.strerror(errno))
            self.events = events
        return 0


cdef class Reactor(Planner):
    """A loop's descriptors, and what their watchers have planned."""

    def __cinit__(self):
        self.watchers = []
        self.lost = []
        self.again = WorkQueue()
        self.flushes = WorkQueue()
        self.spare_scratch = []
        self.use_scratch(Scratch())

    # Its methods do not exist here where the making of a base has failed.
    def __dealloc__(self):
        if self.mailbox != NULL:
            mailbox_close(self.mailbox)

    cdef void close_mailbox(self) noexcept:
        if self.mailbox != NULL:
            mailbox_close(self.mailbox)
            self.mailbox = NULL

    @property
    def unsent(self):
        """Bytes of all its connections that the system has not taken yet: int."""
        cdef Watcher watcher
        cdef size_t size = 0
        for watcher in self.watchers:
            if watcher is not None:
                size += watcher.waiting_output()
        return size

    @property
    def watching(self):
        """How many descriptors are watched."""
        return self.watched

    # who watches what

    cdef Watcher watcher_of(self, size_t fd):
        """The watcher of a descriptor, or None."""
        return <Watcher> self.watchers[fd] if fd < <size_t> len(self.watchers) else None

    cdef int make_place(self, int fd) except -1:
        """Room for a watcher of `fd`. OSError if it is not open, whatever its number."""
        if 0 <= fd < len(self.watchers):
            return 0
        if fcntl(fd, F_GETFD) < 0:
            raise OSError(errno, os.strerror(errno))
        while len(self.watchers) <= fd:
            self.watchers.append(None)
        return 0

    # ends of watchers

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

    # what a turn does

    cdef int serve(self, int milliseconds) except -1:
        """Wait, and do what is ready. Returns how many events there were."""
        cdef int count, done = 0
        if self.nogil_count:
            with nogil:
                count = self.nogil_turns(milliseconds, &done)
        else:
            if milliseconds == 0:
                count = poller_wait(&self.poller, self.batch, BATCH, 0)
            else:
                with nogil:
                    count = poller_wait(&self.poller, self.batch, BATCH, milliseconds)
            self.full = count == BATCH
        count = max(count, 0)  # below 0 is EINTR: signals are looked at by who called the turn
        self.batch_next, self.batch_count = 0, count
        self.run_reports()  # with the batch in place: what they call may turn the loop, which then works it off
        self.run_events()
        return count + done

    cdef int catch_up(self) except -1:
        """Do what the kernel has held ready since before a deadline: the wait may have ended by a signal, its batch may have been
        full, and a process that was stopped for a while finds all its deadlines past. Returns how many events there were."""
        cdef Py_ssize_t rounds = self.watched // BATCH + 1  # the kernel's queue is fair, so that is once for each
        cdef int done = 0
        self.full = True
        while self.full and rounds > 0 and not self.left:
            rounds -= 1
            done += self.serve(0)
        with nogil:
            run_planned(self, INT64_MAX)  # for some of them there was no time left
        self.run_reports()
        self.run_again()
        return done

    cdef int nogil_turns(self, int milliseconds, int *done) noexcept nogil:
        """Wait, and do what can be done without the GIL; `run` stays in here until there is something else to do. Returns how
        many events are left in `batch`, -1 when a signal came; `done` grows by those that were dealt with."""
        cdef int count, number, rest
        cdef int64_t begun = 0
        cdef void *watcher
        cdef poller_event *events = self.batch
        while True:
            count = poller_wait(&self.poller, events, BATCH, 0 if self.nogil_again.first != NULL else milliseconds)
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
        """Those that were planned before; what they plan waits for the next round. So do those for whom there is no time left, after
        the next look at who is ready: each may move much, and many of them would keep one waiting that has little to do."""
        run_planned(self, self.now + AGAIN_TIME)

    cdef void run_reports(self) noexcept:
        cdef Watcher watcher
        cdef worker_job *job
        while self.mailbox != NULL and not self.left:
            job = mailbox_take(self.mailbox)
            if job == NULL:
                break
            job.done(job)
        while self.reports.first != NULL and not self.left:
            watcher = <Watcher> run_queue_next(&self.reports)
            watcher.on_report()

    cdef void run_events(self) noexcept:
        # Here and below: a handler that forked returns in the child as well, where the turn is over (`leave_to_parent`).
        cdef poller_event event
        cdef Watcher watcher
        while self.batch_next < self.batch_count and not self.left:
            event = self.batch[self.batch_next]
            self.batch_next += 1
            if poller_takes(&self.poller, &event):
                continue
            if event.data.u64 & BY_NUMBER:
                watcher = self.watcher_of(event.data.u64 >> NUMBER_SHIFT)
                if watcher is None:
                    continue
            else:
                watcher = <Watcher> event.data.ptr
            if watcher.fd >= 0:
                watcher.on_event(event.events)

    cdef void run_again(self) noexcept:
        cdef Watcher watcher
        cdef Py_ssize_t count = self.again.count
        while count > 0 and self.again.count and not self.left:  # a nested turn takes from it too
            count -= 1
            watcher = <Watcher> self.again.take()
            watcher.again_planned = False
            watcher.on_again()

    cdef void run_flushes(self) noexcept:
        cdef Watcher watcher
        cdef Py_ssize_t count = self.flushes.count
        while count > 0 and self.flushes.count and not self.left:
            count -= 1
            watcher = <Watcher> self.flushes.take()
            watcher.flush_planned = False
            watcher.on_flush()


cdef void run_planned(Reactor loop, int64_t until) noexcept nogil:
    """Of those that have more to do without the GIL the first, and the others that were planned before, until then."""
    cdef run_node *last = loop.nogil_again.last
    cdef run_node *first
    while loop.nogil_again.first != NULL:
        first = loop.nogil_again.first
        (<Watcher> run_queue_next(&loop.nogil_again)).on_again_nogil()
        if first == last or monotonic_ns() > until:
            break
