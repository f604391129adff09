"""SslConfiguration: what a TLS connection is to be like. A value with setters.

A socket takes a `Snapshot` at its handshake, never the configuration itself. A configuration holds the contexts that were made
from it; any change forgets them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import IntEnum
from typing import Callable, NoReturn, Optional, TypeVar, Union

from ..core.certificate import SslCertificate
from ..core.context import VERIFY_NONE, VERIFY_PEER, VERIFY_QUERY, Context
from ..core.crl import SslCrl
from ..core.key import SslKey
from ..core.key_log import key_log_of_environment
from .checked import checked, checked_count
from .constants import PeerVerifyMode, SslProtocol, VerifyFlag
from .identity import certificate_of, certificates_of, crl_of, encoded_psk_identity, identity_of, key_of
from .snapshot import KeyLogTarget, Snapshot, context_of

__all__ = ["SslConfiguration", "default_configuration"]

E = TypeVar("E", bound=IntEnum)
Buffer = Union[bytes, bytearray, memoryview]

CORE_MODES = {
    PeerVerifyMode.VERIFY_NONE: VERIFY_NONE,
    PeerVerifyMode.QUERY_PEER: VERIFY_QUERY,
    PeerVerifyMode.VERIFY_PEER: VERIFY_PEER,
}


KNOWN_FLAGS = 0x8802C  # all of VerifyFlag
MOST_DEPTH = 2**31 - 1  # libssl's int
MOST_NEXT_PROTOCOLS = 2**16 - 1  # RFC 7301, 3.1: ProtocolNameList


def checked_enum(value: int, kind: type[E], name: str) -> E:
    checked(value, int, name)
    return kind(value)


def encoded_protocol(name: Union[str, bytes]) -> bytes:
    if not isinstance(name, (str, bytes)):
        raise TypeError(f"an ALPN name is a str or bytes, not {type(name).__name__}")
    wire = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    if not 0 < len(wire) < 256:
        raise ValueError(f"an ALPN name is 1 to 255 bytes, not {name!r}")
    return wire


def checked_key_log(target: Union[str, os.PathLike[str], Callable[[str], object]]) -> KeyLogTarget:
    if isinstance(target, (str, os.PathLike)):
        path: str = checked(os.fspath(target), str, "the path of key_log")
        if not path or "\0" in path:
            raise ValueError(f"key_log is not a path: {path!r}")
        return os.path.abspath(path)
    if not callable(target):
        raise TypeError(f"key_log is a path, a callable or None, not {type(target).__name__}")
    hash(target)  # TypeError: contexts are found by it
    log: Callable[[str], object] = target
    return log


def decoded_protocol(wire: bytes) -> str:
    return wire.decode("utf-8", "surrogateescape")


class SslConfiguration:
    """Settings for TLS connections; the defaults are safe.

    Assign it to sockets and servers, as many as you like: each uses what it says at the time of its
    handshake, and a later change touches no live connection. Where certificates, keys and revocation lists are
    assigned or added, those of the package `cryptography` do too. `copy.copy` gives an independent one; two are
    equal when their settings are.

    TypeError for a setting of the wrong type, ValueError for an impossible value. What only OpenSSL can tell
    (a certificate that did not load, a key that does not fit, an unknown cipher) comes at `SslServer.listen` or
    at the handshake, as SSL_INVALID_USERDATA_ERROR.
    """

    VERIFY_NONE = PeerVerifyMode.VERIFY_NONE
    QUERY_PEER = PeerVerifyMode.QUERY_PEER
    VERIFY_PEER = PeerVerifyMode.VERIFY_PEER
    AUTO_VERIFY_PEER = PeerVerifyMode.AUTO_VERIFY_PEER

    VERIFY_DEFAULT = VerifyFlag.VERIFY_DEFAULT
    VERIFY_CRL_CHECK_LEAF = VerifyFlag.VERIFY_CRL_CHECK_LEAF
    VERIFY_CRL_CHECK_CHAIN = VerifyFlag.VERIFY_CRL_CHECK_CHAIN
    VERIFY_X509_STRICT = VerifyFlag.VERIFY_X509_STRICT
    VERIFY_X509_TRUSTED_FIRST = VerifyFlag.VERIFY_X509_TRUSTED_FIRST
    VERIFY_X509_PARTIAL_CHAIN = VerifyFlag.VERIFY_X509_PARTIAL_CHAIN

    SSL_3 = SslProtocol.SSL_3
    TLS_1_0 = SslProtocol.TLS_1_0
    TLS_1_1 = SslProtocol.TLS_1_1
    TLS_1_2 = SslProtocol.TLS_1_2
    TLS_1_3 = SslProtocol.TLS_1_3

    __slots__ = (
        "_ca_certificates",
        "_ciphers",
        "_ciphersuites",
        "_contexts",
        "_crls",
        "_groups",
        "_key_log",
        "_legacy_server_connect",
        "_local_certificate",
        "_local_certificate_chain",
        "_maximum_protocol",
        "_minimum_protocol",
        "_next_protocols",
        "_peer_verify_depth",
        "_peer_verify_mode",
        "_post_handshake_authentication",
        "_pre_shared_key_identity_hint",
        "_prefer_server_ciphers",
        "_private_key",
        "_signature_algorithms",
        "_use_system_ca",
        "_verify_flags",
        "_verify_hostname",
    )

    def __init__(self) -> None:
        self._local_certificate: Optional[SslCertificate] = None
        self._local_certificate_chain: tuple[SslCertificate, ...] = ()
        self._private_key: Optional[SslKey] = None
        self._peer_verify_mode = PeerVerifyMode.AUTO_VERIFY_PEER
        self._peer_verify_depth = 0
        self._verify_hostname = True
        self._ca_certificates: tuple[SslCertificate, ...] = ()
        self._use_system_ca = True
        self._verify_flags = VerifyFlag.VERIFY_DEFAULT
        self._crls: tuple[SslCrl, ...] = ()
        self._minimum_protocol = SslProtocol.TLS_1_2
        self._maximum_protocol: Optional[SslProtocol] = None
        self._ciphers = ""
        self._ciphersuites = ""
        self._groups = ""
        self._signature_algorithms = ""
        self._next_protocols: tuple[bytes, ...] = ()
        self._key_log: Optional[KeyLogTarget] = key_log_of_environment()
        self._pre_shared_key_identity_hint = ""
        self._post_handshake_authentication = False
        self._legacy_server_connect = False
        self._prefer_server_ciphers = True
        self._contexts: dict[tuple[bool, PeerVerifyMode, bool], Context] = {}

    # Who we are

    @property
    def local_certificate(self) -> Optional[SslCertificate]:
        """Own certificate: SslCertificate or None."""
        return self._local_certificate

    @local_certificate.setter
    def local_certificate(self, certificate: Optional[SslCertificate]) -> None:
        if certificate is not None:
            certificate = certificate_of(certificate, "local_certificate")
        self._local_certificate = certificate
        self._changed()

    @property
    def local_certificate_chain(self) -> list[SslCertificate]:
        """The certificates that lead from the own one to a root: list of SslCertificate (a copy: assign to
        change it). It may begin with the own one, which then need not be set apart. Where none are given, those among the
        trusted ones are sent, but no root; they are looked for once, when the settings are first used."""
        return list(self._local_certificate_chain)

    @local_certificate_chain.setter
    def local_certificate_chain(self, chain: Iterable[SslCertificate]) -> None:
        self._local_certificate_chain = certificates_of(chain, "local_certificate_chain")
        self._changed()

    @property
    def private_key(self) -> Optional[SslKey]:
        """The key of the own certificate: SslKey or None."""
        return self._private_key

    @private_key.setter
    def private_key(self, key: Optional[SslKey]) -> None:
        if key is not None:
            key = key_of(key, "private_key")
        self._private_key = key
        self._changed()

    def set_identity(
        self,
        chain: Union[str, Buffer, SslCertificate, Iterable[SslCertificate]],
        private_key: Union[str, Buffer, SslKey, None] = None,
        passphrase: Union[str, Buffer, None] = None,
    ) -> None:
        """The own certificate, its chain and its key in one, all of them or none when it raises.

        chain: bytes-like or str, PEM or DER, what a file of certificates holds, the own one first; or an
        SslCertificate or a list of them, or of certificates of `cryptography`. private_key: bytes-like or str, PEM or
        DER; or an SslKey, or a private key of `cryptography`; None: it stands in the text of the chain. passphrase: str
        or bytes-like, where the key is encrypted. TypeError; ValueError where one does not load, or they do not belong
        together.
        """
        certificates, key = identity_of(chain, private_key, passphrase)
        self._local_certificate, self._local_certificate_chain = certificates[0], certificates[1:]
        self._private_key = key
        self._changed()

    @property
    def pre_shared_key_identity_hint(self) -> str:
        """What a server says, with TLS 1.2, for clients to choose their pre-shared key by: str, "" for nothing. See
        `SslSocket.pre_shared_key_handler`."""
        return self._pre_shared_key_identity_hint

    @pre_shared_key_identity_hint.setter
    def pre_shared_key_identity_hint(self, hint: Union[str, bytes]) -> None:
        wire = encoded_psk_identity(hint, "pre_shared_key_identity_hint")
        self._pre_shared_key_identity_hint = wire.decode("utf-8", "surrogateescape")
        self._changed()

    # Whom we trust

    @property
    def peer_verify_mode(self) -> PeerVerifyMode:
        """What is demanded of the peer: PeerVerifyMode, AUTO_VERIFY_PEER at first."""
        return self._peer_verify_mode

    @peer_verify_mode.setter
    def peer_verify_mode(self, mode: int) -> None:
        self._peer_verify_mode = checked_enum(mode, PeerVerifyMode, "peer_verify_mode")
        self._changed()

    @property
    def peer_verify_depth(self) -> int:
        """Most intermediate certificates in the peer's chain: int, 0 for OpenSSL's own bound."""
        return self._peer_verify_depth

    @peer_verify_depth.setter
    def peer_verify_depth(self, depth: int) -> None:
        self._peer_verify_depth = checked_count(depth, "peer_verify_depth", 0, MOST_DEPTH)
        self._changed()

    @property
    def verify_hostname(self) -> bool:
        """Whether a client checks that the server's certificate is for the host it connects to: bool, True at
        first."""
        return self._verify_hostname

    @verify_hostname.setter
    def verify_hostname(self, verify: bool) -> None:
        self._verify_hostname = checked(verify, bool, "verify_hostname")

    @property
    def post_handshake_authentication(self) -> bool:
        """Whether certificates of clients belong after the handshake, with TLS 1.3: bool, False at first. A client agrees to
        be asked for its certificate then; a server does not ask in the handshake, but where the program says
        (`SslSocket.request_peer_certificate`). With older protocols a server asks in the handshake as ever."""
        return self._post_handshake_authentication

    @post_handshake_authentication.setter
    def post_handshake_authentication(self, late: bool) -> None:
        self._post_handshake_authentication = checked(late, bool, "post_handshake_authentication")
        self._changed()

    @property
    def ca_certificates(self) -> list[SslCertificate]:
        """Authorities trusted besides the system's: list of SslCertificate (a copy: assign to change it)."""
        return list(self._ca_certificates)

    @ca_certificates.setter
    def ca_certificates(self, certificates: Iterable[SslCertificate]) -> None:
        self._ca_certificates = certificates_of(certificates, "ca_certificates")
        self._changed()

    def add_ca_certificate(self, certificate: SslCertificate) -> None:
        """Trust one authority more."""
        self._ca_certificates += (certificate_of(certificate, "a CA certificate"),)
        self._changed()

    def add_ca_file(self, path: Union[str, os.PathLike[str]]) -> None:
        """Trust the authorities in a file of PEM or DER certificates: all of them, or none when it raises. OSError;
        ValueError, which names the file and the block, when one is damaged, and when it holds no certificate."""
        path = os.fspath(path)
        found = SslCertificate.from_path(path)
        if not found:
            with open(path, "rb") as file:
                reason = SslCertificate(file.read()).error_string
            raise ValueError(f"{path} holds no certificate: {reason}")
        self._ca_certificates += tuple(found)
        self._changed()

    @property
    def use_system_ca(self) -> bool:
        """Whether the authorities of the system's trust store are trusted: bool, True at first."""
        return self._use_system_ca

    @use_system_ca.setter
    def use_system_ca(self, use: bool) -> None:
        self._use_system_ca = checked(use, bool, "use_system_ca")
        self._changed()

    @property
    def verify_flags(self) -> VerifyFlag:
        """How strictly certificates are verified: VerifyFlag, VERIFY_DEFAULT at first."""
        return self._verify_flags

    @verify_flags.setter
    def verify_flags(self, flags: int) -> None:
        unknown = checked(flags, int, "verify_flags") & ~KNOWN_FLAGS
        if unknown:
            raise ValueError(f"verify_flags has bits that VerifyFlag has not: {unknown:#x}")
        self._verify_flags = VerifyFlag(flags)
        self._changed()

    @property
    def crls(self) -> list[SslCrl]:
        """Certificate revocation lists, of any authorities: list of SslCrl (a copy: assign to change it). Where there
        are some, the peer's own certificate is looked up in them, and with VERIFY_CRL_CHECK_CHAIN its authorities'
        too. One whose authority has no list here, or one that is out of date, is an error."""
        return list(self._crls)

    @crls.setter
    def crls(self, crls: Iterable[SslCrl]) -> None:
        if isinstance(crls, SslCrl) or hasattr(crls, "public_bytes"):
            raise TypeError("crls is a list of SslCrl, not one")
        self._crls = tuple(crl_of(crl, "a member of crls") for crl in crls)
        self._changed()

    def add_crl(self, crl: SslCrl) -> None:
        """Look certificates up in one list more."""
        self._crls += (crl_of(crl, "a CRL"),)
        self._changed()

    def add_crl_file(self, path: Union[str, os.PathLike[str]]) -> None:
        """Look certificates up in the lists of a file too, PEM or DER: all of them, or none when it raises. OSError;
        ValueError, which names the file and the block, when one is damaged, and when it holds no list."""
        path = os.fspath(path)
        found = SslCrl.from_path(path)
        if not found:
            with open(path, "rb") as file:
                reason = SslCrl(file.read()).error_string
            raise ValueError(f"{path} holds no certificate revocation list: {reason}")
        self._crls += tuple(found)
        self._changed()

    # How we talk

    @property
    def minimum_protocol(self) -> SslProtocol:
        """Oldest protocol allowed: SslProtocol, TLS 1.2 at first."""
        return self._minimum_protocol

    @minimum_protocol.setter
    def minimum_protocol(self, protocol: int) -> None:
        self._minimum_protocol = checked_enum(protocol, SslProtocol, "minimum_protocol")
        self._changed()

    @property
    def maximum_protocol(self) -> Optional[SslProtocol]:
        """Newest protocol allowed: SslProtocol, or None for the newest there is."""
        return self._maximum_protocol

    @maximum_protocol.setter
    def maximum_protocol(self, protocol: Optional[int]) -> None:
        if protocol is None:
            self._maximum_protocol = None
        else:
            self._maximum_protocol = checked_enum(protocol, SslProtocol, "maximum_protocol")
        self._changed()

    @property
    def ciphers(self) -> str:
        """Cipher suites up to TLS 1.2, in OpenSSL's syntax: str, "" for those with forward secrecy and
        authenticated encryption (with a `minimum_protocol` below TLS 1.2: for OpenSSL's choice)."""
        return self._ciphers

    @ciphers.setter
    def ciphers(self, ciphers: str) -> None:
        self._ciphers = checked(ciphers, str, "ciphers")
        self._changed()

    @property
    def ciphersuites(self) -> str:
        """Cipher suites of TLS 1.3, colons between them: str, "" for all three, AES-128 first."""
        return self._ciphersuites

    @ciphersuites.setter
    def ciphersuites(self, ciphersuites: str) -> None:
        self._ciphersuites = checked(ciphersuites, str, "ciphersuites")
        self._changed()

    @property
    def prefer_server_ciphers(self) -> bool:
        """Whether a server's order of cipher suites decides, and not its client's: bool, True at first. Even so ChaCha20 is
        taken with a client that puts it first, as those do that lack AES in hardware."""
        return self._prefer_server_ciphers

    @prefer_server_ciphers.setter
    def prefer_server_ciphers(self, prefer: bool) -> None:
        self._prefer_server_ciphers = checked(prefer, bool, "prefer_server_ciphers")
        self._changed()

    @property
    def groups(self) -> str:
        """Groups for the key exchange, colons between them: str. "": what OpenSSL chooses for a client; a server agrees to
        X25519, P-256, P-384, P-521 and, with OpenSSL 3.5, X25519MLKEM768."""
        return self._groups

    @groups.setter
    def groups(self, groups: str) -> None:
        self._groups = checked(groups, str, "groups")
        self._changed()

    @property
    def signature_algorithms(self) -> str:
        """Signature algorithms, colons between them: str, as in "ECDSA+SHA256:rsa_pss_rsae_sha256"; "" for OpenSSL's own. What
        the peer may sign its handshake with, and what this side signs its own with. Not for protocols before TLS 1.2."""
        return self._signature_algorithms

    @signature_algorithms.setter
    def signature_algorithms(self, algorithms: str) -> None:
        self._signature_algorithms = checked(algorithms, str, "signature_algorithms")
        self._changed()

    @property
    def allowed_next_protocols(self) -> list[str]:
        """Protocols to agree on by ALPN, most wanted first: list of str (a copy: assign to change it); bytes
        may be assigned as well."""
        return [decoded_protocol(wire) for wire in self._next_protocols]

    @allowed_next_protocols.setter
    def allowed_next_protocols(self, names: Iterable[Union[str, bytes]]) -> None:
        if isinstance(names, (str, bytes)):
            raise TypeError("allowed_next_protocols is a list of names, not one")
        encoded = tuple(encoded_protocol(name) for name in names)
        if sum(len(name) + 1 for name in encoded) > MOST_NEXT_PROTOCOLS:
            raise ValueError(f"allowed_next_protocols is longer than {MOST_NEXT_PROTOCOLS} bytes")
        self._next_protocols = encoded
        self._changed()

    @property
    def legacy_server_connect(self) -> bool:
        """Whether a client also talks to servers without secure renegotiation (RFC 5746): bool, False at first, for there
        somebody in between may put words in front of the client's. Only with TLS 1.2 and older. A server is refused as
        SSL_HANDSHAKE_FAILED_ERROR, "unsafe legacy renegotiation disabled"."""
        return self._legacy_server_connect

    @legacy_server_connect.setter
    def legacy_server_connect(self, legacy: bool) -> None:
        self._legacy_server_connect = checked(legacy, bool, "legacy_server_connect")
        self._changed()

    # To look into it

    @property
    def key_log(self) -> Optional[KeyLogTarget]:
        """For debugging: where the secrets of connections are told, by which who has recorded one can read it. The
        absolute path (str) of a file, a callable or None; at first what SSLKEYLOGFILE names. A str or PathLike may
        be assigned. A file is made, for its owner only, if it is not there, and added to; one that cannot be opened
        is SSL_INVALID_USERDATA_ERROR at the handshake. A callable gets each line (str, as Wireshark reads it) in the
        middle of the handshake, in the thread of the loop. What it raises, and what cannot be written, goes to
        `sys.unraisablehook`, and the handshake goes on."""
        return self._key_log

    @key_log.setter
    def key_log(self, target: Union[str, os.PathLike[str], Callable[[str], object], None]) -> None:
        self._key_log = None if target is None else checked_key_log(target)
        self._changed()

    # A value

    def snapshot(self, server_side: bool, mode: PeerVerifyMode, pre_shared_keys: bool = False) -> Snapshot:
        """The settings as they are now, for a role and the mode that is in force (not AUTO)."""
        certificate, chain = self._local_certificate, self._local_certificate_chain
        if chain and (certificate is None or chain[0] == certificate):
            certificate, chain = chain[0], chain[1:]
        return Snapshot(
            server_side,
            certificate,
            chain,
            self._private_key,
            CORE_MODES[mode],
            self._peer_verify_depth or -1,
            self._ca_certificates,
            self._use_system_ca,
            self._minimum_protocol,
            self._maximum_protocol or 0,
            self._ciphers,
            self._ciphersuites,
            self._groups,
            self._signature_algorithms,
            self._next_protocols,
            self._key_log,
            int(self._verify_flags),
            self._crls,
            pre_shared_keys,
            self._pre_shared_key_identity_hint if pre_shared_keys else "",
            self._post_handshake_authentication,
            self._legacy_server_connect,
            self._prefer_server_ciphers,
        )

    def context(self, server_side: bool, mode: PeerVerifyMode, pre_shared_keys: bool = False) -> Context:
        """The context for `snapshot(server_side, mode, pre_shared_keys)`. ConfigurationError when OpenSSL refuses the
        settings."""
        key = (server_side, mode, pre_shared_keys)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = context_of(self.snapshot(*key))
        return context

    def _changed(self) -> None:
        if self._contexts:
            self._contexts = {}

    def _settings(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__ if name != "_contexts")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SslConfiguration):
            return NotImplemented
        return self._settings() == other._settings()

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> SslConfiguration:
        twin = type(self).__new__(type(self))
        for base in type(self).__mro__:
            for name in getattr(base, "__slots__", ()):
                if hasattr(self, name):
                    setattr(twin, name, getattr(self, name))
        getattr(twin, "__dict__", {}).update(getattr(self, "__dict__", {}))  # of a derived class
        twin._contexts = dict(self._contexts)
        return twin

    def __deepcopy__(self, memo: object) -> SslConfiguration:
        return self.__copy__()  # certificates and keys are values

    def __reduce__(self) -> NoReturn:
        raise TypeError("an SslConfiguration is not pickled: it may hold a private key")

    def __repr__(self) -> str:
        subject = self._local_certificate
        own = "no certificate" if subject is None else repr(subject)
        newest = self._maximum_protocol
        bounds = f"{self._minimum_protocol.name} to {'the newest' if newest is None else newest.name}"
        return f"<SslConfiguration {bounds}, {self._peer_verify_mode.name}, {own}>"


_default: Optional[SslConfiguration] = None


def default_configuration() -> SslConfiguration:
    """What a socket uses that was never given a configuration. Not for anybody to change."""
    global _default
    if _default is None:
        _default = SslConfiguration()
    return _default
