# ruff: noqa: I001
"""The interface of the standard library's `ssl`, with what the newest has on every interpreter, and `install`.

What contexts hand out is derived from the interpreter's own classes, and so it is declared; `isinstance` with the classes that
stand here holds for the interpreter's own sockets and objects too.
"""

import socket
import ssl
import sys
from collections.abc import Callable
from os import PathLike
from ssl import (
    ALERT_DESCRIPTION_ACCESS_DENIED as ALERT_DESCRIPTION_ACCESS_DENIED,
    ALERT_DESCRIPTION_BAD_CERTIFICATE as ALERT_DESCRIPTION_BAD_CERTIFICATE,
    ALERT_DESCRIPTION_BAD_CERTIFICATE_HASH_VALUE as ALERT_DESCRIPTION_BAD_CERTIFICATE_HASH_VALUE,
    ALERT_DESCRIPTION_BAD_CERTIFICATE_STATUS_RESPONSE as ALERT_DESCRIPTION_BAD_CERTIFICATE_STATUS_RESPONSE,
    ALERT_DESCRIPTION_BAD_RECORD_MAC as ALERT_DESCRIPTION_BAD_RECORD_MAC,
    ALERT_DESCRIPTION_CERTIFICATE_EXPIRED as ALERT_DESCRIPTION_CERTIFICATE_EXPIRED,
    ALERT_DESCRIPTION_CERTIFICATE_REVOKED as ALERT_DESCRIPTION_CERTIFICATE_REVOKED,
    ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN as ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN,
    ALERT_DESCRIPTION_CERTIFICATE_UNOBTAINABLE as ALERT_DESCRIPTION_CERTIFICATE_UNOBTAINABLE,
    ALERT_DESCRIPTION_CLOSE_NOTIFY as ALERT_DESCRIPTION_CLOSE_NOTIFY,
    ALERT_DESCRIPTION_DECODE_ERROR as ALERT_DESCRIPTION_DECODE_ERROR,
    ALERT_DESCRIPTION_DECOMPRESSION_FAILURE as ALERT_DESCRIPTION_DECOMPRESSION_FAILURE,
    ALERT_DESCRIPTION_DECRYPT_ERROR as ALERT_DESCRIPTION_DECRYPT_ERROR,
    ALERT_DESCRIPTION_HANDSHAKE_FAILURE as ALERT_DESCRIPTION_HANDSHAKE_FAILURE,
    ALERT_DESCRIPTION_ILLEGAL_PARAMETER as ALERT_DESCRIPTION_ILLEGAL_PARAMETER,
    ALERT_DESCRIPTION_INSUFFICIENT_SECURITY as ALERT_DESCRIPTION_INSUFFICIENT_SECURITY,
    ALERT_DESCRIPTION_INTERNAL_ERROR as ALERT_DESCRIPTION_INTERNAL_ERROR,
    ALERT_DESCRIPTION_NO_RENEGOTIATION as ALERT_DESCRIPTION_NO_RENEGOTIATION,
    ALERT_DESCRIPTION_PROTOCOL_VERSION as ALERT_DESCRIPTION_PROTOCOL_VERSION,
    ALERT_DESCRIPTION_RECORD_OVERFLOW as ALERT_DESCRIPTION_RECORD_OVERFLOW,
    ALERT_DESCRIPTION_UNEXPECTED_MESSAGE as ALERT_DESCRIPTION_UNEXPECTED_MESSAGE,
    ALERT_DESCRIPTION_UNKNOWN_CA as ALERT_DESCRIPTION_UNKNOWN_CA,
    ALERT_DESCRIPTION_UNKNOWN_PSK_IDENTITY as ALERT_DESCRIPTION_UNKNOWN_PSK_IDENTITY,
    ALERT_DESCRIPTION_UNRECOGNIZED_NAME as ALERT_DESCRIPTION_UNRECOGNIZED_NAME,
    ALERT_DESCRIPTION_UNSUPPORTED_CERTIFICATE as ALERT_DESCRIPTION_UNSUPPORTED_CERTIFICATE,
    ALERT_DESCRIPTION_UNSUPPORTED_EXTENSION as ALERT_DESCRIPTION_UNSUPPORTED_EXTENSION,
    ALERT_DESCRIPTION_USER_CANCELLED as ALERT_DESCRIPTION_USER_CANCELLED, AlertDescription as AlertDescription,
    CERT_NONE as CERT_NONE, CERT_OPTIONAL as CERT_OPTIONAL, CERT_REQUIRED as CERT_REQUIRED,
    CHANNEL_BINDING_TYPES as CHANNEL_BINDING_TYPES, CertificateError as CertificateError,
    DER_cert_to_PEM_cert as DER_cert_to_PEM_cert, DefaultVerifyPaths as DefaultVerifyPaths, HAS_ALPN as HAS_ALPN,
    HAS_ECDH as HAS_ECDH, HAS_NEVER_CHECK_COMMON_NAME as HAS_NEVER_CHECK_COMMON_NAME, HAS_NPN as HAS_NPN, HAS_SNI as HAS_SNI,
    HAS_SSLv2 as HAS_SSLv2, HAS_SSLv3 as HAS_SSLv3, HAS_TLSv1 as HAS_TLSv1, HAS_TLSv1_1 as HAS_TLSv1_1,
    HAS_TLSv1_2 as HAS_TLSv1_2, HAS_TLSv1_3 as HAS_TLSv1_3, MemoryBIO as MemoryBIO, OPENSSL_VERSION as OPENSSL_VERSION,
    OPENSSL_VERSION_INFO as OPENSSL_VERSION_INFO, OPENSSL_VERSION_NUMBER as OPENSSL_VERSION_NUMBER, OP_ALL as OP_ALL,
    OP_CIPHER_SERVER_PREFERENCE as OP_CIPHER_SERVER_PREFERENCE, OP_ENABLE_MIDDLEBOX_COMPAT as OP_ENABLE_MIDDLEBOX_COMPAT,
    OP_NO_COMPRESSION as OP_NO_COMPRESSION, OP_NO_RENEGOTIATION as OP_NO_RENEGOTIATION, OP_NO_SSLv2 as OP_NO_SSLv2,
    OP_NO_SSLv3 as OP_NO_SSLv3, OP_NO_TICKET as OP_NO_TICKET, OP_NO_TLSv1 as OP_NO_TLSv1, OP_NO_TLSv1_1 as OP_NO_TLSv1_1,
    OP_NO_TLSv1_2 as OP_NO_TLSv1_2, OP_NO_TLSv1_3 as OP_NO_TLSv1_3, OP_SINGLE_DH_USE as OP_SINGLE_DH_USE,
    OP_SINGLE_ECDH_USE as OP_SINGLE_ECDH_USE, Options as Options, PEM_FOOTER as PEM_FOOTER, PEM_HEADER as PEM_HEADER,
    PEM_cert_to_DER_cert as PEM_cert_to_DER_cert, PROTOCOL_SSLv2 as PROTOCOL_SSLv2, PROTOCOL_SSLv23 as PROTOCOL_SSLv23,
    PROTOCOL_SSLv3 as PROTOCOL_SSLv3, PROTOCOL_TLS as PROTOCOL_TLS, PROTOCOL_TLS_CLIENT as PROTOCOL_TLS_CLIENT,
    PROTOCOL_TLS_SERVER as PROTOCOL_TLS_SERVER, PROTOCOL_TLSv1 as PROTOCOL_TLSv1, PROTOCOL_TLSv1_1 as PROTOCOL_TLSv1_1,
    PROTOCOL_TLSv1_2 as PROTOCOL_TLSv1_2, Purpose as Purpose, RAND_add as RAND_add, RAND_bytes as RAND_bytes,
    RAND_status as RAND_status, SOCK_STREAM as SOCK_STREAM, SOL_SOCKET as SOL_SOCKET, SO_TYPE as SO_TYPE,
    SSLCertVerificationError as SSLCertVerificationError, SSLEOFError as SSLEOFError, SSLError as SSLError,
    SSLErrorNumber as SSLErrorNumber, SSLSession as SSLSession, SSLSyscallError as SSLSyscallError,
    SSLWantReadError as SSLWantReadError, SSLWantWriteError as SSLWantWriteError, SSLZeroReturnError as SSLZeroReturnError,
    SSL_ERROR_EOF as SSL_ERROR_EOF, SSL_ERROR_INVALID_ERROR_CODE as SSL_ERROR_INVALID_ERROR_CODE,
    SSL_ERROR_SSL as SSL_ERROR_SSL, SSL_ERROR_SYSCALL as SSL_ERROR_SYSCALL, SSL_ERROR_WANT_CONNECT as SSL_ERROR_WANT_CONNECT,
    SSL_ERROR_WANT_READ as SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE as SSL_ERROR_WANT_WRITE,
    SSL_ERROR_WANT_X509_LOOKUP as SSL_ERROR_WANT_X509_LOOKUP, SSL_ERROR_ZERO_RETURN as SSL_ERROR_ZERO_RETURN,
    TLSVersion as TLSVersion, VERIFY_ALLOW_PROXY_CERTS as VERIFY_ALLOW_PROXY_CERTS,
    VERIFY_CRL_CHECK_CHAIN as VERIFY_CRL_CHECK_CHAIN, VERIFY_CRL_CHECK_LEAF as VERIFY_CRL_CHECK_LEAF,
    VERIFY_DEFAULT as VERIFY_DEFAULT, VERIFY_X509_PARTIAL_CHAIN as VERIFY_X509_PARTIAL_CHAIN,
    VERIFY_X509_STRICT as VERIFY_X509_STRICT, VERIFY_X509_TRUSTED_FIRST as VERIFY_X509_TRUSTED_FIRST,
    VerifyFlags as VerifyFlags, VerifyMode as VerifyMode, _ASN1Object as _ASN1Object, _SSLMethod as _SSLMethod,
    cert_time_to_seconds as cert_time_to_seconds, get_default_verify_paths as get_default_verify_paths,
    get_protocol_name as get_protocol_name, get_server_certificate as get_server_certificate, socket_error as socket_error,
)
from typing import Any

from . import _ssl as _ssl
from .core.ticket_keys import TicketKeys

if sys.version_info < (3, 12):
    from ssl import RAND_pseudo_bytes as RAND_pseudo_bytes, match_hostname as match_hostname, wrap_socket as wrap_socket

_Path = str | bytes | PathLike[str] | PathLike[bytes]
_Data = str | bytes | bytearray | memoryview

OP_ENABLE_KTLS: Options
"""Have the kernel encrypt, where it can: SSL_CTX_set_options(3)."""
OP_IGNORE_UNEXPECTED_EOF: Options
"""Take the end of a connection without close_notify for an end in order."""
OP_LEGACY_SERVER_CONNECT: Options
"""Talk to servers without secure renegotiation (RFC 5746) too."""

HAS_PHA: bool
"""Whether TLS 1.3 can ask for a client's certificate after the handshake."""
HAS_PSK: bool
"""Whether there are pre-shared keys up to TLS 1.2."""
HAS_PSK_TLS13: bool
"""Whether there are pre-shared keys in TLS 1.3."""

def get_sigalgs() -> list[str]:
    """The names of the signature algorithms that `SSLContext.set_client_sigalgs` and `set_server_sigalgs` take.
    NotImplementedError before OpenSSL 3.4."""

class SSLObject(ssl.SSLObject):
    """What `SSLContext.wrap_bio` gives: Python's `ssl.SSLObject`, with the methods of the newest Python."""

    def get_verified_chain(self) -> list[bytes]:
        """The chain by which the peer was verified, as DER, its own certificate first; empty where nothing was verified."""
    def get_unverified_chain(self) -> list[bytes]:
        """The certificates that the peer has sent, as DER, its own first."""
    def group(self) -> str | None:
        """The name of the key exchange group, None before the handshake."""
    def client_sigalg(self) -> str | None:
        """The name of the signature algorithm of the client's certificate. NotImplementedError before OpenSSL 3.5."""
    def server_sigalg(self) -> str | None:
        """The name of the signature algorithm of the server's certificate. NotImplementedError before OpenSSL 3.5."""

class SSLSocket(ssl.SSLSocket):
    """What `SSLContext.wrap_socket` gives: Python's `ssl.SSLSocket`, with the methods of the newest Python."""

    def get_verified_chain(self) -> list[bytes]:
        """The chain by which the peer was verified, as DER, its own certificate first; empty where nothing was verified."""
    def get_unverified_chain(self) -> list[bytes]:
        """The certificates that the peer has sent, as DER, its own first."""
    def group(self) -> str | None:
        """The name of the key exchange group, None before the handshake."""
    def client_sigalg(self) -> str | None:
        """The name of the signature algorithm of the client's certificate. NotImplementedError before OpenSSL 3.5."""
    def server_sigalg(self) -> str | None:
        """The name of the signature algorithm of the server's certificate. NotImplementedError before OpenSSL 3.5."""

class SSLContext(ssl.SSLContext):
    """Python's `ssl.SSLContext`, on the OpenSSL of this package, with the methods of the newest Python."""

    resume_sessions: bool
    """Whether a client resumes the session of an earlier connection to the same `server_hostname`: False at first. Not for a
    PROTOCOL_TLS_SERVER context. Sessions of TLS 1.3 come with the first data that is read. A resumed connection verifies no
    certificate: the peer proves that it is the one that was verified then."""
    def use_ticket_keys(self, keys: TicketKeys) -> None:
        """Seal session tickets with `keys`: every server with the same keys resumes what another has begun. For a
        PROTOCOL_TLS_SERVER context."""
    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> SSLSocket:
        """A socket with TLS made of `sock`. Arguments and errors are those of Python's `ssl.SSLContext.wrap_socket`."""
    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> SSLObject:
        """TLS over two buffers. Arguments and errors are those of Python's `ssl.SSLContext.wrap_bio`."""
    def set_ciphersuites(self, ciphersuites: str, /) -> None:
        """Choose the cipher suites of TLS 1.3: their names, with colons between them. SSLError for unknown ones."""
    def get_groups(self, *, include_aliases: bool = False) -> list[str]:
        """The names of the key exchange groups that this context can use. NotImplementedError before OpenSSL 3.5."""
    def set_groups(self, grouplist: str, /) -> None:
        """Choose the key exchange groups: their names, with colons between them, best first. SSLError for unknown ones."""
    def set_client_sigalgs(self, sigalgslist: str, /) -> None:
        """Choose the signature algorithms of certificates of clients: their names, with colons between them."""
    def set_server_sigalgs(self, sigalgslist: str, /) -> None:
        """Choose the signature algorithms of certificates of servers: their names, with colons between them."""
    def set_psk_client_callback(self, callback: Callable[[str | None], tuple[str | None, bytes]] | None) -> None:
        """Authenticate by a pre-shared key: `callback(hint)`, given what the server says, returns the identity and the key.
        None: do not."""
    def set_psk_server_callback(
        self, callback: Callable[[str | None], bytes] | None, identity_hint: str | None = None
    ) -> None:
        """Authenticate clients by pre-shared keys: `callback(identity)` returns the key of that client, b"" for none. None: do
        not. `identity_hint` is what clients of TLS 1.2 are told, to choose theirs by."""

def create_default_context(
    purpose: ssl.Purpose = ..., *, cafile: _Path | None = None, capath: _Path | None = None, cadata: _Data | None = None
) -> SSLContext:
    """A context with safe settings: for a client, which verifies the server and its name, or with
    Purpose.CLIENT_AUTH for a server."""
def _create_unverified_context(
    protocol: int | None = None,
    *,
    cert_reqs: int = ...,
    check_hostname: bool = False,
    purpose: ssl.Purpose = ...,
    certfile: _Path | None = None,
    keyfile: _Path | None = None,
    cafile: _Path | None = None,
    capath: _Path | None = None,
    cadata: _Data | None = None,
) -> SSLContext: ...

_create_default_https_context: Callable[..., Any]
_create_stdlib_context = _create_unverified_context

def install() -> None:
    """Have everything in this process that uses `ssl` use this module, also modules that were imported before. Call it before
    other imports."""

def uninstall() -> None:
    """Undo what `install` has done, except for what somebody else has changed since."""
