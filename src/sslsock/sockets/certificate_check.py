"""`SslCertificate.verify`: certificates checked without a connection, by the context that a connection would use."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Optional

from ..core.certificate import SslCertificate, _set_verify
from ..core.hostname import parse_host
from ..core.verification import verify_certificates
from .checked import checked
from .configuration import SslConfiguration, default_configuration
from .constants import PeerVerifyMode, SslMode
from .identity import certificates_of
from .ssl_error import SslError

__all__ = ["SslCertificate", "verify_chain"]

CLIENT, SERVER = SslMode.SSL_CLIENT_MODE, SslMode.SSL_SERVER_MODE


def verify_chain(
    chain: Iterable[SslCertificate],
    name: str,
    configuration: Optional[SslConfiguration],
    purpose: Optional[int],
    time: Optional[datetime],
) -> list[SslError]:
    """As `SslCertificate.verify` says."""
    links = certificates_of(chain, "chain")
    if not links:
        raise ValueError("there is no certificate to verify")
    for link in links:
        if link.null:
            raise ValueError(f"a certificate of the chain did not load: {link.error_string}")
    if configuration is None:
        configuration = default_configuration()
    checked(configuration, SslConfiguration, "configuration")
    verify_name = parse_host(name).verify_name if checked(name, str, "name") else None
    mode = SERVER if purpose is None else SslMode(checked(purpose, int, "purpose"))
    if mode not in (CLIENT, SERVER):
        raise ValueError(f"purpose is SSL_SERVER_MODE or SSL_CLIENT_MODE, not {mode.name}")
    when = None
    if time is not None:
        if checked(time, datetime, "time").tzinfo is None:
            raise ValueError("time has no time zone: datetime.timezone.utc, for instance")
        when = int(time.timestamp())
    context = configuration.context(False, PeerVerifyMode.VERIFY_PEER)
    return [SslError(*error) for error in verify_certificates(context, links, verify_name, mode is CLIENT, when)]


_set_verify(verify_chain)
