"""A listener: a listening descriptor and the connections accepted from it that nobody has taken.

Owns both. A connection is (descriptor, address, port). The peer's name comes with accept4: after a reset, when a program wants
to log it, the system does not know it any more. At `limit` the listener stops accepting, and the kernel queues.
"""

cimport cython
from cpython.unicode cimport PyUnicode_FromString

cimport system
from poller cimport POLLIN
from sslsock.core.acceptor cimport Acceptor
from sslsock.core.loop cimport Loop


cdef tuple named(int fd, const system.sockaddr *peer):
    """The connection with its peer's name: (descriptor, address, port); IPv4 addresses as such, also those that an IPv6
    socket shows. ("", 0) for another family."""
    cdef char[system.INET6_ADDRSTRLEN] text
    cdef const system.sockaddr_in *four = <const system.sockaddr_in *> peer
    cdef const system.sockaddr_in6 *six = <const system.sockaddr_in6 *> peer
    if peer.sa_family == system.AF_INET:
        system.inet_ntop(system.AF_INET, &four.sin_addr, text, system.INET6_ADDRSTRLEN)
        return fd, PyUnicode_FromString(text), system.ntohs(four.sin_port)
    if peer.sa_family == system.AF_INET6:
        if system.IN6_IS_ADDR_V4MAPPED(&six.sin6_addr):
            system.inet_ntop(system.AF_INET, &six.sin6_addr.s6_addr[12], text, system.INET6_ADDRSTRLEN)
        else:
            system.inet_ntop(system.AF_INET6, &six.sin6_addr, text, system.INET6_ADDRSTRLEN)
        return fd, PyUnicode_FromString(text), system.ntohs(six.sin6_port)
    return fd, "", 0


@cython.final
cdef class Listener(Acceptor):
    """A listening descriptor in `loop`.

    fd: listening and non-blocking; taken over. consumer: _ListenerConsumer, told of new connections and errors. limit: most
    connections accepted and not taken.
    """

    def __cinit__(self, Loop loop not None, int fd, consumer, Py_ssize_t limit):
        loop.require()
        self.loop = loop
        self.consumer = consumer
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
        try:
            self.accepted.append(named(connection, peer))
        except BaseException:
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

    def take(self):
        """The oldest connection that waits: (descriptor, address, port), the descriptor becomes the caller's; or None."""
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

    cdef void close_all(self) noexcept:
        """The connections that nobody has taken end, too."""
        cdef list waiting = self.accepted[self.taken:]
        self.accepted = []
        self.taken = 0
        Acceptor.close_all(self)
        for connection in waiting:
            system.close(connection[0])
        self.consumer = None  # last: it may be the end of the consumer, and what that calls finds a closed listener
