from ticket_keys cimport ticket_keys


cdef class TicketKeys:
    cdef ticket_keys *keys  # a reference
    cdef readonly int older
