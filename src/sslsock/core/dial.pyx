"""A dial: one attempt to connect to one address, without names and without alternatives.

Owns the descriptor until it is connected; then it goes to the consumer (descriptor.pyx). Whoever has names and several addresses builds on it. How an
attempt ends is an errno, never an exception.
"""

import os
import socket

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy, memset

cimport system
from keepalive cimport c_set_keepalive
from poller cimport POLLERR, POLLHUP, POLLOUT
from sslsock.core.descriptor cimport owned
from sslsock.core.loop cimport Loop
from system cimport errno
from transparent cimport c_set_transparent


cdef double AGAIN_SECONDS = 0.01


cdef bint is_address(bytes address) noexcept:
    cdef size_t size = <size_t> PyBytes_GET_SIZE(address)
    if size > system.NAME_HEAD and family_of(address) == system.AF_UNIX:
        return size <= <size_t> system.NAME_HEAD + system.UNIX_PATH_SIZE
    return size in (sizeof(system.sockaddr_in), sizeof(system.sockaddr_in6))


cdef const system.sockaddr *sockaddr_of(bytes address) noexcept:
    return <const system.sockaddr *> PyBytes_AS_STRING(address)


cdef int family_of(bytes address) noexcept:
    return sockaddr_of(address).sa_family


def pack_address(int family, tuple address):
    """An address in the system's form, for `Dial`: bytes.

    family: AF_INET or AF_INET6. address: as the `socket` module has it, its host numeric: (host, port) or
    (host, port, flow, scope). Or AF_UNIX, and (path,): bytes, with a NUL character first in the abstract namespace.
    OSError for a host that is not numeric, ValueError for another family, and for a path that is too long.
    """
    cdef system.sockaddr_in four
    cdef system.sockaddr_in6 six
    cdef bytes host
    if family == system.AF_UNIX:
        return unix_address(address[0])
    if family != system.AF_INET and family != system.AF_INET6:
        raise ValueError(f"only IPv4, IPv6 and UNIX addresses can be dialled, not family {family}")
    host = socket.inet_pton(family, address[0].partition("%")[0])
    if family == system.AF_INET:
        memset(&four, 0, sizeof(four))
        four.sin_family = <unsigned short> family
        four.sin_port = system.htons(address[1])
        memcpy(&four.sin_addr, PyBytes_AS_STRING(host), 4)
        return PyBytes_FromStringAndSize(<char *> &four, sizeof(four))
    memset(&six, 0, sizeof(six))
    six.sin6_family = <unsigned short> family
    six.sin6_port = system.htons(address[1])
    six.sin6_scope_id = address[3] if len(address) > 3 else 0
    memcpy(&six.sin6_addr, PyBytes_AS_STRING(host), 16)
    return PyBytes_FromStringAndSize(<char *> &six, sizeof(six))


cdef bytes unix_address(bytes path):
    cdef system.sockaddr_storage name
    cdef char *begin = <char *> &name
    cdef Py_ssize_t size = PyBytes_GET_SIZE(path)
    if not 0 < size < system.UNIX_PATH_SIZE:
        raise ValueError(f"a UNIX socket's path has 1 to {system.UNIX_PATH_SIZE - 1} bytes, not {size}")
    memset(&name, 0, sizeof(name))
    (<system.sockaddr *> &name).sa_family = system.AF_UNIX
    memcpy(begin + system.NAME_HEAD, PyBytes_AS_STRING(path), size)
    if path[0]:  # of an abstract name every byte counts: unix(7)
        size += 1
    return PyBytes_FromStringAndSize(begin, system.NAME_HEAD + size)


def set_keepalive(int descriptor, int seconds):
    """Have the system probe the other side of a TCP connection after `seconds` (up to 32767) without a byte; who does not answer
    is given up after as many seconds again. 0: no probes. The connections that a listening descriptor accepts have it too.
    A descriptor that is none of TCP is left as it is."""
    c_set_keepalive(descriptor, seconds)


def set_transparent(int descriptor, int family):
    """Let an unbound TCP socket be bound to an address that is not this machine's. OSError: PermissionError without the right,
    ENOTSUP where the system has no such thing."""
    cdef int number = c_set_transparent(descriptor, family)
    if number:
        raise OSError(number, os.strerror(number))


@cython.final
cdef class Dial(Watcher):
    """An attempt to connect to `address` (`pack_address`).

    loop: Loop. consumer: _DialConsumer, told the end unless `start` tells it. local: the address to connect from, of the same
    family, port 0 for any; b"" leaves it to the system. transparent: that address may be another machine's, for which the
    process needs a right (`set_transparent`); the attempt fails without. ValueError for what is no address.

    Nobody connects to itself: where nobody listens, the system may give a port of its own choice to the very socket that
    connects to it, and TCP takes the two requests that meet for a connection (simultaneous open, RFC 9293, 3.5). That is
    refused, as the port would refuse everybody else.

    A UNIX socket whose queue is full answers EAGAIN (connect(2)), and nothing tells when there is room. It is asked again and
    again until it takes the connection: TCP waits as well.
    """

    def __cinit__(self, Loop loop not None, bytes address not None, consumer not None, bytes local not None=b"", bint transparent=False):
        if not is_address(address) or (local and not is_address(local)):
            raise ValueError("an address is needed as pack_address makes it")
        if local and family_of(local) != family_of(address):
            raise ValueError("both addresses are of one family")
        self.loop = loop
        self.address = address
        self.local = local
        self.transparent = transparent
        self.consumer = consumer

    def __dealloc__(self):
        if self.fd >= 0:
            system.close(self.fd)

    def start(self, double timeout):
        """Begin. Returns a Descriptor, connected and non-blocking; or -EINPROGRESS, when it takes longer and the consumer is
        told; or the negative errno of the failure.

        timeout: seconds, 0 for none but the system's. RuntimeError the second time."""
        cdef int fd, number
        self.loop.require()
        if self.fd >= 0 or self.consumer is None:
            raise RuntimeError("a dial is started once")
        fd = system.stream_socket(family_of(self.address))
        if fd < 0:
            number = errno
            self.consumer = None
            return -number
        number = self.connect(fd)
        if number == system.EINPROGRESS or (number == system.EAGAIN and self.is_unix()):
            try:
                if number == system.EAGAIN:
                    self.again = self.loop.plan(AGAIN_SECONDS, self._ask_again, (), False)
                    self.fd = fd  # not watched: a socket that is not connected would be told of all the time
                else:
                    self.start_watching(fd, POLLOUT)
                if timeout > 0:
                    self.deadline = self.loop.plan(timeout, self._overdue, (), False)
                return -system.EINPROGRESS
            except OSError as exc:  # no room in the system's tables
                number = exc.errno
            except BaseException:
                self.let_go()
                system.close(fd)
                raise
        self.consumer = None
        if number == 0:
            return owned(fd)
        system.close(fd)
        return -number

    cdef int connect(self, int fd) noexcept:
        """Ask the system for the connection. Returns 0 when it stands, EINPROGRESS, or the errno of the failure."""
        cdef int one = 1, number
        if self.is_unix():
            if system.connect(fd, sockaddr_of(self.address), <system.socklen_t> PyBytes_GET_SIZE(self.address)) == 0:
                return 0
            return errno
        # A program that writes a whole message at once has no use for Nagle's delay (RFC 9293, 3.7.4).
        system.setsockopt(fd, system.IPPROTO_TCP, system.TCP_NODELAY, &one, sizeof(one))
        if self.local:
            if self.transparent:
                number = c_set_transparent(fd, family_of(self.local))
                if number:
                    return number
            # The port may be held already by a socket that does not listen: that of an attempt at another address, or one
            # that only keeps it for this one.
            system.setsockopt(fd, system.SOL_SOCKET, system.SO_REUSEADDR, &one, sizeof(one))
            if system.bind(fd, sockaddr_of(self.local), <system.socklen_t> PyBytes_GET_SIZE(self.local)) != 0:
                return errno
        if system.connect(fd, sockaddr_of(self.address), <system.socklen_t> PyBytes_GET_SIZE(self.address)) == 0:
            return self.refuse_itself(fd)
        return system.EINPROGRESS if errno == system.EINTR else errno  # connect(2): an interrupted one goes on by itself

    cdef int refuse_itself(self, int fd) noexcept:
        """0; ECONNREFUSED when `fd` is connected to itself."""
        cdef system.sockaddr_in6 own, peer
        cdef system.socklen_t own_size = sizeof(own), peer_size = sizeof(peer)
        cdef system.linger reset
        memset(&own, 0, sizeof(own))
        memset(&peer, 0, sizeof(peer))
        # The port, which lies at the same place in both families, tells nearly all of them apart with one call.
        if system.getsockname(fd, <system.sockaddr *> &own, &own_size) != 0 \
                or own.sin6_port != (<const system.sockaddr_in6 *> PyBytes_AS_STRING(self.address)).sin6_port:
            return 0
        if system.getpeername(fd, <system.sockaddr *> &peer, &peer_size) != 0 \
                or own_size != peer_size or memcmp(&own, &peer, own_size) != 0:
            return 0
        # A reset, so that the port is not kept in TIME_WAIT from whoever is meant to listen on it.
        reset.l_onoff = 1
        reset.l_linger = 0
        system.setsockopt(fd, system.SOL_SOCKET, system.SO_LINGER, &reset, sizeof(reset))
        return system.ECONNREFUSED

    cdef void on_event(self, uint32_t events) noexcept:
        cdef int number = 0
        cdef system.socklen_t size = sizeof(number)
        if events & (POLLERR | POLLHUP):
            system.getsockopt(self.fd, system.SOL_SOCKET, system.SO_ERROR, &number, &size)
        if number == 0 and events & POLLOUT:
            number = self.refuse_itself(self.fd)
        if number:
            self.fail(number)
        elif events & POLLOUT:
            self.succeed()

    cdef void on_loop_closed(self) noexcept:
        system.close(self.give_up())

    def _overdue(self):
        """The deadline."""
        self.fail(system.ETIMEDOUT)

    cdef int give_up(self) noexcept:
        """End the attempt. Returns the descriptor, nobody's now."""
        cdef int fd = self.fd
        self.consumer = None
        self.let_go()
        if self.deadline is not None:
            self.deadline.drop()
            self.deadline = None
        return fd

    cdef void let_go(self) noexcept:
        """Neither watch the descriptor nor ask again."""
        if self.again is None:
            self.stop_watching()
            return
        self.again.drop()
        self.again = None
        self.fd = -1

    cdef bint is_unix(self) noexcept:
        return family_of(self.address) == system.AF_UNIX

    def _ask_again(self):
        """The queue was full."""
        cdef int number = self.connect(self.fd)
        if number == system.EAGAIN:
            self.again = self.loop.plan(AGAIN_SECONDS, self._ask_again, (), False)
        elif number:
            self.fail(number)
        else:
            self.succeed()

    cdef void succeed(self) noexcept:
        consumer = self.consumer
        cdef int fd = self.give_up()
        try:
            consumer.on_dialed(owned(fd))
        except BaseException as exc:
            self.loop.report("exception in on_dialed", exc, consumer)

    cdef void fail(self, int number) noexcept:
        consumer = self.consumer
        system.close(self.give_up())
        try:
            consumer.on_dial_failed(number)
        except BaseException as exc:
            self.loop.report("exception in on_dial_failed", exc, consumer)

    def cancel(self):
        """Give it up; nobody is told. No effect after the end."""
        if self.fd >= 0:
            self.loop.require()
            system.close(self.give_up())
