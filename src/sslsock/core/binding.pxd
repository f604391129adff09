from openssl_ssl cimport SSL
from sslsock.core.agreed cimport agreed_values


cdef bytes binding_of(SSL *ssl, agreed_values *agreed, str kind, bint server_side, bint one_certificate)
cdef bytes exported(SSL *ssl, bytes label, object context, Py_ssize_t length)
