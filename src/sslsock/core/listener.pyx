"""A listener: a listening descriptor and the connections accepted from it that nobody has taken.

Owns both. A connection is (descriptor, address, port). The peer's name comes with accept4: after a reset, when a program wants
to log it, the system does not know it any more. At `limit` the listener stops accepting, and the kernel queues.
A door (door.pyx) may refuse connections before they are queued; behind one a connection is (descriptor, (address, port), source):
the last is what it is counted as.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_FromString

cimport system
from poller cimport POLLIN
from source_table cimport SOURCE_ADMITTED, reset_connection, source_address
from sslsock.core.acceptor cimport Acceptor
from sslsock.core.door cimport Door
from sslsock.core.loop cimport Loop


cdef tuple name_of(const system.sockaddr *peer):
    """(address, port); IPv4 addresses as such, also those that an IPv6 socket shows. ("", 0) for another family."""
    cdef char[system.INET6_ADDRSTRLEN] text
    cdef const system.sockaddr_in *four = <const system.sockaddr_in *> peer
    cdef const system.sockaddr_in6 *six = <const system.sockaddr_in6 *> peer
    if peer.sa_family == system.AF_INET:
        system.inet_ntop(system.AF_INET, &four.sin_addr, text, system.INET6_ADDRSTRLEN)
        return PyUnicode_FromString(text), system.ntohs(four.sin_port)
    if peer.sa_family == system.AF_INET6:
        if system.IN6_IS_ADDR_V4MAPPED(&six.sin6_addr):
            system.inet_ntop(system.AF_INET, &six.sin6_addr.s6_addr[12], text, system.INET6_ADDRSTRLEN)
        else:
            system.inet_ntop(system.AF_INET6, &six.sin6_addr, text, system.INET6_ADDRSTRLEN)
        return PyUnicode_FromString(text), system.ntohs(six.sin6_port)
    return "", 0


@cython.final
cdef class Listener(Acceptor):
    """A listening descriptor in `loop`.

    fd: listening and non-blocking; taken over. consumer: _ListenerConsumer, told of new connections and errors. limit: most
    connections accepted and not taken. door: Door, or None.
    """

    def __cinit__(self, Loop loop not None, int fd, consumer, Py_ssize_t limit, Door door=None):
        loop.require()
        self.loop = loop
        self.consumer = consumer
        self.door = door
        self.accepted = []
        self.bound = limit
        self.start_watching(fd, POLLIN)

    def __dealloc__(self):
        if self.fd >= 0:
            system.close(self.fd)
        if self.accepted is not None:  # None: the garbage collector was here first
            for connection in self.accepted[self.taken:]:
                system.close(connection[0])

    @property
    def pending(self):
        """Connections that can be taken: int."""
        return len(self.accepted) - self.taken

    @property
    def limit(self):
        """Most connections accepted and not taken: int."""
        return self.bound

    @limit.setter
    def limit(self, Py_ssize_t limit):
        self.bound = limit
        if not self.loop.is_closed:
            self.loop.require()
            self.resume_soon()

    cdef bint has_room(self) noexcept:
        return len(self.accepted) - self.taken < self.bound

    cdef int take_in(self, int connection, const system.sockaddr *peer, system.socklen_t size) except -1:
        cdef source_address source
        cdef bint counted = False
        if self.door is not None and self.door.admit(peer, &source, &counted) != SOURCE_ADMITTED:
            reset_connection(connection)
            return 0
        try:
            if self.door is None:
                self.accepted.append((connection, *name_of(peer)))
            else:
                self.accepted.append(
                    (connection, name_of(peer), PyBytes_FromStringAndSize(<char *> source.bytes, 16) if counted else None))
        except BaseException:
            if counted:
                self.door.limits.leave_address(&source, self.door.shakes)
            system.close(connection)
            raise
        return 0

    cdef void on_accepted(self) noexcept:
        consumer = self.consumer
        if consumer is not None and len(self.accepted) > self.taken:
            try:
                consumer._on_pending()
            except BaseException as exc:
                self.loop.report_call(consumer, "_on_pending", exc)

    cdef void on_out(self, int number) noexcept:
        consumer = self.consumer
        if consumer is not None:
            try:
                consumer._on_accept_error(number)
            except BaseException as exc:
                self.loop.report_call(consumer, "_on_accept_error", exc)

    cdef tuple take_first(self):
        cdef tuple connection
        self.loop.require()
        if self.taken == len(self.accepted):
            return None
        connection = <tuple> self.accepted[self.taken]
        self.taken += 1
        if self.taken * 2 >= len(self.accepted):  # so it does not grow while there is always somebody waiting
            del self.accepted[:self.taken]
            self.taken = 0
        if not self.again_planned:
            self.resume_soon()
        return connection

    def take(self):
        """The oldest connection that waits: (descriptor, address, port), the descriptor becomes the caller's; or None."""
        return self.take_first()

    def take_counted(self):
        """The same behind a door: (descriptor, (address, port), source). source: what `SourceLimits.leave` is to be told, None for one
        that was not counted."""
        return self.take_first()

    cdef void close_all(self) noexcept:
        """The connections that nobody has taken end, too."""
        cdef list waiting = self.accepted[self.taken:]
        self.accepted = []
        self.taken = 0
        Acceptor.close_all(self)
        for connection in waiting:
            system.close(connection[0])
            if self.door is not None and self.door.limits is not None and connection[2] is not None:
                self.door.limits.leave_address(<const source_address *> PyBytes_AS_STRING(<bytes> connection[2]), self.door.shakes)
        self.consumer = None  # last: it may be the end of the consumer, and what that calls finds a closed listener
