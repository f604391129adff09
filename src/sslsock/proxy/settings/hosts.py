"""Hosts and networks in the settings: what is taken for one, by one rule wherever it is named.

`core.hostname` knows every form that a program may want; a proxy's settings are read by people, and by other programs than the
one that they were tried with. So what only stands for an address in some C library (127.1, 0x7f000001, 010.0.0.1) is refused,
and what can be no end of a connection where it stands.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Union

from ...core.hostname import Host, parse_host
from .model import Network

__all__ = ["back_end", "ends_in_number", "host", "is_end", "is_loopback", "listening", "network", "spelled_alike"]

NAME = re.compile(r"[A-Za-z0-9._-]+")  # underscores: not in host names (RFC 1123, 2.1), and yet in use
NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
BROADCAST = IPv4Address("255.255.255.255")
MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291, 2.5.5.2


def host(text: str) -> Host:
    """A name, or an address that stands for itself. ValueError, also for patterns and variables, which some proxies know: the
    resolver may take one of them for this machine."""
    found = parse_host(text)
    if found.numeric:
        return found
    if not NAME.fullmatch(found.name):
        raise ValueError(f"{text!r} is no host name: it may have letters, digits, hyphens, underscores and dots")
    if ends_in_number(found.name):
        raise ValueError(
            f"{text!r}: no host name ends in a number, and an IPv4 address is four numbers, as in 192.0.2.1"
            f"{taken_for(found.verify_name)}"
        )
    return found


def back_end(text: str) -> Host:
    """A host to connect to. ValueError."""
    found = host(text)
    if found.numeric:
        address = plain(found)
        if address.is_unspecified:
            raise ValueError(f"{text} means every address of this machine: it can be listened on, and not connected to")
        refuse_many(text, address)
    return found


def is_loopback(text: str) -> bool:
    """Whether a host that `back_end` has taken is this machine, for all that can be told without a lookup."""
    found = parse_host(text)
    return plain(found).is_loopback if found.numeric else found.name.lower() == "localhost"


def listening(text: str) -> Host:
    """A host to listen at: also every address of this machine (0.0.0.0, ::). ValueError."""
    found = host(text)
    if found.numeric:
        address = plain(found)
        refuse_many(text, address)
        if address.version == 4 and ":" in text:
            raise ValueError(f"{text} is an IPv4 address in the form of IPv6: write {address}")
    return found


def is_end(text: str) -> bool:
    """Whether a connection can be made to an address, as a resolver gives it: some name servers answer 0.0.0.0 to say that
    there is no such host, and the system connects to itself then."""
    try:
        back_end(text)
    except ValueError:
        return False
    return True


def spelled_alike(text: str) -> str:
    """The same for every spelling of a host that is one, "" too: ::1 and 0:0::1, LOCALHOST and localhost."""
    if not text:
        return text
    found = parse_host(text)
    if found.numeric:
        return str(ip_address(found.verify_name)) + found.name[len(found.verify_name) :]
    return found.verify_name.lower()


def network(text: str) -> Network:
    """An address or a network that clients come from. ValueError."""
    try:
        found = ip_network(text)
    except ValueError as exc:
        raise ValueError(f"{exc}; a network is needed, as in 10.0.0.0/8") from None
    if isinstance(found, IPv6Network) and found.subnet_of(MAPPED):
        inner = IPv4Network((int(found.network_address) & 0xFFFFFFFF, found.prefixlen - MAPPED.prefixlen))
        raise ValueError(f"{text}: a client from there comes from an IPv4 address: write {inner}")
    first = found.network_address
    if found.num_addresses == 1 and first.is_unspecified:
        raise ValueError(f"{text} is no client's address; every address is {first}/0")
    if found.is_multicast or found.num_addresses == 1:
        refuse_many(text, first)
    return found


def ends_in_number(name: str) -> bool:
    """Whether the last label of a name is a number, as in no host name: https://url.spec.whatwg.org/#ends-in-a-number-checker"""
    return NUMBER.fullmatch(name.removesuffix(".").rpartition(".")[2]) is not None


def taken_for(name: str) -> str:
    """A hint for who is used to the short forms of inet(3)."""
    with suppress(OSError):
        return f"; some systems take it for {socket.inet_ntoa(socket.inet_aton(name))}"
    return ""


def plain(found: Host) -> Union[IPv4Address, IPv6Address]:
    """Without a scope, and an IPv4 address that is written as IPv6 as what it is."""
    address = ip_address(found.verify_name)
    return getattr(address, "ipv4_mapped", None) or address


def refuse_many(text: str, address: Union[IPv4Address, IPv6Address]) -> None:
    """ValueError for what stands for several hosts, with which no connection can be."""
    if address.is_multicast:
        raise ValueError(f"{text} is a multicast address: no connection has such an end")
    if address == BROADCAST:
        raise ValueError(f"{text} is the broadcast address: no connection has such an end")
