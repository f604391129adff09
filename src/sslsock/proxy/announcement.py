"""What the proxy tells once it accepts: a line for each listener, and for what else it listens to."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Optional

from ..sockets.local_path import end_of
from .observability.access_log import LineWriter
from .policy import ListenerPolicy
from .settings.model import Address, ListenerSettings
from .worker import borrowed

__all__ = ["address_here", "announce", "listener_lines"]


def address_here(host: str, port: int) -> Address:
    """Where a server of this machine is asked that listens at `host`; "" are all addresses."""
    return Address("http", host or "localhost", port)


def listener_lines(policy: ListenerPolicy, fd: int, shared: bool) -> list[str]:
    """fd: one of its listening descriptors. shared: somebody else has opened it, and knows by which name."""
    with borrowed(fd) as listening:
        host, port = end_of(listening.getsockname())
    listen = policy.settings.listen
    to = ", ".join(str(address) for route in policy.routes for address in route.route.to)
    here = Address(listen.scheme, ("" if shared else listen.host) or host, port)
    if listen.path is not None:
        here = Address(listen.scheme, "", 0, host)
    lines = [f"listening on {here}, to {to}"]
    if policy.made_in_memory:
        lines.append(f"  with a certificate for localhost made in memory{ca_hint(policy.settings)}")
    return lines


def ca_hint(settings: ListenerSettings) -> str:
    if settings.ca_out is None:
        return " (--ca-out FILE writes its authority)"
    return f"; its authority is in {settings.ca_out}"


def announce(lines: Sequence[str], log: Optional[LineWriter]) -> None:
    """On standard output. log: where every line is JSON and has a time. The lines get there too, and only there where it is one
    stream with standard output."""
    # Names of files and hosts may hold what standard output cannot: that is no reason not to start.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    lines = [line.encode(encoding, "backslashreplace").decode(encoding) for line in lines]
    if log is not None:
        for line in lines:
            log.write(line.strip())
        if os.path.samestat(os.fstat(1), os.fstat(2)):
            return
    with open(1, "wb", closefd=False) as stream:
        output = LineWriter(stream)
    for line in lines:
        output.write(line)
    output.close()  # which waits for a moment only, if nobody reads it
