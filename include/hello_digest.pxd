"""hello_digest.h."""

from openssl_ssl cimport SSL


cdef extern from "hello_digest.h" nogil:
    enum:
        HELLO_DIGEST_SIZE

    int hello_digest(SSL *ssl, unsigned char *digest)
