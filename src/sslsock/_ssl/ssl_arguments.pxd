cdef bytes path_bytes(path, str complaint)
cdef bytes c_string(text, str place)
cdef object checked_callable(handler, str complaint)
