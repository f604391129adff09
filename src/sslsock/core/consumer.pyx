"""Whom a channel tells what happens: its consumer.

One in Python has the methods of `_ChannelConsumer` (channel.pyi). One in C derives from `ChannelConsumer` and is called without
Python. Both are called on the loop's thread, after the channel's state is settled, and may do anything.
"""

from sslsock.core.link cimport TLS_FAILED, Link


cdef class ChannelConsumer:
    """A consumer in C. No exception comes out of its methods: it says itself what becomes of one."""

    cdef void _on_readable(self) noexcept:
        """There is plaintext to read. What is left unread is kept."""

    cdef char *on_room(self, size_t *room) noexcept:
        """For one that lends memory (`Channel.lend_room`), before something is received: where to put it, `room` bytes, to be left in
        place until `on_filled`. NULL: it has ended the channel, or lends none any more."""
        return NULL

    cdef void on_filled(self, size_t size) noexcept:
        """After each `on_room` that gave memory: how much has been put there, which may be nothing."""

    cdef void _on_written(self, size_t count) noexcept:
        """The system has taken `count` bytes of plaintext, if `notify_written`."""

    cdef void _on_encrypted(self) noexcept:
        """The TLS handshake is done."""

    cdef void _on_session(self, object session) noexcept:
        """A session has come, if `notify_sessions`: what the engine's `settle` has returned."""

    cdef void _on_certificate(self) noexcept:
        """A client has answered the request for its certificate (`Channel.request_certificate`)."""

    cdef void _on_peer_closed(self, bint clean) noexcept:
        """The peer has sent its last byte; over TLS `clean` says that it said so itself."""

    cdef void on_output_ended(self) noexcept:
        """After `end_output`: all has been handed to the system, and the end of it."""

    cdef void _on_drained(self) noexcept:
        """After `finish`: all has been handed to the system. The last call; the channel lingers alone."""

    cdef void _on_failed(self, const channel_failure *failure) noexcept:
        """The channel has failed, and is closed. The last call."""


cdef class ReportingLink(Link):
    """A link with a consumer: base of OutputLink."""

    cdef void report_to(self, object consumer) noexcept:
        self.consumer = consumer
        self.in_c = isinstance(consumer, ChannelConsumer)

    cdef void tell_readable(self, object consumer) noexcept:
        if self.in_c:
            (<ChannelConsumer> consumer)._on_readable()
            return
        try:
            consumer._on_readable()
        except BaseException as exc:
            self.loop.report_call(consumer, "_on_readable", exc)

    cdef void tell_written(self, object consumer, size_t count) noexcept:
        if self.in_c:
            (<ChannelConsumer> consumer)._on_written(count)
            return
        try:
            consumer._on_written(count)
        except BaseException as exc:
            self.loop.report_call(consumer, "_on_written", exc)

    cdef void tell_encrypted(self, object consumer) noexcept:
        if self.in_c:
            (<ChannelConsumer> consumer)._on_encrypted()
        else:
            self.tell(consumer, "_on_encrypted", ())

    cdef void tell_session(self, object consumer, object session) noexcept:
        if self.in_c:
            (<ChannelConsumer> consumer)._on_session(session)
        else:
            self.tell(consumer, "_on_session", (session,))

    cdef void tell_certificate(self, object consumer) noexcept:
        if self.in_c:
            (<ChannelConsumer> consumer)._on_certificate()
        else:
            self.tell(consumer, "_on_certificate", ())

    cdef void tell_peer_closed(self, object consumer, bint clean) noexcept:
        if self.in_c:
            (<ChannelConsumer> consumer)._on_peer_closed(clean)
        else:
            self.tell(consumer, "_on_peer_closed", (clean,))

    cdef void tell_output_ended(self, object consumer) noexcept:
        if self.in_c:
            (<ChannelConsumer> consumer).on_output_ended()
        else:
            self.tell(consumer, "on_output_ended", ())

    cdef void tell_drained(self, object consumer) noexcept:
        if self.in_c:
            (<ChannelConsumer> consumer)._on_drained()
        else:
            self.tell(consumer, "_on_drained", ())

    cdef void tell_failed(self, object consumer, channel_failure_kind kind, str message) noexcept:
        """message: None where it is not asked for (`in_c`)."""
        cdef channel_failure failure
        if self.in_c:
            failure.kind, failure.number, failure.sending = kind, self.failure.number, self.failure.sending
            failure.code = failure.verify_result = 0
            if self.engine is not None and self.failure.kind == TLS_FAILED:
                failure.code = self.engine.error_code
                failure.verify_result = self.engine.verify_result()
            (<ChannelConsumer> consumer)._on_failed(&failure)
        else:
            self.tell(consumer, "_on_failed", (<int> kind, message))

    cdef void tell(self, object consumer, str method, tuple args) noexcept:
        """Call a method of Python."""
        try:
            getattr(consumer, method)(*args)
        except BaseException as exc:
            self.loop.report_call(consumer, method, exc)
