"""What several commands share: their errors, arguments, certificates from files, and text for people."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from typing import Callable, Optional, TypeVar

from .. import ConfigurationError, SslConfiguration, SslProtocol
from ..proxy.tls.certificates import CertificateError, load_pair
from ..sockets.host_port import parse_connect_address, parse_listen_address

Parsed = TypeVar("Parsed")

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


def print_result(text: str) -> None:
    """A line on standard output, for which the command was called. CommandError if it takes none, as on a full disk."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CommandError(f"standard output: {exc.strerror or exc}") from None


# Arguments. argparse puts the words of an ArgumentTypeError behind the name of the argument.


def argument(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """A parser that raises ValueError, as the type of an argument."""

    def parse_argument(text: str) -> Parsed:
        try:
            return parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None

    return parse_argument


address = argument(parse_connect_address)
listen_address = argument(parse_listen_address)


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


def protocol_text(protocol: Optional[SslProtocol]) -> str:
    return PROTOCOL_NAMES[protocol] if protocol is not None else "none"


def wants_colour(fd: int) -> bool:
    """Colour is for terminals, unless the user does not want it (no-color.org)."""
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
