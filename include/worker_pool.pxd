"""Threads that do jobs without the GIL (worker_pool.h)."""


cdef extern from "worker_pool.h" nogil:
    ctypedef enum job_state:
        JOB_IDLE, JOB_QUEUED, JOB_AT_WORK, JOB_DONE

    ctypedef struct worker_pool:
        pass

    ctypedef struct worker_pool_state:
        size_t waiting
        int threads, busy

    ctypedef struct mailbox:
        pass

    ctypedef struct worker_job:
        job_state state
        void *kept
        void *watcher
        void (*run)(void *kept) noexcept nogil
        void (*done)(worker_job *job) noexcept

    worker_pool *worker_pool_new(int threads)
    void worker_pool_free(worker_pool *pool)
    worker_pool_state worker_pool_look(worker_pool *pool)
    int worker_job_submit(worker_job *job, worker_pool *pool, mailbox *home)
    int worker_job_withdraw(worker_job *job)
    mailbox *mailbox_new(int descriptor)
    worker_job *mailbox_take(mailbox *box)
    void mailbox_close(mailbox *box)
    worker_job *worker_pool_orphan()
    void worker_pool_on_orphan(void (*hook)() noexcept nogil)
    void worker_pool_stop(int seconds)
