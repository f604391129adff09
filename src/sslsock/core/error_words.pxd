cdef str error_words(unsigned long code)
