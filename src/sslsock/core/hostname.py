"""What a program may give as a host: a name, an internationalized name, an IPv4 or IPv6 address.

`parse_host` turns it into the three things that are needed of it: what to look up, what to check a
certificate against, and what a TLS client says in its first message. `ascii_name` is the one place where a name
that is not ASCII gets the form that goes over the network.
"""

import socket
from typing import NamedTuple, Optional

__all__ = ["Host", "ascii_name", "is_address", "parse_host"]

NAME_LIMIT = 253  # characters of a name in text, RFC 1035, 2.3.4
LABEL_LIMIT = 63


class Host(NamedTuple):
    """A checked host."""

    name: str
    """ASCII, to be looked up: an A-label name, or an address (with its scope, "fe80::1%eth0")."""
    numeric: bool
    """True for an address: no lookup is needed."""
    verify_name: str
    """What a certificate has to be for: the name, or the address without its scope."""
    server_name: Optional[str]
    """What goes into the server name indication: RFC 6066, 3 allows DNS names only, without the dot at the
    end."""


def is_address(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, UnicodeError):  # a lone surrogate has no encoding
        return False
    return True


def ascii_name(text: str) -> str:
    """A name with A-labels in place of what is not ASCII: IDNA 2008 (RFC 5891), after the mapping that browsers use (UTS 46,
    not transitional: \u00df stays what it is). ASCII is left alone. ValueError says what is wrong with the name."""
    if text.isascii():
        return text
    if len(text) > 4 * NAME_LIMIT:  # no mapping makes that short enough
        raise ValueError(f"the host name is longer than {NAME_LIMIT} characters")
    try:
        import idna  # slow to load, and few names need it
    except ImportError as exc:
        raise ValueError(f"the host name {text!r} is not ASCII, which needs the package idna: {exc}") from None
    try:
        labels = idna.uts46_remap(text, std3_rules=False, transitional=False).split(".")
        # Label by label: an underscore beside what is not ASCII is as good as without it.
        return ".".join([label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels])
    except UnicodeError as exc:
        raise ValueError(f"the host name {text!r} is not valid: {exc}") from None


def parse_host(text: str) -> Host:
    """Check and take apart what the program gave. ValueError says what is wrong with it."""
    if not text:
        raise ValueError("the host name is empty")
    if "\0" in text:
        raise ValueError(f"the host name {text!r} holds a NUL character")
    bare = text[1:-1] if text[0] == "[" and text[-1] == "]" else text
    if is_address(socket.AF_INET, bare):
        return Host(bare, True, bare, None)
    address = bare.partition("%")[0]
    if ":" in bare and is_address(socket.AF_INET6, address):
        return Host(bare, True, address, None)
    return parse_name(text)


def parse_name(text: str) -> Host:
    name = ascii_name(text)
    if name is not text and is_address(socket.AF_INET, name):  # written with the digits of another script
        return Host(name, True, name, None)
    plain = name[:-1] if name.endswith(".") else name
    if len(plain) > NAME_LIMIT:
        raise ValueError(f"the host name {text!r} is longer than {NAME_LIMIT} characters")
    if any(not 0 < len(label) <= LABEL_LIMIT for label in plain.split(".")):
        raise ValueError(f"the host name {text!r} has a part that is empty or longer than {LABEL_LIMIT} characters")
    if any(char <= " " or char in "/\\:@[]\x7f" for char in plain):
        raise ValueError(f"the host name {text!r} holds a character that no host name has")
    # The old short forms ("127.1") end in a number, as no top-level domain does: the resolver knows them, SNI
    # must not.
    is_dns_name = not plain.rpartition(".")[2].isdigit()
    return Host(name, False, plain, plain if is_dns_name else None)
