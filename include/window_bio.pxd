"""The window BIO and its byte queue (window_bio.h, byte_queue.h)."""

from openssl_ssl cimport BIO, SSL


cdef extern from "byte_queue.h" nogil:
    ctypedef struct byte_queue:
        size_t size

    const char *byte_queue_front(const byte_queue *queue)
    char *byte_queue_reserve(byte_queue *queue, size_t count)
    void byte_queue_clear(byte_queue *queue)
    void byte_queue_consume(byte_queue *queue, size_t count)
    int byte_queue_append(byte_queue *queue, const char *data, size_t count)
    void byte_queue_move(byte_queue *to, byte_queue *from_)
    int byte_queue_join(byte_queue *to, byte_queue *from_)


cdef extern from "window_bio.h" nogil:
    ctypedef struct window_bio:
        const char *in_ "in"
        size_t in_left
        size_t dry
        int eof
        char *out
        size_t out_capacity
        size_t out_used
        byte_queue spill
        void *owner

    BIO *window_bio_new(window_bio *window)
    void *window_bio_owner(const SSL *ssl)
    void window_bio_clear(window_bio *window)
