"""What is made from bytes once and never changed: certificates, revocation lists, keys, sessions.

What cannot be loaded is no exception: the object is `null` and `error_string` says why. The classes are final and set all their
state in `__cinit__`, so that neither a subclass nor a second `__init__` can change one that is in use.
"""

cimport cython


@cython.auto_pickle(False)
cdef class Loaded:
    """Base of what is made from bytes."""

    cdef bint is_null(self) noexcept:
        return True

    cdef bytes whole(self):
        """All that makes it this one and no other."""
        return b""

    @property
    def null(self):
        """True when nothing was loaded."""
        return self.is_null()

    @property
    def error_string(self):
        """Why nothing was loaded, in words; empty otherwise."""
        return self._error

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return self is other or self.whole() == (<Loaded> other).whole()

    def __hash__(self):
        return hash(self.whole())

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self
