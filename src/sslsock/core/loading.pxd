from sslsock.core.encoded cimport Source


cdef class Loader:
    cdef str wanted  # what is loaded, with its article
    cdef str damaged  # the same, where one has been found
    cdef str word  # the same, before a number
    cdef frozenset labels  # of its PEM blocks
    cdef frozenset containers  # of PEM blocks that may hold some, and are not read

    cdef object decode(self, bytes label, const unsigned char **data, long size)
    cdef tuple load(self, encoded, format)
    cdef object from_der(self, Source source)
    cdef object from_part(self, Source source, part)
    cdef object from_pem(self, Source source)
    cdef list all_of(self, data)
    cdef list all_in(self, path)
    cdef list all_from_der(self, Source source)
    cdef list all_from_pem(self, Source source)
