#include "system.h"

#include "room_table.h"
#include "shared_lock.h"

static const int64_t PATIENCE = 500000000; /* with a worker that was called */
static const int64_t GRACE = 10000000;     /* how late a worker may ask its handshake, until it is called */
static const int64_t AGAIN = 50000000;     /* until another look at who was called, or was asked to give way */

typedef struct {
    int64_t count, shaking, asked; /* shaking: those that are asked, too */
    int64_t waiting, ticket, shakes; /* ticket: of the eldest */
    int64_t due;
} room_row;

typedef struct {
    int64_t limit, handshakes;
    room_sums sums; /* as `sum_up` has found them */
} room_state;

typedef struct {
    int64_t waiting;
    int64_t called_at; /* 0: it has answered */
    int ends[2];       /* of a pipe */
} worker_state;

struct room_table {
    shared_lock lock;
    size_t size;
    int workers, rooms;
    int64_t tickets;
    worker_state *worker;
    room_state *room;
    room_row *rows; /* of each room its workers' */
};

static int64_t clock_now(void)
{
    struct timespec now;

    clock_gettime(MONOTONIC_CLOCK, &now);
    return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}

static room_row *row_of(const room_table *table, int worker, int room)
{
    return table->rows + (size_t) room * (size_t) table->workers + worker;
}

static void close_pipes(room_table *table, int count)
{
    for (int worker = 0; worker < count; worker++) {
        close(table->worker[worker].ends[0]);
        close(table->worker[worker].ends[1]);
    }
}

room_table *room_table_new(int workers, int rooms)
{
    size_t worker_size = (size_t) workers * sizeof(worker_state), room_size = (size_t) rooms * sizeof(room_state);
    size_t size = sizeof(room_table) + worker_size + room_size + (size_t) rooms * (size_t) workers * sizeof(room_row);
    room_table *table = shared_memory_new(size, 1);
    int failed;

    if (!table)
        return NULL;
    table->size = size;
    table->workers = workers;
    table->rooms = rooms;
    table->worker = (worker_state *) (table + 1);
    table->room = (room_state *) ((char *) table->worker + worker_size);
    table->rows = (room_row *) ((char *) table->room + room_size);
    failed = shared_lock_init(&table->lock, 1);
    for (int worker = 0; !failed && worker < workers; worker++) {
        if (open_pipe(table->worker[worker].ends) < 0) {
            failed = errno;
            close_pipes(table, worker);
        }
    }
    if (failed) {
        shared_memory_free(table, size);
        errno = failed;
        return NULL;
    }
    return table;
}

void room_table_free(room_table *table)
{
    if (!table)
        return;
    close_pipes(table, table->workers);
    shared_memory_free(table, table->size);
}

int room_table_end(const room_table *table, int worker, int end)
{
    return table->worker[worker].ends[end];
}

int room_table_descriptor(const room_table *table, int worker)
{
    return table->worker[worker].ends[0];
}

/* Nothing is to be mended when the last holder has died: what it has left half done are its own rows. */
static void lock(room_table *table)
{
    shared_lock_take(&table->lock);
}

static void unlock(room_table *table)
{
    shared_lock_release(&table->lock);
}

/* Under the lock, all of these. */

static int anybody_waits(const room_table *table)
{
    for (int worker = 0; worker < table->workers; worker++) {
        if (table->worker[worker].waiting)
            return 1;
    }
    return 0;
}

static void sum_up(room_table *table, int room)
{
    const room_row *row = row_of(table, 0, room);
    room_sums sums = {0, 0, 0, 0};

    for (int worker = 0; worker < table->workers; worker++, row++) {
        sums.count += row->count;
        sums.shaking += row->shaking;
        sums.asked += row->asked;
        sums.waiting += room ? row->waiting : table->worker[worker].waiting;
    }
    table->room[room].sums = sums;
}

static void sum_up_all(room_table *table)
{
    for (int room = 0; room < table->rooms; room++)
        sum_up(table, room);
}

static int late(const room_table *table, int worker, int64_t now)
{
    return table->worker[worker].called_at && now - table->worker[worker].called_at > PATIENCE;
}

static void wake(const worker_state *worker)
{
    ssize_t written = write(worker->ends[1], "", 1);

    (void) written; /* when the pipe is full it is readable */
}

static void call(room_table *table, int worker, int64_t now)
{
    if (table->worker[worker].called_at)
        return;
    table->worker[worker].called_at = now;
    wake(table->worker + worker);
}

/* Whether a place is left beside `others`, of whom `shaking` have a handshake to make. */
static int has_place(const room_state *room, int shakes, int64_t others, int64_t shaking)
{
    if (room->limit && room->sums.count + others >= room->limit)
        return 0;
    return !shakes || !room->handshakes || room->sums.shaking + shaking < room->handshakes;
}

/* By the sums of the two rooms. Which of them has no place, -1: each has. */
static int full_room(const room_table *table, int room, int shakes)
{
    if (!has_place(table->room + room, shakes, 0, 0))
        return room;
    return has_place(table->room, shakes, 0, 0) ? -1 : 0;
}

/* By the sums of all rooms: whether there is a place for who has this ticket, beside those for who is older. */
static int is_next(const room_table *table, int room, int shakes, int64_t ticket, int64_t now)
{
    int64_t all = 0, all_shaking = 0, here = 0, here_shaking = 0;

    if (full_room(table, room, shakes) >= 0)
        return 0;
    for (int other = 1; other < table->rooms; other++) {
        const room_row *row = row_of(table, 0, other);

        if (!table->room[other].sums.waiting)
            continue;
        for (int worker = 0; worker < table->workers; worker++, row++) {
            int64_t shaking = row->shakes ? row->waiting : 0;

            if (!row->waiting || row->ticket >= ticket || late(table, worker, now) || full_room(table, other, (int) row->shakes) >= 0)
                continue;
            all += row->waiting;
            all_shaking += shaking;
            if (other == room) {
                here += row->waiting;
                here_shaking += shaking;
            }
        }
    }
    return has_place(table->room + room, shakes, here, here_shaking) && has_place(table->room, shakes, all, all_shaking);
}

static void take(room_table *table, int worker, int room, int shakes)
{
    room_row *row = row_of(table, worker, room), *whole = row_of(table, worker, 0);

    row->count++;
    whole->count++;
    row->shaking += shakes;
    whole->shaking += shakes;
}

static void less(int64_t *number, int by)
{
    if (*number >= by) /* it was not cleared in between */
        *number -= by;
}

static void unqueue(room_table *table, int worker, int room, int64_t next)
{
    room_row *row = row_of(table, worker, room);

    less(&row->waiting, 1);
    less(&table->worker[worker].waiting, 1);
    row->ticket = next;
}

/* Somebody waits, and nobody did: whoever has handshakes is to tell since when. */
static void begin_crowd(room_table *table, int64_t now)
{
    for (int room = 0; room < table->rooms; room++) {
        for (int worker = 0; worker < table->workers; worker++)
            row_of(table, worker, room)->due = 0;
    }
    for (int worker = 0; worker < table->workers; worker++) {
        if (row_of(table, worker, 0)->shaking)
            call(table, worker, now);
    }
}

int64_t room_table_enter(room_table *table, int worker, int room, int shakes)
{
    int64_t ticket = 0;
    int crowded;

    lock(table);
    crowded = anybody_waits(table);
    if (crowded) {
        sum_up_all(table);
    } else {
        sum_up(table, room);
        sum_up(table, 0);
    }
    if (crowded ? is_next(table, room, shakes, INT64_MAX, clock_now()) : full_room(table, room, shakes) < 0) {
        take(table, worker, room, shakes);
        ticket = crowded ? -1 : 0;
    } else {
        room_row *row = row_of(table, worker, room);

        ticket = ++table->tickets;
        row->shakes = shakes;
        if (!row->waiting++)
            row->ticket = ticket;
        table->worker[worker].waiting++;
        if (!crowded)
            begin_crowd(table, clock_now());
    }
    unlock(table);
    return ticket;
}

int room_table_retry(room_table *table, int worker, int room, int64_t ticket, int64_t next)
{
    int shakes, taken;

    lock(table);
    shakes = (int) row_of(table, worker, room)->shakes;
    sum_up_all(table);
    taken = is_next(table, room, shakes, ticket, clock_now());
    if (taken) {
        take(table, worker, room, shakes);
        unqueue(table, worker, room, next);
    }
    unlock(table);
    return taken;
}

void room_table_withdraw(room_table *table, int worker, int room, int64_t next)
{
    lock(table);
    unqueue(table, worker, room, next);
    unlock(table);
}

void room_table_limit(room_table *table, int room, int64_t limit, int64_t handshakes)
{
    lock(table);
    table->room[room].limit = limit;
    table->room[room].handshakes = handshakes;
    unlock(table);
}

static void count_down(room_row *row, int gone, int shakes, int asked)
{
    less(&row->count, gone);
    less(&row->shaking, shakes);
    less(&row->asked, asked);
}

static int change(room_table *table, int worker, int room, int gone, int shakes, int asked)
{
    int crowded;

    lock(table);
    count_down(row_of(table, worker, room), gone, shakes, asked);
    count_down(row_of(table, worker, 0), gone, shakes, asked);
    crowded = anybody_waits(table);
    unlock(table);
    return crowded;
}

int room_table_settle(room_table *table, int worker, int room, int asked)
{
    return change(table, worker, room, 0, 1, asked);
}

int room_table_leave(room_table *table, int worker, int room, int shakes, int asked)
{
    return change(table, worker, room, 1, shakes, asked);
}

int room_table_ask(room_table *table, int worker, int room, int by)
{
    return change(table, worker, room, 0, 0, -by);
}

int room_table_crowded(room_table *table)
{
    int crowded;

    lock(table);
    crowded = anybody_waits(table);
    unlock(table);
    return crowded;
}

int room_table_blocking(room_table *table, int room, int shakes)
{
    int blocking;

    lock(table);
    sum_up(table, room);
    sum_up(table, 0);
    blocking = full_room(table, room, shakes);
    unlock(table);
    return blocking;
}

void room_table_answer(room_table *table, int worker)
{
    char bytes[64];

    while (read(table->worker[worker].ends[0], bytes, sizeof bytes) == (ssize_t) sizeof bytes)
        ;
    lock(table);
    table->worker[worker].called_at = 0;
    unlock(table);
}

void room_table_call(room_table *table, int worker)
{
    int64_t now = clock_now();

    lock(table);
    sum_up_all(table);
    for (int room = 1; room < table->rooms; room++) {
        for (int other = 0; other < table->workers; other++) {
            const room_row *row = row_of(table, other, room);

            if (other != worker && row->waiting && is_next(table, room, (int) row->shakes, row->ticket, now))
                call(table, other, now);
        }
    }
    unlock(table);
}

/* How many wait for a place in this very room, and are not passed over. */
static int64_t wanted(const room_table *table, int room, int64_t now)
{
    int64_t count = 0;

    for (int other = room ? room : 1; other < (room ? room + 1 : table->rooms); other++) {
        const room_row *row = row_of(table, 0, other);

        for (int worker = 0; worker < table->workers; worker++, row++) {
            if (row->waiting && !late(table, worker, now) && full_room(table, other, (int) row->shakes) == room)
                count += row->waiting;
        }
    }
    return count;
}

int64_t room_table_press(room_table *table, int worker, int room, int64_t due, int64_t now)
{
    int64_t asked = 0, many, result = -1;
    int oldest = -1;

    lock(table);
    row_of(table, worker, room)->due = due;
    sum_up_all(table);
    many = wanted(table, room, now);
    for (int other = 0; other < table->workers; other++) {
        const room_row *row = row_of(table, other, room);

        if (late(table, other, now))
            continue;
        asked += row->asked;
        if (row->due && (oldest < 0 || row->due < row_of(table, oldest, room)->due))
            oldest = other;
    }
    if (many && asked >= many) {
        for (int other = 0; other < table->workers; other++) {
            if (other != worker && row_of(table, other, room)->asked)
                call(table, other, now);
        }
        result = AGAIN;
    } else if (many && oldest == worker) {
        result = due > now ? due - now : 0;
    } else if (many && oldest >= 0) {
        int64_t moment = row_of(table, oldest, room)->due + GRACE;

        if (moment <= now)
            call(table, oldest, now);
        result = moment > now ? moment - now : AGAIN;
    }
    unlock(table);
    return result;
}

void room_table_clear(room_table *table, int worker)
{
    lock(table);
    for (int room = 0; room < table->rooms; room++)
        *row_of(table, worker, room) = (room_row) {0, 0, 0, 0, 0, 0, 0};
    table->worker[worker].waiting = 0;
    table->worker[worker].called_at = 0;
    for (int other = 0; other < table->workers; other++) {
        if (other != worker)
            wake(table->worker + other);
    }
    unlock(table);
}

void room_table_sums(room_table *table, int room, room_sums *sums)
{
    lock(table);
    sum_up(table, room);
    *sums = table->room[room].sums;
    unlock(table);
}

void room_table_hold(room_table *table)
{
    lock(table);
}

void room_table_release(room_table *table)
{
    unlock(table);
}
