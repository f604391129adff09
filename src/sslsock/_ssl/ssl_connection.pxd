from sslsock._ssl.memory_bio cimport MemoryBIO
from sslsock._ssl.ssl_inspection cimport InspectedConnection
from sslsock._ssl.ssl_io cimport io_call, operation
from sslsock._ssl.ssl_steps cimport INTERRUPTED, outcome, tls_failure


cdef class _SSLSocket(InspectedConnection):
    cdef object incoming, outgoing  # None: over a socket
    cdef MemoryBIO own_incoming, own_outgoing  # the same, where they are ours

    cdef int set_window(self) except -1
    cdef int allow_post_handshake_auth(self) except -1
    cdef int set_host(self, bytes name) except -1
    cdef int adopt(self, owner, session) except -1
    cdef outcome on_socket(self, operation what, io_call *call) except? INTERRUPTED
    cdef outcome take_input(self) except? INTERRUPTED
    cdef bint take_foreign_input(self) except *
    cdef int give_output(self) except -1
    cdef int settle(self, outcome status, io_call *call, str name) except -1
    cdef tls_failure last_failure(self) except *
    cdef size_t most_to_read(self) except? 0xffffffff
    cdef object read_bytes(self, int size)
    cdef bint lacks_input(self)
    cdef size_t read_buffer(self, int size, buffer) except? 0xffffffff
    cdef size_t read_into(self, char *memory, size_t size) except? 0xffffffff
    cdef outcome read_memory(self, char *memory, size_t size, size_t *got) except? INTERRUPTED
    cdef Py_ssize_t write_object(self, data) except -1
    cdef Py_ssize_t write_from(self, const char *data, Py_ssize_t size) except -1
    cdef outcome write_memory(self, const char *data, size_t size) except? INTERRUPTED
    cdef outcome end_memory(self) except? INTERRUPTED
