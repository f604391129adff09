from sslsock.core.acceptor cimport Acceptor
from sslsock.core.door cimport Door


cdef class Listener(Acceptor):
    cdef object consumer
    cdef Door door
    cdef list accepted  # connections that nobody has taken yet
    cdef Py_ssize_t taken  # of them, at the front
    cdef Py_ssize_t bound  # of those that wait
    cdef object __weakref__

    cdef tuple take_first(self)
