"""Lists of networks: who may connect (`--allow-source`, `--deny-source`, and files of them).

Of the networks that hold an address the smallest decides; where it stands in both lists, the one that denies. An address in
neither list may connect, unless there is a list of those who may.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from typing import Optional

from ...core.network_list import NetworkList
from ..files.reading import Reading
from ..settings import hosts
from ..settings.model import Network, SettingsError

__all__ = ["MAPPED", "NETWORKS", "address_text", "make_list", "packed_address", "read_networks"]

NETWORKS = "networks"  # the kind of a `Unit`
MAPPED = bytes(10) + b"\xff\xff"  # IPv4 addresses among those of 16 bytes: RFC 4291, 2.5.5.2
BITS = 128


def packed_address(host: str) -> Optional[bytes]:
    """An address as 16 bytes; None: it is no IP address."""
    try:
        if ":" in host:
            return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        return MAPPED + socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):  # ValueError: a path that is no UTF-8 (proxy_protocol)
        return None


def address_text(packed: bytes) -> str:
    if packed.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[len(MAPPED) :])
    return socket.inet_ntop(socket.AF_INET6, packed)


def read_networks(path: str, reading: Reading) -> tuple[Network, ...]:
    """A file with one network a line; `#` begins a comment. OSError, ValueError, SettingsError: which line is wrong."""
    return reading.load(NETWORKS, (path,), lambda: networks_in(path, reading.read(path)))


def networks_in(path: str, data: bytes) -> tuple[Network, ...]:
    found = []
    for number, line in enumerate(data.decode("utf-8", "backslashreplace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                found.append(hosts.network(text))
            except ValueError as exc:
                raise SettingsError(path, number, str(exc)) from None
    return tuple(found)


def bounds(network: Network) -> tuple[int, int]:
    """The first address of a network among those of 16 bytes, and the bits that it has in common with the others."""
    offset = 0xFFFF << 32 if isinstance(network, IPv4Network) else 0
    return offset + int(network.network_address), network.prefixlen + BITS - network.max_prefixlen


def make_list(allowed: Iterable[Network], denied: Iterable[Network], only_allowed: bool) -> NetworkList:
    """only_allowed: nobody is let in whom no network holds."""
    entries = sorted({(*bounds(network), False) for network in denied} | {(*bounds(network), True) for network in allowed})
    # One that denies comes after the same network that allows, and so goes before it.
    entries.sort(key=lambda entry: (entry[0], entry[1], not entry[2]))
    ranges: list[tuple[int, bool]] = [(0, not only_allowed)]
    around: list[tuple[int, bool]] = []  # the networks that hold the place, smallest last: where each ends, what it says

    def leave_before(start: int) -> None:
        while around and around[-1][0] <= start:
            end = around.pop()[0]
            begin(end, around[-1][1] if around else not only_allowed)

    def begin(start: int, meant: bool) -> None:
        if ranges[-1][0] == start:
            ranges.pop()
        if start < 1 << BITS:
            ranges.append((start, meant))

    for start, length, meant in entries:
        leave_before(start)
        around.append((start + (1 << (BITS - length)), meant))
        begin(start, meant)
    leave_before(1 << BITS)
    return packed_list(ranges)


def packed_list(ranges: Sequence[tuple[int, bool]]) -> NetworkList:
    kept = [item for before, item in zip([(-1, None), *ranges], ranges) if before[1] is not item[1]]
    return NetworkList(b"".join(start.to_bytes(16, "big") for start, _ in kept), bytes(meant for _, meant in kept))
