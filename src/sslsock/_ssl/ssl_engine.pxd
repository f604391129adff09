from sslsock._ssl.ssl_inspection cimport InspectedConnection
from sslsock.core.bare_engine cimport BareEngine


cdef class ContextEngine(BareEngine):
    cdef readonly InspectedConnection connection

    cdef bint enter_connection(self) noexcept nogil
    cdef void leave_connection(self, bint entered) noexcept nogil
