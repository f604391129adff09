from system cimport pthread_rwlock_t


cdef extern from "fair_rwlock.h" nogil:
    void fair_rwlock_init(pthread_rwlock_t *lock)
