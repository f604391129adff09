"""Attributes of instances of Python classes (instance_state.h)."""


cdef extern from "instance_state.h":
    dict attributes(object instance)
    object referent(object reference)
