from libc.stdint cimport int64_t


cdef extern from "shared_value.h" nogil:
    # The first argument is a place: a variable or an attribute.
    unsigned long load_thread "SHARED_LOAD"(unsigned long place)
    void store_thread "SHARED_STORE"(unsigned long place, unsigned long value)
    int load_int "SHARED_LOAD"(int place)
    void store_int "SHARED_STORE"(int place, int value)
    Py_ssize_t load_size "SHARED_LOAD"(Py_ssize_t place)
    void store_size "SHARED_STORE"(Py_ssize_t place, Py_ssize_t value)
    int64_t load_int64 "SHARED_LOAD"(int64_t place)
    void store_int64 "SHARED_STORE"(int64_t place, int64_t value)
    bint shared_exchange_int(int *place, int before, int after)
