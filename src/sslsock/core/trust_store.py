"""Where the system keeps the authorities it trusts, for the OpenSSL that a wheel brings along.

A distribution's OpenSSL knows its own distribution's place. Ours looks where Debian, Ubuntu, Alpine, SUSE and Fedora since 43
have it: the file /etc/ssl/cert.pem, the folder /etc/ssl/certs with a name for each certificate's hash (openssl-rehash(1)). This
module finds the file to add where neither is there. Go and rustls look at the same places (crypto/x509/root_linux.go;
openssl-probe).
"""

import os
import re
from typing import Optional

from .files import names_in, state_of

HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")

BUNDLES = (
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora until 42, Red Hat and its kin until 9
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # what that is a link to
    "/etc/ssl/certs/ca-certificates.crt",  # Debian's, where only this file was copied to a container
    "/etc/ssl/ca-bundle.pem",  # SUSE's, likewise
)


def is_hashed(folder: str) -> bool:
    """Whether OpenSSL finds certificates in the folder: one name of the right form is enough."""
    return any(map(HASHED.fullmatch, names_in(folder)))


def bundle_to_add(default_file: str, default_folder: str, root: str = "") -> Optional[str]:
    """The path of the PEM file to load beside OpenSSL's own two places, or None if these serve.

    The variables SSL_CERT_FILE and SSL_CERT_DIR are OpenSSL's: whoever sets one of them has chosen.
    """
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return None
    if state_of(root + default_file) or is_hashed(root + default_folder):
        return None
    return next((root + path for path in BUNDLES if state_of(root + path)), None)
