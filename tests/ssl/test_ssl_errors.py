"""The exceptions of `sslsock._ssl`: the interpreter's own classes, and what each tells, beside what the interpreter's tells."""

import _ssl
import ctypes
import errno
import os
import pickle
import subprocess
import sys
import traceback

import pytest

from sslsock import _ssl as ours
from sslsock._ssl import ssl_error
from sslsock.core.context import Context

SSL, SYS, X509, PEM = 20, 2, 11, 9  # ERR_LIB_... of openssl/err.h
VERIFY_FAILED, UNEXPECTED_EOF, WRONG_VERSION = 134, 294, 267  # SSL_R_... of openssl/sslerr.h
WRONG_VERSION_TEXT = "[SSL: WRONG_VERSION_NUMBER] wrong version number"
HOSTNAME_MISMATCH, ADDRESS_MISMATCH, SELF_SIGNED = 62, 64, 18  # X509_V_ERR_... of openssl/x509_vfy.h
Context(server_side=False, use_system_ca=False)  # libssl has its texts from the first context on

CLASSES = (
    "SSLError",
    "SSLCertVerificationError",
    "SSLZeroReturnError",
    "SSLWantReadError",
    "SSLWantWriteError",
    "SSLSyscallError",
    "SSLEOFError",
)


def c_function(name, *arguments):
    """One of ssl_error.pxd, as the other compiled modules call it. All have one argument more, which is left out."""
    capsule = ssl_error.__pyx_capi__[name]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, *arguments)
    return kind(get_pointer(capsule, get_name(capsule)))


def connection_error(ssl_error_number, code=0, verify_result=0, hostname=None):
    made = c_function("connection_error", ctypes.c_int, ctypes.c_ulong, ctypes.c_long, ctypes.py_object, ctypes.c_void_p)
    return made(ssl_error_number, code, verify_result, hostname, None)


def packed(library, reason):
    """A code of the error queue: ERR_PACK of openssl/err.h."""
    return library << 23 | reason


def told(error):
    return type(error), error.args, error.library, error.reason


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_are_the_interpreters(name):
    assert getattr(ours, name) is getattr(_ssl, name)


@pytest.mark.parametrize(
    ("made", "kind", "number", "text"),
    [
        ("want_read_error", "SSLWantReadError", ours.SSL_ERROR_WANT_READ, "The operation did not complete (read)"),
        ("want_write_error", "SSLWantWriteError", ours.SSL_ERROR_WANT_WRITE, "The operation did not complete (write)"),
        ("zero_return_error", "SSLZeroReturnError", ours.SSL_ERROR_ZERO_RETURN, "TLS/SSL connection has been closed (EOF)"),
        ("eof_error", "SSLEOFError", ours.SSL_ERROR_EOF, "EOF occurred in violation of protocol"),
    ],
)
def test_what_an_unfinished_operation_raises(made, kind, number, text):
    make = c_function(made)
    error = make()
    assert told(error) == (getattr(_ssl, kind), (number, f"{text} (sslsock)"), None, None)
    assert str(error) == f"{text} (sslsock)"
    assert make() is not error, "an exception that is raised twice keeps the traceback and the context of the first time"
    if made != "eof_error":
        assert told(connection_error(number)) == told(error)


def test_an_exception_is_made_anew_each_time_it_is_raised():
    make = c_function("want_read_error")

    def raised():
        try:
            raise make()
        except ours.SSLWantReadError as error:
            return len(traceback.extract_tb(error.__traceback__))

    assert [raised() for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("number", "code", "kind", "told_number", "library", "reason", "text"),
    [
        (
            1,
            packed(SSL, WRONG_VERSION),
            "SSLError",
            1,
            "SSL",
            "WRONG_VERSION_NUMBER",
            WRONG_VERSION_TEXT,
        ),
        (1, packed(PEM, 108), "SSLError", 1, "PEM", "NO_START_LINE", "[PEM: NO_START_LINE] no start line"),
        (
            5,
            packed(SSL, WRONG_VERSION),
            "SSLError",
            5,
            "SSL",
            "WRONG_VERSION_NUMBER",
            WRONG_VERSION_TEXT,
        ),
        (
            *(1, packed(SSL, UNEXPECTED_EOF), "SSLEOFError", 8, "SSL", "UNEXPECTED_EOF_WHILE_READING"),
            "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol",
        ),
        (5, 0, "SSLEOFError", 8, None, None, "EOF occurred in violation of protocol"),
        (1, 0, "SSLError", 1, None, None, "A failure in the SSL library occurred"),
        (4, 0, "SSLError", 4, None, None, "The operation did not complete (X509 lookup)"),
        (7, 0, "SSLError", 7, None, None, "The operation did not complete (connect)"),
        (99, 0, "SSLError", 10, None, None, "Invalid error code"),
        # A library of OpenSSL, but no reason of it; and no library of it either.
        (1, packed(X509, 9999), "SSLError", 1, "X509", None, "[X509] unknown error (0x580270f)"),
        (1, packed(200, 9999), "SSLError", 1, None, None, "unknown error (0x6400270f)"),
    ],
)
def test_what_a_failed_operation_raises(number, code, kind, told_number, library, reason, text):
    error = connection_error(number, code)
    assert told(error) == (getattr(_ssl, kind), (told_number, f"{text} (sslsock)"), library, reason)


def test_a_failed_system_call_in_openssls_queue_is_an_oserror():
    system = 0x80000000  # ERR_SYSTEM_FLAG of openssl/err.h: the rest is errno
    error = connection_error(ours.SSL_ERROR_SSL, system | errno.ECONNRESET)
    assert (type(error), error.errno, error.strerror) == (ConnectionResetError, errno.ECONNRESET, os.strerror(errno.ECONNRESET))


@pytest.mark.parametrize(
    ("result", "hostname", "message"),
    [
        (HOSTNAME_MISMATCH, "example.com", "Hostname mismatch, certificate is not valid for 'example.com'."),
        (ADDRESS_MISMATCH, "::1", "IP address mismatch, certificate is not valid for '::1'."),
        (SELF_SIGNED, "example.com", "self-signed certificate"),
        (SELF_SIGNED, None, "self-signed certificate"),
    ],
)
@pytest.mark.parametrize("number", [1, 5])
def test_what_a_certificate_that_is_refused_raises(number, result, hostname, message):
    error = connection_error(number, packed(SSL, VERIFY_FAILED), result, hostname)
    text = f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {message} (sslsock)"
    assert told(error) == (_ssl.SSLCertVerificationError, (number, text), "SSL", "CERTIFICATE_VERIFY_FAILED")
    assert (error.verify_code, error.verify_message, str(error)) == (result, message, text)
    assert isinstance(error, ValueError), "ssl.CertificateError has been a ValueError"


def test_an_exception_with_a_text_of_its_own():
    error = c_function("library_error", ctypes.c_void_p)(None)  # with nothing in the queue
    assert told(error) == (_ssl.SSLError, (0, "unknown error (sslsock)"), None, None)


def test_reasons_are_named_as_in_openssls_headers():
    codes, names, libraries = ssl_error.error_tables()
    assert (libraries[SSL], libraries[SYS], libraries[X509], libraries[PEM]) == ("SSL", "SYS", "X509", "PEM")
    assert codes[SSL, VERIFY_FAILED] == "CERTIFICATE_VERIFY_FAILED"
    assert names["CERTIFICATE_VERIFY_FAILED"] == (SSL, VERIFY_FAILED)
    assert set(names) == set(codes.values())
    assert {library for library, _ in codes} <= set(libraries)
    # OpenSSL 3.0 has some 1,600 in its headers, the wheels' own 1,446: it lacks CMS, CT and more.
    assert len(codes) > 1400, f"{len(codes)} reasons were found when this was built"


def test_every_reason_is_found_by_its_code():
    """The names are looked up in a sorted table, and each end of it counts."""
    codes, _, libraries = ssl_error.error_tables()
    for (library, reason), name in codes.items():
        if (library, reason) in {(SSL, VERIFY_FAILED), (SSL, UNEXPECTED_EOF)}:
            continue  # exceptions of their own
        error = connection_error(ours.SSL_ERROR_SSL, packed(library, reason))
        assert (error.library, error.reason) == (libraries[library], name)


if sys.version_info < (3, 12):  # CPython tells its tables until then

    def test_our_names_are_the_interpreters():
        codes, _, libraries = ssl_error.error_tables()
        others = {
            code: (name, _ssl.err_codes_to_names[code]) for code, name in codes.items() if code in _ssl.err_codes_to_names
        }
        assert len(others) > 1300, "the two tables have little in common"
        # A newer OpenSSL gives a few names and numbers anew: 3.5 four of them, 4.0 what was called after SSL 3.
        most = 0 if ours.OPENSSL_VERSION_INFO[:2] == _ssl.OPENSSL_VERSION_INFO[:2] else 30
        assert sum(name != theirs for name, theirs in others.values()) <= most, others
        assert {number: name for number, name in libraries.items() if _ssl.lib_codes_to_names.get(number, name) != name} == {}

    def test_the_tables_are_there_for_who_asks():
        assert (ours.err_codes_to_names, ours.err_names_to_codes, ours.lib_codes_to_names) == ssl_error.error_tables()
        assert ours.err_codes_to_names is ours.err_codes_to_names

    def test_no_other_name_is_there():
        with pytest.raises(AttributeError, match=r"module 'sslsock\._ssl' has no attribute 'err_codes'"):
            _ = ours.err_codes


# An interpreter whose _ssl cannot be imported.
WITHOUT = """
import sys
sys.modules["_ssl"] = None
from sslsock._ssl import ssl_error as e
sys.modules["_ssl"] = e
sys.modules["ssl"] = e  # what the classes say of their module
import pickle
names = [
    "SSLError", "SSLCertVerificationError", "SSLZeroReturnError", "SSLWantReadError", "SSLWantWriteError", "SSLSyscallError",
    "SSLEOFError",
]
for name in names:
    kind = getattr(e, name)
    one = kind(1, "words")
    assert pickle.loads(pickle.dumps(one)).args == (1, "words")
    print(name, kind.__module__, kind.__qualname__, [b.__name__ for b in kind.__mro__], " ".join(kind.__doc__.split()), sep="|")
    texts = [str(one), str(kind("words")), str(kind(1, 2)), str(kind(1, "words", "file")), str(kind()), repr(one)]
    print(*texts, one.errno, one.strerror)
"""


def test_an_interpreter_without_ssl_gets_classes_like_the_stdlibs():
    made = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    wanted = []
    for name in CLASSES:
        kind = getattr(_ssl, name)
        bases = [base.__name__ for base in kind.__mro__]
        wanted.append("|".join([name, kind.__module__, kind.__qualname__, str(bases), " ".join(kind.__doc__.split())]))
        one = kind(1, "words")
        texts = [str(one), str(kind("words")), str(kind(1, 2)), str(kind(1, "words", "file")), str(kind()), repr(one)]
        wanted.append(" ".join([*texts, str(one.errno), str(one.strerror)]))
    assert made.stdout.splitlines() == wanted


def test_exceptions_can_be_pickled():
    error = connection_error(ours.SSL_ERROR_SSL, packed(SSL, VERIFY_FAILED), HOSTNAME_MISMATCH, "example.com")
    again = pickle.loads(pickle.dumps(error))
    assert (told(again), again.verify_message) == (told(error), error.verify_message)
