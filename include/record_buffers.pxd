"""Which connections keep libssl's record buffers (record_buffers.h)."""

from linux cimport pthread_mutex_t
from openssl_ssl cimport SSL


cdef extern from "record_buffers.h" nogil:
    ctypedef struct record_buffers:
        SSL *ssl
        pthread_mutex_t *lock

    void record_buffers_used(record_buffers *mine)
    void record_buffers_forget(record_buffers *mine)
    void record_buffers_forked()
