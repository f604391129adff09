"""Of `builder`: names of services among the back ends, and the name servers that are asked."""

from __future__ import annotations

import re
from typing import Optional, Union

from ...core.hostname import parse_host
from ...sockets.host_port import parse_connect_address
from . import hosts
from .model import Address
from .table import Table

__all__ = ["resolver_of", "service_of"]

NAME_SERVER = 53  # port
SERVICE = re.compile(r"_[A-Za-z0-9-]+\._[A-Za-z0-9-]+\..+")  # RFC 2782: _Service._Proto.Name
BY_SYSTEM, BY_DNS = "system", "dns"


def service_of(table: Table, text: str, *parts: Union[str, int]) -> Optional[Address]:
    """tcp+srv://NAME or tls+srv://NAME; None for what is none of these."""
    scheme, separator, name = text.partition("://")
    scheme, _, kind = scheme.lower().partition("+")
    if not separator or kind != "srv" or scheme not in ("tcp", "tls"):
        return None
    if not SERVICE.fullmatch(name):
        table.fail(f"{text!r}: the name of a service is needed, as in {scheme}+srv://_http._tcp.example.com", *parts)
    try:
        name = hosts.host(name).name
    except ValueError as exc:
        table.fail(str(exc), *parts)
    return Address(scheme, name, 0, service=True)


def resolver_of(top: Table) -> Optional[tuple[tuple[str, int], ...]]:
    """As in `ProxySettings`."""
    words = [(index, word.strip()) for index, text in enumerate(top.texts("resolver")) for word in text.split(",")]
    if not words or [word for _, word in words] == [BY_SYSTEM]:
        return None
    if [word for _, word in words] == [BY_DNS]:
        return ()
    return tuple(server_of(top, word, index) for index, word in words)


def server_of(top: Table, text: str, index: int) -> tuple[str, int]:
    """ADDRESS or ADDRESS:PORT, an IPv6 address in brackets where a port follows."""
    reason = f"{text!r}: {BY_SYSTEM}, {BY_DNS} or the addresses of name servers are needed, as in 10.0.0.53 or [fd00::53]:5353"
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        if parse_host(bare).numeric:
            return hosts.back_end(bare).name, NAME_SERVER
    except ValueError:
        pass
    try:
        host, port = parse_connect_address(text)
        found = hosts.back_end(host)
    except ValueError:
        top.fail(reason, "resolver", index)
    if not found.numeric:
        top.fail(reason, "resolver", index)
    return found.name, port
