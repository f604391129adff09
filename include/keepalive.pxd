"""Probes on quiet connections (keepalive.h)."""


cdef extern from "keepalive.h" nogil:
    void c_set_keepalive "set_keepalive"(int fd, int seconds)
