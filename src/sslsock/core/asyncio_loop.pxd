from libc.stdint cimport int64_t, uint32_t

from sslsock.core.asyncio_handle cimport Handle
from sslsock.core.loop cimport Loop
from sslsock.core.reactor cimport LevelWatcher
from sslsock.core.schedule cimport TimedHeap, WorkQueue


cdef class ReadyWatch(LevelWatcher):
    cdef LoopCore owner
    cdef object file  # what the program has named it by
    cdef object reader, writer  # handles, or None

    cdef int change(self, object reader, object writer) except -1


cdef class LoopCore:
    cdef readonly Loop core
    cdef WorkQueue ready
    cdef TimedHeap timers
    cdef dict files  # descriptor -> ReadyWatch
    cdef dict foreign_timers  # id of one of asyncio's own TimerHandles (debug mode) -> its entry in `timers`
    cdef int closed, stopping, debug  # truths that other threads may ask for
    cdef dict attributes  # what the program has set in the loop: its `__dict__`
    cdef bint own_clock  # the class has a `time` of its own

    cdef bint time_is_replaced(self) except -1
    cdef int64_t now(self) except? -1
    cdef int check_open(self) except -1
    cdef Handle planned(self, Handle handle, object callback, tuple args, object context)
    cdef int queue_from_elsewhere(self, object handle) except -1
    cdef int hand_over(self, object method, object handle) except -1
    cdef int claim(self) except -1
    cdef object plan_at(self, object when, object callback, tuple args, object context)
    cdef ReadyWatch watch_of(self, object file)
    cdef ReadyWatch watch_of_closed(self, object file)
    cdef bint remove_watch(self, object file, bint writes) except -1
    cdef object add_watch(self, object file, object callback, tuple args, object context, bint writes)
    cdef void run_ready(self) noexcept
    cdef void run_due_timers(self)
    cdef bint run_one(self, object handle) noexcept
