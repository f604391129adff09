from sslsock.core.channel cimport Channel
from sslsock.core.loop cimport Loop


cdef class Endpoint:
    cdef public Loop _loop
    cdef public Channel _channel  # of the present connection
    cdef public Channel _source  # the same while reading is allowed, else None
    cdef public Channel _sink  # the same while writing is allowed, else None
    cdef public object _ready_read_handler
    cdef object _written_handler
    cdef public object _waits  # tasks that wait for something (sockets/waits.py), None without any
