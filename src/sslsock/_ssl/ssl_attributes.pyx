"""Attributes of the classes in C: `del` is an AttributeError, as with CPython's."""

from cpython.object cimport PyTypeObject

cdef extern from "kept_attributes.h":
    void keep_attributes(PyTypeObject *type)


def forbid_deletion(type kind not None, /):
    """Of all attributes of a class of this package and of those that it is derived from."""
    for base in kind.__mro__:
        if base is not object:
            keep_attributes(<PyTypeObject *> base)
