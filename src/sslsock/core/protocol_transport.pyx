"""What an asyncio transport does towards its protocol, over a channel: base of SocketTransport and of LayeredTransport.

It says that it is one of asyncio's transports (`__class__`), and behaves as those do: what differs is listed in docs/asyncio.md.

The channel tells it what happens (`on_*`), and it calls the protocol, in the context in which it was made. The end is told once, from
the loop's queue, never inside a call of the program's (`lose`). What the channel stands on is for those who derive from it to say.
"""

import errno
import os
import warnings
from asyncio import constants
from asyncio.log import logger
from asyncio.protocols import BufferedProtocol
from asyncio.streams import StreamReaderProtocol

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_CheckExact

from instance_state cimport referent
from sslsock.core.channel cimport Channel
from sslsock.core.consumer cimport ChannelConsumer, channel_failure
from sslsock.core.output_link cimport PHASE_NEW, PHASE_OPEN, TLS_NONE, TLS_SHAKING
from sslsock.core.stream_classes cimport adopt, fed_by
from sslsock.core.stream_state cimport ReaderState
from sslsock.core.tls_start cimport TlsStart

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContext_CopyCurrent()

cdef enum:
    # bytes not yet given to the kernel, at which the protocol is paused
    HIGH_PLAIN = 64 * 1024
    HIGH_TLS = 512 * 1024

# The classes that transports say to be of, without TLS and with it. Set by sslsock.aio (aio/transport.py).
transport_class = None
ssl_transport_class = None


cdef int require_here(ProtocolTransport transport) except -1:
    """RuntimeError in another thread than the loop's."""
    if transport.channel is not None:
        transport.channel.loop.require_here()
    return 0


cdef class ProtocolTransport(ChannelConsumer):
    """Base of SocketTransport and LayeredTransport."""

    cdef int begin_on(self, loop, Channel channel, protocol, waiter, extra) except -1:
        """The first thing: nothing is delivered before the protocol knows of its transport."""
        self._loop = loop
        self.context = PyContext_CopyCurrent()
        self.waiter = waiter
        self.extra = {} if extra is None else dict(extra)
        self.channel = channel
        self.set_protocol(protocol)
        self.high = HIGH_PLAIN
        self.low = self.high // 4
        channel.halt(True)
        return 0

    # What those who derive from it say

    cdef str what(self):
        """What it stands on, in words."""
        return ""

    cdef int let_go(self) except -1:
        """The connection is lost."""
        return 0

    cdef int leave(self) except -1:
        """The protocol has been told the end."""
        return 0

    cdef bint all_acknowledged(self) noexcept:
        """Whether the peer's system has all that was sent."""
        return False

    cdef object found_below(self, name):
        """What `get_extra_info` is to say of what it stands on. OSError: nothing."""
        return None

    @property
    def __class__(self):
        return transport_class if self.tls is None else ssl_transport_class

    def __del__(self):
        cdef Channel channel = self.channel
        if channel is not None and channel.phase != PHASE_NEW and not self.lost_planned:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self.let_go()

    def __repr__(self):
        state = "closed" if self._loop is None else "closing" if self._closing else "open"
        return f"<{self.__class__.__name__} {state} {self.what()} write_buffer={self.get_write_buffer_size()}>"

    # Beginning

    cdef int shake_hands(self, TlsStart tls, waiter) except -1:
        self.waiter = waiter
        self.tls = tls
        self.high, self.low = HIGH_TLS, HIGH_TLS // 4
        self.extra["sslcontext"] = tls.context
        self.channel.start_tls(tls.engine, tls.handshake_timeout, tls.pool)
        return 0

    cdef int hands_shaken(self) except -1:
        self.begun = True
        if not self.connected:
            self.connect()
        if not self.lost_planned and not self._paused:
            self.channel.halt(False)
        return self.wake_waiter(None)

    def _begin(self):
        """The first thing that a plain connection does, from the queue."""
        if self._protocol is None:
            return
        self.begun = True
        self.connect()
        if self.waiter is None:
            self._begin_reading()
        else:
            # Whoever awaits the connection goes on before its protocol is told anything more, as with asyncio: he may have to set
            # it up.
            self.wake_waiter(None)
            self._loop.call_soon(self._begin_reading)

    def _begin_reading(self):
        """The protocol knows of its transport, and whoever has made the connection too."""
        self.held_back = False
        if self.lost_planned or self._paused or self.channel.tls == TLS_SHAKING:
            return
        self.channel.halt(False)
        if self.end_waits:
            self.peer_ended()

    cdef int connect(self) except -1:
        """Tell the protocol of its transport. What it raises is told; over TLS it ends the connection, and comes out of the call
        that made it, as with asyncio."""
        self.connected = True
        try:
            self.tell(self._protocol, "connection_made", self, True)
            if self.tls is not None and self.tls.half_close and isinstance(self._protocol, StreamReaderProtocol):
                self._protocol._over_ssl = False  # by which it says at the peer's end that it stays open
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if self.tls is None:
                self.tell_handler(exc, "Exception in callback protocol.connection_made()")
            else:
                self.fatal(exc, "Fatal error: protocol.connection_made() call failed.")
                self.wake_waiter(exc)
        return 0

    cdef int wake_waiter(self, object exc) except -1:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            if exc is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(exc)
        return 0

    @cython.final
    cdef object tell(self, object protocol, str method, object argument, bint with_argument):
        """Call the protocol in the context of the transport, in which its own call may be under way."""
        cdef object context
        bound = getattr(protocol, method)
        if self.inside:
            return bound(argument) if with_argument else bound()
        context = self.context
        PyContext_Enter(context)
        self.inside = True
        try:
            return bound(argument) if with_argument else bound()
        finally:
            self.inside = False
            PyContext_Exit(context)

    cdef object ask(self, object protocol, str method, object argument, bint with_argument):
        """`tell`, and end the connection by what it raises. Returns what the protocol has returned."""
        result = None
        try:
            result = self.tell(protocol, method, argument, with_argument)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal(exc, f"Fatal error: protocol.{method}() call failed.")
        return result

    # What the channel tells. What ends programs (KeyboardInterrupt, SystemExit) leaves the loop when the turn is over.

    cdef void escape(self, object exc) noexcept:
        self.channel.loop.report("exception in a transport", exc, self)

    cdef void _on_readable(self) noexcept:
        try:
            self.readable()
        except BaseException as exc:
            self.escape(exc)

    cdef char *on_room(self, size_t *room) noexcept:
        try:
            self.take_room()
        except BaseException as exc:
            self.escape(exc)
        room[0] = self.view.len if self.lent else 0
        return <char *> self.view.buf if self.lent else NULL

    cdef void on_filled(self, size_t size) noexcept:
        try:
            self.filled(size)
        except BaseException as exc:
            self.escape(exc)

    cdef void _on_written(self, size_t count) noexcept:
        try:
            self.room_was_made()
        except BaseException as exc:
            self.escape(exc)

    cdef void _on_encrypted(self) noexcept:
        try:
            self.hands_shaken()
        except BaseException as exc:
            self.escape(exc)

    cdef void _on_peer_closed(self, bint clean) noexcept:
        self.clean, self.clean_known = clean, True
        try:
            if self._paused or self.held_back:
                self.end_waits = True
            else:
                self.peer_ended()
        except BaseException as exc:
            self.escape(exc)

    cdef void _on_drained(self) noexcept:
        # All is with the kernel, and the channel waits for the peer's end by itself.
        try:
            self.lose(None)
        except BaseException as exc:
            self.escape(exc)

    cdef void _on_failed(self, const channel_failure *failure) noexcept:
        try:
            self.failed(failure)
        except BaseException as exc:
            self.escape(exc)

    # What the protocol is told of it

    @cython.final
    cdef int readable(self) except -1:
        if self.lost_planned or self._closing:
            self.channel.consume(self.channel.unread())
        elif not self._paused:
            self.deliver()
        return 0

    @cython.final
    cdef int deliver(self) except -1:
        cdef object context = self.context
        cdef bytes data = self.channel.take(self.channel.unread())
        cdef ReaderState stream = self.stream
        cdef bint enters = not self.inside  # else a call of the protocol's runs the loop
        if enters:
            PyContext_Enter(context)
            self.inside = True
        try:
            if stream is None:
                self._protocol.data_received(data)
            elif referent(stream.reference) is not None:
                stream.feed(data)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal(exc, "Fatal error: protocol.data_received() call failed.")
        finally:
            if enters:
                self.inside = False
                PyContext_Exit(context)
        return 0

    @cython.final
    cdef int take_room(self) except -1:
        """The buffer of a BufferedProtocol, to be received or decrypted into."""
        if self.lost_planned or self._closing or self.lent:
            return 0
        self.lender = self._protocol  # which is told of what comes, though it may have a successor by then
        try:
            buffer = self.tell(self.lender, "get_buffer", -1, True)
            PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)
            self.lent = True
            if self.view.len == 0:
                PyBuffer_Release(&self.view)
                self.lent = False
                raise RuntimeError("get_buffer() returned an empty buffer")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal(exc, "Fatal error: protocol.get_buffer() call failed.")
        return 0

    @cython.final
    cdef int filled(self, size_t size) except -1:
        lender, self.lender = self.lender, None
        if self.lent:
            self.lent = False
            PyBuffer_Release(&self.view)
        if size and not self.lost_planned and not self._closing:
            self.ask(lender, "buffer_updated", size, True)
        return 0

    @cython.final
    cdef int room_was_made(self) except -1:
        """The kernel has taken something."""
        if self._protocol_paused and self.channel.unsent() <= self.low:
            self._protocol_paused = False
            self.tell_flow("resume_writing")
        if self.channel.unsent() == 0 and self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_result(None)
        return self.watch_room()

    cdef int peer_ended(self) except -1:
        """The protocol is told that nothing more comes."""
        self.end_waits = False
        if self._closing or self.lost_planned:
            return 0
        if self._loop.get_debug():
            logger.debug("%r received EOF", self)
        keep_open = self.ask(self._protocol, "eof_received", None, False)
        if keep_open and self.tls is not None and not self.tls.half_close:
            logger.warning("returning true from eof_received() has no effect when using ssl")
            keep_open = False
        if not keep_open:
            self.close()
        return 0

    cdef int failed(self, const channel_failure *failure) except -1:
        if self.all_written and failure.sending:
            return self.lose(None)  # a close_notify that the peer is not there to hear: nothing of the program's is lost
        exc = self.failure_of(failure)
        if not isinstance(exc, Exception):  # what ends programs, met within another library
            self.lose(None)
            raise exc
        if self.empty_waiter is not None and not self.empty_waiter.done():
            self.empty_waiter.set_exception(exc)
        if self.tls is not None and not self.begun:
            return self.fatal(exc, "SSL handshake failed")
        return self.fatal(exc, f"Fatal {'write' if failure.sending else 'read'} error on socket transport")

    cdef object failure_of(self, const channel_failure *failure):
        """The exception for a channel's failure."""
        exc = None if self.tls is None else self.tls.failure_of(failure)
        if exc is None:
            number = failure.number if failure.number else errno.ENOMEM
            exc = OSError(number, os.strerror(number))
        return exc

    # The end

    cdef int fatal(self, object exc, str message) except -1:
        """End it at once, because of `exc`. What is not an error of the network is the program's, and told as one."""
        if isinstance(exc, OSError):
            if self._loop is not None and self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=(type(exc), exc, exc.__traceback__))
        elif self._loop is not None:
            self.tell_handler(exc, message)
        self.lose(exc)
        return 0

    cdef int tell_handler(self, object exc, str message) except -1:
        self._loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol})
        return 0

    cdef int lose(self, object exc) except -1:
        """Let go of the connection; the protocol is told from the queue."""
        if self.lost_planned:
            return 0
        self.lost_planned = self._closing = True
        self.lost = 1
        if self.channel.consumer is not None:
            if self.channel.tls != TLS_SHAKING:
                self.channel.send_queue()  # with asyncio it would have left when it was written
            self.channel.resets = self.channel.unsent() > 0
            self.channel.close_now()
        self.let_go()
        if self.shutdown_timer is not None:
            self.shutdown_timer.cancel()
            self.shutdown_timer = None
        self._loop.call_soon(self._call_connection_lost, exc)
        return 0

    def _call_connection_lost(self, exc):
        try:
            if self.connected:
                self.connected = False
                self.tell(self._protocol, "connection_lost", exc, True)
        finally:
            self.wake_waiter(exc if exc is not None else ConnectionAbortedError("the transport was closed"))
            if self.empty_waiter is not None and not self.empty_waiter.done():
                self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))
            self._protocol = self._loop = self.context = None
            self.drop_engine()
            self.leave()

    cdef int drop_engine(self) except -1:
        """A channel that lingers needs no TLS any more: the context and its secrets are not kept until the peer's end."""
        if self.tls is not None and not self.tls.engine.in_use():
            self.tls.engine = self.channel.engine = None
        return 0

    def close(self):
        """End in order: what was written is sent, then the protocol is told (`connection_lost(None)`)."""
        require_here(self)
        if self._closing:
            return
        self._closing = True
        if self.tls is not None and not self.begun:
            self.lose(None)  # there is no connection to be ended in order
            return
        if self.tls is None and self.channel.unsent() == 0 and self.all_acknowledged():
            self.lose(None)  # no last bytes could be destroyed by the reset that answers what the peer still sends
            return
        self.all_written = self.channel.unsent() == 0
        self.channel.finish()
        if self.tls is not None and not self.lost_planned and self.tls.shutdown_timeout > 0:
            self.shutdown_timer = self._loop.call_later(self.tls.shutdown_timeout, self._shutdown_overdue)

    def _shutdown_overdue(self):
        """The peer takes nothing of what was written before the end."""
        self.lose(TimeoutError("SSL shutdown timed out"))

    def abort(self):
        """End at once. What was not sent is lost."""
        require_here(self)
        if not self.lost_planned:
            self.lose(None)

    def _force_close(self, exc):
        require_here(self)
        if not self.lost_planned:
            self.lose(exc)

    def is_closing(self):
        """Whether the transport is closing or closed: bool."""
        return self._closing

    # Reading

    def is_reading(self):
        """Whether data is received: bool."""
        return not self._closing and not self._paused

    def pause_reading(self):
        """From now on the protocol is given no data. No effect if it is so already."""
        require_here(self)
        if self._closing or self._paused:
            return
        self._paused = True
        self.channel.halt(True)
        if self._loop.get_debug():
            logger.debug("%r pauses reading", self)

    def resume_reading(self):
        """Data comes again, from the next turn on. No effect if it does already."""
        require_here(self)
        if self._closing or not self._paused:
            return
        self._paused = False
        if self.begun and not self.held_back:
            self.channel.halt(False)
        if self.end_waits:
            self._loop.call_soon(self._tell_end)
        if self._loop.get_debug():
            logger.debug("%r resumes reading", self)

    def _tell_end(self):
        """The peer's end, which came while reading was paused."""
        if self.end_waits and not self._paused and not self.held_back and not self.lost_planned:
            self.peer_ended()

    # Writing

    cpdef write(self, data):
        """Send `data` (bytes-like), in order. Bytes are not copied."""
        cdef bytes piece = data if PyBytes_CheckExact(data) else self.copy_of(data)
        if self.may_write(len(piece)) and piece:
            self.channel.write(piece)
            self.after_write()

    cdef bint takes_more(self, protocol, reader) except -1:
        """Whether `drain` of a writer with these has nothing to wait for and nothing to raise. False also where that is not known here."""
        cdef ReaderState stream = self.stream
        if stream is None or self._protocol is not protocol or self._closing or self._protocol_paused or self.lost_planned:
            return False
        return stream.exception is None and referent(stream.reference) is reader

    def writelines(self, list_of_data):
        """Send the pieces (bytes-like), in order, together: nothing that is written meanwhile comes between them."""
        cdef list pieces = [data if PyBytes_CheckExact(data) else self.copy_of(data) for data in list_of_data]
        cdef bytes piece
        if self.may_write(any(pieces)):
            for piece in pieces:
                if piece and not self._closing:  # a failure is met at once
                    self.channel.write(piece)
            self.after_write()

    cdef bytes copy_of(self, object data):
        """What is sent for `data`, which the caller may change afterwards."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            kind = type(data).__name__
            raise TypeError(
                f"data argument must be a bytes-like object, not {kind!r}" if self.tls is None
                else f"data: expecting a bytes-like instance, got {kind}")
        return bytes(data)

    @cython.final
    cdef bint may_write(self, bint something) except -1:
        """False, and counted if it is something, where what is written goes nowhere."""
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.empty_waiter is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if not self.lost and not self._closing:
            return True
        if self.lost and something:
            if self.lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("socket.send() raised exception.")
            self.lost += 1
        return False

    @cython.final
    cdef int after_write(self) except -1:
        """A connection that has failed is lost, and a protocol that has written too much is paused."""
        cdef Channel channel = self.channel
        if channel.dead:
            # What was received before is lost, as in asyncio: a program that does nothing but write must hear of it.
            self.fatal(OSError(channel.failure.number, os.strerror(channel.failure.number)), "Fatal write error on socket transport")
        elif channel.unsent() > self.high:
            self.watch_flow()
        return 0

    @cython.final
    cdef int watch_flow(self) except -1:
        """More waits than the protocol is to have waiting, unless the kernel takes it."""
        cdef Channel channel = self.channel
        if channel.tls != TLS_SHAKING and not channel.blocked and channel.phase == PHASE_OPEN:
            channel.send_queue()
        if channel.unsent() > self.high and not self._protocol_paused:
            self._protocol_paused = True
            self.tell_flow("pause_writing")
        return self.watch_room()

    cdef int tell_flow(self, str method) except -1:
        """Pause or resume the protocol. What it raises is told, and ends nothing, as in asyncio."""
        try:
            self.tell(self._protocol, method, None, False)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.tell_handler(exc, f"protocol.{method}() failed")
        return 0

    @cython.final
    cdef int watch_room(self) except -1:
        """Whether the channel is to tell what the kernel has taken."""
        self.channel.notify_written = self._protocol_paused or self.empty_waiter is not None
        return 0

    def can_write_eof(self):
        """Whether `write_eof` is possible: bool. Over TLS only where `ssl_half_close` was asked for."""
        return self.tls is None or self.tls.half_close

    def write_eof(self):
        """End the outgoing direction, behind what was written; data may still come. NotImplementedError where it is not possible."""
        if not self.can_write_eof():
            raise NotImplementedError
        require_here(self)
        if self._closing or self._eof:
            return
        self._eof = True
        self.channel.end_output()

    def get_write_buffer_size(self):
        """Bytes that were written and not yet given to the system: int."""
        return self.channel.unsent()

    def get_write_buffer_limits(self):
        """(low, high) in bytes."""
        return self.low, self.high

    def set_write_buffer_limits(self, high=None, low=None):
        """Above `high` bytes the protocol is paused, from `low` on it is resumed. ValueError unless high >= low >= 0."""
        require_here(self)
        if high is None:
            high = 4 * low if low is not None else HIGH_TLS if self.channel.tls != TLS_NONE else HIGH_PLAIN
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high, self.low = high, low
        if self.channel.unsent() <= self.high:
            self.room_was_made()
        elif not self._protocol_paused:
            self.watch_flow()

    # For sendfile

    def _make_empty_waiter(self):
        if self.empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self.empty_waiter = self._loop.create_future()
        self.channel.flush()
        if self.channel.unsent() == 0:
            self.empty_waiter.set_result(None)
        self.watch_room()
        return self.empty_waiter

    def _reset_empty_waiter(self):
        self.empty_waiter = None
        self.watch_room()

    # About it

    def set_protocol(self, protocol):
        """From now on `protocol` is told what happens."""
        require_here(self)
        adopt(protocol)
        self.stream = fed_by(protocol)
        self._protocol = protocol
        self.buffered = isinstance(protocol, BufferedProtocol)
        self.channel.lend_room(self.buffered)

    def get_protocol(self):
        """The protocol, None once the connection is lost."""
        return self._protocol

    @property
    def _extra(self):
        return self.extra

    @property
    def _conn_lost(self):
        return self.lost

    @property
    def _high_water(self):
        return self.high

    @property
    def _low_water(self):
        return self.low

    @property
    def _over_tls(self):
        return self.tls is not None

    @property
    def _ssl_protocol(self):
        """Itself over TLS, for those who ask asyncio's transports for it."""
        if self.tls is None:
            raise AttributeError("this transport is not over TLS")
        return self

    # What CPython's own tests ask of it: to hold back what is written, and to queue it alone. Here it leaves in order, before any end.

    def pause_writing(self):
        """No effect."""

    def resume_writing(self):
        """No effect."""

    def _test__append_write_backlog(self, data):
        self.write(data)

    def get_extra_info(self, name, default=None):
        """What is known of the connection by `name` (docs/asyncio.md), else `default`. Kept after the connection is lost."""
        if name not in self.extra:
            found = self.found_out(name)
            if found is None:
                return default
            self.extra[name] = found
        return self.extra[name]

    cdef object found_out(self, name):
        found = None
        try:
            if name in ("socket", "sockname", "peername"):
                found = self.found_below(name)
            elif name == "clean_close":
                found = self.clean if self.clean_known and self.tls is not None else None
            elif self.tls is not None:
                found = self.tls.found_out(name, self.begun)
        except OSError:  # the peer is gone
            pass
        return found
