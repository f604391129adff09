"""The client's address as one to connect from (`--transparent`)."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from ...core.dial import pack_address

__all__ = ["address_of_client"]

BROADCAST = IPv4Address("255.255.255.255")


def address_of_client(client: str, family: int) -> bytes:
    """In the system's form, with port 0. client: numeric, perhaps with a zone. ValueError: it is of another family, or no
    host's."""
    text, _, zone = client.partition("%")
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # of a listener that takes both families
    # bind(2) takes these, and the connection comes from the proxy's own address then.
    if address.is_unspecified or address.is_multicast or address == BROADCAST:
        raise ValueError(f"no connection from {address}, which is no host's address")
    if (address.version == 4) != (family == socket.AF_INET):
        raise ValueError(f"no connection from {address}, which is an address of IPv{address.version}")
    scope = 0
    if zone:
        try:
            scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
        except OSError:
            raise ValueError(f"no connection from {client}: there is no such interface") from None
    return pack_address(family, (str(address), 0) if address.version == 4 else (text, 0, 0, scope))
