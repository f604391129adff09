"""The profiles of `--tls-profile`, after Mozilla's guidelines for servers, version 5.7:
https://ssl-config.mozilla.org/guidelines/5.7.json

What a profile says and the linked OpenSSL has not is left out, and `Profile.missing` tells what that is. The suites with DHE
are not in the lists, for a server here has no parameters for them: a client can make one that has work hard for nothing
(CVE-2002-20001). Headers of HTTP, the life of certificates and OCSP stapling are no matter of what a handshake agrees on.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from ...core.context import VERIFY_NONE, ConfigurationError, Context, openssl_version, protocol_supported
from .model import PROTOCOL_NAMES, TlsPolicy

__all__ = ["PROFILES", "Profile", "known", "missing_text", "profile"]

TLS_1_0, TLS_1_2, TLS_1_3 = 0x0301, 0x0303, 0x0304

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
GROUPS = ("X25519", "prime256v1", "secp384r1")
INTERMEDIATE = (
    *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    *("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    *("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
)
OLD = (
    *INTERMEDIATE,
    *("ECDHE-ECDSA-AES128-SHA256", "ECDHE-RSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA"),
    *("ECDHE-ECDSA-AES256-SHA384", "ECDHE-RSA-AES256-SHA384", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA"),
    *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA256", "AES256-SHA256", "AES128-SHA", "AES256-SHA"),
    "DES-CBC3-SHA",
)


class Recommended(NamedTuple):
    """One of the guidelines' configurations. keys: the kinds of keys that its certificates have."""

    minimum_protocol: int
    ciphers: tuple[str, ...]
    prefer_server_ciphers: bool
    keys: tuple[str, ...]


PROFILES = {
    "modern": Recommended(TLS_1_3, (), False, ("EC",)),
    "intermediate": Recommended(TLS_1_2, INTERMEDIATE, False, ("EC", "RSA")),
    "old": Recommended(TLS_1_0, OLD, True, ("RSA",)),
}


class Profile(NamedTuple):
    """A profile as far as the linked OpenSSL has it."""

    policy: TlsPolicy
    keys: tuple[str, ...]
    missing: tuple[str, ...]
    """What the guidelines name and this OpenSSL has not: protocols, cipher suites, groups."""


def known(setting: str, value: str) -> bool:
    """Whether the linked OpenSSL has something under this name. setting: the argument of `Context` that it is for."""
    try:
        Context(server_side=False, verify_mode=VERIFY_NONE, use_system_ca=False, **{setting: value})  # type: ignore[arg-type]
    except ConfigurationError:
        return False
    return True


@cache
def profile(name: str) -> Profile:
    """The one of `PROFILES` with this name."""
    wanted = PROFILES[name]
    missing: list[str] = []

    def there(setting: str, names: tuple[str, ...]) -> str:
        missing.extend(each for each in names if not known(setting, each))
        return ":".join(each for each in names if each not in missing)

    versions = range(wanted.minimum_protocol, TLS_1_3 + 1)
    supported = [version for version in versions if protocol_supported(version)]
    missing += [PROTOCOL_NAMES[version] for version in versions if version not in supported]
    policy = TlsPolicy(
        minimum_protocol=min(supported, default=wanted.minimum_protocol),
        ciphers=there("ciphers", wanted.ciphers),
        ciphersuites=there("ciphersuites", SUITES),
        groups=there("groups", GROUPS),
        prefer_server_ciphers=wanted.prefer_server_ciphers,
    )
    return Profile(policy, wanted.keys, tuple(missing))


def missing_text(name: str) -> str:
    """What is missing of a profile, in words; "" for nothing."""
    missing = profile(name).missing
    return f"{openssl_version().partition(' (')[0]} has no {', '.join(missing)}" if missing else ""
