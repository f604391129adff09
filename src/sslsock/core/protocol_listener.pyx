"""A listening socket of an asyncio server: a protocol and its transport for each connection, made where it is accepted.

No task and no future, and no socket object unless somebody asks for one. The socket is the server's, who closes it.
"""

import os
import socket
from asyncio import constants, trsock
from asyncio.log import logger

cimport cython

cimport linux
from sslsock.core.acceptor cimport Acceptor
from sslsock.core.descriptor cimport Descriptor, owned
from sslsock.core.loop cimport Loop
from sslsock.core.socket_names cimport raw_name, socket_name
from sslsock.core.transport cimport SocketTransport

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContext_Copy(object context)
    object PyContext_CopyCurrent()


@cython.final
cdef class ProtocolListener(Acceptor):
    """Accepts the connections of an asyncio server.

    host: the asyncio loop. loop: where the channels stand. sock: listening and non-blocking. transports: of the asyncio loop, by
    descriptor. start_tls: gives the TlsStart of a connection; None: no TLS.
    """

    def __cinit__(
            self, host, Loop loop not None, sock, protocol_factory, server, transports, start_tls=None):
        cdef int on = 1
        cdef int fd = sock.fileno()
        loop.require()
        self.loop = loop
        self.host = host
        self.sock = sock
        self.protocol_factory = protocol_factory
        self.server = server
        self.transports = transports
        self.start_tls = start_tls
        self.context = PyContext_CopyCurrent()
        self.borrowed = True
        self.rest_seconds = constants.ACCEPT_RETRY_DELAY
        if sock.family != socket.AF_UNIX:
            # Connections inherit it on Linux: one call for all of them. Where it is refused it is not TCP.
            linux.setsockopt(fd, linux.IPPROTO_TCP, linux.TCP_NODELAY, &on, sizeof(on))
        self.start_watching(fd, linux.EPOLLIN)

    cdef int take_in(self, int connection, const linux.sockaddr *peer, linux.socklen_t size) except -1:
        cdef Descriptor descriptor = owned(connection)
        cdef bytes name = raw_name(peer, size)
        cdef object context = PyContext_Copy(self.context)
        self.refused = False
        PyContext_Enter(context)
        try:
            self.serve(descriptor, name, connection)
        except BaseException as exc:
            self.loop.report("a connection could not be served", exc, self.server)  # what ends programs leaves the loop
        finally:
            PyContext_Exit(context)
        return 0

    cdef int serve(self, object descriptor, bytes peer, int fd) except -1:
        cdef SocketTransport made
        protocol = None
        try:
            if self.host.get_debug():
                logger.debug("%r got a new connection from %r: fd=%d", self.server, socket_name(peer), fd)
            protocol = self.protocol_factory()
            if self.fd < 0:  # it has closed the server
                return 0
            start = None if self.start_tls is None else self.start_tls()
            made = SocketTransport(self.host, self.loop, descriptor, protocol, None, None, self.server, start)
            made.peer = peer
            self.transports[fd] = made
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.tell("Error on transport creation for incoming connection", exc, protocol)
        return 0

    cdef int tell(self, str message, object exc, object protocol) except -1:
        told = {"message": message, "exception": exc, "socket": trsock.TransportSocket(self.sock)}
        if protocol is not None:
            told["protocol"] = protocol
        self.host.call_exception_handler(told)
        return 0

    cdef void on_out(self, int number) noexcept:
        if self.refused:
            return  # it is asked again each second
        self.refused = True
        try:
            self.tell("socket.accept() out of system resource", OSError(number, os.strerror(number)), None)
        except BaseException as exc:
            self.loop.report("the want of descriptors could not be told", exc, self.server)

    cdef void close_all(self) noexcept:
        Acceptor.close_all(self)
        self.protocol_factory = self.start_tls = self.server = self.transports = self.context = None
