"""Certificates and keys: from files, or made in memory for localhost; and which of them a client gets that asks for a name.

An *identity* is what one name is served with: a certificate, or several for the same names with keys of different kinds (ECDSA
beside RSA), of which libssl takes the one that the client can verify. Names are those of the subjectAltName extension of kind
DNS; the common name counts only where the certificate has no such extension at all (RFC 6125, 6.4.4; RFC 9525 forgets it).

A name is chosen exactly, else by a wildcard, else by default: the first pair. A wildcard is the whole leftmost label and stands
for one label (RFC 9525, 6.3). Where two identities have a name in common, the first one serves it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple, Optional

from ..core.certificate import SslCertificate
from ..core.context import VERIFY_NONE, ConfigurationError, Context
from ..core.issue import LOCALHOST, issue_certificate, make_authority
from ..core.key import SslKey
from .settings import KeyPair

__all__ = [
    "CertificateError",
    "CertificateStore",
    "Expiry",
    "Identity",
    "Pair",
    "load_pair",
    "make_localhost_pair",
    "read_certificates",
    "write_authority",
]

Pair = tuple[SslCertificate, list[SslCertificate], SslKey]
"""Certificate, chain behind it, key: what `Context` takes."""


class CertificateError(ValueError):
    """A file that cannot be used: its path and why. `path` is that file's."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class Expiry(NamedTuple):
    """When a certificate ends."""

    path: str
    """The file, "" for the certificate made in memory."""
    names: tuple[str, ...]
    key_type: str
    """"RSA", "EC", "ED25519", ..."""
    not_after: Optional[datetime]
    """In UTC; None where the certificate gives no time."""


class Identity:
    """What a name is served with.

    key: str, the same for the same names each time that files are read; no two identities of a store share it. names: lower
    case, wildcards among them, addresses too. pairs: list of (certificate, chain, key), one for each kind of key.
    """

    __slots__ = ("expiries", "key", "names", "pairs")

    def __init__(self, key: str, names: tuple[str, ...]) -> None:
        self.key = key
        self.names = names
        self.pairs: list[Pair] = []
        self.expiries: list[Expiry] = []

    def add(self, pair: Pair, path: str) -> None:
        """CertificateError: there is a pair with this kind of key."""
        kind = key_type(pair[2])
        for other in self.expiries:
            if other.key_type == kind:
                raise CertificateError(path, f"it is for the same names, with the same kind of key ({kind}), as {other.path}")
        self.pairs.append(pair)
        self.expiries.append(Expiry(path, self.names, kind, pair[0].not_after))

    def __repr__(self) -> str:
        return f"<Identity {self.key}: {', '.join(expiry.key_type for expiry in self.expiries)}>"


class CertificateStore:
    """The identities of a listener; the first is the default.

    pairs: at least one, each with the path of its certificate. CertificateError: two of them are for the same names and have
    the same kind of key, so that one would never be used.
    """

    def __init__(self, pairs: Iterable[tuple[Pair, str]]) -> None:
        identities: dict[str, Identity] = {}
        for pair, path in pairs:
            names = names_of(pair[0])
            key = ",".join(names) or f"file:{path}"
            if key not in identities:
                identities[key] = Identity(key, names)
            identities[key].add(pair, path)
        self.identities = tuple(identities.values())
        """tuple of `Identity`."""
        self.default = self.identities[0]
        self._exact: dict[str, Identity] = {}
        self._wildcards: dict[str, Identity] = {}  # by what follows "*."
        for identity in self.identities:
            for name in identity.names:
                if name.startswith("*."):
                    self._wildcards.setdefault(name[2:], identity)
                else:
                    self._exact.setdefault(name, identity)

    @classmethod
    def from_files(cls, key_pairs: Sequence[KeyPair]) -> CertificateStore:
        """Read at least one pair of files. CertificateError names the file."""
        return cls([(load_checked(pair), pair.certificate) for pair in key_pairs])

    @classmethod
    def for_localhost(cls, host: str = "") -> tuple[CertificateStore, SslCertificate]:
        """A certificate for localhost and `host`, made in memory: the store and the authority that clients may trust."""
        pair, authority = make_localhost_pair(host)
        return cls([(pair, "")]), authority

    def choose(self, server_name: Optional[str]) -> Identity:
        """The identity for the name in the client's SNI as it comes; None or "": it names none."""
        if not server_name:
            return self.default
        name = normal(server_name)
        identity = self._exact.get(name)
        if identity is None:
            label, _, rest = name.partition(".")
            identity = self._wildcards.get(rest) if label else None
        return self.default if identity is None else identity

    def expiries(self) -> list[Expiry]:
        """Every certificate, for metrics."""
        return [expiry for identity in self.identities for expiry in identity.expiries]


def normal(name: str) -> str:
    """DNS names are compared without regard to case, and the dot at the end says nothing (RFC 6066, 3 has none)."""
    name = name.lower()
    return name[:-1] if name.endswith(".") else name


def names_of(certificate: SslCertificate) -> tuple[str, ...]:
    """Sorted, each once: DNS names and addresses, or the common names of a certificate without any alternative name."""
    alternative = certificate.subject_alternative_names
    if alternative:
        found = {normal(name) for kind, name in alternative if kind in ("DNS", "IP")}
    else:
        found = {normal(name) for name in certificate.subject.get("CN", ())}
    return tuple(sorted(found))


def key_type(key: SslKey) -> str:
    return key.algorithm.name if key.algorithm is not None else "unknown"


# Files


def read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise CertificateError(path, getattr(exc, "strerror", None) or str(exc)) from None


def certificates_in(path: str, text: bytes) -> list[SslCertificate]:
    try:
        found = SslCertificate.from_bytes(text)
    except ValueError as exc:
        raise CertificateError(path, str(exc)) from None
    if not found:
        raise CertificateError(path, SslCertificate(text).error_string or "it holds no certificate")
    return found


def read_certificates(path: str) -> list[SslCertificate]:
    """All certificates of a file, at least one: authorities, for instance. CertificateError."""
    return certificates_in(path, read_file(path))


def load_pair(certificate_path: str, key_path: Optional[str]) -> Pair:
    """Read a certificate with its chain, and its key, which is in the same file if key_path is None. CertificateError."""
    text = read_file(certificate_path)
    certificate, *chain = certificates_in(certificate_path, text)
    key = SslKey(text if key_path is None else read_file(key_path))
    if key.null:
        hint = "; the key may be in a file of its own, but no other is named (--key)" if key_path is None else ""
        raise CertificateError(key_path or certificate_path, key.error_string + hint)
    return certificate, chain, key


def load_checked(paths: KeyPair) -> Pair:
    """Read a pair, and have OpenSSL look whether its halves fit and are strong enough."""
    pair = load_pair(paths.certificate, paths.key if paths.key != paths.certificate else None)
    certificate, chain, key = pair
    try:
        Context(
            server_side=True,
            certificate=certificate,
            certificate_chain=chain,
            private_key=key,
            verify_mode=VERIFY_NONE,
            use_system_ca=False,
        )
    except ConfigurationError as exc:
        at_fault, other = paths.certificate, paths.key
        if str(exc).startswith("the private key"):
            at_fault, other = other, at_fault
        beside = f" (with {other})" if other != at_fault else ""
        raise CertificateError(at_fault, f"{exc}{beside}") from None
    return pair


# Without files


def make_localhost_pair(host: str = "") -> tuple[Pair, SslCertificate]:
    """A certificate for localhost and for `host`, with its key, and the authority that issued it.

    host: where a server listens: an address, perhaps with a scope, or a name; "" or an unspecified address adds nothing. The
    authority's key is forgotten: nobody can issue a second certificate.
    """
    names = list(LOCALHOST)
    plain = host.partition("%")[0]
    if plain and plain not in names and not is_unspecified(plain):
        names.append(plain)
    authority, authority_key = make_authority()
    certificate, key = issue_certificate(authority, authority_key, names)
    return (certificate, [], key), authority


def is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def write_authority(path: str, authority: SslCertificate) -> None:
    """Write a certificate as PEM, readable by all, so that a reader sees the old file or the new one. OSError."""
    pem = authority.to_pem()
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/stdout, a FIFO: nothing to be replaced
        with open(path, "wb") as file:
            file.write(pem)
        return
    import tempfile  # slow to load

    descriptor, temporary = tempfile.mkstemp(prefix=".sslsock-", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as file:
            file.write(pem)
            os.fchmod(descriptor, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
