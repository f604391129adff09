"""ForeignEngine: the engine of a connection whose TLS is another library's.

Any context with `wrap_bio` makes an object that reads ciphertext from one `MemoryBIO` and writes it to another: the interpreter's `ssl`,
truststore, utls, rtls. A channel drives it by this engine like one of ours, so that all which holds of connections holds of these too.

The GIL is taken for each call, and nothing else is: what is decrypted goes straight to where the channel wants it, and what is encrypted
comes from where the program's bytes lie. The BIOs keep the largest memory that they have ever needed, for as long as they live, so they
are given a record's worth at a time.

That nothing more can be read without new ciphertext is told by an exception, which costs more than a small record: the interpreter's own
object is asked first what it has left.
"""

import ssl as standard

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from sslsock.core.bare_engine cimport (
    ENGINE_CLOSED, ENGINE_FAILED, ENGINE_OK, ENGINE_WANT_READ, RECORD_SIZE, BareEngine, engine_use)
from window_bio cimport byte_queue_append, byte_queue_clear, byte_queue_consume, byte_queue_front

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)
    void PyErr_SetInterrupt()
    enum:
        PyBUF_READ
        PyBUF_WRITE

cdef enum:
    WANTS_INPUT = -1  # in place of a size

cdef tuple WANTS = (standard.SSLWantReadError, standard.SSLWantWriteError)


@cython.final
cdef class ForeignEngine(BareEngine):
    """tls_object: what the context's `wrap_bio` has made of `incoming` and `outgoing`, with which nothing was done yet."""

    def __cinit__(self, tls_object, incoming, outgoing, bint server_side):
        self.tls_object = self.connection = tls_object
        self.incoming, self.outgoing = incoming, outgoing
        self.server_side = server_side
        if type(tls_object) is standard.SSLObject and type(tls_object._sslobj).__module__ == "_ssl":
            self.connection = tls_object._sslobj  # without a call of Python's between
            self.exact = True

    def __dealloc__(self):
        byte_queue_clear(&self.plain)

    cdef bint is_server(self) noexcept nogil:
        return self.server_side

    cdef void release_buffers(self, bint wanted) noexcept nogil:
        pass  # that is its maker's to say

    cdef long verify_result(self) noexcept nogil:
        return 0  # the exception tells

    cdef size_t lacks(self) noexcept nogil:
        return 0

    cdef object failure(self):
        """The exception that it has raised; what is none of `ssl` or of the system has one of `ssl` about it."""
        error = self.error
        if error is None or isinstance(error, OSError) or not isinstance(error, Exception):
            return "the connection was cut" if error is None else error
        told = standard.SSLError(standard.SSL_ERROR_SSL, f"{type(error).__name__}: {error}")
        told.__cause__ = error
        return told

    cdef int fail_by(self, object exc) noexcept:
        self.failed = True
        self.error = exc
        self.unsent = None
        return ENGINE_FAILED

    # between the windows and the BIOs

    cdef int feed(self) except -1:
        """Give it the next of what has come. False when there is nothing more."""
        cdef size_t size = min(self.window.in_left, <size_t> RECORD_SIZE)
        if size == 0:
            return False
        self.incoming.write(self.offered(self.window.in_, size))
        self.window.in_ += size
        self.window.in_left -= size
        return True

    cdef object offered(self, const char *data, size_t size):
        """Memory to be read from. Whether others keep what they are given nobody knows: they get a copy."""
        return PyMemoryView_FromMemory(<char *> data, size, PyBUF_READ) if self.exact else PyBytes_FromStringAndSize(data, size)

    cdef int collect(self) except -1:
        """Take what it has made."""
        cdef bytes made
        cdef size_t size
        if not self.outgoing.pending:
            return 0
        made = self.outgoing.read()
        size = PyBytes_GET_SIZE(made)
        if self.window.out != NULL and self.window.spill.size == 0 and self.window.out_used + size <= self.window.out_capacity:
            memcpy(self.window.out + self.window.out_used, PyBytes_AS_STRING(made), size)
            self.window.out_used += size
        elif not byte_queue_append(&self.window.spill, PyBytes_AS_STRING(made), size):
            raise MemoryError
        return 0

    # handshake

    cdef int shake(self) noexcept nogil:
        cdef engine_use before
        cdef int status
        if self.failed:
            return ENGINE_FAILED
        before = self.enter_libssl()
        with gil:
            status = self.step()
        status = self.note_step(status)
        if status == ENGINE_OK:
            self.handshake_done = True
        self.leave_libssl(before)
        return status

    cdef int step(self) noexcept:
        cdef int status = ENGINE_OK
        try:
            while self.feed():
                pass
            try:
                self.tls_object.do_handshake()
            except WANTS:
                status = ENGINE_WANT_READ
            self.more = status == ENGINE_OK and self.holds_input()
        except BaseException as exc:
            status = self.fail_by(exc)
        try:
            self.collect()  # an alert, perhaps
        except BaseException as exc:
            status = self.fail_by(exc)
        return status

    # incoming

    cdef bint holds_more(self) noexcept nogil:
        return self.backlog.size > 0 or self.more

    cdef bint holds_input(self) except -1:
        """Whether there may be something to read without new ciphertext."""
        return not self.exact or self.plain.size > 0 or self.incoming.pending > 0 or self.connection.pending() > 0

    cdef int pull(self, char *data, size_t capacity, size_t *got) noexcept nogil:
        cdef engine_use before
        cdef int status
        got[0] = 0
        if self.failed:
            return ENGINE_FAILED
        before = self.enter_libssl()
        with gil:
            try:
                status = self.read_records(data, capacity, got)
            except BaseException as exc:
                status = self.fail_by(exc)
            try:
                if status != ENGINE_FAILED and self.unsent is not None:
                    self.send_again()
                self.collect()
            except BaseException as exc:
                status = self.fail_by(exc)
        self.leave_libssl(before)
        return status

    cdef int read_records(self, char *data, size_t capacity, size_t *got) except -1:
        """As BareEngine.pull."""
        cdef Py_ssize_t size
        self.more = False
        if self.plain.size:
            got[0] = min(self.plain.size, capacity)
            memcpy(data, byte_queue_front(&self.plain), got[0])
            byte_queue_consume(&self.plain, got[0])
        self.feed()
        while got[0] < capacity:
            size = self.read_some(data + got[0], capacity - got[0])
            if size == 0:
                self.peer_closed = True
                return ENGINE_CLOSED
            if size > 0:
                got[0] += size
            if (size == WANTS_INPUT or (self.exact and not self.holds_input())) and not self.feed():
                return ENGINE_WANT_READ
        self.more = self.window.in_left == 0 and self.holds_input()
        return ENGINE_OK

    cdef Py_ssize_t read_some(self, char *data, size_t capacity) except -2:
        """One read: how many bytes, 0 at the peer's close_notify, or WANTS_INPUT."""
        cdef Py_ssize_t size = 0
        view = PyMemoryView_FromMemory(data, capacity, PyBUF_WRITE)
        try:
            size = self.connection.read(capacity, view)
        except WANTS:
            size = WANTS_INPUT
        except standard.SSLZeroReturnError:
            pass
        finally:
            view.release()  # the memory is the channel's
        return size

    # outgoing

    cdef int push(self, const char *data, size_t size) noexcept nogil:
        cdef engine_use before
        cdef int status = ENGINE_OK
        if self.failed:
            return ENGINE_FAILED
        before = self.enter_libssl()
        with gil:
            try:
                self.write_all(data, size)
            except BaseException as exc:
                status = self.fail_by(exc)
        self.leave_libssl(before)
        return status

    cdef int write_all(self, const char *data, size_t size) except -1:
        cdef size_t part
        while size:
            part = min(size, <size_t> RECORD_SIZE)
            if self.unsent is not None or not self.write_piece(data, part):
                if self.unsent is None:
                    self.unsent = []
                self.unsent.append(PyBytes_FromStringAndSize(data, part))
            data += part
            size -= part
        return 0

    cdef bint write_piece(self, const char *data, size_t size) except -1:
        """False: it has to read first (to renegotiate), and is then to be offered the same again."""
        cdef size_t done = 0
        cdef bint takes = True
        while takes and done < size:
            try:
                done += self.connection.write(self.offered(data + done, size - done))
            except WANTS:
                if done:
                    raise  # of one record it takes nothing or all
                takes = False
            finally:
                self.collect()
        return takes

    cdef int send_again(self) except -1:
        cdef list pieces = self.unsent
        cdef bytes piece
        while pieces:
            piece = pieces[0]
            if not self.write_piece(PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece)):
                return 0
            del pieces[0]
        self.unsent = None
        return 0

    cdef int goodbye(self) noexcept nogil:
        if not self.closed and not self.failed and self.handshake_done:
            self.closed = True
            with gil:
                try:
                    self.say_end()
                except Exception:
                    pass  # it wants to hear the peer's, which nobody waits for
                except BaseException:
                    PyErr_SetInterrupt()  # signals are looked at in there: this one shall be met where the program runs
        return ENGINE_OK

    cdef int say_end(self) except -1:
        """close_notify. The object then looks for the peer's, and would take data for a fault: what it may go on to read is laid aside."""
        cdef bytes plain = b"", cipher = b""
        if self.exact:
            cipher = self.incoming.read()
            if self.connection.pending():
                plain = self.connection.read(self.connection.pending())
                if not byte_queue_append(&self.plain, PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain)):
                    raise MemoryError
        try:
            self.tls_object.unwrap()
        finally:
            self.collect()
            if cipher:
                self.incoming.write(cipher)
        return 0

    cdef void refuse(self, int alert) noexcept nogil:
        """There is no call by which others send an alert: both directions end without one."""
        self.failed = True
