/* Loops in three threads that share two pools: each submits jobs, takes what is done, and withdraws some at any time. Run under
 * ThreadSanitizer or AddressSanitizer by test_worker_pool.py. Exit status 0 where each job was accounted for. */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker_pool.h"

enum { LOOPS = 3, POOLS = 2, AT_ONCE = 8, JOBS = 4000 };

typedef struct {
    worker_job job;
    unsigned work; /* written by the thread, read by the loop: what hands it over has to make that safe */
    int told;
} task;

static worker_pool *pools[POOLS];
static int orphans_seen; /* by hooks, atomically */

static void run(void *kept)
{
    task *mine = kept;
    unsigned round;
    for (round = 0; round < 50 + mine->work % 50; round++)
        mine->work = mine->work * 1103515245u + 12345u;
}

static void done(worker_job *job)
{
    task *mine = job->kept;
    if (job->watcher != NULL)
        *(int *) job->watcher += 1;
    free(mine);
}

static void hook(void)
{
    __atomic_add_fetch(&orphans_seen, 1, __ATOMIC_RELAXED);
}

static int take_orphans(void)
{
    int count = 0;
    worker_job *job;
    while ((job = worker_pool_orphan()) != NULL) {
        job->done(job);
        count++;
    }
    return count;
}

static void *loop(void *argument)
{
    unsigned seed = (unsigned) (size_t) argument;
    int ends[2], told = 0, withdrawn = 0, forgotten = 0, submitted = 0, index;
    task *alive[AT_ONCE] = {0};
    mailbox *box;
    if (pipe(ends) < 0)
        return (void *) 1;
    box = mailbox_new(ends[1]);
    while (submitted < JOBS || told + withdrawn + forgotten < submitted) {
        index = rand_r(&seed) % AT_ONCE;
        if (submitted < JOBS && alive[index] == NULL) {
            task *made = calloc(1, sizeof *made);
            made->job.run = run;
            made->job.done = done;
            made->job.kept = made;
            made->job.watcher = &told;
            made->work = rand_r(&seed);
            submitted++;
            if (!worker_job_submit(&made->job, pools[rand_r(&seed) % POOLS], box))
                return (void *) 2;
            if (rand_r(&seed) % 4 == 0) { /* one that is given up at once, or a little later */
                if (rand_r(&seed) % 2)
                    usleep(rand_r(&seed) % 100);
                if (worker_job_withdraw(&made->job)) {
                    withdrawn++;
                    free(made);
                } else {
                    forgotten++; /* it comes as an orphan, or as a job that lies in the box and tells nobody */
                }
            }
        }
        if (rand_r(&seed) % 3 == 0) {
            struct pollfd wait = {ends[0], POLLIN, 0};
            char bytes[64];
            if (poll(&wait, 1, 1) > 0 && read(ends[0], bytes, sizeof bytes) < 0)
                return (void *) 3;
        }
        for (worker_job *job; (job = mailbox_take(box)) != NULL;)
            job->done(job);
    }
    mailbox_close(box);
    close(ends[0]);
    close(ends[1]);
    return NULL;
}

int main(void)
{
    pthread_t threads[LOOPS];
    void *failed;
    int index, status = 0;
    worker_pool_on_orphan(hook);
    for (index = 0; index < POOLS; index++)
        pools[index] = worker_pool_new(index + 1);
    for (index = 0; index < LOOPS; index++)
        pthread_create(&threads[index], NULL, loop, (void *) (size_t) (index + 1));
    for (index = 0; index < LOOPS; index++) {
        pthread_join(threads[index], &failed);
        if (failed != NULL) {
            fprintf(stderr, "loop %d has failed: %zu\n", index, (size_t) failed);
            status = 1;
        }
        take_orphans();
    }
    worker_pool_stop(60);
    take_orphans();
    if (worker_pool_look(pools[0]).waiting || worker_pool_look(pools[1]).busy) {
        fprintf(stderr, "jobs are left\n");
        status = 1;
    }
    for (index = 0; index < POOLS; index++)
        worker_pool_free(pools[index]);
    return status;
}
