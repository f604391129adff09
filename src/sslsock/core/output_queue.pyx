"""What a program has written and nobody has encrypted or sent: references to its bytes objects, used from the front.

Nothing is copied here, so that what a slow peer makes wait is held once. The piece at the front has a place of its own: most queues
never hold another, and need no list.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef enum:
    SLACK = 64  # places of the list that are used up before it is cut


@cython.final
@cython.freelist(8)
@cython.no_gc  # bytes refer to nothing
cdef class OutputQueue:
    """Pieces of bytes in the order in which they were written."""

    cdef int append(self, bytes piece) except -1:
        if self.piece is None:
            self.piece = piece
        else:
            if self.behind is None:
                self.behind = []
            self.behind.append(piece)
        self.size += PyBytes_GET_SIZE(piece)
        return 0

    cdef size_t front(self, const char **data) noexcept:
        """What is left of the first piece: its size."""
        data[0] = PyBytes_AS_STRING(self.piece) + self.offset
        return PyBytes_GET_SIZE(self.piece) - self.offset

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
        if self.offset == <size_t> PyBytes_GET_SIZE(self.piece):
            self.offset = 0
            self.piece = None if self.behind is None else self.next()

    cdef bytes next(self):
        """Take the first piece of `behind`."""
        cdef bytes piece = <bytes> self.behind[self.used]
        self.behind[self.used] = None
        self.used += 1
        if self.used == len(self.behind):
            self.behind = None
            self.used = 0
        elif self.used >= SLACK and self.used * 2 >= len(self.behind):  # moves each piece once
            del self.behind[:self.used]
            self.used = 0
        return piece

    cdef void clear(self) noexcept:
        self.piece = self.behind = None
        self.used = 0
        self.offset = self.size = 0
