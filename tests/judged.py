"""Chains for tests of verification, made as they are asked for, and two judges of them beside `SslCertificate.verify`: a
connection, and the `openssl` program."""

from __future__ import annotations

import datetime
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.pairs import server_context
from sslsock import Context, Engine, SslCertificate, SslKey
from sslsock.core.context import VERIFY_PEER

PEM = serialization.Encoding.PEM
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
USES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Issued:
    """A certificate, of `cryptography`, and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def ours(self) -> SslCertificate:
        return SslCertificate(self.pem)

    @property
    def our_key(self) -> SslKey:
        plain = serialization.NoEncryption()
        return SslKey(self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain))


def issue(
    name: str,
    by: Optional[Issued] = None,
    *,
    ca: bool = False,
    begin: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + DAY,
    use: str = "server",
    key: Any = None,
) -> Issued:
    """A certificate for a host (or an authority), signed by another or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(by.certificate.subject if by else named)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([USES[use]]), critical=False)
    return Issued(builder.sign(by.key if by else key, hashes.SHA256()), key)


def revoke(by: Issued, *revoked: Issued, begin: datetime.datetime = NOW - DAY, end: datetime.datetime = NOW + DAY) -> bytes:
    """A revocation list of an authority, PEM."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject).last_update(begin).next_update(end)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number).revocation_date(begin)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(by.key, hashes.SHA256()).public_bytes(PEM)


def weak_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def connection_errors(client: Context, chain: list[Issued], name: Optional[str]) -> list[tuple[Any, ...]]:
    """What a client finds wrong with a server that shows these: list of VerifyError."""
    found: list[tuple[Any, ...]] = []

    def note(errors: list[tuple[Any, ...]]) -> bool:
        found.extend(errors)
        return True

    shown = {
        "certificate": chain[0].ours,
        "certificate_chain": [link.ours for link in chain[1:]],
        "private_key": chain[0].our_key,
        "ciphers": "DEFAULT:@SECLEVEL=0",
    }
    server = Engine(server_context(**shown))
    engine = Engine(client, verify_name=name, verify_handler=note)
    to_server = engine.start()
    while to_server:
        server.decrypt(to_server)
        engine.decrypt(server.take())
        to_server = engine.take()
    assert engine.handshake_done
    assert client.verify_mode == VERIFY_PEER
    return found


def openssl_errors(
    folder: Path, authorities: list[Issued], chain: list[Issued], *arguments: str, lists: tuple[bytes, ...] = ()
) -> list[int]:
    """What the `openssl` program finds wrong: the codes, in its order."""
    (folder / "ca.pem").write_bytes(b"".join(each.pem for each in authorities))
    (folder / "own.pem").write_bytes(chain[0].pem)
    command = ["openssl", "verify", "-no-CAfile", "-no-CApath", "-no-CAstore", "-trusted", str(folder / "ca.pem")]
    for number, crl in enumerate(lists):
        (folder / f"{number}.crl").write_bytes(crl)
        command += ["-CRLfile", str(folder / f"{number}.crl")]
    if chain[1:]:
        (folder / "rest.pem").write_bytes(b"".join(each.pem for each in chain[1:]))
        command += ["-untrusted", str(folder / "rest.pem")]
    said = subprocess.run(
        [*command, *arguments, str(folder / "own.pem")], capture_output=True, text=True, timeout=60, check=False
    )
    codes = [int(code) for code in re.findall(r"^error (\d+) at", said.stderr, re.MULTILINE)]
    assert bool(codes) == (said.returncode != 0), said.stderr
    return codes
