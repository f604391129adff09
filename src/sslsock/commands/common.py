"""What several commands share: their errors, addresses, certificates from files, and text for people."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from typing import Optional

from .. import ConfigurationError, SslCertificate, SslConfiguration, SslProtocol
from ..proxy.certificates import CertificateError, load_pair

PROTOCOL_NAMES = {
    SslProtocol.SSL_3: "SSL 3",
    SslProtocol.TLS_1_0: "TLS 1.0",
    SslProtocol.TLS_1_1: "TLS 1.1",
    SslProtocol.TLS_1_2: "TLS 1.2",
    SslProtocol.TLS_1_3: "TLS 1.3",
}


class CommandError(Exception):
    """What ends a command: one line for the user, and the exit status."""

    status = 1


class UsageError(CommandError):
    """The command was called in a way that cannot work."""

    status = 2


def print_error(text: str) -> None:
    """A line on standard error. Its reader may be gone; that is no reason to fail."""
    with suppress(OSError, ValueError):
        print(f"sslsock: {text}", file=sys.stderr, flush=True)


# Arguments. argparse puts the words of an ArgumentTypeError behind the name of the argument.


def split_address(text: str, least_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} has no port: HOST:PORT is needed")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or host.startswith("[") or host.endswith("]"):
        raise argparse.ArgumentTypeError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:443")
    if not (port.isascii() and port.isdigit() and least_port <= int(port[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r}: a port is {least_port} to 65535, not {port!r}")
    return host, int(port)


def address(text: str) -> tuple[str, int]:
    """HOST:PORT to connect to."""
    host, port = split_address(text, 1)
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} has no host: HOST:PORT is needed")
    return host, port


def listen_address(text: str) -> tuple[str, int]:
    """HOST:PORT to listen on: the host may be empty or *, the port 0."""
    host, port = split_address(text, 0)
    return "" if host == "*" else host, port


def names_list(text: str) -> list[str]:
    """Names with commas between them."""
    names = [name.strip() for name in text.split(",")]
    if not all(0 < len(name.encode()) < 256 for name in names):
        raise argparse.ArgumentTypeError(f"{text!r}: names of 1 to 255 bytes with commas between them are needed")
    return names


def positive(text: str) -> float:
    with suppress(ValueError):
        number = float(text)
        if 0 < number < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")


def positive_count(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text[:9]) > 0:
        return int(text[:9])
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")


# Certificates


def load_identity(configuration: SslConfiguration, certificate_path: Optional[str], key_path: Optional[str]) -> None:
    """Set certificate, chain and key from the files of --cert and --key. UsageError."""
    if certificate_path is None:
        if key_path is not None:
            raise UsageError("--key needs --cert")
        return
    try:
        certificate, chain, key = load_pair(certificate_path, key_path)
    except CertificateError as exc:
        raise UsageError(str(exc)) from None
    configuration.local_certificate = certificate
    configuration.local_certificate_chain = chain
    configuration.private_key = key


def check_configuration(configuration: SslConfiguration, server_side: bool) -> None:
    """Have OpenSSL look at the settings before any connection does. UsageError."""
    mode = configuration.peer_verify_mode
    if mode is SslConfiguration.AUTO_VERIFY_PEER:
        mode = SslConfiguration.QUERY_PEER if server_side else SslConfiguration.VERIFY_PEER
    try:
        configuration.context(server_side, mode)  # the configuration keeps it for the connections
    except ConfigurationError as exc:
        raise UsageError(str(exc)) from None


# Text


def printable(text: str) -> str:
    """Text from a peer, for a terminal: what does not print is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def name_text(name: dict[str, list[str]]) -> str:
    """A subject or issuer on one line."""
    return ", ".join(f"{kind}={value}" for kind, values in name.items() for value in values) or "(empty)"


def certificate_lines(certificate: SslCertificate) -> list[tuple[str, str]]:
    """What people ask of a certificate: (what, text)."""
    lines = [("subject", name_text(certificate.subject)), ("issuer", name_text(certificate.issuer))]
    begin, end = certificate.not_before, certificate.not_after
    times = [time.strftime("%Y-%m-%d %H:%M:%S") if time is not None else "unknown" for time in (begin, end)]
    lines.append(("valid", f"{times[0]} to {times[1]} UTC"))
    names = certificate.subject_alternative_names
    lines.append(("names", ", ".join(f"{kind}:{value}" for kind, value in names) or "(none)"))
    return lines


def protocol_text(protocol: Optional[SslProtocol]) -> str:
    return PROTOCOL_NAMES[protocol] if protocol is not None else "none"


def address_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def wants_colour(fd: int) -> bool:
    """Colour is for terminals, unless the user does not want it (no-color.org)."""
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
