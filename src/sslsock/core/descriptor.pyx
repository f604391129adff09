"""A descriptor on its way from one owner to the next: closed if it is dropped before it has come there, whatever was raised."""

cimport cython

cimport system


@cython.final
cdef class Descriptor:
    """One open descriptor. Owns it until somebody takes it."""

    def __cinit__(self):
        self.number = -1

    def __dealloc__(self):
        if self.number >= 0:
            system.close(self.number)

    def fileno(self):
        """The descriptor, -1 once it is taken."""
        return self.number

    def take(self):
        """The descriptor, which becomes the caller's: int."""
        cdef int number = self.number
        self.number = -1
        return number


def owner_of(int number):
    """For a descriptor that nobody else owns: Descriptor. MemoryError: it is closed."""
    return owned(number)


cdef Descriptor owned(int number):
    """For a descriptor that nobody else owns. MemoryError: it is closed."""
    cdef Descriptor descriptor
    try:
        descriptor = Descriptor.__new__(Descriptor)
    except BaseException:
        system.close(number)
        raise
    descriptor.number = number
    return descriptor
