"""Threads for what is dear in a server's handshakes: signatures with its key, key shares.

A flood of handshakes then takes no more of a loop's time than it takes to read and send them. A channel gives its engine away for one
step (`BareEngine.put_off`), does nothing with it meanwhile, and hears of the result in a turn of its loop. The threads are C's (worker_pool.h):
they hold no GIL, and know of nothing but the engine. To the pool the engine belongs as long as its `use` is USE_POOL, whatever becomes of
the channel: one that ends takes a step back that nobody has begun, and forgets one that is under way.
"""

import atexit

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport calloc

cimport cython
from sslsock.core.bare_engine cimport USE_FREE, USE_POOL, handshake_step, store_use
from worker_pool cimport (
    mailbox_new, worker_job_submit, worker_job_withdraw, worker_pool_free, worker_pool_look, worker_pool_new,
    worker_pool_on_orphan, worker_pool_orphan, worker_pool_stop)

cdef extern from "Python.h" nogil:
    int Py_AddPendingCall(int (*function)(void *argument) noexcept with gil, void *argument)

MOST_THREADS = 256

cdef enum:
    PATIENCE = 5  # seconds, at the end of the program, for steps that are under way: OpenSSL cleans up behind them

cdef bint known = False  # to the interpreter


cdef void run_step(void *kept) noexcept nogil:
    (<BareEngine> kept).given_away.status = (<BareEngine> kept).shake_step()


cdef int take_orphans(void *argument) noexcept with gil:
    cdef worker_job *job = worker_pool_orphan()
    while job != NULL:
        job.done(job)
        job = worker_pool_orphan()
    return 0


cdef void note_orphan() noexcept nogil:
    Py_AddPendingCall(take_orphans, NULL)  # where that fails they are taken with the next handshake


def _stop():
    """The end of the program: before OpenSSL is gone."""
    with nogil:
        worker_pool_stop(PATIENCE)


cdef void take_back(worker_job *job) noexcept:
    """The step of `job` is not wanted any more."""
    cdef BareEngine engine
    if worker_job_withdraw(job):
        engine = <BareEngine> job.kept
        store_use(engine.use, USE_FREE)
        Py_DECREF(engine)


@cython.final
cdef class HandshakePool:
    """Threads that shake hands.

    threads: int, how many at the most, 1 to 256. They are made when there is something for them to do, and end with the pool. Several
    loops, in several threads, may use one. TypeError, ValueError.
    """

    def __cinit__(self, threads):
        global known
        if isinstance(threads, bool) or not isinstance(threads, int):
            raise TypeError(f"handshake_threads must be an int, not {type(threads).__name__}")
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"handshake_threads must be 1 to {MOST_THREADS}, not {threads}")
        if not known:  # by two threads at once: no harm
            known = True
            worker_pool_on_orphan(note_orphan)
            atexit.register(_stop)
        self.most = threads
        self.pool = worker_pool_new(self.most)
        if self.pool == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.pool != NULL:
            worker_pool_free(self.pool)

    @property
    def running(self):
        """Threads that there are now: int."""
        return worker_pool_look(self.pool).threads

    @property
    def busy(self):
        """Those of them that shake hands: int."""
        return worker_pool_look(self.pool).busy

    @property
    def waiting(self):
        """Handshakes that wait for a thread: int."""
        return worker_pool_look(self.pool).waiting

    cdef bint take_over(self, BareEngine engine, Watcher watcher, void (*done)(worker_job *job) noexcept) except -1:
        """Have a thread do the next step of `engine`, which is nobody else's until `done` is called in a turn of the watcher's loop, or
        `take_back`. False: there is no thread."""
        take_orphans(NULL)
        if watcher.loop.mailbox == NULL:
            watcher.loop.mailbox = mailbox_new(watcher.loop.poller.wake_write)
            if watcher.loop.mailbox == NULL:
                return False
        if engine.given_away == NULL:
            engine.given_away = <handshake_step *> calloc(1, sizeof(handshake_step))
            if engine.given_away == NULL:
                return False
        engine.pool = self
        engine.given_away.job.kept = <void *> engine
        engine.given_away.job.watcher = <void *> watcher
        engine.given_away.job.run = run_step
        engine.given_away.job.done = done
        store_use(engine.use, USE_POOL)
        Py_INCREF(engine)
        if worker_job_submit(&engine.given_away.job, self.pool, watcher.loop.mailbox):
            return True
        store_use(engine.use, USE_FREE)
        Py_DECREF(engine)
        return False
