"""What a program may give as a host: a name, an internationalized name, an IPv4 or IPv6 address.

`parse_host` turns it into the three things that are needed of it: what to look up, what to check a
certificate against, and what a TLS client says in its first message.
"""

import socket
from typing import NamedTuple, Optional

__all__ = ["Host", "parse_host"]

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
    name = text
    if not text.isascii():
        try:
            name = text.encode("idna").decode("ascii")
        except UnicodeError as exc:
            raise ValueError(f"the host name {text!r} is not valid: {exc}") from None
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
