"""The exceptions of `ssl`, and the one place that makes them.

The classes are the interpreter's own wherever it has them, so that `except ssl.SSLError` catches ours. An exception has
`args = (number, text)`, where the number is one of `ssl.SSLErrorNumber` or OpenSSL's reason, and `library` and `reason`, None where
OpenSSL names none. Reasons are the names of OpenSSL's macros, since its texts change: 3.2 has put "ssl/tls alert" in place of
"sslv3 alert".
"""

cimport openssl_ssl as ssl
from openssl_err cimport *

import os


ctypedef const error_name *names


cdef extern from *:
    """
    /* Numbers of CPython, beside those of ssl.h that it uses as they are. */
    enum { SSL_ERROR_EOF_SEEN = 8, SSL_ERROR_INVALID_CODE = 10 };
    """
    int SSL_ERROR_EOF_SEEN, SSL_ERROR_INVALID_CODE


cdef extern from "openssl/ssl.h":
    int SSL_ERROR_SSL, SSL_ERROR_SYSCALL, SSL_ERROR_WANT_CONNECT, SSL_ERROR_WANT_WRITE, SSL_ERROR_WANT_X509_LOOKUP


try:
    from _ssl import (
        SSLCertVerificationError, SSLEOFError, SSLError, SSLSyscallError, SSLWantReadError, SSLWantWriteError, SSLZeroReturnError)
except ImportError:  # an interpreter that was built without

    class SSLError(OSError):
        """An error occurred in the SSL implementation."""

        __module__ = "ssl"

        def __str__(self):
            return self.strerror if isinstance(self.strerror, str) else str(self.args)

    class SSLCertVerificationError(SSLError, ValueError):
        """A certificate could not be verified."""

        __module__ = "ssl"

    class SSLZeroReturnError(SSLError):
        """SSL/TLS session closed cleanly."""

        __module__ = "ssl"

    class SSLWantReadError(SSLError):
        """Non-blocking SSL socket needs to read more data
        before the requested operation can be completed."""

        __module__ = "ssl"

    class SSLWantWriteError(SSLError):
        """Non-blocking SSL socket needs to write more data
        before the requested operation can be completed."""

        __module__ = "ssl"

    class SSLSyscallError(SSLError):
        """System error when attempting SSL operation."""

        __module__ = "ssl"

    class SSLEOFError(SSLError):
        """SSL/TLS connection terminated abruptly."""

        __module__ = "ssl"


# Globals of C: what is raised does not change with the module's attributes, and is found without a look-up.
cdef object Error = SSLError
cdef object CertVerificationError = SSLCertVerificationError
cdef object EOFError_ = SSLEOFError
cdef object WantReadError = SSLWantReadError
cdef object WantWriteError = SSLWantWriteError
cdef object ZeroReturnError = SSLZeroReturnError

cdef tuple WANT_READ = (ssl.SSL_ERROR_WANT_READ, "The operation did not complete (read) (sslsock)")
cdef tuple WANT_WRITE = (SSL_ERROR_WANT_WRITE, "The operation did not complete (write) (sslsock)")
cdef tuple IO_FAILED = (SSL_ERROR_SYSCALL, "Some I/O error occurred (sslsock)")
cdef tuple ZERO_RETURN = (ssl.SSL_ERROR_ZERO_RETURN, "TLS/SSL connection has been closed (EOF) (sslsock)")
cdef tuple EOF_SEEN = (SSL_ERROR_EOF_SEEN, "EOF occurred in violation of protocol (sslsock)")


# ---- names -------------------------------------------------------------------------------------------------


cdef object name_of(names table, int size, int library, int reason):
    """The name in a table that is sorted by both numbers, or None."""
    cdef int low = 0, high = size, middle
    cdef names at
    while low < high:
        middle = (low + high) // 2
        at = &table[middle]
        if at.library == library and at.reason == reason:
            return at.name.decode("ascii")
        if at.library < library or (at.library == library and at.reason < reason):
            low = middle + 1
        else:
            high = middle
    return None


def error_tables():
    """The dictionaries that CPython's `_ssl` has up to 3.11, as a tuple: (library, reason) → name of the reason, the other way
    round, and library → its name.
    """
    cdef int index
    codes = {
        (reason_names[index].library, reason_names[index].reason): reason_names[index].name.decode("ascii")
        for index in range(REASON_NAMES)
    }
    libraries = {library_names[index].library: library_names[index].name.decode("ascii") for index in range(LIBRARY_NAMES)}
    return codes, {name: code for code, name in codes.items()}, libraries


# ---- exceptions --------------------------------------------------------------------------------------------


cdef object plain(kind, tuple args):
    error = kind(*args)
    error.library = error.reason = None
    return error


cdef object described(kind, int number, unsigned long code, str text, str more=None):
    """An exception about OpenSSL's error `code`, 0: none, with its text in place of OpenSSL's where one is given."""
    cdef const char *words
    library = reason = None
    if code:
        library = name_of(library_names, LIBRARY_NAMES, ERR_GET_LIB(code), 0)
        reason = name_of(reason_names, REASON_NAMES, ERR_GET_LIB(code), ERR_GET_REASON(code))
        if text is None:
            words = ERR_reason_error_string(code)
            text = words.decode("utf-8", "replace") if words != NULL else f"unknown error (0x{code:x})"
    if text is None:
        text = "unknown error"
    if library is not None and reason is not None:
        text = f"[{library}: {reason}] {text}"
        if more is not None:
            text = f"{text}: {more}"
    elif library is not None:
        text = f"[{library}] {text}"
    error = kind(number, f"{text} (sslsock)")
    error.library = library
    error.reason = reason
    return error


cdef object library_error(str text=None):
    """What the thread's error queue tells, which is emptied, or `text`: an `SSLError` to raise."""
    cdef unsigned long code = ERR_peek_last_error() if text is None else 0
    try:
        return described(Error, ERR_GET_REASON(code), code, text)
    finally:
        ERR_clear_error()


cdef object verification_error(int number, unsigned long code, long verify_result, str server_hostname, str text):
    if verify_result == ssl.X509_V_ERR_HOSTNAME_MISMATCH:
        message = f"Hostname mismatch, certificate is not valid for '{server_hostname}'."
    elif verify_result == ssl.X509_V_ERR_IP_ADDRESS_MISMATCH:
        message = f"IP address mismatch, certificate is not valid for '{server_hostname}'."
    else:
        message = ssl.X509_verify_cert_error_string(verify_result).decode("utf-8", "replace")
    error = described(CertVerificationError, number, code, text, message)
    error.verify_code = verify_result
    error.verify_message = message
    return error


cdef object connection_error(int ssl_error, unsigned long code, long verify_result, str server_hostname, str text=None):
    """Why an operation of a connection failed: an exception to raise. The thread's error queue is emptied.

    ssl_error: of SSL_get_error(3). code: the last of the error queue, 0 where it was empty. verify_result: of
    SSL_get_verify_result(3). text: in place of OpenSSL's. A system call that failed is the caller's to tell: with no `code` it is an
    unexpected end here.
    """
    ERR_clear_error()
    if ssl_error == ssl.SSL_ERROR_WANT_READ:
        return want_read_error()
    if ssl_error == SSL_ERROR_WANT_WRITE:
        return want_write_error()
    if ssl_error == ssl.SSL_ERROR_ZERO_RETURN:
        return zero_return_error()
    if ssl_error == SSL_ERROR_WANT_X509_LOOKUP:
        return described(Error, ssl_error, code, "The operation did not complete (X509 lookup)")
    if ssl_error == SSL_ERROR_WANT_CONNECT:
        return described(Error, ssl_error, code, "The operation did not complete (connect)")
    if ssl_error != SSL_ERROR_SSL and ssl_error != SSL_ERROR_SYSCALL:
        return described(Error, SSL_ERROR_INVALID_CODE, code, text or "Invalid error code")
    if code == 0 and ssl_error == SSL_ERROR_SYSCALL:
        return eof_error()
    if code == 0:
        return described(Error, ssl_error, 0, text or "A failure in the SSL library occurred")
    if ERR_GET_LIB(code) == ERR_LIB_SYS:  # the reason is errno: ERR_GET_LIB(3)
        return OSError(ERR_GET_REASON(code), os.strerror(ERR_GET_REASON(code)))
    if ERR_GET_LIB(code) == ERR_LIB_SSL:
        if ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED:
            return verification_error(ssl_error, code, verify_result, server_hostname, text)
        # OpenSSL 3.0 tells so what was SSL_ERROR_SYSCALL before: SSL_get_error(3), BUGS.
        if ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING:
            return described(EOFError_, SSL_ERROR_EOF_SEEN, code, "EOF occurred in violation of protocol")
    return described(Error, ssl_error, code, text)


cdef object want_read_error():
    return plain(WantReadError, WANT_READ)


cdef object want_write_error():
    return plain(WantWriteError, WANT_WRITE)


cdef object zero_return_error():
    return plain(ZeroReturnError, ZERO_RETURN)


cdef object eof_error():
    return plain(EOFError_, EOF_SEEN)


cdef object io_error():
    return plain(SSLSyscallError, IO_FAILED)
