"""What handshakes with clients fail of, in a few words for metrics: whom a TLS policy turns away.

libssl tells its reasons in words (SSL_R_…, as `openssl errstr` has them), which stand in a record's `error`.
"""

from __future__ import annotations

from typing import Optional

from .record import HANDSHAKE_BROKEN, HANDSHAKE_REFUSED

__all__ = ["ALERT", "CAUSES", "CERTIFICATE", "CIPHER", "GROUP", "OTHER", "PROTOCOL", "SIGNATURE_ALGORITHM", "cause_of"]

PROTOCOL = "protocol"
CIPHER = "cipher"
GROUP = "group"
SIGNATURE_ALGORITHM = "signature_algorithm"
CERTIFICATE = "certificate"
ALERT = "alert"  # the client has sent one
OTHER = "other"

CAUSES = (PROTOCOL, CIPHER, GROUP, SIGNATURE_ALGORITHM, CERTIFICATE, ALERT, OTHER)

WORDS = {
    "the peer sent the alert": ALERT,
    "unsupported protocol": PROTOCOL,
    "inappropriate fallback": PROTOCOL,
    "no shared cipher": CIPHER,
    "no suitable key share": GROUP,
    "no suitable groups": GROUP,
    "no shared groups": GROUP,
    "no suitable signature algorithm": SIGNATURE_ALGORITHM,
    "no shared signature algorithms": SIGNATURE_ALGORITHM,
    "wrong signature type": SIGNATURE_ALGORITHM,
}


def cause_of(result: str, error: str) -> Optional[str]:
    """Of a handshake with this `handshake_result` and `error`; None where it did not fail of anything said in it."""
    if result == HANDSHAKE_REFUSED:
        return CERTIFICATE
    if result != HANDSHAKE_BROKEN:
        return None
    return next((cause for words, cause in WORDS.items() if words in error), OTHER)
