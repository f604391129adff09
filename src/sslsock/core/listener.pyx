"""A listener: a listening descriptor and the connections accepted from it that nobody has taken.

Owns both. A connection is (descriptor, address, port). The peer's name comes with accept4: after a reset, when a program wants
to log it, the system does not know it any more. At `limit` the listener stops accepting, and the kernel queues. When the
process has no descriptors left it rests for a while instead of asking again at once: the connection that waits keeps the
descriptor readable, and a loop that asked would do nothing else (accept(2), EMFILE).
"""

cimport cython
from cpython.unicode cimport PyUnicode_FromString
from libc.stdint cimport uint32_t

cimport linux
from linux cimport errno
from sslsock.core.loop cimport Loop
from sslsock.core.schedule cimport Timer

cdef enum:
    ACCEPTS_PER_TURN = 64

cdef double REST_SECONDS = 0.1


cdef tuple named(int fd, const linux.sockaddr *peer):
    """The connection with its peer's name: (descriptor, address, port); IPv4 addresses as such, also those that an IPv6
    socket shows. ("", 0) for another family."""
    cdef char[linux.INET6_ADDRSTRLEN] text
    cdef const linux.sockaddr_in *four = <const linux.sockaddr_in *> peer
    cdef const linux.sockaddr_in6 *six = <const linux.sockaddr_in6 *> peer
    if peer.sa_family == linux.AF_INET:
        linux.inet_ntop(linux.AF_INET, &four.sin_addr, text, linux.INET6_ADDRSTRLEN)
        return fd, PyUnicode_FromString(text), linux.ntohs(four.sin_port)
    if peer.sa_family == linux.AF_INET6:
        if linux.IN6_IS_ADDR_V4MAPPED(&six.sin6_addr):
            linux.inet_ntop(linux.AF_INET, &six.sin6_addr.s6_addr[12], text, linux.INET6_ADDRSTRLEN)
        else:
            linux.inet_ntop(linux.AF_INET6, &six.sin6_addr, text, linux.INET6_ADDRSTRLEN)
        return fd, PyUnicode_FromString(text), linux.ntohs(six.sin6_port)
    return fd, "", 0


@cython.final
cdef class Listener(Watcher):
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
        self.start_watching(fd, linux.EPOLLIN)

    def __dealloc__(self):
        if self.fd >= 0:
            linux.close(self.fd)
        if self.accepted is not None:  # None: the garbage collector was here first
            for connection in self.accepted[self.taken:]:
                linux.close(connection[0])

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

    def fileno(self):
        """The listening descriptor, -1 after `close`."""
        return self.fd

    cdef void on_event(self, uint32_t events) noexcept:
        self.drained = False
        self.accept_some()

    cdef void on_again(self) noexcept:
        self.accept_some()

    cdef void on_loop_closed(self) noexcept:
        self.close_all()

    cdef void accept_some(self) noexcept:
        cdef int connection, count = 0
        cdef linux.sockaddr_storage peer
        cdef linux.socklen_t size
        if self.fd < 0 or self.paused or self.retry is not None or self.drained:
            return
        while count < ACCEPTS_PER_TURN and len(self.accepted) - self.taken < self.bound:
            size = sizeof(peer)
            connection = linux.accept4(
                self.fd, <linux.sockaddr *> &peer, &size, linux.SOCK_NONBLOCK | linux.SOCK_CLOEXEC)
            if connection >= 0:
                try:
                    self.accepted.append(named(connection, <linux.sockaddr *> &peer))
                except MemoryError:
                    linux.close(connection)
                    self.on_refused(linux.ENOMEM)
                    break
                count += 1
            elif errno == linux.EAGAIN:
                self.drained = True
                break
            elif errno in (linux.EINTR, linux.ECONNABORTED, linux.EPROTO, linux.EPERM, linux.ENETDOWN, linux.ENOPROTOOPT,
                           linux.EHOSTDOWN, linux.ENONET, linux.EHOSTUNREACH, linux.EOPNOTSUPP, linux.ENETUNREACH):
                count += 1  # that connection's trouble, not the listener's: accept(2), "Error handling"
            else:
                self.on_refused(errno)
                break
        consumer = self.consumer
        if count and consumer is not None and len(self.accepted) > self.taken:
            try:
                consumer.on_pending()
            except BaseException as exc:
                self.loop.report_call(consumer, "on_pending", exc)
        self.resume_soon()

    cdef void resume_soon(self) noexcept:
        """More may be waiting, and there is room: go on in the next turn."""
        if self.fd >= 0 and not self.drained and not self.paused and self.retry is None \
                and len(self.accepted) - self.taken < self.bound:
            self.plan_again()

    cdef void on_refused(self, int number) noexcept:
        consumer = self.consumer
        try:
            self.retry = self.loop.plan(REST_SECONDS, self._rested, (), False)
            if consumer is not None:
                consumer.on_accept_error(number)
        except BaseException as exc:
            self.loop.report_call(consumer, "on_accept_error", exc)

    def _rested(self):
        """The end of a rest."""
        self.retry = None
        self.resume_soon()

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

    def pause(self):
        """Stop accepting; the kernel queues."""
        self.loop.require()
        self.paused = True

    def resume(self):
        """Accept again."""
        self.loop.require()
        self.paused = False
        self.resume_soon()

    def close(self):
        """Stop listening, and close the connections that nobody has taken."""
        if not self.loop.is_closed:
            self.loop.require()
        self.close_all()

    cdef void close_all(self) noexcept:
        cdef int fd = self.fd
        cdef list waiting = self.accepted[self.taken:]
        cdef Timer retry = self.retry
        self.retry = None
        if fd >= 0:
            self.stop_watching()
            linux.close(fd)
        self.accepted = []
        self.taken = 0
        for connection in waiting:
            linux.close(connection[0])
        if retry is not None:
            retry.cancel()
        self.consumer = None  # last: it may be the end of the consumer, and what that calls finds a closed listener
