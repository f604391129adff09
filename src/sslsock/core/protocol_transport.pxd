from cpython.buffer cimport Py_buffer
from sslsock.core.channel cimport Channel
from sslsock.core.consumer cimport ChannelConsumer, channel_failure
from sslsock.core.stream_state cimport ReaderState
from sslsock.core.tls_start cimport TlsStart


cdef class ProtocolTransport(ChannelConsumer):
    # the same names as asyncio's transports have, for those who look
    cdef readonly object _loop  # None once the connection is lost
    cdef readonly object _protocol
    cdef readonly bint _protocol_paused
    cdef readonly bint _closing
    cdef readonly bint _eof
    cdef readonly bint _paused
    cdef object __weakref__

    cdef Channel channel
    cdef TlsStart tls  # None: no TLS
    cdef object shutdown_timer
    cdef object context  # in which the protocol is called
    cdef object waiter  # of whoever awaits the beginning
    cdef dict extra
    cdef Py_ssize_t lost  # how often something was written after the connection was lost
    cdef bint lost_planned
    cdef bint clean  # the peer has said itself that it sends no more
    cdef bint clean_known
    cdef bint inside  # a call of the protocol's is under way in `context`
    cdef bint begun  # connection_made was called, and data may come
    cdef bint connected  # the protocol is to be told the end
    cdef bint buffered  # the protocol is a BufferedProtocol
    cdef ReaderState stream  # of the reader that is fed in the place of the protocol, or None
    cdef bint all_written  # when the program closed, the system had all of it
    cdef bint end_waits  # the peer's end came while reading was paused
    cdef bint held_back  # of a plain connection: its protocol, or whoever awaits it, does not know of it yet
    cdef object empty_waiter  # for sendfile
    cdef object lender  # the protocol whose buffer is lent to the channel
    cdef Py_buffer view  # of that buffer
    cdef bint lent
    cdef size_t high, low  # bytes

    cdef int begin_on(self, loop, Channel channel, protocol, waiter, extra) except -1
    # what those who derive from it say
    cdef str what(self)
    cdef int let_go(self) except -1
    cdef int leave(self) except -1
    cdef bint all_acknowledged(self) noexcept
    cdef object found_below(self, name)
    cpdef write(self, data)
    cdef bint takes_more(self, protocol, reader) except -1
    # beginning, end
    cdef int shake_hands(self, TlsStart tls, waiter) except -1
    cdef int connect(self) except -1
    cdef object failure_of(self, const channel_failure *failure)
    cdef int wake_waiter(self, object exc) except -1
    cdef object ask(self, object protocol, str method, object argument, bint with_argument)
    cdef object tell(self, object protocol, str method, object argument, bint with_argument)
    cdef int fatal(self, object exc, str message) except -1
    cdef int tell_handler(self, object exc, str message) except -1
    cdef int lose(self, object exc) except -1
    cdef int drop_engine(self) except -1
    cdef int deliver(self) except -1
    cdef int take_room(self) except -1
    cdef int readable(self) except -1
    cdef int filled(self, size_t size) except -1
    cdef int room_was_made(self) except -1
    cdef int hands_shaken(self) except -1
    cdef int failed(self, const channel_failure *failure) except -1
    cdef void escape(self, object exc) noexcept
    cdef int peer_ended(self) except -1
    cdef int after_write(self) except -1
    cdef int tell_flow(self, str method) except -1
    cdef int watch_room(self) except -1
    cdef bytes copy_of(self, object data)
    cdef bint may_write(self, bint something) except -1
    cdef int watch_flow(self) except -1
    cdef object found_out(self, name)
