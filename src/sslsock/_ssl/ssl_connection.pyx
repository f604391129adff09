"""`_SSLSocket`: one TLS connection, over a socket or between two `MemoryBIO`. The Python half; the work is done in ssl_io.pyx and ssl_steps.pyx."""

import sys
from _weakref import ref as weak_reference  # what `weakref.ref` is, without the time that the module takes

import _socket

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.limits cimport INT_MAX

cimport system
cimport openssl_ssl as ssl
from openssl_err cimport ERR_LIB_SSL, ERR_clear_error, ERR_peek_last_error
from openssl_x509 cimport ASN1_STRING, ASN1_STRING_get0_data, ASN1_STRING_length
from sslsock._ssl.memory_bio cimport MemoryBIO
from sslsock._ssl.ssl_context cimport _SSLContext
from sslsock._ssl.ssl_error cimport (
    connection_error, eof_error, io_error, library_error, want_read_error, want_write_error, zero_return_error)
from sslsock._ssl.ssl_hooks cimport HookedContext, context_of, on_certificate, on_message, take_raised
from sslsock._ssl.ssl_inspection cimport InspectedConnection
from sslsock._ssl.ssl_io cimport END, HANDSHAKE, READ, WRITE, io_call, operation
from sslsock._ssl.ssl_session cimport KeptSessions, SSLSession
from sslsock._ssl.ssl_steps cimport (
    BAD_RETRY, DONE, ENTERED, INTERRUPTED, OUT_OF_MEMORY, PEER_CLOSED, SYSTEM_FAILED, TIMED_OUT, TLS_FAILED, WANT_READ,
    WANT_WRITE, outcome, tls_failure)
from sslsock.core.new_bytes cimport new_bytes, shortened
from system cimport clock_gettime, pthread_mutex_trylock, pthread_mutex_unlock
from window_bio cimport (
    byte_queue, byte_queue_append, byte_queue_clear, byte_queue_front, byte_queue_join, byte_queue_move, window_bio_new)

from sslsock._ssl.ssl_error import SSLError

cdef extern from "openssl/x509v3.h" nogil:
    ASN1_STRING *a2i_IPADDRESS(const char *text)
    void ASN1_OCTET_STRING_free(ASN1_STRING *address)

cdef extern from "module_compat.h" nogil:
    void raise_openssl_error(int library, int reason)

cdef enum:
    RELEASE_GIL_AT = 65536  # bytes between two MemoryBIO: below, giving the GIL away costs more than the work
    PROTOCOL_TLS_CLIENT = 16
    PROTOCOL_TLS_SERVER = 17

cdef bint BEFORE_310 = sys.version_info < (3, 10)
# These versions take a failed system call below a read or a write for the end of the connection (CPython's gh-115627).
cdef bint FAILURE_IS_END = (3, 10) <= sys.version_info < (3, 11, 9) or (3, 12) <= sys.version_info < (3, 12, 3)

cdef object socket_type = _socket.socket
cdef object timeout_error = _socket.timeout  # TimeoutError from CPython 3.10 on
cdef object descriptor_of = _socket.socket.fileno
cdef object timeout_of = _socket.socket.gettimeout
cdef object NOT_GIVEN = object()


def over_socket(_SSLContext context not None, sock, bint server_side, server_hostname, owner, session):
    """`_SSLContext._wrap_socket`."""
    cdef _SSLSocket made
    if not isinstance(sock, socket_type):
        raise TypeError(f"_wrap_socket() argument 'sock' must be _socket.socket, not {type(sock).__name__}")
    made = _SSLSocket.__new__(_SSLSocket, context, server_side, server_hostname)
    made.socket_reference = weak_reference(sock)
    made.adopt(owner, session)
    return made


def over_memory(_SSLContext context not None, incoming, outgoing, bint server_side, server_hostname, owner, session):
    """`_SSLContext._wrap_bio`. incoming, outgoing: MemoryBIO, or what has its methods, as another module's MemoryBIO has."""
    cdef _SSLSocket made
    for name, given in (("incoming", incoming), ("outgoing", outgoing)):
        if not isinstance(given, MemoryBIO) and not all(hasattr(given, member) for member in ("read", "write", "pending", "eof")):
            raise TypeError(f"_wrap_bio() argument '{name}' must be _ssl.MemoryBIO, not {type(given).__name__}")
    made = _SSLSocket.__new__(_SSLSocket, context, server_side, server_hostname)
    made.incoming = incoming
    made.outgoing = outgoing
    if isinstance(incoming, MemoryBIO):
        made.own_incoming = incoming
    if isinstance(outgoing, MemoryBIO):
        made.own_outgoing = outgoing
    made.adopt(owner, session)
    return made


cdef bytes host_bytes(name):
    """What CPython makes of `server_hostname`: ASCII, for `ssl.py` has encoded it."""
    if not isinstance(name, str):
        raise TypeError(f"argument must be str, not {type(name).__name__}")
    encoded = name.encode("ascii")
    if b"\0" in encoded:
        raise TypeError("argument must be encoded string without null bytes, not str")
    if not encoded or encoded.startswith(b"."):
        # libssl would take a leading dot for "any name below".
        raise ValueError("server_hostname cannot be an empty string or start with a leading dot.")
    return encoded


@cython.final
cdef class _SSLSocket(InspectedConnection):
    """What `ssl.SSLSocket` and `ssl.SSLObject` stand on."""
    def __cinit__(self, _SSLContext context not None, bint server_side, server_hostname):
        cdef bytes name = None
        if not BEFORE_310:  # it leaves this to libssl, at the handshake
            if server_side and context.protocol == PROTOCOL_TLS_CLIENT:
                raise library_error("Cannot create a server socket with a PROTOCOL_TLS_CLIENT context")
            if not server_side and context.protocol == PROTOCOL_TLS_SERVER:
                raise library_error("Cannot create a client socket with a PROTOCOL_TLS_SERVER context")
        if server_hostname is not None:
            name = host_bytes(server_hostname)
        self.hooks = context
        self.is_server = server_side
        ERR_clear_error()
        with cython.critical_section(context):  # no change of it is seen by half
            self.ssl = ssl.SSL_new(context.ctx)
            if self.ssl == NULL:
                raise library_error()
            ssl.SSL_set_app_data(self.ssl, <void *> self)
            self.set_window()
            if context.wants_post_handshake_auth:
                self.allow_post_handshake_auth()
            if name is not None:
                self.set_host(name)
                self.server_hostname = server_hostname
            if server_side and context.own_mark is not None and ssl.SSL_get_verify_mode(self.ssl) != ssl.SSL_VERIFY_NONE:
                # Its tickets are sealed with keys that others have, who may ask nobody: such a session is not for here.
                ssl.SSL_set_session_id_context(
                    self.ssl, <const unsigned char *> <const char *> context.own_mark, <unsigned int> len(context.own_mark))
        if server_side:
            ssl.SSL_set_accept_state(self.ssl)
        else:
            ssl.SSL_set_connect_state(self.ssl)

    cdef int set_window(self) except -1:
        cdef ssl.BIO *bio = window_bio_new(&self.window)
        if bio == NULL:
            raise MemoryError
        ssl.SSL_set_bio(self.ssl, bio, bio)
        self.buffers.ssl = self.ssl
        self.buffers.lock = &self.libssl_lock
        return 0

    cdef int allow_post_handshake_auth(self) except -1:
        cdef int mode = ssl.SSL_get_verify_mode(self.ssl)
        self.verifies_later = True
        if not self.is_server:
            ssl.SSL_set_post_handshake_auth(self.ssl, 1)
        elif mode & ssl.SSL_VERIFY_PEER:
            ssl.SSL_set_verify(self.ssl, mode | ssl.SSL_VERIFY_POST_HANDSHAKE, ssl.SSL_get_verify_callback(self.ssl))
        return 0

    cdef int set_host(self, bytes name) except -1:
        """The name that is asked for (RFC 6066, 3: never an address) and, if the context says so, checked."""
        cdef ssl.X509_VERIFY_PARAM *param = ssl.SSL_get0_param(self.ssl)
        cdef ASN1_STRING *address = a2i_IPADDRESS(name)
        cdef int done = 1
        if address == NULL:
            ERR_clear_error()
            done = ssl.SSL_set_tlsext_host_name(self.ssl, <const char *> name)
        if done == 1 and (<_SSLContext> self.hooks).checks_hostname:
            if address == NULL:
                done = ssl.X509_VERIFY_PARAM_set1_host(param, <const char *> name, len(name))
            else:
                done = ssl.X509_VERIFY_PARAM_set1_ip(param, ASN1_STRING_get0_data(address), ASN1_STRING_length(address))
        if address != NULL:
            ASN1_OCTET_STRING_free(address)
        if done != 1:
            raise library_error()
        return 0

    cdef int adopt(self, owner, session) except -1:
        """After its making, before anybody else has it."""
        if owner is not None:
            self.owner_reference = weak_reference(owner)
        cdef HookedContext context = self.hooks
        cdef KeptSessions sessions
        cdef SSLSession newest
        if session is not None:
            self.session = session
            return 0
        with cython.critical_section(context):
            sessions = context.sessions
        if sessions is not None and self.server_hostname is not None and not self.is_server:
            self.session_name = self.server_hostname
            self.session_store = sessions
            self.keeps_sessions = True
            newest = sessions.take(self.session_name)
            if newest is not None:
                ssl.SSL_set_session(self.ssl, newest.session)
        return 0

    # One call

    cdef outcome on_socket(self, operation what, io_call *call) except? INTERRUPTED:
        """`what`, with the GIL given away, and a look at signals as often as one comes. What it works on stands in `call`."""
        cdef double timeout
        cdef outcome status
        self.see_fork()
        sock = self.socket_reference()
        if sock is None:
            raise library_error("Underlying socket connection gone")
        call.error = 0
        call.begun = False
        call.written = 0
        call.descriptor = descriptor_of(sock)
        given = timeout_of(sock)
        timeout = -1 if given is None else given
        call.timeout = timeout
        if timeout > 0:
            clock_gettime(system.MONOTONIC_CLOCK, &call.until)
            add_seconds(&call.until, timeout)
        while True:
            with nogil:
                status = self.operate(what, call)
            if status != INTERRUPTED:
                return status
            try:
                PyErr_CheckSignals()  # a handler may raise, or close the socket: its number may belong to another file by then
                call.descriptor = descriptor_of(sock)
            except BaseException:
                self.leave_write(call)
                raise

    cdef outcome take_input(self) except? INTERRUPTED:
        """Between two MemoryBIO: all there is becomes ours for a call. Entered."""
        cdef bint kept
        if self.driven:
            raise ValueError("this connection is read and written by its transport")
        if self.own_incoming is not None:
            with cython.critical_section(self.own_incoming):
                self.eof = self.own_incoming.eof_written
                kept = self.input.size == 0
                if kept:
                    byte_queue_move(&self.input, &self.own_incoming.queue)
                    self.framed, self.own_incoming.framed = self.own_incoming.framed, 0
                else:
                    self.own_incoming.framed = 0
                    kept = byte_queue_join(&self.input, &self.own_incoming.queue)
            return DONE if kept else OUT_OF_MEMORY
        kept = self.take_foreign_input()
        return DONE if kept else OUT_OF_MEMORY

    cdef bint take_foreign_input(self) except *:
        """False without memory."""
        data = bytes(memoryview(self.incoming.read()))
        kept = byte_queue_append(&self.input, <const char *> <bytes> data, len(data))
        self.eof = bool(self.incoming.eof)
        return kept

    cdef int give_output(self) except -1:
        """What libssl has made and what it has left unread go to the MemoryBIO. Entered."""
        cdef bint kept = True
        cdef byte_queue later
        if self.own_incoming is not None and self.input.size > 0:
            with cython.critical_section(self.own_incoming):
                byte_queue_move(&later, &self.own_incoming.queue)  # written meanwhile
                byte_queue_move(&self.own_incoming.queue, &self.input)
                self.own_incoming.framed = self.framed
                kept = byte_queue_join(&self.own_incoming.queue, &later)
        elif self.input.size > 0 and not self.eof and ssl.SSL_get_shutdown(self.ssl) & ssl.SSL_RECEIVED_SHUTDOWN:
            # What follows close_notify is not ours; the program looks for it there. Elsewhere it is the beginning of a record.
            self.take_foreign_input()  # written meanwhile
            self.incoming.write(byte_queue_front(&self.input)[:self.input.size])
            byte_queue_clear(&self.input)
            self.framed = 0
        if self.own_outgoing is not None:
            if self.window.spill.size > 0:
                with cython.critical_section(self.own_outgoing):
                    kept = byte_queue_join(&self.own_outgoing.queue, &self.window.spill) and kept
        elif self.window.spill.size > 0:
            data = byte_queue_front(&self.window.spill)[:self.window.spill.size]
            self.outgoing.write(data)  # should it raise, the next call tries again
            byte_queue_clear(&self.window.spill)
        if not kept:
            raise MemoryError
        return 0

    cdef int settle(self, outcome status, io_call *call, str name) except -1:
        """Raise what the outcome means, and what a callback has raised."""
        cdef tls_failure failure
        raised = take_raised(self)
        if status == DONE:
            if raised is not None:
                raise raised
            return 0
        if status == WANT_READ:
            error = want_read_error()
        elif status == WANT_WRITE:
            error = want_write_error()
        elif status == TIMED_OUT:
            error = timeout_error(f"The {'read' if name == 'end' else name} operation timed out")
        elif status == SYSTEM_FAILED:
            if name == "end" and ssl.SSL_get_shutdown(self.ssl) & ssl.SSL_RECEIVED_SHUTDOWN:
                error = zero_return_error()  # libssl says so: the peer has ended, only our close_notify did not reach it
            elif FAILURE_IS_END and name in ("read", "write"):
                error = eof_error()
            else:
                error = system_error(call.error)
        elif status == PEER_CLOSED:
            error = zero_return_error()
        elif status == BAD_RETRY:
            raise_openssl_error(ERR_LIB_SSL, ssl.SSL_R_BAD_LENGTH)
            error = connection_error(ssl.SSL_ERROR_SSL, ERR_peek_last_error(), 0, None)
            ERR_clear_error()
        elif status == ENTERED:
            error = RuntimeError("this connection is in use by the callback that uses it")
        elif status == OUT_OF_MEMORY:
            error = MemoryError()
        else:
            failure = self.last_failure()
            if failure.ssl_error == ssl.SSL_ERROR_SYSCALL and failure.code == 0 and self.socket_reference is None \
                    and name == "handshake" and (FAILURE_IS_END or BEFORE_310):
                error = io_error()  # again, after the end of the input: they have this for it, and for no other call
            else:
                error = connection_error(failure.ssl_error, failure.code, failure.verify_result, self.server_hostname)
        if raised is not None:
            error.__context__ = raised
        raise error

    cdef tls_failure last_failure(self) except *:
        cdef bint entered = self.come_in() == DONE
        cdef tls_failure failure = self.failure
        if entered:
            self.leave()
        return failure

    def do_handshake(self):
        cdef io_call call
        cdef outcome status
        if self.socket_reference is not None:
            status = self.on_socket(HANDSHAKE, &call)
        else:
            status = self.come_in()
            if status == DONE:
                try:
                    status = self.take_input()
                    if status == DONE:
                        with nogil:
                            status = self.handshake_step(NULL, 0)
                    self.give_output()
                finally:
                    self.leave()
        self.settle(status, &call, "handshake")

    def read(self, int size, buffer=NOT_GIVEN, /):
        """Read up to size bytes from the SSL socket: read(size, [buffer])"""
        if buffer is not NOT_GIVEN:
            return self.read_buffer(size, buffer)
        return self.read_bytes(size)

    cdef object read_bytes(self, int size):
        cdef PyObject *whole
        cdef size_t got, most
        if size < 0:
            raise ValueError("size should not be negative")
        if size == 0:
            return b""
        if self.own_incoming is not None and self.settled:
            # No more comes of it, for TLS 1.3 has no compression: a program that asks for much need not get room for it first.
            most = self.most_to_read()
            if most == 0 and self.lacks_input():
                raise want_read_error()
            size = <int> max(<size_t> 1, min(<size_t> size, most))
        whole = new_bytes(NULL, size)
        try:
            got = self.read_into(PyBytes_AS_STRING(<object> whole), size)
        except BaseException:
            Py_DECREF(<object> whole)
            raise
        if got == <size_t> size:
            data = <object> whole
            Py_DECREF(data)
            return data
        return shortened(whole, got)

    cdef size_t most_to_read(self) except? 0xffffffff:
        """Between two MemoryBIO: bytes of plaintext that there can be now."""
        cdef size_t most
        cdef bint entered = self.come_in() == DONE
        with cython.critical_section(self.own_incoming):
            most = self.input.size + self.own_incoming.queue.size + ssl.SSL_pending(self.ssl)
        if entered:
            self.leave()
        return most

    cdef bint lacks_input(self):
        """Between two MemoryBIO: a read could only ask for input, as most programs have it do at the end of each message."""
        cdef bint found
        cdef bint told
        with cython.critical_section(self):
            told = self.raised is not None
        if self.driven or told or self.come_in() != DONE:
            return False
        found = not self.own_incoming.eof_written and not self.failure_kept and not self.end_kept and self.has_nothing()
        self.leave()
        return found

    cdef size_t read_buffer(self, int size, buffer) except? 0xffffffff:
        """size: 0 or less for as much as there is room for."""
        cdef Py_buffer view
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        try:
            if size <= 0 or size > view.len:
                if view.len > INT_MAX:
                    raise OverflowError("maximum length can't fit in a C 'int'")
                size = <int> view.len
            return self.read_into(<char *> view.buf, size)
        finally:
            PyBuffer_Release(&view)

    cdef size_t read_into(self, char *memory, size_t size) except? 0xffffffff:
        cdef io_call call
        cdef outcome status
        cdef size_t got = 0
        if size == 0:
            return 0
        if self.socket_reference is None:
            status = self.read_memory(memory, size, &got)
        else:
            call.memory = memory
            call.size = size
            status = self.on_socket(READ, &call)
            got = call.got
        if status == PEER_CLOSED and ssl.SSL_get_shutdown(self.ssl) == ssl.SSL_RECEIVED_SHUTDOWN:
            status = DONE
        self.settle(status, &call, "read")
        return got

    cdef outcome read_memory(self, char *memory, size_t size, size_t *got) except? INTERRUPTED:
        cdef outcome status = self.come_in()
        if status != DONE:
            return status
        try:
            status = self.take_input()
            if status == DONE:
                if self.input.size < RELEASE_GIL_AT and self.handshake_done:
                    status = self.read_step(NULL, 0, memory, size, got)
                else:
                    with nogil:
                        status = self.read_step(NULL, 0, memory, size, got)
            self.give_output()
        finally:
            self.leave()
        return status

    def write(self, b, /):
        """Writes the bytes-like object b into the SSL object.

        Returns the number of bytes written.
        """
        return self.write_object(b)

    cdef Py_ssize_t write_object(self, data) except -1:
        cdef Py_buffer view
        if type(data) is bytes:
            return self.write_from(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.write_from(<const char *> view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef Py_ssize_t write_from(self, const char *data, Py_ssize_t size) except -1:
        cdef io_call call
        cdef outcome status
        if size > INT_MAX:
            raise OverflowError(f"string longer than {INT_MAX} bytes")
        if self.socket_reference is None:
            status = self.write_memory(data, size)
        else:
            call.memory = <char *> data
            call.size = size
            status = self.on_socket(WRITE, &call)
        self.settle(status, &call, "write")
        return size

    cdef outcome write_memory(self, const char *data, size_t size) except? INTERRUPTED:
        cdef size_t taken
        cdef bint kept
        cdef outcome status = self.come_in()
        if status != DONE:
            return status
        try:
            if not self.settled:  # else a write reads nothing
                status = self.take_input()
            if status == DONE:
                if size < RELEASE_GIL_AT and self.handshake_done and self.own_outgoing is not None and self.window.spill.size == 0:
                    # Behind what is there already, with no copy. Others do not find it gone.
                    with cython.critical_section(self.own_outgoing):
                        byte_queue_clear(&self.window.spill)
                        byte_queue_move(&self.window.spill, &self.own_outgoing.queue)
                        status = self.write_step(data, size, &taken)
                        kept = byte_queue_join(&self.own_outgoing.queue, &self.window.spill)
                    if not kept:
                        raise MemoryError
                elif size < RELEASE_GIL_AT and self.handshake_done:
                    status = self.write_step(data, size, &taken)
                else:
                    with nogil:
                        status = self.write_step(data, size, &taken)
            self.give_output()
        finally:
            self.leave()
        return status

    def pending(self):
        """Returns the number of already decrypted bytes available for read, pending on the connection."""
        cdef size_t count
        cdef bint alone
        cdef outcome status
        self.see_fork()
        alone = pthread_mutex_trylock(&self.reading) == 0  # else somebody reads, and will take what there is
        status = self.come_in()
        if alone and status == DONE:
            count = self.decrypted()
        else:
            count = ssl.SSL_pending(self.ssl)
        if status == DONE:
            self.leave()
        if alone:
            pthread_mutex_unlock(&self.reading)
        return count

    def shutdown(self):
        """Does the SSL shutdown handshake with the remote end."""
        cdef io_call call
        cdef outcome status
        sock = None
        if self.socket_reference is None:
            status = self.end_memory()
        else:
            sock = self.socket_reference()
            if sock is None or descriptor_of(sock) < 0:
                raise library_error("Underlying socket connection gone")
            status = self.on_socket(END, &call)
        self.settle(status, &call, "end")
        if sock is not None and self.input.size > 0:
            raise SSLError(
                f"{self.input.size} bytes that follow the peer's close_notify had been received already: "
                "SSLSOCK_READ_AHEAD=0 keeps them in the socket")
        return sock

    cdef outcome end_memory(self) except? INTERRUPTED:
        cdef int result = 0, sent = 0
        cdef outcome status = self.come_in()
        if status != DONE:
            return status
        try:
            status = self.take_input()
            while status == DONE:
                status = self.shutdown_step(NULL, 0, &result)
                if status != DONE or result == 1:
                    break
                sent += 1
                if sent > 1:
                    break
            self.give_output()
        finally:
            self.leave()
        return status

    def verify_client_post_handshake(self):
        """Initiate TLS 1.3 post-handshake authentication"""
        cdef bint entered = self.come_in() == DONE
        cdef int done = ssl.SSL_verify_client_post_handshake(self.ssl)
        if entered:
            self.leave()
        if done == 0:
            raise library_error()

    def uses_ktls_for_send(self):
        return False

    def uses_ktls_for_recv(self):
        return False

    @property
    def context(self):
        """This changes the context associated with the SSLSocket. This is typically
        used from within a callback function set by the sni_callback
        on the SSLContext to change the certificate information associated with the
        SSLSocket before the cryptographic exchange handshake messages
        """
        return context_of(self)

    @context.setter
    def context(self, value):
        cdef _SSLContext context
        cdef bint entered
        if not isinstance(value, _SSLContext):
            raise TypeError("The value must be a SSLContext")
        context = value
        entered = self.come_in() == DONE
        self.moved = self.moved or self.hooks is not context
        with cython.critical_section(self, context):
            self.hooks = context
            ssl.SSL_set_SSL_CTX(self.ssl, context.ctx)
        if self.puts_off and not self.handshake_done:  # it goes with the certificates
            ssl.SSL_set_cert_cb(self.ssl, on_certificate, NULL)
        if context.msg_handler is not None:
            ssl.SSL_set_msg_callback(self.ssl, on_message)
        else:
            ssl.SSL_set_msg_callback(self.ssl, NULL)
        if entered:
            self.leave()

    @property
    def owner(self):
        """The Python-level owner of this object. Passed as "self" in servername callback."""
        with cython.critical_section(self):
            reference = self.owner_reference
        return reference() if reference is not None else None

    @owner.setter
    def owner(self, value):
        reference = weak_reference(value)
        with cython.critical_section(self):
            self.owner_reference = reference


cdef object system_error(int number):
    import os

    return OSError(number, os.strerror(number))


cdef void add_seconds(system.timespec *when, double seconds) noexcept:
    cdef long long whole
    if seconds > 1_000_000_000:
        seconds = 1_000_000_000
    whole = <long long> seconds
    when.tv_sec += whole
    when.tv_nsec += <long> ((seconds - whole) * 1_000_000_000)
    if when.tv_nsec >= 1_000_000_000:
        when.tv_nsec -= 1_000_000_000
        when.tv_sec += 1
