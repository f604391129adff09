"""A listening socket of an asyncio server: a protocol and its transport for each connection, made where it is accepted.

Where something comes first (a PROXY header, a choice by the ClientHello), `enter` gets the connection instead, and may give it
back (`admit`).

No task and no future, and no socket object unless somebody asks for one. The socket is the server's, who closes it.
"""

import os
import socket
from asyncio import constants, trsock
from asyncio.log import logger

cimport cython

cimport system
from poller cimport POLLIN
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
cdef class HandshakePlace:
    """One of the handshakes that a listener has at once. Stands for the future that a transport tells of its beginning."""

    def done(self):
        """Whether the handshake is over: bool."""
        return self.listener is None

    cancelled = done

    def set_result(self, result):
        """It is done."""
        self.leave()

    def set_exception(self, exc):
        """It has failed."""
        self.leave()

    cdef int leave(self) except -1:
        cdef ProtocolListener listener = self.listener
        self.listener = None
        if listener is not None:
            listener.shaking -= 1
            if listener.fd >= 0:
                listener.resume_soon()
        return 0


@cython.final
cdef class ProtocolListener(Acceptor):
    """Accepts the connections of an asyncio server.

    host: the asyncio loop. loop: where the channels stand. sock: listening and non-blocking. transports: of the asyncio loop, by
    descriptor. most_shaking: handshakes at once, 0 for no bound.
    start_tls: gives the TlsStart of a connection; None: no TLS. enter: gets the connections (Descriptor, the peer's name, HandshakePlace
    or None) in the place of protocols; None: nothing comes first.
    """

    def __cinit__(
            self, host, Loop loop not None, sock, protocol_factory, server, transports, Py_ssize_t most_shaking=0):
        cdef int on = 1
        cdef int fd = sock.fileno()
        loop.require()
        self.loop = loop
        self.host = host
        self.sock = sock
        self.protocol_factory = protocol_factory
        self.server = server
        self.transports = transports
        self.most_shaking = most_shaking
        self.context = PyContext_CopyCurrent()
        self.borrowed = True
        self.rest_seconds = constants.ACCEPT_RETRY_DELAY
        if sock.family != socket.AF_UNIX:
            # Connections inherit it on Linux: one call for all of them. Where it is refused it is not TCP.
            system.setsockopt(fd, system.IPPROTO_TCP, system.TCP_NODELAY, &on, sizeof(on))
        self.start_watching(fd, POLLIN)

    cdef bint has_room(self) noexcept:
        return self.most_shaking == 0 or self.shaking < self.most_shaking

    cdef int take_in(self, int connection, const system.sockaddr *peer, system.socklen_t size) except -1:
        cdef Descriptor descriptor = owned(connection)
        cdef bytes name = raw_name(peer, size)
        cdef HandshakePlace place = None
        cdef object context = PyContext_Copy(self.context)
        self.refused = False
        if self.most_shaking:
            place = HandshakePlace.__new__(HandshakePlace)
            place.listener = self
            self.shaking += 1
        PyContext_Enter(context)
        try:
            if self.enter is None:
                self.serve(descriptor, name, None, self.start_tls, place)
            else:
                self.give(descriptor, name, place)
        except BaseException as exc:
            self.loop.report("a connection could not be served", exc, self.server)  # what ends programs leaves the loop
        finally:
            PyContext_Exit(context)
        return 0

    cdef int serve(self, object connection, bytes peer, object extra, object start_tls, HandshakePlace place) except -1:
        """Make the protocol and its transport."""
        cdef SocketTransport made
        protocol = None
        try:
            if self.host.get_debug():
                logger.debug("%r got a new connection from %r", self.server, None if peer is None else socket_name(peer))
            protocol = self.protocol_factory()
            if self.fd < 0:  # it has closed the server
                return 0
            start = None if start_tls is None else start_tls()
            made = SocketTransport(self.host, self.loop, connection, protocol, place, extra, self.server, start)
            if peer is not None:
                made.peer = peer
            self.transports[made._sock_fd] = made
            place = None  # the transport tells it
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.tell("Error on transport creation for incoming connection", exc, protocol)
        finally:
            if place is not None:
                place.leave()
        return 0

    cdef int give(self, object descriptor, bytes peer, HandshakePlace place) except -1:
        try:
            self.enter(self, descriptor, socket_name(peer), place)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if place is not None:
                place.leave()
            self.tell("Error on transport creation for incoming connection", exc, None)
        return 0

    def admit(self, Descriptor descriptor not None, extra, start_tls, HandshakePlace place):
        """Give a connection that has come in to a protocol. extra: what is known of it (dict)."""
        cdef object context
        if self.fd < 0:
            return
        context = PyContext_Copy(self.context)
        PyContext_Enter(context)
        try:
            self.serve(descriptor, None, extra, start_tls, place)
        finally:
            PyContext_Exit(context)

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
        self.protocol_factory = self.enter = self.start_tls = self.server = self.transports = self.context = None
