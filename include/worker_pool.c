#include "system.h" /* first: it asks for what is GNU's */

#include "worker_pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "fork_gate.h"

struct worker_pool {
    job_list queue;
    size_t waiting;
    int most, threads, idle, busy;
    int over;
    unsigned forks; /* when its threads were made */
    pthread_cond_t work;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t quiet = PTHREAD_COND_INITIALIZER;
static job_list orphans;
static void (*orphan_hook)(void);
static unsigned forks; /* that led to this process */
static int at_work;    /* threads in a job, of all pools */
static int stopped;

static void append(job_list *list, worker_job *job)
{
    job->next = NULL;
    if (list->first == NULL)
        __atomic_store_n(&list->first, job, __ATOMIC_RELEASE);
    else
        list->last->next = job;
    list->last = job;
}

static worker_job *take(job_list *list)
{
    worker_job *job = list->first;
    if (job != NULL)
        __atomic_store_n(&list->first, job->next, __ATOMIC_RELEASE);
    return job;
}

static void cut(job_list *list, worker_job *job)
{
    worker_job *before = NULL, *it = list->first;
    while (it != job) {
        before = it;
        it = it->next;
    }
    if (before == NULL)
        list->first = job->next;
    else
        before->next = job->next;
    if (list->last == job)
        list->last = before;
}

/* The lock is held by who forks. */
static void forked(void)
{
    forks++;
    at_work = 0;
    pthread_cond_init(&quiet, NULL);
}

static void begin(void)
{
    fork_gate_guard(&lock);
    pthread_atfork(NULL, NULL, forked);
}

/* In a forked child its threads are gone, and what was queued is the parent's. */
static void see_fork(worker_pool *pool)
{
    worker_job *job;
    if (pool->forks == forks)
        return;
    pool->forks = forks;
    while ((job = take(&pool->queue)) != NULL)
        job->state = JOB_IDLE;
    pool->waiting = 0;
    pool->threads = pool->idle = pool->busy = 0;
    pthread_cond_init(&pool->work, NULL);
}

worker_pool *worker_pool_new(int threads)
{
    worker_pool *pool = calloc(1, sizeof *pool);
    pthread_once(&once, begin);
    if (pool == NULL)
        return NULL;
    pool->most = threads;
    pool->forks = forks;
    pthread_cond_init(&pool->work, NULL);
    return pool;
}

static void destroy(worker_pool *pool)
{
    pthread_cond_destroy(&pool->work);
    free(pool);
}

void worker_pool_free(worker_pool *pool)
{
    int threads;
    pthread_mutex_lock(&lock);
    see_fork(pool);
    pool->over = 1;
    threads = pool->threads;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&lock);
    if (threads == 0)
        destroy(pool); /* else the last of them does */
}

static void leave(mailbox *box)
{
    if (--box->users == 0)
        free(box);
}

static void orphan(worker_job *job)
{
    append(&orphans, job);
    if (orphan_hook != NULL)
        orphan_hook();
}

/* A job is done. Who takes it may free it as soon as the lock is let go of. */
static void deliver(worker_job *job)
{
    mailbox *home = job->home;
    ssize_t written;
    job->state = JOB_DONE;
    job->home = NULL;
    if (home == NULL || home->descriptor < 0) {
        orphan(job);
    } else {
        append(&home->jobs, job);
        if (!home->told) {
            home->told = 1;
            written = write(home->descriptor, "w", 1);
            (void) written; /* a full pipe wakes as well */
        }
    }
    if (home != NULL)
        leave(home);
}

static void *work(void *argument)
{
    worker_pool *pool = argument;
    worker_job *job;
    unsigned process;
    int last;
    name_this_thread("sslsock-shake");
    pthread_mutex_lock(&lock);
    process = forks;
    while (1) {
        while (!pool->over && (pool->queue.first == NULL || stopped)) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &lock);
            pool->idle--;
        }
        job = pool->over ? NULL : take(&pool->queue);
        if (job == NULL)
            break;
        pool->waiting--;
        job->state = JOB_AT_WORK;
        at_work++;
        pool->busy++;
        pthread_mutex_unlock(&lock);
        job->run(job->kept);
        pthread_mutex_lock(&lock);
        if (forks != process) { /* what it called has forked, and this is the child, where nobody waits for it */
            pthread_mutex_unlock(&lock);
            return NULL;
        }
        pool->busy--;
        if (--at_work == 0)
            pthread_cond_broadcast(&quiet);
        deliver(job);
    }
    last = --pool->threads == 0;
    pthread_mutex_unlock(&lock);
    if (last)
        destroy(pool);
    return NULL;
}

/* Signals are for the program's threads. */
static int add_thread(worker_pool *pool)
{
    pthread_t thread;
    sigset_t all, before;
    int failed;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&thread, NULL, work, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return 0;
    pthread_detach(thread);
    pool->threads++;
    return 1;
}

int worker_job_submit(worker_job *job, worker_pool *pool, mailbox *home)
{
    int accepted = 0;
    pthread_mutex_lock(&lock);
    see_fork(pool);
    if (!stopped) {
        if (pool->waiting >= (size_t) pool->idle && pool->threads < pool->most)
            add_thread(pool);
        accepted = pool->threads > 0;
    }
    if (accepted) {
        job->pool = pool;
        job->home = home;
        job->state = JOB_QUEUED;
        home->users++;
        append(&pool->queue, job);
        pool->waiting++;
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&lock);
    return accepted;
}

int worker_job_withdraw(worker_job *job)
{
    int queued;
    pthread_mutex_lock(&lock);
    see_fork(job->pool);
    queued = job->state == JOB_QUEUED;
    if (queued) {
        cut(&job->pool->queue, job);
        job->pool->waiting--;
        job->state = JOB_IDLE;
    }
    if (job->home != NULL)
        leave(job->home);
    job->home = NULL;
    job->watcher = NULL;
    pthread_mutex_unlock(&lock);
    return queued;
}

worker_pool_state worker_pool_look(worker_pool *pool)
{
    worker_pool_state state;
    pthread_mutex_lock(&lock);
    see_fork(pool);
    state.waiting = pool->waiting;
    state.threads = pool->threads;
    state.busy = pool->busy;
    pthread_mutex_unlock(&lock);
    return state;
}

mailbox *mailbox_new(int descriptor)
{
    mailbox *box = calloc(1, sizeof *box);
    if (box != NULL) {
        box->descriptor = descriptor;
        box->users = 1;
    }
    return box;
}

static worker_job *take_done(job_list *list)
{
    worker_job *job = take(list);
    if (job != NULL)
        job->state = JOB_IDLE;
    return job;
}

worker_job *mailbox_take_slowly(mailbox *box)
{
    worker_job *job;
    pthread_mutex_lock(&lock);
    job = take_done(&box->jobs);
    if (box->jobs.first == NULL)
        box->told = 0; /* who comes now writes again */
    pthread_mutex_unlock(&lock);
    return job;
}

void mailbox_close(mailbox *box)
{
    worker_job *job;
    pthread_mutex_lock(&lock);
    box->descriptor = -1;
    while ((job = take(&box->jobs)) != NULL)
        orphan(job);
    leave(box);
    pthread_mutex_unlock(&lock);
}

worker_job *worker_pool_orphan(void)
{
    worker_job *job;
    if (__atomic_load_n(&orphans.first, __ATOMIC_ACQUIRE) == NULL)
        return NULL;
    pthread_mutex_lock(&lock);
    job = take_done(&orphans);
    pthread_mutex_unlock(&lock);
    return job;
}

void worker_pool_on_orphan(void (*hook)(void))
{
    pthread_mutex_lock(&lock);
    orphan_hook = hook;
    pthread_mutex_unlock(&lock);
}

void worker_pool_stop(int seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&lock);
    stopped = 1;
    orphan_hook = NULL;
    while (at_work > 0 && pthread_cond_timedwait(&quiet, &lock, &until) == 0)
        ;
    pthread_mutex_unlock(&lock);
}
