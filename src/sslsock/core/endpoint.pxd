from sslsock.core.channel cimport Channel


cdef class Endpoint:
    cdef public Channel _channel  # of the present connection
    cdef public Channel _source  # the same while reading is allowed, else None
    cdef public Channel _sink  # the same while writing is allowed, else None
    cdef public object ready_read_handler
    cdef object _bytes_written_handler
