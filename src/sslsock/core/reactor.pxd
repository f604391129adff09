from libc.stdint cimport int64_t, uint32_t, uint64_t

from flag cimport flag
from poller cimport poller_event
from run_queue cimport run_node, run_queue
from sslsock.core.planner cimport Planner
from sslsock.core.schedule cimport WorkQueue
from sslsock.core.scratch cimport Scratch, scratch_block
from worker_pool cimport mailbox


cdef enum:
    BATCH = 256  # events taken at once


cdef struct nogil_nodes:
    # Of a watcher that works without the GIL.
    run_node again  # in the loop's `nogil_again`
    run_node report  # and in its `reports`


cdef class Watcher:
    cdef readonly Reactor loop
    cdef int fd  # -1: not watched
    cdef flag borrowed  # the descriptor is the program's
    cdef flag buried  # it lies in the loop's `graves`
    cdef Watcher next_grave  # behind it there
    cdef uint32_t events  # what is announced of it
    cdef flag again_planned
    cdef flag flush_planned
    cdef flag is_nogil  # it works without the GIL

    cdef int start_watching(self, int fd, uint32_t events) except -1
    cdef int enter_set(self, int fd, uint32_t events) except -1
    cdef uint64_t address(self, int fd) noexcept nogil
    cdef int take_over_watch(self, Watcher before, uint32_t events) except -1
    cdef nogil_nodes *nodes(self) noexcept nogil
    cdef void plan_again_nogil(self) noexcept nogil
    cdef void plan_report(self) noexcept nogil
    cdef void await_room(self) noexcept nogil
    cdef void stop_watching(self) noexcept
    cdef void plan_again(self) noexcept
    cdef void plan_flush(self) noexcept
    # called by the loop
    cdef void on_event(self, uint32_t events) noexcept
    cdef void on_again(self) noexcept
    cdef void on_flush(self) noexcept
    cdef size_t waiting_output(self) noexcept
    cdef void on_moved(self) noexcept
    cdef void on_loop_closed(self) noexcept
    cdef void on_fork(self) noexcept
    # called by the loop without the GIL, and for nothing else while `is_nogil`
    cdef void on_event_nogil(self, uint32_t events) noexcept nogil
    cdef void on_again_nogil(self) noexcept nogil
    # called with it, after plan_report
    cdef void on_report(self) noexcept


cdef class LevelWatcher(Watcher):
    cdef object number  # its descriptor, a key in its owner's dict: to leave takes no memory

    cdef int want(self, int fd, uint32_t events) except -1


cdef class Reactor(Planner):
    cdef list watchers  # by their descriptors, None where nothing is watched: the strong references that keep open connections alive
    cdef Py_ssize_t watched  # how many there are
    cdef Watcher graves  # watchers closed in this turn, the first of them: an event of theirs may still be in a batch
    cdef list lost  # watchers whose number was given to another descriptor while they had it

    # planned by watchers
    cdef WorkQueue again, flushes
    cdef run_queue nogil_again  # watchers without the GIL that have more to do
    cdef run_queue reports  # those that have something to say with it
    cdef Py_ssize_t nogil_count  # watchers that work without the GIL
    cdef mailbox *mailbox  # what threads of pools have done for watchers; NULL: nothing yet

    # what is ready
    cdef bint is_running  # inside `run`: the wait may go on without the GIL
    cdef int64_t now  # when the last wait of `nogil_turns` ended, as `monotonic_ns`
    cdef int64_t memory_short_until  # as `now`: the kernel has taken less of a relay than it had room for, lately
    cdef flag full  # the last wait has brought as many events as it could
    cdef poller_event batch[BATCH]  # of the innermost turn: it has worked off what the outer ones had left
    cdef int batch_next, batch_count

    cdef scratch_block scratch  # a copy of scratch_owner.block
    cdef Scratch scratch_owner
    cdef list spare_scratch

    # who watches what
    cdef Watcher watcher_of(self, size_t fd)
    cdef int make_place(self, int fd) except -1
    # ends of watchers
    cdef void bury(self, Watcher watcher) noexcept
    cdef void empty_graves(self) noexcept
    # scratch
    cdef Scratch enter_scratch(self)
    cdef void leave_scratch(self, Scratch outer) noexcept
    cdef void use_scratch(self, Scratch scratch) noexcept
    # what a turn does
    cdef int serve(self, int milliseconds) except -1
    cdef int catch_up(self) except -1
    cdef int nogil_turns(self, int milliseconds, int *done) noexcept nogil
    cdef void run_again_nogil(self) noexcept nogil
    cdef void run_reports(self) noexcept
    cdef void close_mailbox(self) noexcept
    cdef void run_events(self) noexcept
    cdef void run_again(self) noexcept
    cdef void run_flushes(self) noexcept
