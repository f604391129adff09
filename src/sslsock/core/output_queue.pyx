"""What a program has written and nobody has encrypted or sent: references to its bytes objects, used from the front.

Nothing is copied here, so that what a slow peer makes wait is held once. An empty queue owns no list.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef enum:
    SLACK = 64  # used pieces at the front before the list is cut


@cython.final
@cython.no_gc  # bytes refer to nothing
cdef class OutputQueue:
    """Pieces of bytes in the order in which they were written."""

    cdef int append(self, bytes piece) except -1:
        if self.pieces is None:
            self.pieces = []
        self.pieces.append(piece)
        self.size += PyBytes_GET_SIZE(piece)
        return 0

    cdef size_t front(self, const char **data) noexcept:
        """What is left of the first piece: its size."""
        cdef bytes piece = <bytes> self.pieces[self.first]
        data[0] = PyBytes_AS_STRING(piece) + self.offset
        return PyBytes_GET_SIZE(piece) - self.offset

    cdef size_t join(self, char *memory, size_t room) noexcept:
        """Move from the front to `memory`, `room` bytes at the most. Returns how many."""
        cdef const char *data
        cdef size_t joined = 0, size
        while self.size and joined < room:
            size = min(self.front(&data), room - joined)
            memcpy(memory + joined, data, size)
            joined += size
            self.advance(size)
        return joined

    cdef void advance(self, size_t size) noexcept:
        """The first piece has been used up to `size` bytes further; it may be freed here."""
        self.offset += size
        self.size -= size
        if self.offset == <size_t> PyBytes_GET_SIZE(<bytes> self.pieces[self.first]):
            self.offset = 0
            self.pieces[self.first] = None
            self.first += 1
            if self.first == len(self.pieces):
                self.clear()
            elif self.first >= SLACK and self.first * 2 >= len(self.pieces):  # moves each piece once
                del self.pieces[:self.first]
                self.first = 0

    cdef void clear(self) noexcept:
        self.pieces = None
        self.first = 0
        self.offset = self.size = 0
