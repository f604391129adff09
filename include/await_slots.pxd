"""The slots of an awaitable that is its own iterator (await_slots.h)."""


cdef extern from "await_slots.h":
    ctypedef object (*await_step)(object self, object value, int *over)

    void await_slots_set(object type, await_step step)
    object await_slots_iterator(object awaitable)
    object await_slots_resume(object iterator, object value, int *over)
