"""Transport: what an asyncio protocol sends and receives by, over a channel.

One class for TCP and UNIX sockets, with TLS and without, of clients and servers. What it does towards its protocol is in
protocol_transport.pyx; here is what it has of a socket: the descriptor, its names, TLS that begins in place, its server.
"""

import socket
from asyncio import base_events, constants, trsock

cimport cython

cimport system
from sslsock.core.channel cimport Channel
from sslsock.core.descriptor cimport Descriptor
from sslsock.core.loop cimport Loop
from sslsock.core.output_link cimport PHASE_CLOSED
from sslsock.core.protocol_transport cimport ProtocolTransport
from sslsock.core.socket_names cimport family_of, raw_peername, raw_sockname, socket_name
from sslsock.core.tls_start cimport TlsStart

# From CPython 3.13 on a server is told which transport comes and goes.
cdef bint SERVER_TAKES_TRANSPORT = base_events.Server._attach.__code__.co_argcount == 2


class TransportSocket(trsock.TransportSocket):
    """What a transport shows as its socket. It can say its names when `close()` has given the descriptor back: asyncio's does
    so in a later turn, and programs ask who the peer was behind `close()`."""

    __slots__ = ("_own", "_peer")

    def __init__(self, sock, own, peer):
        super().__init__(sock)
        self._own, self._peer = own, peer

    def getsockname(self):
        """The address of this end."""
        return self._own if self._sock.fileno() < 0 and self._own is not None else super().getsockname()

    def getpeername(self):
        """The address of the peer."""
        return self._peer if self._sock.fileno() < 0 and self._peer is not None else super().getpeername()


@cython.final
cdef class SocketTransport(ProtocolTransport):
    """A connected socket of a protocol. Made by the loop."""

    def __cinit__(self, loop, Loop core not None, sock, protocol, waiter=None, extra=None, server=None, tls=None):
        """sock: a socket or a Descriptor, connected and non-blocking; it belongs to the transport from now on. tls: TlsStart, or None."""
        self._sock_fd = sock.fileno()
        self.own = raw_sockname(self._sock_fd)
        self._server = server
        self.begin_on(loop, Channel(core, self), protocol, waiter, extra)
        if isinstance(sock, Descriptor):
            self.channel.attach(sock)
        else:
            self.sock = sock
            self.peer = raw_peername(self._sock_fd)
            if sock.family != socket.AF_UNIX:
                base_events._set_nodelay(sock)
            self.channel.attach(self._sock_fd)
        if server is not None:
            if SERVER_TAKES_TRANSPORT:
                server._attach(self)
            else:
                server._attach()
        if tls is None:
            self.held_back = True
            loop.call_soon(self._begin)
        else:
            self.shake_hands(tls, waiter)

    cdef str what(self):
        return f"fd={self._sock_fd}"

    def _start_tls(self, protocol, TlsStart tls not None, waiter):
        """TLS begins on this connection, for `protocol`. What was received and not read belongs to the handshake. waiter: a future, told
        of its end."""
        self.set_protocol(protocol)
        self._paused = self.end_waits = False
        self.shake_hands(tls, waiter)

    # The end

    cdef int let_go(self) except -1:
        """The descriptor is the channel's, which closes it, perhaps later. Nobody shall do so by the socket object."""
        if self.sock is not None:
            self.sock.detach()
        return 0

    def _loop_closed(self):
        """The loop has closed, or is about to close, the descriptor: the number may be another's from now on."""
        self.let_go()

    cdef int leave(self) except -1:
        server, self._server = self._server, None
        if server is not None:
            if SERVER_TAKES_TRANSPORT:
                server._detach(self)
            else:
                server._detach()
        return 0

    cdef bint all_acknowledged(self) noexcept:
        """Whether the peer's system has all that was sent."""
        return system.unacknowledged(self.channel.fd) == 0

    # About it

    @property
    def _sock(self):
        """socket.socket over the descriptor, made when it is asked for."""
        if self.sock is None:
            if self.lost_planned or self.channel.phase == PHASE_CLOSED:
                self.sock = socket.socket(family_of(self.own) or socket.AF_INET)
                self.sock.close()
            else:
                self.sock = socket.socket(fileno=self._sock_fd)
                self.sock.setblocking(False)
        return self.sock

    cdef object name_of(self, bytes raw, str method):
        """raw: what is known of it. The socket is asked where that says nothing."""
        found = None if raw is None else socket_name(raw)
        return getattr(self._sock, method)() if found is None else found

    cdef object found_below(self, name):
        if name == "socket":
            return TransportSocket(
                self._sock,
                None if self.own is None else socket_name(self.own),
                None if self.peer is None else socket_name(self.peer),
            )
        return self.name_of(self.own, "getsockname") if name == "sockname" else self.name_of(self.peer, "getpeername")

    @property
    def _start_tls_compatible(self):
        return True

    @property
    def _sendfile_compatible(self):
        return constants._SendfileMode.TRY_NATIVE if self.tls is None else constants._SendfileMode.FALLBACK
