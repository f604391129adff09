cdef struct scratch_block:
    # Memory that belongs to whoever runs now, for the length of one event. `receive` is filled by recv, `plain` by SSL_read,
    # `send_` by SSL_write; `gather` joins small writes into one record.
    char *receive
    char *plain
    char *send_
    char *gather


cdef enum:
    RECEIVE_SIZE = 512 * 1024
    PLAIN_SIZE = RECEIVE_SIZE + 16 * 1024  # what one receive can hold, and the rest of a record that came before
    GATHER_SIZE = 16 * 1024  # one record: RFC 8446, 5.1
    SEND_SIZE = 560 * 1024


cdef class Scratch:
    cdef scratch_block block
