"""A lock that processes can share, and memory for it (shared_lock.h)."""


cdef extern from "shared_lock.h" nogil:
    ctypedef struct shared_lock:
        pass

    void *shared_memory_new(size_t size, bint among_processes)
    void shared_memory_free(void *memory, size_t size)
    int shared_lock_init(shared_lock *lock, bint among_processes)
    bint shared_lock_take(shared_lock *lock)
    void shared_lock_release(shared_lock *lock)
