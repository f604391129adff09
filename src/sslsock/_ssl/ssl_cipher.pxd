from openssl_ssl cimport SSL_CIPHER

cdef tuple cipher_tuple(const SSL_CIPHER *suite)
cdef dict cipher_dict(const SSL_CIPHER *suite)
