"""Chains whose signatures have been verified before (known_chains.h)."""

from openssl_ssl cimport X509_STORE_CTX


cdef extern from "known_chains.h" nogil:
    void known_chains_use(X509_STORE_CTX *store)
    int known_chains_verify(X509_STORE_CTX *store, void *unused)
