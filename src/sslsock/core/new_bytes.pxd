from cpython.object cimport PyObject

cdef extern from "Python.h":
    # With a bare pointer: a `bytes` may be written and cut only while nobody else refers to it.
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL

cdef bytes shortened(PyObject *whole, size_t size)
