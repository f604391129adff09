from flag cimport flag
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
    # Of the classes in sockets/, which say what they are. Here each takes a few bytes; in a slot of Python's it takes eight, and a
    # number an object besides.
    cdef public int _remote_port
    cdef public flag _announcing_close, _clean, _demanding, _peer_closed, _reporting
