"""OpenSSL's certificates and keys: openssl/x509.h, openssl/x509v3.h, openssl/evp.h, openssl/pem.h."""

cdef extern from "openssl/x509.h" nogil:
    ctypedef struct X509
    ctypedef struct EVP_PKEY
