#include "record_buffers.h"

#define RECENTLY (4 * RECORD_BUFFERS_SEATS) /* uses */
#define BUSY 8                              /* uses, each recently after the one before */
#define CANDIDATES 4                        /* seats that are looked at for a free one */

struct record_buffers *record_buffers_seats[RECORD_BUFFERS_SEATS];
unsigned long record_buffers_time;
static unsigned int next;
/* Taken under a connection's lock; of another connection's lock only a trylock is made under it. */
static pthread_mutex_t seats_lock = PTHREAD_MUTEX_INITIALIZER;

/* Under the lock of `buffers`. 0: it has a record in work. */
static int give_back(record_buffers *buffers)
{
    /* Some 3.0 to 3.3 free the record too (CVE-2024-4741): SSL_free_buffers is not asked whether it can. */
    if (SSL_has_pending(buffers->ssl))
        return 0;
    SSL_set_mode(buffers->ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_free_buffers(buffers->ssl);
    buffers->kept = 0;
    return 1;
}

/* Under seats_lock. */
static int vacate(record_buffers *other, unsigned long now)
{
    int done;
    if (now - __atomic_load_n(&other->last, __ATOMIC_RELAXED) < RECENTLY || pthread_mutex_trylock(other->lock) != 0)
        return 0;
    done = give_back(other);
    pthread_mutex_unlock(other->lock);
    return done;
}

void record_buffers_want_seat(record_buffers *mine, unsigned long now)
{
    int tries;
    if (mine->kept) { /* from before a fork */
        give_back(mine);
        return;
    }
    mine->streak = now - mine->last < RECENTLY ? mine->streak + 1 : 0;
    if (mine->streak < BUSY || pthread_mutex_trylock(&seats_lock) != 0)
        return;
    mine->streak = 0;
    for (tries = 0; tries < CANDIDATES; tries++) {
        unsigned int seat = next++ % RECORD_BUFFERS_SEATS;
        record_buffers *other = record_buffers_seats[seat];
        if (other == NULL || vacate(other, now)) {
            __atomic_store_n(&record_buffers_seats[seat], mine, __ATOMIC_RELAXED);
            mine->seat = seat;
            mine->kept = 1;
            SSL_clear_mode(mine->ssl, SSL_MODE_RELEASE_BUFFERS);
            break;
        }
    }
    pthread_mutex_unlock(&seats_lock);
}

void record_buffers_forget(record_buffers *mine)
{
    pthread_mutex_lock(&seats_lock);
    if (record_buffers_seats[mine->seat] == mine)
        __atomic_store_n(&record_buffers_seats[mine->seat], NULL, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&seats_lock);
}

void record_buffers_forked(void)
{
    unsigned int seat;
    pthread_mutex_init(&seats_lock, NULL);
    for (seat = 0; seat < RECORD_BUFFERS_SEATS; seat++)
        record_buffers_seats[seat] = NULL;
}
