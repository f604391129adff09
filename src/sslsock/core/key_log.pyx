"""The key log: the secrets of connections, for programs that decrypt what they have recorded (Wireshark).

One line a secret, as draft-ietf-tls-keylogfile has it. libssl calls back in the middle of a handshake, without the GIL: a file is written
to without it, in one piece, for other threads and processes may write to the same file. What goes wrong is reported as unraisable, and
the handshake goes on.
"""

from cpython.exc cimport PyErr_SetObject, PyErr_WriteUnraisable
from libc.errno cimport errno
from libc.string cimport strlen
from posix.unistd cimport close

cimport cython
from fork_gate cimport fork_gate_pause, fork_gate_resume
from openssl_ssl cimport SSL, SSL_CTX, SSL_CTX_get_app_data, SSL_CTX_set_app_data, SSL_CTX_set_keylog_callback, SSL_get_SSL_CTX

import os
import sys

cdef extern from "raised_rights.h" nogil:
    bint has_raised_rights()

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

    ssize_t writev(int descriptor, const iovec *parts, int count)


cdef const char *LINE_END = "\n"


def key_log_of_environment():
    """The file that SSLKEYLOGFILE names: an absolute path, None where it is not set, or not to be heeded: the interpreter ignores its
    environment (-E, -I), or the process has rights that whoever has started it may not have (secure_getenv(3))."""
    name = os.environ.get("SSLKEYLOGFILE")
    if not name or sys.flags.ignore_environment or has_raised_rights():
        return None
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        return None
    return os.path.abspath(name)


@cython.final
@cython.auto_pickle(False)
cdef class KeyLog:
    """target: a path, whose file is made if it is not there and added to, or callable(str): a line without its end. OSError."""

    def __cinit__(self, target):
        self.place.descriptor = -1
        self.place.log = <PyObject *> self
        self.target = target
        if not callable(target):
            # A pipe that nobody reads must not hold up the event loop: O_NONBLOCK makes both open and write fail.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
            self.place.descriptor = os.open(target, flags, 0o600)

    def __dealloc__(self):
        if self.place.descriptor >= 0:
            close(self.place.descriptor)

    cdef void attach(self, SSL_CTX *context) noexcept:
        """Log the connections of a context, which holds this object as long as they live."""
        SSL_CTX_set_app_data(context, &self.place)
        SSL_CTX_set_keylog_callback(context, on_line)


cdef void on_line(const SSL *connection, const char *line) noexcept nogil:
    cdef log_target *place = <log_target *> SSL_CTX_get_app_data(SSL_get_SSL_CTX(connection))
    cdef iovec[2] parts
    cdef size_t size = strlen(line)
    cdef ssize_t written
    cdef int reason
    cdef int entered = fork_gate_pause()  # a pipe may be full
    if place.descriptor < 0:
        with gil:
            tell(<KeyLog> place.log, line)
        fork_gate_resume(entered)
        return
    parts[0].iov_base, parts[0].iov_len = <void *> line, size
    parts[1].iov_base, parts[1].iov_len = <void *> LINE_END, 1
    written = writev(place.descriptor, parts, 2)
    if written != <ssize_t> size + 1:
        reason = errno if written < 0 else 0
        with gil:
            complain(<KeyLog> place.log, reason)
    fork_gate_resume(entered)


cdef void tell(KeyLog log, const char *line) noexcept:
    try:
        log.target(line.decode("ascii"))
    except BaseException as error:
        report(error, log.target)


cdef void complain(KeyLog log, int reason) noexcept:
    report(OSError(reason, os.strerror(reason) if reason else "a line was cut short", log.target), log.target)


cdef void report(BaseException error, object place) noexcept:
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(place)
