from sslsock._ssl.ssl_io cimport Connection
from sslsock._ssl.ssl_steps cimport outcome


cdef class InspectedConnection(Connection):
    cdef readonly str server_hostname

    cdef outcome come_in(self)
    cdef list certificates(self, bint verified)
    cdef str signature(self, bint of_peer)
