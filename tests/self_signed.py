"""Certificates with any names and keys, as trustme does not make them. Each signs itself unless it is told who does."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from sslsock import SslCertificate
from sslsock.proxy.settings.model import KeyPair

# RFC822Name itself takes nothing but well-formed addresses.
KINDS = {"DNS": x509.DNSName, "email": x509.RFC822Name._init_without_validation, "URI": x509.UniformResourceIdentifier}
END = datetime.datetime(2049, 12, 31, 23, 59, 58, tzinfo=datetime.timezone.utc)

EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
ED25519_KEY = ed25519.Ed25519PrivateKey.generate()


def general_name(text: str) -> x509.GeneralName:
    """ "KIND:text" in the words of `SslCertificate.subject_alternative_names`; without a kind it is a DNS name."""
    kind, colon, value = text.partition(":")
    if not colon:
        return x509.DNSName(text)
    if kind == "IP":
        return x509.IPAddress(ipaddress.ip_address(value))
    return KINDS[kind](value)


def subject_of(common_names: Sequence[str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])


def make(
    names: Sequence[str],
    common_names: Sequence[str] = (),
    key: Any = EC_KEY,
    end: datetime.datetime = END,
    issuer: Optional[tuple[str, Any]] = None,
    extension: Optional[x509.ExtensionType] = None,
) -> bytes:
    """PEM. issuer: its common name and key. extension: one more."""
    subject = subject_of(common_names)
    signer = key if issuer is None else issuer[1]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else subject_of([issuer[0]]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(END - datetime.timedelta(days=20000))
        .not_valid_after(end)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), False)
    if extension is not None:
        builder = builder.add_extension(extension, False)
    signed = builder.sign(signer, None if signer is ED25519_KEY else hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def certificate(*names: str, cn: Optional[str] = None) -> SslCertificate:
    return SslCertificate(make(names, () if cn is None else [cn]))


def key_pem(key: Any) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return pem


class Folder:
    """Makes pairs of files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0

    def pair(self, *names: str, cn: Sequence[str] = (), key: Any = EC_KEY, end: datetime.datetime = END) -> KeyPair:
        self._count += 1
        certificate, key_file = self.path / f"{self._count}.pem", self.path / f"{self._count}.key"
        certificate.write_bytes(make(names, cn, key, end))
        key_file.write_bytes(key_pem(key))
        key_file.chmod(0o600)
        return KeyPair(str(certificate), str(key_file))
