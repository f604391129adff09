"""distrusted_keys.h."""

from openssl_ssl cimport X509_STORE_CTX


cdef extern from "distrusted_keys.h" nogil:
    int refuse_distrusted(int good, X509_STORE_CTX *store)
