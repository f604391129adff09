"""Private keys (key_decoders.h)."""

from openssl_x509 cimport EVP_PKEY, PKCS8_PRIV_KEY_INFO


cdef extern from "key_decoders.h" nogil:
    EVP_PKEY *private_key_of(const PKCS8_PRIV_KEY_INFO *info)
    EVP_PKEY *older_private_key(const unsigned char **data, long size)
