from openssl_ssl cimport BIO, SSL_CTX
from sslsock._ssl.ssl_hooks cimport Password

cdef BIO *text_bio(bytes text) except NULL
cdef int use_identity(SSL_CTX *ctx, bytes chain, bytes key, keyfile, Password asked) except -1
