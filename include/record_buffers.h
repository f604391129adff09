/* Which connections keep libssl's record buffers.
 *
 * libssl has a buffer for a record that it reads and one for a record that it writes, 33 KiB together. With
 * SSL_MODE_RELEASE_BUFFERS (SSL_CTX_set_mode(3)) it frees each when it is empty and makes it anew for the next record, a tenth
 * of what a record of 64 bytes costs. Without it an idle connection is half as large again. So the few connections that are busy
 * keep theirs: there are RECORD_BUFFERS_SEATS seats in a process, for connections that are used again and again while few others
 * are. Who has not been used for long gives up its seat to one that wants it.
 */
#ifndef SSLSOCK_RECORD_BUFFERS_H
#define SSLSOCK_RECORD_BUFFERS_H

#include <openssl/ssl.h>
#include <pthread.h>

#define RECORD_BUFFERS_SEATS 64

typedef struct record_buffers {
    SSL *ssl;              /* in SSL_MODE_RELEASE_BUFFERS but for the time that it has a seat */
    pthread_mutex_t *lock; /* libssl is entered under it */
    unsigned int seat;
    unsigned int streak; /* uses without many of others between them */
    unsigned long last;  /* when it was used; the time is the number of all uses */
    int kept;
} record_buffers;

extern struct record_buffers *record_buffers_seats[RECORD_BUFFERS_SEATS];
extern unsigned long record_buffers_time;

/* The part of `record_buffers_used` for who has no seat. */
void record_buffers_want_seat(record_buffers *mine, unsigned long now);

/* After a read or a write, under the lock. */
static inline void record_buffers_used(record_buffers *mine)
{
    /* No atomic addition: a use that is not counted costs nothing. */
    unsigned long now = __atomic_load_n(&record_buffers_time, __ATOMIC_RELAXED) + 1;
    __atomic_store_n(&record_buffers_time, now, __ATOMIC_RELAXED);
    if (__atomic_load_n(&record_buffers_seats[mine->seat], __ATOMIC_RELAXED) != mine)
        record_buffers_want_seat(mine, now);
    __atomic_store_n(&mine->last, now, __ATOMIC_RELAXED);
}

/* Before the SSL is freed, without the lock. */
void record_buffers_forget(record_buffers *mine);

/* In a child of a fork: all seats are free. */
void record_buffers_forked(void);

#endif
