"""The interface of CPython's private module `_ssl`, on this package's OpenSSL: what `sslsock.ssl` is made from.

Every name that a supported interpreter's `ssl` takes from its own is here on all of them, but for those that say by being there
what an interpreter's version is.
"""

import sys

import sslsock.core  # noqa: F401  which the import system finds the compiled modules by
from sslsock._ssl import ssl_error, ssl_values
from sslsock._ssl.memory_bio import MemoryBIO
from sslsock._ssl.ssl_attributes import forbid_deletion
from sslsock._ssl.ssl_certificate import Certificate
from sslsock._ssl.ssl_connection import _SSLSocket
from sslsock._ssl.ssl_context import _SSLContext
from sslsock._ssl.ssl_error import (
    SSLCertVerificationError,
    SSLEOFError,
    SSLError,
    SSLSyscallError,
    SSLWantReadError,
    SSLWantWriteError,
    SSLZeroReturnError,
)
from sslsock._ssl.ssl_session import SSLSession
from sslsock._ssl.ssl_values import (
    RAND_add,
    RAND_bytes,
    RAND_status,
    _test_decode_cert,
    get_default_verify_paths,
    get_sigalgs,
    nid2obj,
    txt2obj,
)

__all__ = [
    "Certificate",
    "MemoryBIO",
    "RAND_add",
    "RAND_bytes",
    "RAND_status",
    "SSLCertVerificationError",
    "SSLEOFError",
    "SSLError",
    "SSLSession",
    "SSLSyscallError",
    "SSLWantReadError",
    "SSLWantWriteError",
    "SSLZeroReturnError",
    "_SSLContext",
    "_SSLSocket",
    "_test_decode_cert",
    "get_default_verify_paths",
    "get_sigalgs",
    "nid2obj",
    "txt2obj",
]

__all__ += list(ssl_values.constants)
globals().update(ssl_values.constants)

for _kind in (Certificate, MemoryBIO, SSLSession, _SSLContext, _SSLSocket):
    forbid_deletion(_kind)
del _kind, forbid_deletion

if sys.version_info < (3, 12):
    from sslsock._ssl.ssl_values import RAND_pseudo_bytes

    __all__ += ["RAND_pseudo_bytes"]

    def __getattr__(name: str) -> object:
        """The tables of error codes, which few ask for, are made for the first who does."""
        names = ("err_codes_to_names", "err_names_to_codes", "lib_codes_to_names")
        if name not in names:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals().update(zip(names, ssl_error.error_tables()))
        return globals()[name]
