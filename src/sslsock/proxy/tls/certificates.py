"""Certificates and keys: from files, or made in memory for localhost; and which of them a client gets that asks for a name.

An *identity* is what one name is served with: of the certificates that are for it, the best of each kind of key (ECDSA beside
RSA), of which libssl takes the one that the client can verify. Better is who has the name exactly, then by a wildcard, then who
comes first. A name that no certificate is for gets the default: the first certificate, and those with other kinds of keys that
are for all of its names.

Names are those of the subjectAltName extension of kind DNS; the common name counts only where the certificate has no such
extension at all (RFC 6125, 6.4.4; RFC 9525 forgets it). A wildcard is the whole leftmost label and stands for one label
(RFC 9525, 6.3).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from typing import NamedTuple, Optional

from ...core.certificate import SslCertificate
from ...core.context import VERIFY_NONE, ConfigurationError, Context
from ...core.crl import SslCrl
from ...core.identity_check import check_identity
from ...core.issue import LOCALHOST, issue_certificate, make_authority
from ...core.key import SslKey
from ..files.reading import Reading
from ..settings.model import KeyPair

__all__ = [
    "CERTIFICATES",
    "CRLS",
    "PAIR",
    "CertificateError",
    "CertificateStore",
    "Expiry",
    "Identity",
    "Pair",
    "files_of",
    "key_type",
    "load_checked",
    "load_pair",
    "make_localhost_pair",
    "normal",
    "read_certificates",
    "read_crls",
    "wildcard_of",
    "without_doubles",
    "write_authority",
]

# The kinds of what is loaded: `Reading.load`.
CERTIFICATES = "certificates"
CRLS = "crls"
PAIR = "pair"

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


class Member(NamedTuple):
    """One certificate of a listener."""

    pair: Pair
    expiry: Expiry

    @property
    def label(self) -> str:
        """Its names; where it has none, its file tells it from others."""
        return ",".join(self.expiry.names) or f"file:{self.expiry.path}"

    def fits(self, name: str) -> bool:
        """Whether it is for `name`, which may be a wildcard itself."""
        return name in self.expiry.names or wildcard_of(name) in self.expiry.names


class Identity:
    """What a name is served with. members: the best certificate for it, and the best with each other kind of key.

    key: str, the same for the same names each time that files are read; no two identities of a store share it. names: of the
    first, lower case, wildcards among them, addresses too. pairs, expiries: of all.
    """

    __slots__ = ("expiries", "key", "names", "pairs")

    def __init__(self, key: str, members: Sequence[Member]) -> None:
        self.key = key
        self.names = members[0].expiry.names
        self.pairs = [member.pair for member in members]
        self.expiries = [member.expiry for member in members]

    def __repr__(self) -> str:
        return f"<Identity {self.key}: {', '.join(expiry.key_type for expiry in self.expiries)}>"


class CertificateStore:
    """The identities of a listener; the first is the default.

    pairs: at least one, each with the path of its certificate. CertificateError: two of them are for the same names and have
    the same kind of key, so that one would never be used.
    """

    def __init__(self, pairs: Iterable[tuple[Pair, str]]) -> None:
        self._members = [Member(pair, expiry_of(pair, path)) for pair, path in pairs]
        self._by_members: dict[tuple[str, ...], Identity] = {}
        self._keys: set[str] = set()
        exact: dict[str, list[Member]] = {}
        seen: dict[tuple[str, str], str] = {}
        for member in self._members:
            path, names, kind, _ = member.expiry
            other = seen.setdefault((member.label, kind), path)
            if other is not path:
                raise CertificateError(path, f"it is for the same names, with the same kind of key ({kind}), as {other}")
            for name in names:
                exact.setdefault(name, []).append(member)
        first = self._members[0]
        self.default = self._identity(
            [first, *(one for one in self._members if first.expiry.names and all(map(one.fits, first.expiry.names)))]
        )
        self._identities = {
            name: self._identity([*members, *exact.get(wildcard_of(name), ())]) for name, members in exact.items()
        }
        self.identities = tuple(self._by_members.values())
        """tuple of `Identity`."""

    def _identity(self, members: Sequence[Member]) -> Identity:
        """That of members which fit, best first: of each kind of key the first."""
        best: dict[str, Member] = {}
        for member in members:
            best.setdefault(member.expiry.key_type, member)
        apart = tuple(sorted(f"{kind}:{member.label}" for kind, member in best.items()))
        identity = self._by_members.get(apart)
        if identity is None:
            # Without the kinds of keys, so that sessions outlive a change of these, unless they alone make the difference.
            key = "|".join(sorted({member.label for member in best.values()}))
            if key in self._keys:
                key = "|".join(apart)
            self._keys.add(key)
            identity = self._by_members[apart] = Identity(key, list(best.values()))
        return identity

    @classmethod
    def from_files(cls, key_pairs: Sequence[KeyPair], reading: Optional[Reading] = None) -> CertificateStore:
        """Read at least one pair of files. CertificateError names the file."""
        return cls([(load_checked(pair, reading), pair.certificate) for pair in key_pairs])

    @classmethod
    def for_localhost(cls, host: str = "") -> tuple[CertificateStore, SslCertificate]:
        """A certificate for localhost and `host`, made in memory: the store and the authority that clients may trust."""
        pair, authority = make_localhost_pair(host)
        return cls([(pair, "")]), authority

    @property
    def first_pair(self) -> Pair:
        return self._members[0].pair

    def choose(self, server_name: Optional[str]) -> Identity:
        """The identity for the name in the client's SNI as it comes; None or "": it names none."""
        return self.of(normal(server_name or ""))

    def of(self, name: str) -> Identity:
        """The same for a name as `normal` makes it."""
        if not name:
            return self.default
        identity = self._identities.get(name)
        if identity is None:
            identity = self._identities.get(wildcard_of(name), self.default)
        return identity

    def expiries(self) -> list[Expiry]:
        """Every certificate, for metrics."""
        return [member.expiry for member in self._members]

    def unused(self) -> list[Expiry]:
        """Certificates that no client is ever shown, for others stand before them wherever they fit."""
        used = {id(expiry) for identity in self.identities for expiry in identity.expiries}
        return [member.expiry for member in self._members if id(member.expiry) not in used]


def without_doubles(pairs: Iterable[tuple[Pair, str]], further: Iterable[tuple[Pair, str]]) -> list[tuple[Pair, str]]:
    """`pairs`, and those of `further` that are not for the same names, with the same kind of key, as one of them: a file may
    hold by now what is obtained as well, and only one could be used."""
    found = list(pairs)
    taken = {(names_of(certificate), key_type(key)) for (certificate, _, key), _ in found}
    return found + [one for one in further if (names_of(one[0][0]), key_type(one[0][2])) not in taken]


def wildcard_of(name: str) -> str:
    """The wildcard that stands for a name; "" for what none can stand for."""
    label, _, rest = name.partition(".")
    return f"*.{rest}" if label and rest and label != "*" else ""


def expiry_of(pair: Pair, path: str) -> Expiry:
    certificate, _, key = pair
    return Expiry(path, names_of(certificate), key_type(key), certificate.not_after)


def normal(name: str) -> str:
    """DNS names are compared without regard to case, and the dot at the end says nothing (RFC 6066, 3 has none). A name beyond
    ASCII is nobody's: some of its letters in lower case are those of others (the Kelvin sign, k)."""
    name = name.lower() if name.isascii() else name
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


# Files. Without a `reading`, each function has one of its own.


def read_file(path: str, reading: Optional[Reading]) -> bytes:
    try:
        return (reading or Reading()).read(path)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise CertificateError(path, getattr(exc, "strerror", None) or str(exc)) from None


def certificates_in(path: str, text: bytes) -> list[SslCertificate]:
    try:
        found = SslCertificate.from_bytes(text)
    except ValueError as exc:
        raise CertificateError(path, str(exc)) from None
    if not found:
        reason = SslCertificate(text).error_string
        raise CertificateError(path, f"it holds no certificate{': ' if reason else ''}{reason}")
    return found


def read_certificates(path: str, reading: Optional[Reading] = None) -> list[SslCertificate]:
    """All certificates of a file, at least one: authorities, for instance. CertificateError."""
    reading = reading or Reading()
    return reading.load(CERTIFICATES, (path,), lambda: certificates_in(path, read_file(path, reading)))


def read_crls(path: str, reading: Optional[Reading] = None) -> list[SslCrl]:
    """All revocation lists of a file, at least one. CertificateError."""
    reading = reading or Reading()
    return reading.load(CRLS, (path,), lambda: crls_in(path, read_file(path, reading)))


def crls_in(path: str, text: bytes) -> list[SslCrl]:
    try:
        found = SslCrl.from_bytes(text)
    except ValueError as exc:
        raise CertificateError(path, str(exc)) from None
    if not found:
        reason = SslCrl(text).error_string
        raise CertificateError(path, f"it holds no certificate revocation list{': ' if reason else ''}{reason}")
    return found


def load_pair(certificate_path: str, key_path: Optional[str], reading: Optional[Reading] = None) -> Pair:
    """Read a certificate with its chain, and its key, which is in the same file if key_path is None. CertificateError."""
    text = read_file(certificate_path, reading)
    certificate, *chain = certificates_in(certificate_path, text)
    key = SslKey(text if key_path is None else read_file(key_path, reading))
    if key.null:
        hint = "; the key may be in a file of its own, but no other is named (--key)" if key_path is None else ""
        raise CertificateError(key_path or certificate_path, key.error_string + hint)
    return certificate, chain, key


def load_checked(paths: KeyPair, reading: Optional[Reading] = None) -> Pair:
    """Read a pair, and have OpenSSL look whether its halves fit and are strong enough. CertificateError."""
    reading = reading or Reading()
    return reading.load(PAIR, files_of(paths), lambda: load_and_check(paths, reading))


def files_of(paths: KeyPair) -> tuple[str, ...]:
    return tuple(dict.fromkeys((paths.certificate, paths.key)))


@cache
def bare_context() -> Context:
    """Of nobody, with the algorithms that OpenSSL has by itself."""
    return Context(server_side=False, verify_mode=VERIFY_NONE, use_system_ca=False)


def check_pair(pair: Pair) -> None:
    """ConfigurationError: OpenSSL does not take the key for this certificate."""
    check_identity(bare_context(), *pair)


def load_and_check(paths: KeyPair, reading: Reading) -> Pair:
    pair = load_pair(paths.certificate, paths.key if paths.key != paths.certificate else None, reading)
    try:
        check_pair(pair)
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
