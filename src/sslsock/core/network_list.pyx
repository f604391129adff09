"""Which addresses are meant by a list of networks. It never changes, so any number of threads may look into it."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cimport source_table as c


@cython.final
cdef class NetworkList:
    """Ranges of addresses, each of which is meant or not.

    starts: the first address of each range, 16 bytes one behind the other, in ascending order (IPv4 as in RFC 4291, 2.5.5.2);
    a range ends where the next one begins. meant: a byte for each, 0 or 1. What is before the first range is not meant.
    """

    def __cinit__(self, bytes starts, bytes meant):
        self.count = PyBytes_GET_SIZE(meant)
        if PyBytes_GET_SIZE(starts) != self.count * <Py_ssize_t> sizeof(c.source_address):
            raise ValueError("a range needs 16 bytes and one")
        self.starts = <c.source_address *> malloc(max(PyBytes_GET_SIZE(starts), 1))
        self.verdicts = <unsigned char *> malloc(max(self.count, 1))
        if self.starts is NULL or self.verdicts is NULL:
            raise MemoryError
        memcpy(self.starts, PyBytes_AS_STRING(starts), PyBytes_GET_SIZE(starts))
        memcpy(self.verdicts, PyBytes_AS_STRING(meant), self.count)

    def __dealloc__(self):
        free(self.starts)
        free(self.verdicts)

    cdef bint holds_address(self, const c.source_address *address) noexcept nogil:
        cdef Py_ssize_t place = c.source_range(self.starts, self.count, address)
        return place >= 0 and self.verdicts[place]

    def holds(self, bytes address):
        """Whether an address (16 bytes) is meant: bool."""
        if PyBytes_GET_SIZE(address) != sizeof(c.source_address):
            raise ValueError("an address of 16 bytes is needed")
        return self.holds_address(<const c.source_address *> PyBytes_AS_STRING(address))

    def __len__(self):
        return self.count
