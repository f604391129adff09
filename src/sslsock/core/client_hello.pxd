cdef struct part:  # of a message: where it begins, and bytes
    unsigned int start
    unsigned int size


cdef class ClientHello:
    cdef bytes message  # the handshake message, its header included
    cdef part ciphers
    cdef part extension_list
    cdef part name
    cdef part alpn
    cdef part versions
    cdef part group_list
    cdef part signatures
    cdef bint named  # there is a server_name extension
    cdef bint versioned  # there is a supported_versions extension
    cdef str fingerprint

    cdef int dissect(self) except -1
    cdef int note_extension(self, unsigned int number, part content) except -1
    cdef tuple numbers(self, part numbers)


cdef ClientHello read_client_hello(const unsigned char *data, size_t size)
