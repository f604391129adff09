/* Threads that do jobs without Python's GIL, and how a loop hears that one is done.
 *
 * A job belongs to whoever submits it and takes no memory of the pool, so that nothing here can fail for want of it. It is done once,
 * in the order of submission, and then lies in a mailbox of the loop it came from, which is woken once for all that lies there. Whoever
 * is not interested any more withdraws it, at any time: a job that no thread has taken is not done. One that is being done cannot be
 * stopped: it becomes an orphan, which somebody who has the GIL is to take.
 *
 * One lock for all of it, held for a few instructions, which forks wait for (fork_gate.h). Threads are made when there is a job for them. A
 * forked child has none, and its pools begin anew. */
#ifndef SSLSOCK_WORKER_POOL_H
#define SSLSOCK_WORKER_POOL_H

#include <stddef.h>

typedef enum {
    JOB_IDLE,
    JOB_QUEUED,
    JOB_AT_WORK,
    JOB_DONE /* and lies in a mailbox, or among the orphans */
} job_state;

typedef struct worker_job worker_job;
typedef struct worker_pool worker_pool;

typedef struct {
    worker_job *first, *last;
} job_list;

typedef struct {
    job_list jobs;
    int descriptor; /* that a byte is written to; -1: it is closed */
    int told;       /* a byte was written since it was empty */
    size_t users;   /* its owner, and jobs that are to come here */
} mailbox;

struct worker_job {
    worker_job *next;
    worker_pool *pool;
    mailbox *home; /* NULL: withdrawn */
    job_state state;
    void *kept;    /* an object that the job has a reference to, from `worker_pool_submit` on until it comes back */
    void *watcher; /* who is told; NULL: withdrawn */
    void (*run)(void *kept);
    void (*done)(worker_job *job); /* for who takes it, with the GIL: to tell `watcher`, and to let go of `kept` */
};

/* NULL without memory. `kept` of its jobs keeps it. */
worker_pool *worker_pool_new(int threads);
void worker_pool_free(worker_pool *pool);

typedef struct {
    size_t waiting; /* jobs that wait for a thread */
    int threads;    /* that there are */
    int busy;       /* that do a job */
} worker_pool_state;

worker_pool_state worker_pool_look(worker_pool *pool);

/* Have `job->run(job->kept)` called by a thread; then it comes to `home`. 0: there is no thread and none can be made. */
int worker_job_submit(worker_job *job, worker_pool *pool, mailbox *home);

/* `watcher` is not to be told. 1: it will not be done, and the reference to `kept` is the caller's; 0: somebody does it, or has done it. */
int worker_job_withdraw(worker_job *job);

/* NULL without memory. `descriptor` is one that a loop is woken by. */
mailbox *mailbox_new(int descriptor);

/* The next job that is done, NULL: none. */
worker_job *mailbox_take_slowly(mailbox *box);

static inline worker_job *mailbox_take(mailbox *box)
{
    return __atomic_load_n(&box->jobs.first, __ATOMIC_ACQUIRE) == NULL ? NULL : mailbox_take_slowly(box);
}

/* The owner lets go of it, before its descriptor is closed. What lies there, and what is still to come, are orphans. */
void mailbox_close(mailbox *box);

/* `mailbox_take` for orphans. `hook` is called, by any thread, when there is one again. */
worker_job *worker_pool_orphan(void);
void worker_pool_on_orphan(void (*hook)(void));

/* No job is begun from now on. Waits, `seconds` at the most, until none is being done. */
void worker_pool_stop(int seconds);

#endif
