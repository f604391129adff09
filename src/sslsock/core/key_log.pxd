cimport cython
from cpython.object cimport PyObject

from openssl_ssl cimport SSL_CTX


cdef struct log_target:
    int descriptor  # of the file; -1: a callable
    PyObject *log  # borrowed: the KeyLog


@cython.final
cdef class KeyLog:
    cdef log_target place
    cdef object target  # what it was made with

    cdef void attach(self, SSL_CTX *context) noexcept
