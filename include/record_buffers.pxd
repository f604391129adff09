"""Which connections keep libssl's record buffers (record_buffers.h)."""

from openssl_ssl cimport SSL
from system cimport pthread_mutex_t


cdef extern from "record_buffers.h" nogil:
    ctypedef struct record_buffers:
        SSL *ssl
        pthread_mutex_t *lock

    void record_buffers_used(record_buffers *mine)
    void record_buffers_forget(record_buffers *mine)
    void record_buffers_forked()
