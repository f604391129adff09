"""How many connections worker processes have, in all and of each listener, and who waits for a place (room_table.h).

Made before the workers are forked. Numbers of rooms: 0 is the whole, the listeners' are those from 1 on.
"""

import os

cimport cython
from libc.stdint cimport int64_t

cimport room_table as c
from sslsock.core.schedule cimport monotonic_ns
from system cimport ENOMEM, errno


@cython.final
cdef class SharedRooms:
    """workers: how many processes; rooms: how many, the whole among them. OSError (ENOTSUP where processes cannot share a lock),
    MemoryError."""

    cdef c.room_table *table
    cdef int workers, rooms, worker

    def __cinit__(self, int workers, int rooms):
        if not 0 < workers <= 1 << 16 or not 1 < rooms <= 1 << 16:
            raise ValueError(f"no number of workers and rooms: {workers}, {rooms}")
        self.workers = workers
        self.rooms = rooms
        self.worker = -1
        self.table = c.room_table_new(workers, rooms)
        if self.table is NULL:
            if errno == ENOMEM:
                raise MemoryError
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        c.room_table_free(self.table)

    def join(self, int number):
        """This process is that worker from now on. ValueError."""
        self.require_worker(number)
        self.worker = number

    def clear(self, int number):
        """That worker has ended: it has no places any more, waits for none, and the others are told. ValueError."""
        self.require_worker(number)
        with nogil:
            c.room_table_clear(self.table, number)

    def fileno(self):
        """Readable when this worker is to look: int."""
        self.require_joined()
        return c.room_table_descriptor(self.table, self.worker)

    @property
    def descriptors(self):
        """What each worker has to inherit: list of int."""
        return [c.room_table_end(self.table, worker, end) for worker in range(self.workers) for end in range(2)]

    def limit(self, int room, int64_t connections, int64_t handshakes):
        """What a room may have from now on; 0 for no limit. ValueError."""
        self.require_room(room, 0)
        c.room_table_limit(self.table, room, connections, handshakes)

    def enter(self, int room, bint shakes):
        """Take a place of a listener. Returns 0; -1: the same, and others wait; or a ticket: there is none, and somebody waits for one
        from now on. ValueError."""
        self.require(room)
        return c.room_table_enter(self.table, self.worker, room, shakes)

    def retry(self, int room, int64_t ticket, int64_t following):
        """Take the place that the eldest who waits here (by its ticket) has come for. following: the ticket of the next one then, 0:
        there is none. Returns whether there was one. ValueError."""
        self.require(room)
        return c.room_table_retry(self.table, self.worker, room, ticket, following)

    def withdraw(self, int room, int64_t following):
        """The eldest who waits here does so no more. ValueError."""
        self.require(room)
        c.room_table_withdraw(self.table, self.worker, room, following)

    def settle(self, int room, bint asked):
        """A handshake is done; asked: it was to give way. Returns whether anybody waits. ValueError."""
        self.require(room)
        return c.room_table_settle(self.table, self.worker, room, asked)

    def leave(self, int room, bint shakes, bint asked):
        """A place is given back. Returns whether anybody waits. ValueError."""
        self.require(room)
        return c.room_table_leave(self.table, self.worker, room, shakes, asked)

    def ask(self, int room, int by):
        """A handshake is to give way (1), or is not any more (-1). ValueError."""
        self.require(room)
        c.room_table_ask(self.table, self.worker, room, by)

    @property
    def crowded(self):
        """Whether anybody waits, in any worker: bool."""
        return c.room_table_crowded(self.table)

    def blocking(self, int room, bint shakes):
        """Where there is no place: the number of a room, None: there is one. ValueError."""
        self.require_room(room, 1)
        cdef int found = c.room_table_blocking(self.table, room, shakes)
        return None if found < 0 else found

    def answer(self):
        """This worker looks now, whoever has called it."""
        self.require_joined()
        c.room_table_answer(self.table, self.worker)

    def call(self):
        """Call the workers for whose clients there are places."""
        self.require_joined()
        c.room_table_call(self.table, self.worker)

    def press(self, int room, int64_t due):
        """Have the oldest handshake of a room give way, if somebody waits for that. due: when this worker's oldest may be asked,
        nanoseconds on the monotonic clock; 0: it has none. Returns seconds until it is to be (0: now); None: as far as is known, it
        is not. ValueError."""
        self.require_joined()
        self.require_room(room, 0)
        cdef int64_t wait = c.room_table_press(self.table, self.worker, room, due, monotonic_ns())
        return None if wait < 0 else wait / 1e9

    def sums(self, int room):
        """(connections, handshakes, those of them that are to give way, who waits) of a room, in all workers. ValueError."""
        self.require_room(room, 0)
        cdef c.room_sums sums
        c.room_table_sums(self.table, room, &sums)
        return sums.count, sums.shaking, sums.asked, sums.waiting

    def hold(self):
        """For tests, which stop or kill a worker that has the lock: take it."""
        c.room_table_hold(self.table)

    def release(self):
        """After `hold`."""
        c.room_table_release(self.table)

    cdef int require_worker(self, int number) except -1:
        if not 0 <= number < self.workers:
            raise ValueError(f"no worker has this number: {number}")
        return 0

    cdef int require_room(self, int room, int least) except -1:
        if not least <= room < self.rooms:
            raise ValueError(f"no room has this number: {room}")
        return 0

    cdef int require_joined(self) except -1:
        if self.worker < 0:
            raise ValueError("this process is no worker")
        return 0

    cdef int require(self, int room) except -1:
        self.require_joined()
        return self.require_room(room, 1)
