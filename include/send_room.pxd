"""How much a socket's send buffer is likely to take (send_room.h)."""


cdef extern from "send_room.h" nogil:
    size_t send_room(int fd, size_t unknown, bint memory_short)
