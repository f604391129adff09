"""What a program may give for a certificate, a chain, a key or a revocation list: objects of this package, objects of the
package `cryptography`, and for a whole identity the bytes of files as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional, Union

from ..core.certificate import SslCertificate
from ..core.context import VERIFY_NONE, Context
from ..core.crl import SslCrl
from ..core.encoded import SslEncoding
from ..core.key import SslKey
from ..core.pre_shared_key import MOST_IDENTITY
from .checked import checked

__all__ = ["certificate_of", "certificates_of", "crl_of", "encoded_psk_identity", "identity_of", "key_of"]

Encoded = (bytes, bytearray, memoryview, str)
SEQUENCE = 0x30  # what DER begins with, and no text


def certificate_of(value: Any, name: str) -> SslCertificate:
    """TypeError for what is none, or the bytes of one."""
    if hasattr(value, "public_bytes"):
        return SslCertificate(value)
    certificate: SslCertificate = checked(value, SslCertificate, name)
    return certificate


def certificates_of(values: Iterable[Any], name: str) -> tuple[SslCertificate, ...]:
    if isinstance(values, SslCertificate) or hasattr(values, "public_bytes"):
        raise TypeError(f"{name} is a list of SslCertificate, not one")
    return tuple(certificate_of(value, f"a member of {name}") for value in values)


def crl_of(value: Any, name: str) -> SslCrl:
    """TypeError for what is none, or the bytes of one."""
    if hasattr(value, "public_bytes"):
        return SslCrl(value)
    crl: SslCrl = checked(value, SslCrl, name)
    return crl


def key_of(value: Any, name: str) -> SslKey:
    """TypeError for what is none, or the bytes of one."""
    if hasattr(value, "private_bytes"):
        return SslKey(value)
    key: SslKey = checked(value, SslKey, name)
    return key


def identity_of(
    chain: Any, private_key: Any, passphrase: Optional[Union[str, bytes, bytearray, memoryview]]
) -> tuple[tuple[SslCertificate, ...], SslKey]:
    """As `SslConfiguration.set_identity` says. TypeError, ValueError."""
    if isinstance(chain, Encoded):
        certificates = tuple(SslCertificate.from_bytes(chain))
        if not certificates:
            raise ValueError(f"there is no certificate: {SslCertificate(chain).error_string}")
        if private_key is None:
            private_key = chain
    elif isinstance(chain, SslCertificate) or hasattr(chain, "public_bytes"):
        certificates = (certificate_of(chain, "chain"),)
    else:
        certificates = certificates_of(chain, "chain")
    if isinstance(private_key, Encoded):
        binary = not isinstance(private_key, str) and bytes(memoryview(private_key)[:1]) == bytes((SEQUENCE,))
        key = SslKey(private_key, format=SslEncoding.DER if binary else SslEncoding.PEM, passphrase=passphrase)
    else:
        key = key_of(private_key, "private_key")
    if not certificates:
        raise ValueError("there is no certificate")
    # ConfigurationError, a ValueError: one did not load, or they do not belong together.
    Context(
        server_side=False,
        verify_mode=VERIFY_NONE,
        use_system_ca=False,
        certificate=certificates[0],
        certificate_chain=certificates[1:],
        private_key=key,
    )
    return certificates, key


def encoded_psk_identity(identity: Union[str, bytes], name: str) -> bytes:
    """The identity of a pre-shared key as it goes over the network: bytes. TypeError, ValueError."""
    if not isinstance(identity, (str, bytes)):
        raise TypeError(f"{name} is a str or bytes, not {type(identity).__name__}")
    wire = identity.encode("utf-8", "surrogateescape") if isinstance(identity, str) else identity
    if b"\0" in wire or len(wire) > MOST_IDENTITY:
        raise ValueError(f"{name} is at most {MOST_IDENTITY} bytes, without NUL")
    return wire
