#include "system.h"

#include "shared_lock.h"

#include <signal.h>

#include <sys/mman.h>

void *shared_memory_new(size_t size, int among_processes)
{
    void *memory;

#ifdef __APPLE__
    if (among_processes) {
        errno = ENOTSUP; /* no robust mutexes */
        return NULL;
    }
#endif
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                  (among_processes ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void shared_memory_free(void *memory, size_t size)
{
    munmap(memory, size);
}

void shared_memory_forget(void *part, size_t size, int among_processes)
{
#ifdef __linux__
    /* Whole pages only: madvise(2) wants an address at the beginning of one, and rounds the size up. */
    if (madvise(part, size, among_processes ? MADV_REMOVE : MADV_DONTNEED) == 0)
        return;
#else
    (void) among_processes;
#endif
    memset(part, 0, size);
}

#ifdef __APPLE__ /* has neither robust mutexes nor pthread_mutex_timedlock(): processes share nothing */

int shared_lock_init(shared_lock *lock, int among_processes)
{
    return among_processes ? ENOTSUP : pthread_mutex_init(&lock->mutex, NULL);
}

int shared_lock_take(shared_lock *lock)
{
    pthread_mutex_lock(&lock->mutex);
    return 0;
}

#else

static pid_t self; /* getpid(2) is a system call */

static void note_self(void)
{
    self = getpid();
}

static void watch_forks(void)
{
    note_self();
    pthread_atfork(NULL, NULL, note_self);
}

int shared_lock_init(shared_lock *lock, int among_processes)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_mutexattr_t kind;
    int failed = pthread_mutexattr_init(&kind);

    if (failed)
        return failed;
    if (among_processes) {
        pthread_once(&once, watch_forks);
        failed = pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
        if (!failed)
            failed = pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    }
    if (!failed)
        failed = pthread_mutex_init(&lock->mutex, &kind);
    pthread_mutexattr_destroy(&kind);
    return failed;
}

int shared_lock_take(shared_lock *lock)
{
    int result = pthread_mutex_trylock(&lock->mutex);

    while (result == EBUSY || result == ETIMEDOUT) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        result = pthread_mutex_timedlock(&lock->mutex, &until);
        if (result == ETIMEDOUT) {
            pid_t holder = __atomic_load_n(&lock->holder, __ATOMIC_RELAXED);

            if (holder > 0)
                kill(holder, SIGCONT);
        }
    }
    __atomic_store_n(&lock->holder, self, __ATOMIC_RELAXED);
    if (result == EOWNERDEAD) {
        pthread_mutex_consistent(&lock->mutex);
        return 1;
    }
    return 0;
}

#endif

void shared_lock_release(shared_lock *lock)
{
    pthread_mutex_unlock(&lock->mutex);
}
