from sslsock.core.acceptor cimport Acceptor


cdef class Listener(Acceptor):
    cdef object consumer
    cdef list accepted  # connections that nobody has taken yet
    cdef Py_ssize_t taken  # of them, at the front
    cdef Py_ssize_t bound  # of those that wait
    cdef object __weakref__
