"""LayeredTransport: TLS over another transport, for `start_tls` where TLS cannot begin in place: one that is over TLS already, or is
another library's. What it does towards its protocol is in protocol_transport.pyx, what carries it in carried_channel.pyx.
"""

from asyncio import constants

cimport cython

from sslsock.core.carried_channel cimport CarriedChannel
from sslsock.core.consumer cimport channel_failure
from sslsock.core.loop cimport Loop
from sslsock.core.protocol_transport cimport ProtocolTransport
from sslsock.core.tls_start cimport TlsStart

# What `get_extra_info` says of this TLS and never of that beneath. All else is asked of the transport beneath.
cdef frozenset OF_TLS = frozenset((
    "clean_close", "ssl_object", "peercert", "cipher", "compression", "session_reused", "tls_version", "group", "requested_server_name"))


@cython.final
cdef class LayeredTransport(ProtocolTransport):
    """TLS over a transport. Made by the loop.

    lower: of asyncio's interface; it belongs to this one from now on. protocol: knows of a transport already. waiter: a future, told of the
    end of the handshake. full: `lower` has told its protocol to pause; paused: and that is `protocol`.
    """

    def __cinit__(self, loop, Loop core not None, lower, protocol, waiter, TlsStart tls not None, bint full, bint paused):
        cdef CarriedChannel channel = CarriedChannel(core, self)
        self.lower = lower
        self.begin_on(loop, channel, protocol, waiter, None)
        self.connected = True
        self._protocol_paused = paused
        self.watch_room()
        channel.carry(lower, full)
        self.shake_hands(tls, waiter)

    cdef str what(self):
        return f"over={self.lower!r}"

    cdef object found_out(self, name):
        if name in OF_TLS:
            return ProtocolTransport.found_out(self, name)
        return self.lower.get_extra_info(name)

    cdef object failure_of(self, const channel_failure *failure):
        exc = self.tls.failure_of(failure)
        loss = (<CarriedChannel> self.channel).loss
        if exc is not None or loss is None:
            return ProtocolTransport.failure_of(self, failure) if exc is None else exc
        return loss

    def get_write_buffer_size(self):
        """Bytes that were written and not yet given to the system: int. With what waits in the transport beneath."""
        return self.channel.unsent() + self.lower.get_write_buffer_size()

    @property
    def _start_tls_compatible(self):
        return True

    @property
    def _sendfile_compatible(self):
        return constants._SendfileMode.FALLBACK
