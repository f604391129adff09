"""Certificates of every kind, good and bad, made with the `cryptography` package."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sslsock import SslCertificate, SslConfiguration, SslKey

ALGORITHMS = ("rsa", "ecdsa", "ed25519")
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH

NAME = "server.example.test"
DAY = timedelta(days=1)
NOW = datetime.now(timezone.utc).replace(microsecond=0)


def make_key(algorithm: str) -> Any:
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.RFC822Name(name) if "@" in name else x509.DNSName(name)


class Identity:
    """A certificate with its key, and the certificates that lead to its root."""

    def __init__(self, certificate: x509.Certificate, key: Any, issuer: Optional[Identity]) -> None:
        self.certificate = certificate
        self.key = key
        self.issuer = issuer

    @cached_property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @cached_property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def is_root(self) -> bool:
        return self.issuer is None

    @property
    def chain(self) -> list[Identity]:
        """This one and those above it, without the root."""
        if self.issuer is None or self.issuer.is_root:
            return [self]
        return [self, *self.issuer.chain]

    @cached_property
    def ours(self) -> SslCertificate:
        certificate = SslCertificate(self.pem)
        assert not certificate.null, certificate.error_string
        return certificate

    @property
    def subject(self) -> str:
        return self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value

    def configuration(self, *trusted: Identity, chain: Optional[Sequence[Identity]] = None) -> SslConfiguration:
        """A configuration with this identity, that trusts these roots and no others."""
        configuration = trusting(*trusted)
        configuration.local_certificate_chain = [link.ours for link in chain or self.chain]
        configuration.private_key = SslKey(self.key_pem)
        return configuration


def trusting(*roots: Identity) -> SslConfiguration:
    """A configuration that trusts these roots and no others."""
    configuration = SslConfiguration()
    configuration.use_system_ca = False
    for root in roots:
        configuration.add_ca_certificate(root.ours)
    return configuration


def issue(
    subject: str,
    *names: str,
    issuer: Optional[Identity] = None,
    algorithm: str = "ecdsa",
    days: tuple[int, int] = (-1, 30),
    ca: Optional[bool] = False,
    path_length: Optional[int] = None,
    usages: Sequence[x509.ObjectIdentifier] = (),
    signs_certificates: Optional[bool] = None,
    signs: bool = True,
    permitted: Sequence[str] = (),
) -> Identity:
    """A certificate. Without `issuer` it is self-signed; `ca` None leaves the basic constraints out."""
    key = make_key(algorithm)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    signer = issuer.key if issuer is not None else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer is not None else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + days[0] * DAY)
        .not_valid_after(NOW + days[1] * DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    builder = builder.add_extension(
        x509.KeyUsage(
            digital_signature=signs,
            content_commitment=False,
            key_encipherment=algorithm == "rsa" and not ca and signs,
            data_encipherment=not signs,
            key_agreement=False,
            key_cert_sign=bool(ca) if signs_certificates is None else signs_certificates,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        ),
        critical=True,
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([general_name(n) for n in names]), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if permitted:
        builder = builder.add_extension(x509.NameConstraints([x509.DNSName(n) for n in permitted], None), critical=True)
    signature_hash = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Identity(builder.sign(signer, signature_hash), key, issuer)


class Pki:
    """Two roots, an intermediate authority, and one server and one client of each algorithm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = issue("Test Root", ca=True)
        self.other_root = issue("Other Root", ca=True)
        self.middle = issue("Test Intermediate", issuer=self.root, ca=True)
        names = (NAME, "localhost", "127.0.0.1", "::1")
        self.servers = {
            algorithm: issue(NAME, *names, issuer=self.middle, algorithm=algorithm, usages=[SERVER]) for algorithm in ALGORITHMS
        }
        self.clients = {
            algorithm: issue(
                f"client {algorithm}", "client@example.test", issuer=self.middle, algorithm=algorithm, usages=[CLIENT]
            )
            for algorithm in ALGORITHMS
        }
        self.root_file = str(folder / "root.pem")
        Path(self.root_file).write_bytes(self.root.pem)
        self._files: dict[tuple[Identity, ...], tuple[str, str]] = {}

    @property
    def server(self) -> Identity:
        return self.servers["ecdsa"]

    @property
    def client(self) -> Identity:
        return self.clients["ecdsa"]

    def files(self, identity: Identity, chain: Optional[Sequence[Identity]] = None) -> tuple[str, str]:
        """Paths of an identity's chain (or of `chain`) and of its key, the same each time."""
        links = tuple(chain or identity.chain)
        if links not in self._files:
            number = len(self._files)
            certificates, key = self.folder / f"chain{number}.pem", self.folder / f"key{number}.pem"
            certificates.write_bytes(b"".join(link.pem for link in links))
            key.write_bytes(identity.key_pem)
            key.chmod(0o600)
            self._files[links] = str(certificates), str(key)
        return self._files[links]
