"""A dial: one attempt to connect to one address, without names and without alternatives.

Owns the descriptor until it is connected; then it is its consumer's. Whoever has names and several addresses builds on it.
"""

import os
import socket

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

cimport linux
from linux cimport errno
from sslsock.core.loop cimport Loop


def pack_address(int family, tuple address):
    """An address in the system's form, for `Dial`: bytes.

    family: AF_INET or AF_INET6. address: as the `socket` module has it, its host numeric: (host, port) or
    (host, port, flow, scope). OSError for a host that is not numeric, ValueError for another family.
    """
    cdef linux.sockaddr_in four
    cdef linux.sockaddr_in6 six
    cdef bytes host
    if family != linux.AF_INET and family != linux.AF_INET6:
        raise ValueError(f"only IPv4 and IPv6 addresses can be dialled, not family {family}")
    host = socket.inet_pton(family, address[0].partition("%")[0])
    if family == linux.AF_INET:
        memset(&four, 0, sizeof(four))
        four.sin_family = <unsigned short> family
        four.sin_port = linux.htons(address[1])
        memcpy(&four.sin_addr, PyBytes_AS_STRING(host), 4)
        return PyBytes_FromStringAndSize(<char *> &four, sizeof(four))
    memset(&six, 0, sizeof(six))
    six.sin6_family = <unsigned short> family
    six.sin6_port = linux.htons(address[1])
    six.sin6_scope_id = address[3] if len(address) > 3 else 0
    memcpy(&six.sin6_addr, PyBytes_AS_STRING(host), 16)
    return PyBytes_FromStringAndSize(<char *> &six, sizeof(six))


@cython.final
cdef class Dial(Watcher):
    """An attempt to connect to `address` (`pack_address`).

    loop: Loop. consumer: _DialConsumer, told the end unless `start` tells it. ValueError for what is no address.
    """

    def __cinit__(self, Loop loop not None, bytes address not None, consumer not None):
        if <size_t> PyBytes_GET_SIZE(address) not in (sizeof(linux.sockaddr_in), sizeof(linux.sockaddr_in6)):
            raise ValueError("an address is needed as pack_address makes it")
        self.loop = loop
        self.address = address
        self.consumer = consumer

    def __dealloc__(self):
        if self.fd >= 0:
            linux.close(self.fd)

    def start(self, double timeout):
        """Begin. Returns the connected non-blocking descriptor (int), which is then the caller's; -1 when it takes longer: the
        consumer is told. timeout: seconds, 0 for none but the system's. OSError; RuntimeError the second time."""
        cdef int fd, number, one = 1
        self.loop.require()
        if self.fd >= 0 or self.consumer is None:
            raise RuntimeError("a dial is started once")
        fd = linux.socket((<const linux.sockaddr *> PyBytes_AS_STRING(self.address)).sa_family,
                          linux.SOCK_STREAM | linux.SOCK_NONBLOCK | linux.SOCK_CLOEXEC, 0)
        if fd < 0:
            raise OSError(errno, os.strerror(errno))
        # A program that writes a whole message at once has no use for Nagle's delay (RFC 9293, 3.7.4).
        linux.setsockopt(fd, linux.IPPROTO_TCP, linux.TCP_NODELAY, &one, sizeof(one))
        if linux.connect(fd, <const linux.sockaddr *> PyBytes_AS_STRING(self.address),
                         <linux.socklen_t> PyBytes_GET_SIZE(self.address)) == 0:
            self.consumer = None
            return fd
        number = errno
        if number == linux.EINPROGRESS:
            try:
                self.start_watching(fd, linux.EPOLLOUT)
                if timeout > 0:
                    self.deadline = self.loop.plan(timeout, self._overdue, (), False)
                return -1
            except BaseException:
                self.stop_watching()
                linux.close(fd)
                raise
        linux.close(fd)
        self.consumer = None
        raise OSError(number, os.strerror(number))

    cdef void on_event(self, uint32_t events) noexcept:
        cdef int number = 0, fd
        cdef linux.socklen_t size = sizeof(number)
        linux.getsockopt(self.fd, linux.SOL_SOCKET, linux.SO_ERROR, &number, &size)
        if number:
            self.fail(number)
        elif events & linux.EPOLLOUT:
            consumer = self.consumer
            fd = self.give_up()
            try:
                consumer.on_dialed(fd)
            except BaseException as exc:
                self.loop.report("exception in on_dialed", exc, consumer)

    cdef void on_loop_closed(self) noexcept:
        linux.close(self.give_up())

    def _overdue(self):
        """The deadline."""
        self.fail(linux.ETIMEDOUT)

    cdef int give_up(self) noexcept:
        """End the attempt. Returns the descriptor, nobody's now."""
        cdef int fd = self.fd
        self.consumer = None
        self.stop_watching()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        return fd

    cdef void fail(self, int number) noexcept:
        consumer = self.consumer
        linux.close(self.give_up())
        try:
            consumer.on_dial_failed(number)
        except BaseException as exc:
            self.loop.report("exception in on_dial_failed", exc, consumer)

    def cancel(self):
        """Give it up; nobody is told. No effect after the end."""
        if self.fd >= 0:
            self.loop.require()
            linux.close(self.give_up())
