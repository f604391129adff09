"""What an authority is answered that looks whether a name leads here: tls-alpn-01 (RFC 8737) and http-01 (RFC 8555, 8.3).

The answer of each name stands in the storage while it is asked for: every proxy that shares it can give it, whichever of them
the name leads to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from datetime import datetime, timedelta, timezone
from typing import Optional

from ...core.certificate import SslCertificate
from ...core.context import VERIFY_NONE, Context
from ...core.key import SslKey
from .storage import Storage

__all__ = ["ACME_TLS", "HTTP_01", "TLS_ALPN_01", "Challenges"]

ACME_TLS = "acme-tls/1"  # RFC 8737, 6.2
TLS_ALPN_01, HTTP_01 = "tls-alpn-01", "http-01"
ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"  # id-pe-acmeIdentifier: RFC 8737, 6.1
BACKDATED, VALID = timedelta(hours=1), timedelta(days=7)


class Challenges:
    """The questions under way. `publish` and `withdraw` are for whoever holds the storage's lock, the others for any thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._contexts: dict[str, tuple[str, Context]] = {}  # by name: the answer, and what shows it

    def publish(self, name: str, kind: str, token: str, answer: str) -> None:
        """Have `answer` (the key authorization) given from now on. OSError."""
        told = {"type": kind, "token": token, "answer": answer}
        self._storage.write(place_of(name), json.dumps(told).encode())

    def withdraw(self, name: str) -> None:
        """OSError."""
        self._contexts.pop(name, None)
        self._storage.remove(place_of(name))

    def context(self, name: str) -> Optional[Context]:
        """For a connection that asks for `name` by the protocol acme-tls/1; None: nobody has reason to ask."""
        found = self._find(name, TLS_ALPN_01)
        if found is None:
            self._contexts.pop(name, None)
            return None
        known, context = self._contexts.get(name, ("", None))
        if context is None or known != found["answer"]:
            context = challenge_context(name, found["answer"])
            self._contexts[name] = found["answer"], context
        return context

    def http_answer(self, name: str, token: str) -> Optional[str]:
        """What `GET /.well-known/acme-challenge/TOKEN` of a host is answered; None: nothing."""
        found = self._find(name, HTTP_01)
        return found["answer"] if found is not None and found["token"] == token else None

    def _find(self, name: str, kind: str) -> Optional[dict[str, str]]:
        try:
            data = self._storage.read(place_of(name))
            found = json.loads(data) if data is not None else None
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or found.get("type") != kind:
            return None
        return found if all(isinstance(found.get(key), str) for key in ("token", "answer")) else None


def place_of(name: str) -> str:
    return f"challenges/{name}.json"


def challenge_context(name: str, answer: str, protocols: Collection[str] = (ACME_TLS,)) -> Context:
    """Shows a certificate that only who asks for `name` by acme-tls/1 understands: RFC 8737, 3."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # An OCTET STRING of 32 bytes in DER.
    digest = b"\x04\x20" + hashlib.sha256(answer.encode()).digest()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "acme challenge")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(ACME_IDENTIFIER), digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Context(
        server_side=True,
        certificate=SslCertificate(certificate.public_bytes(serialization.Encoding.PEM)),
        private_key=SslKey(private),
        verify_mode=VERIFY_NONE,
        use_system_ca=False,
        next_protocols=[protocol.encode() for protocol in protocols],
    )
