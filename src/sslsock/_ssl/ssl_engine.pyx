"""The engine of a connection that was made by an `ssl.SSLContext` of ours.

`SSLContext.wrap_bio` makes the connection, with the names, callbacks and settings of the context, and an `SSLObject` by which a
program looks at it. A channel drives the same SSL by this engine, and the object's own methods neither read nor write.
"""

cimport cython

cimport openssl_ssl as ssl
from sslsock._ssl.ssl_error cimport connection_error
from shared_value cimport store_int
from sslsock._ssl.ssl_hooks cimport HookedContext, context_of, on_certificate, take_raised
from sslsock._ssl.ssl_inspection cimport InspectedConnection
from sslsock._ssl.ssl_steps cimport DONE
from sslsock.core.bare_engine cimport ENGINE_OK, USE_POOL, BareEngine, load_use


@cython.final
cdef class ContextEngine(BareEngine):
    """connection: `_sslobj` of the SSLObject, on which nothing was called yet. ValueError after that."""

    def __cinit__(self, InspectedConnection connection not None):
        if connection.driven or connection.handshake_done:
            raise ValueError("the connection is in use already")
        self.connection = connection
        self.share_ssl(connection.ssl)
        connection.driven = True

    def __dealloc__(self):
        if self.ssl != NULL:
            ssl.SSL_set_bio(self.ssl, NULL, NULL)  # the window goes; the connection may be looked at for longer
            ssl.SSL_set_cert_cb(self.ssl, NULL, NULL)

    # Other threads may look at the connection: libssl is entered under its lock.

    cdef bint enter_connection(self) noexcept nogil:
        cdef bint entered = self.connection.enter() == DONE
        self.connection.hold_settings()
        return entered

    cdef void leave_connection(self, bint entered) noexcept nogil:
        self.connection.drop_settings()
        if self.connection.raised is not None:
            self.unsettled = True
        if entered:
            self.connection.leave()

    cdef int shake_step(self) noexcept nogil:
        cdef bint entered = self.enter_connection()
        cdef int status
        self.connection.in_pool = load_use(self.use) == USE_POOL
        status = BareEngine.shake_step(self)
        if status == ENGINE_OK:
            store_int(self.connection.handshake_done, True)
        self.leave_connection(entered)
        return status

    cdef bint put_off(self) noexcept:
        if not BareEngine.put_off(self):
            return False
        ssl.SSL_set_cert_cb(self.ssl, on_certificate, NULL)
        self.connection.puts_off = True
        return True

    cdef bint can_put_off(self) noexcept:
        """A server name's callback is called before; those for messages and pre-shared keys would be in the midst of it."""
        cdef HookedContext context = context_of(self.connection)
        return context.msg_handler is None and context.psk_server_handler is None

    cdef int pull(self, char *data, size_t capacity, size_t *got) noexcept nogil:
        cdef bint entered = self.enter_connection()
        cdef int status = BareEngine.pull(self, data, capacity, got)
        self.leave_connection(entered)
        return status

    cdef int push(self, const char *data, size_t size) noexcept nogil:
        cdef bint entered = self.enter_connection()
        cdef int status = BareEngine.push(self, data, size)
        self.leave_connection(entered)
        return status

    cdef int goodbye(self) noexcept nogil:
        cdef bint entered = self.enter_connection()
        cdef int status = BareEngine.goodbye(self)
        self.leave_connection(entered)
        return status

    cdef list settle(self):
        """Raise what a callback has raised."""
        raised = take_raised(self.connection)
        if raised is not None:
            raise raised
        return None

    cdef object failure(self):
        """The exception that `ssl` raises for it."""
        raised = take_raised(self.connection)
        error = connection_error(
            ssl.SSL_ERROR_SSL, self.error_code, ssl.SSL_get_verify_result(self.ssl), self.connection.server_hostname)
        if raised is not None:
            error.__context__ = raised
        return error
