/* A lock, and memory that it lies in: for the threads of a process, or for processes of which one has inherited the memory from the
 * other by fork.
 *
 * A process may be killed while it has the lock, or be stopped. The kernel gives back what a dead one had (robust mutexes,
 * set_robust_list(2)), and whoever takes the lock next is told that what it guards may be half changed. One that is stopped
 * (SIGSTOP) is told to go on by whoever has waited for a second: it will let go in some hundred instructions, and may then be
 * stopped again. */
#ifndef SSLSOCK_SHARED_LOCK_H
#define SSLSOCK_SHARED_LOCK_H

#include <pthread.h>
#include <stddef.h>

#include <sys/types.h>

typedef struct {
    pthread_mutex_t mutex;
    pid_t holder; /* whoever has taken it last, among processes */
} shared_lock;

/* Zeroes, which cost nothing until they are used. NULL: errno says why not; ENOTSUP where processes cannot share a lock. */
void *shared_memory_new(size_t size, int among_processes);
void shared_memory_free(void *memory, size_t size);

/* Make a part of it zeroes again, which cost nothing. */
void shared_memory_forget(void *part, size_t size, int among_processes);

/* 0, or an errno. */
int shared_lock_init(shared_lock *lock, int among_processes);

/* 1: the process that had it has died in between. */
int shared_lock_take(shared_lock *lock);
void shared_lock_release(shared_lock *lock);

#endif
