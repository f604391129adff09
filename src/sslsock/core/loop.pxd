from libc.stdint cimport int64_t, uint32_t, uint64_t

from run_queue cimport run_node, run_queue
from linux cimport epoll_event
from poller cimport poller
from sslsock.core.ownership cimport Owned
from sslsock.core.schedule cimport Timer, TimerHeap, WorkQueue


cdef struct scratch_block:
    # Memory that belongs to whoever runs now, for the length of one event. `receive` is filled by recv, `plain` by SSL_read,
    # `send_` by SSL_write; `gather` joins small writes into one record.
    char *receive
    char *plain
    char *send_
    char *gather


cdef enum:
    RECEIVE_SIZE = 512 * 1024
    PLAIN_SIZE = RECEIVE_SIZE + 16 * 1024  # what one receive can hold, and the rest of a record that came before
    GATHER_SIZE = 16 * 1024  # one record: RFC 8446, 5.1
    SEND_SIZE = 560 * 1024


cdef class Scratch:
    cdef scratch_block block


cdef class Watcher:
    cdef readonly Loop loop
    cdef int fd  # -1: not watched
    cdef object number  # the same, its key in the loop's `watchers`: to leave takes no memory
    cdef bint buried  # it lies in the loop's `graves`
    cdef Watcher next_grave  # behind it there
    cdef uint32_t events  # what is announced of it
    cdef bint again_planned
    cdef bint flush_planned

    # of one that works without the GIL
    cdef bint is_nogil
    cdef run_node again_node  # in the loop's `nogil_again`
    cdef run_node report_node  # and in its `reports`

    cdef int start_watching(self, int fd, uint32_t events) except -1
    cdef uint64_t address(self) noexcept nogil
    cdef int take_over_watch(self, Watcher before, uint32_t events) except -1
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
    cdef void on_loop_closed(self) noexcept
    cdef void on_fork(self) noexcept
    # called by the loop without the GIL, and for nothing else while `is_nogil`
    cdef void on_event_nogil(self, uint32_t events) noexcept nogil
    cdef void on_again_nogil(self) noexcept nogil
    # called with it, after plan_report
    cdef void on_report(self) noexcept


cdef class Watch(Watcher):
    cdef object callback


cdef class Loop(Owned):
    cdef public object exception_handler
    cdef public object host_call_soon
    cdef object asked_host  # the host_call_soon whose call has not come yet

    # in a forked child
    cdef list inherited  # what was the parent's, never touched again
    cdef list copies  # and its own descriptors of the parent's connections, to be closed

    # descriptors
    cdef poller poller
    cdef dict watchers  # descriptor -> Watcher: the strong references that keep open connections alive
    cdef Watcher graves  # watchers closed in this turn, the first of them: an event of theirs may still be in a batch
    cdef list lost  # watchers whose number was given to another descriptor while they had it

    # time
    cdef TimerHeap timers

    # calls
    cdef WorkQueue soon
    cdef object foreign  # deque: calls from other threads
    cdef WorkQueue again, flushes
    cdef run_queue nogil_again  # watchers without the GIL that have more to do
    cdef run_queue reports  # those that have something to say with it
    cdef Py_ssize_t nogil_count  # watchers that work without the GIL
    cdef int64_t now  # when the last wait of `nogil_turns` ended: nanoseconds of CLOCK_MONOTONIC
    cdef bint full  # the last wait has brought as many events as it could
    cdef epoll_event *batch
    cdef int batch_next, batch_count

    # the turn
    cdef bint is_running, stopping, host_planned, has_turned
    cdef Py_ssize_t holds
    cdef object escaped  # KeyboardInterrupt and its like, raised when the turn is over
    cdef scratch_block scratch  # a copy of scratch_owner.block
    cdef Scratch scratch_owner
    cdef list spare_scratch

    # calls and timers
    cdef Timer plan(self, double seconds, object callback, tuple args, bint background)
    cdef void plan_turn(self) noexcept
    # scratch
    cdef Scratch enter_scratch(self)
    cdef void leave_scratch(self, Scratch outer) noexcept
    cdef void use_scratch(self, Scratch scratch) noexcept
    # turns
    cdef int turn(self, int64_t patience) except -1
    cdef int serve(self, epoll_event *events, int milliseconds) except -1
    cdef int catch_up(self, epoll_event *events) except -1
    cdef int nogil_turns(self, epoll_event *events, int milliseconds, int *done) noexcept nogil
    cdef bint unfinished(self) noexcept
    cdef void run_again_nogil(self) noexcept nogil
    cdef void run_reports(self) noexcept
    cdef void run_events(self) noexcept
    cdef int64_t due(self) noexcept
    cdef void run_timers(self, int64_t now) noexcept
    cdef void run_calls(self) noexcept
    cdef void run_again(self) noexcept
    cdef void run_flushes(self) noexcept
    cdef void call(self, object callback, tuple args) noexcept
    cdef void report_call(self, object consumer, str method, object exception) noexcept
    # closing
    cdef void close_copies(self) noexcept
    cdef void bury(self, Watcher watcher) noexcept
    cdef void empty_graves(self) noexcept


cdef int64_t monotonic_ns() noexcept nogil
