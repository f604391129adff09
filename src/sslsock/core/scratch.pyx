"""Scratch memory: what an event's bytes lie in while they are worked on. A loop has one set, not each connection."""

cimport cython
from libc.stdlib cimport free, malloc


@cython.final
cdef class Scratch:
    """One set of scratch memory, for one level of nested turns."""

    def __cinit__(self):
        cdef size_t size = RECEIVE_SIZE + PLAIN_SIZE + SEND_SIZE + GATHER_SIZE
        cdef char *memory = <char *> malloc(size)
        if memory == NULL:
            raise MemoryError
        self.block.receive = memory
        self.block.plain = self.block.receive + RECEIVE_SIZE
        self.block.send_ = self.block.plain + PLAIN_SIZE
        self.block.gather = self.block.send_ + SEND_SIZE

    def __dealloc__(self):
        free(self.block.receive)
