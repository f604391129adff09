/* Places that worker processes share: how many connections each has in each room, how many of them are in their handshake, and who
 * waits. Room 0 is the whole; the others are listeners', and a place of theirs is one of the whole, too. Each worker writes its own
 * rows, and the sum over all is what counts: so a worker that was killed, wherever that was, is forgotten by `room_table_clear`.
 *
 * Who waits has a ticket, and places are for the eldest. They are not handed to anybody: who is to come is *called*, and until then the
 * others leave a place for it. A worker that does not answer a call for half a second (it is stopped, or hangs) is passed over until it
 * does.
 *
 * While somebody waits, workers tell when the oldest of their handshakes may be asked to give way (`due`), and the oldest of all goes.
 *
 * Times are nanoseconds of the monotonic clock. Each call takes the table's lock. */
#ifndef SSLSOCK_ROOM_TABLE_H
#define SSLSOCK_ROOM_TABLE_H

#include <stdint.h>

typedef struct room_table room_table;

typedef struct {
    int64_t count, shaking, asked, waiting;
} room_sums;

/* Before the workers are forked. NULL: errno says why not. */
room_table *room_table_new(int workers, int rooms);
void room_table_free(room_table *table);

/* What `worker` is called by: readable when it is to look. */
int room_table_descriptor(const room_table *table, int worker);

/* One of the two descriptors (end: 0, 1) by which it is called: all workers need those of all. */
int room_table_end(const room_table *table, int worker, int end);

/* limit: of connections; handshakes: of those in that state; 0: none. */
void room_table_limit(room_table *table, int room, int64_t limit, int64_t handshakes);

/* Take a place. 0; -1: the same, and others wait; or a ticket: there is none, and somebody waits for one from now on. */
int64_t room_table_enter(room_table *table, int worker, int room, int shakes);

/* Whether there is a place now for who has `ticket`, the eldest of this worker for this room; it is taken. next: who is the eldest then,
 * 0: nobody waits. */
int room_table_retry(room_table *table, int worker, int room, int64_t ticket, int64_t next);

/* Who is the eldest waits no more. */
void room_table_withdraw(room_table *table, int worker, int room, int64_t next);

/* These say whether anybody waits. asked: it was to give way. */
int room_table_settle(room_table *table, int worker, int room, int asked);
int room_table_leave(room_table *table, int worker, int room, int shakes, int asked);
int room_table_ask(room_table *table, int worker, int room, int by);
int room_table_crowded(room_table *table);

/* Where there is no place: a room, or -1. */
int room_table_blocking(room_table *table, int room, int shakes);

/* The worker looks now, whoever has called it. */
void room_table_answer(room_table *table, int worker);

/* Call those for whom there are places. */
void room_table_call(room_table *table, int worker);

/* due: when this worker's oldest handshake in this room may be asked to give way, 0: it has none. How long until it is to be asked; -1:
 * as far as is known now, never. */
int64_t room_table_press(room_table *table, int worker, int room, int64_t due, int64_t now);

/* This worker has ended. All others are called. */
void room_table_clear(room_table *table, int worker);

void room_table_sums(room_table *table, int room, room_sums *sums);

/* For tests: the lock. */
void room_table_hold(room_table *table);
void room_table_release(room_table *table);

#endif
