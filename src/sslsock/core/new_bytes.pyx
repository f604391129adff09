"""`bytes` that are filled after they were made: nothing is copied to them at the end, and they are cut to what has come."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **whole, Py_ssize_t size) except -1


cdef bytes shortened(PyObject *whole, size_t size):
    """The `bytes` that `whole` becomes when cut to `size`. Takes over the reference."""
    _PyBytes_Resize(&whole, size)
    result = <bytes> whole
    Py_DECREF(result)
    return result
