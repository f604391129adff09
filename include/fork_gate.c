#include "fair_rwlock.h"
#include "fork_gate.h"

#define GUARDED 4

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_rwlock_t gate; /* written by who forks */
static __thread int depth;    /* how often this thread has entered */
static pthread_mutex_t *guarded[GUARDED];
static int guarded_count;
static pthread_mutex_t guarding = PTHREAD_MUTEX_INITIALIZER;
static int works; /* whether a fork closes the gate */

static void close_gate(void)
{
    int index, count = __atomic_load_n(&guarded_count, __ATOMIC_ACQUIRE);
    pthread_rwlock_wrlock(&gate);
    for (index = 0; index < count; index++)
        pthread_mutex_lock(guarded[index]);
}

static void let_go(void)
{
    int index, count = __atomic_load_n(&guarded_count, __ATOMIC_ACQUIRE);
    for (index = 0; index < count; index++)
        pthread_mutex_unlock(guarded[index]);
}

static void open_gate(void)
{
    let_go();
    pthread_rwlock_unlock(&gate);
}

static void open_in_child(void)
{
    let_go();
    fair_rwlock_init(&gate); /* those who waited are gone */
}

static void begin(void)
{
    fair_rwlock_init(&gate);
    works = pthread_atfork(close_gate, open_gate, open_in_child) == 0;
}

int fork_gate_guard(pthread_mutex_t *lock)
{
    int done;
    pthread_once(&once, begin);
    pthread_mutex_lock(&guarding);
    done = works && guarded_count < GUARDED;
    if (done) {
        guarded[guarded_count] = lock;
        __atomic_store_n(&guarded_count, guarded_count + 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&guarding);
    return done;
}

void fork_gate_enter(void)
{
    pthread_once(&once, begin);
    if (depth++ == 0)
        pthread_rwlock_rdlock(&gate);
}

void fork_gate_leave(void)
{
    if (--depth == 0)
        pthread_rwlock_unlock(&gate);
}

int fork_gate_pause(void)
{
    int entered = depth;
    depth = 0;
    if (entered)
        pthread_rwlock_unlock(&gate);
    return entered;
}

void fork_gate_resume(int entered)
{
    if (entered)
        pthread_rwlock_rdlock(&gate);
    depth = entered;
}
