"""The descriptors that the proxy listens on: one for each listener and worker (SO_REUSEPORT), so that the kernel spreads
connections over the workers; one that all share, where it was passed in or is a UNIX socket.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Optional

from ...core.hostname import parse_host
from ...sockets.local_listener import SocketFile, open_local_socket
from ...sockets.tcp_server import BACKLOG, open_listening_socket
from ..observability.access_log import WARNING, LineWriter
from ..settings.model import Address, ListenerSettings
from .privileges import ListenerSockets, file_owner

__all__ = ["Openings", "Unstartable"]

ATTEMPTS = 20  # to find a port that is free at all addresses of a name
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # addresses of a name that this machine does not have


class Unstartable(Exception):
    """Why the proxy cannot start, or not go on. status: of the process; 1 for the system, 2 for the settings."""

    def __init__(self, reason: object, status: int) -> None:
        super().__init__(str(reason))
        self.status = status


class Openings:
    """All of them, of one run. shared: descriptors that others have too."""

    def __init__(self) -> None:
        self.shared: set[int] = set()
        self._files: list[SocketFile] = []  # of the UNIX sockets that are listened on

    def open(
        self, listeners: Sequence[ListenerSettings], given: Sequence[Optional[ListenerSockets]], count: int, writer: LineWriter
    ) -> list[list[list[int]]]:
        """Open what was not `given`, for `count` workers. Returns the descriptors: for each worker, those of each listener.

        Unstartable: the system does not let us.
        """
        columns: list[list[list[int]]] = []
        for listener, passed_in in zip(listeners, given):
            address = listener.listen
            if passed_in is not None:
                first = [passed.detach() for passed in (passed_in.socket, *passed_in.beside)]
                column = [first, *([os.dup(fd) for fd in first] for _ in range(count - 1))]
                self.shared.update(fd for row in column for fd in row)
                columns.append(column)
            elif address.path is not None:
                columns.append(self._open_path(listener, count))
            else:
                columns.append(open_listeners(address, addresses_of(address), count, writer))
        return [list(row) for row in zip(*columns)]

    def _open_path(self, listener: ListenerSettings, count: int) -> list[list[int]]:
        """One UNIX socket, which all workers accept from: SO_REUSEPORT is for ports."""
        path = listener.listen.path
        assert path is not None
        owner, group = file_owner(listener.owner) if listener.owner is not None else (-1, -1)
        try:
            sock, file = open_local_socket(path, BACKLOG, listener.mode, owner, group)
        except OSError as exc:
            raise unopened(listener.listen, exc) from exc
        if file is not None:
            self._files.append(file)
        first = sock.detach()
        return [[first], *([os.dup(first)] for _ in range(count - 1))]

    def remove_files(self) -> None:
        """Nobody new finds the way here."""
        while self._files:
            self._files.pop().remove()


def open_listeners(
    address: Address, hosts: Sequence[str], count: int, writer: LineWriter, attempts: int = ATTEMPTS
) -> list[list[int]]:
    """Descriptors that listen on `address`, which means `hosts`: one for each of them that this machine has, `count` times."""
    columns: list[list[socket.socket]] = []
    port, problem = address.port, OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    try:
        for host in hosts:
            try:
                columns.append(open_column(host, port, count))
            except OSError as exc:
                if exc.errno not in NOT_HERE:
                    raise
                problem = exc
                if len(hosts) > 1:
                    writer.write(f"{address}: {host} is left out: {exc.strerror}", WARNING)
            else:
                port = columns[0][0].getsockname()[1]  # the same for all, if any would do
        if not columns:
            raise problem
    except OSError as exc:
        for listening in (one for column in columns for one in column):
            listening.close()
        if exc.errno == errno.EADDRINUSE and columns and not address.port and attempts > 1:
            # Any port would do, and somebody has the first host's at another host.
            return open_listeners(address, hosts, count, writer, attempts - 1)
        raise unopened(address, exc) from exc
    return [[listening.detach() for listening in row] for row in zip(*columns)]


def unopened(address: Address, exc: OSError) -> Unstartable:
    hint = ""
    if exc.errno == errno.EACCES and address.path is None and 0 < address.port < 1024:
        hint = " (ports below 1024 are root's, and need the capability CAP_NET_BIND_SERVICE of others)"
    return Unstartable(f"cannot listen on {address}: {exc.strerror or exc}{hint}", 1)


def addresses_of(address: Address) -> list[str]:
    """The numeric addresses behind the host of a listener; "" for every one."""
    if not address.host or parse_host(address.host).numeric:
        return [address.host]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise unopened(address, exc) from exc
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def open_column(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets that listen on one numeric address. OSError."""
    if count > 1 and port:
        # With SO_REUSEPORT, a port that another process of ours has taken would be shared with it.
        open_listening_socket(host, port, False).close()
    opened: list[socket.socket] = []
    for _ in range(count):
        opened.append(open_listening_socket(host, port, count > 1))
        port = opened[0].getsockname()[1]
    return opened
