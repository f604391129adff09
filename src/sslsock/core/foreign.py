"""Certificates, keys and revocation lists of the package `cryptography`, and what has the same methods, taken by their DER.

The package is never imported: whoever has such an object has done so.
"""

import sys
from typing import Any, Optional

MODULE = "cryptography.hazmat.primitives.serialization"
PLAIN = (bytes, str, bytearray, memoryview)


def foreign_der(given: Any) -> Optional[bytes]:
    """Of a certificate or a revocation list; None: `given` is no such object."""
    if isinstance(given, PLAIN) or not hasattr(given, "public_bytes") or MODULE not in sys.modules:
        return None
    der: bytes = given.public_bytes(sys.modules[MODULE].Encoding.DER)  # TypeError: it is a key
    return der


def foreign_key_der(given: Any, private: bool) -> Optional[bytes]:
    """Of a key, of the half wanted, if it has that; a private one is the caller's to wipe. None: it is none of these."""
    if isinstance(given, PLAIN) or MODULE not in sys.modules:
        return None
    forms = sys.modules[MODULE]
    der: bytes
    if hasattr(given, "private_bytes"):
        if private:
            der = given.private_bytes(forms.Encoding.DER, forms.PrivateFormat.PKCS8, forms.NoEncryption())
            # The caller wipes it, so it must be nobody else's. `cryptography` makes it anew for each call.
            return der if type(given).__module__.startswith("cryptography.") else bytes(bytearray(memoryview(der)))
        given = given.public_key()
    if not hasattr(given, "public_bytes"):
        return None
    der = given.public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo)  # TypeError: it is a certificate
    return der
