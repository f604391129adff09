"""key_shares.h."""

from openssl_ssl cimport SSL


cdef extern from "key_shares.h" nogil:
    void forget_key_shares(SSL *ssl)
