"""Places that worker processes share (room_table.h)."""

from libc.stdint cimport int64_t


cdef extern from "room_table.h" nogil:
    ctypedef struct room_table:
        pass

    ctypedef struct room_sums:
        int64_t count, shaking, asked, waiting

    room_table *room_table_new(int workers, int rooms)
    void room_table_free(room_table *table)
    int room_table_end(const room_table *table, int worker, int end)
    int room_table_descriptor(const room_table *table, int worker)
    void room_table_limit(room_table *table, int room, int64_t limit, int64_t handshakes)
    int64_t room_table_enter(room_table *table, int worker, int room, bint shakes)
    bint room_table_retry(room_table *table, int worker, int room, int64_t ticket, int64_t next)
    void room_table_withdraw(room_table *table, int worker, int room, int64_t next)
    bint room_table_settle(room_table *table, int worker, int room, bint asked)
    bint room_table_leave(room_table *table, int worker, int room, bint shakes, bint asked)
    bint room_table_ask(room_table *table, int worker, int room, int by)
    bint room_table_crowded(room_table *table)
    int room_table_blocking(room_table *table, int room, bint shakes)
    void room_table_answer(room_table *table, int worker)
    void room_table_call(room_table *table, int worker)
    int64_t room_table_press(room_table *table, int worker, int room, int64_t due, int64_t now)
    void room_table_clear(room_table *table, int worker)
    void room_table_sums(room_table *table, int room, room_sums *sums)
    void room_table_hold(room_table *table)
    void room_table_release(room_table *table)
