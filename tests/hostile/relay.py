"""A relay between two sockets under test that cuts what goes through it, on the loop of the test.

It works with sockets of the standard library and has one look at them in every turn of the loop, so that each piece it
forwards comes in an event of its own.
"""

from __future__ import annotations

import socket
from typing import Callable, Optional

from peers import Host

TLS_TYPES = range(20, 24)  # RFC 8446, 5.1
QUIET = 8  # turns without news until what was held back goes on
SMALL = 4096  # bytes of kernel buffer asked for; the system rounds up to its own least


def whole(flow: Flow) -> int:
    return len(flow.waiting)


def single_bytes(flow: Flow) -> int:
    return 1


def sevens(flow: Flow) -> int:
    return 7


def records(flow: Flow) -> int:
    """One TLS record, when it is complete; one line of anything else."""
    if flow.waiting[:1] and flow.waiting[0] not in TLS_TYPES:
        return flow.waiting.find(b"\n") + 1 or len(flow.waiting)
    size = 5 + int.from_bytes(flow.waiting[3:5], "big")
    return size if flow.ended or len(flow.waiting) >= max(size, 5) else 0


def inside_headers(flow: Flow) -> int:
    """Pieces that end in the middle of a TLS record's header: the end of one record and the start of the next."""
    if not flow.in_step:
        if flow.waiting[:1] and flow.waiting[0] not in TLS_TYPES:
            return flow.waiting.find(b"\n") + 1 or len(flow.waiting)
        flow.in_step = len(flow.waiting) >= 3
        return 3 if flow.in_step else 0
    size = 2 + int.from_bytes(flow.waiting[:2], "big")
    if len(flow.waiting) >= size + 3:
        return size + 3
    if len(flow.waiting) == size and flow.quiet >= QUIET:
        flow.in_step = False
        return size
    return len(flow.waiting) if flow.ended else 0


def glued(flow: Flow) -> int:
    """All there is, once nothing more comes."""
    return len(flow.waiting) if flow.quiet >= QUIET else 0


def trickle(flow: Flow) -> int:
    return 700


class Flow:
    """One direction."""

    def __init__(self, source: socket.socket, target: socket.socket, cut: Callable[[Flow], int]) -> None:
        self.source = source
        self.target = target
        self.cut = cut
        self.waiting = bytearray()
        self.pieces: list[int] = []
        self.quiet = 0
        self.ended = False
        self.done = False
        self.in_step = False

    def move(self) -> None:
        self.take()
        size = min(self.cut(self), len(self.waiting))
        if size > 0:
            try:
                sent = self.target.send(self.waiting[:size])
            except BlockingIOError:
                return
            del self.waiting[:sent]
            self.pieces.append(sent)
        if self.ended and not self.waiting and not self.done:
            self.done = True
            self.target.shutdown(socket.SHUT_WR)

    def take(self) -> None:
        if self.ended or (self.cut is trickle and self.waiting):  # which leaves the sender's buffer full
            self.quiet += 1
            return
        try:
            data = self.source.recv(700 if self.cut is trickle else 1 << 18)
        except BlockingIOError:
            self.quiet += 1
            return
        self.quiet = 0
        self.ended = not data
        self.waiting += data


class Relay:
    """Listens on `port`, connects to `to_port`, and forwards in the pieces that `cut` says: of one connection."""

    def __init__(self, host: Host, to_port: int, cut: Callable[[Flow], int]) -> None:
        self.host = host
        self.cut = cut
        self.to_port = to_port
        self.flows: list[Flow] = []
        self.listener: Optional[socket.socket] = socket.socket()
        if cut is trickle:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.closed = False
        host.loop.call_soon(self.turn)

    def turn(self) -> None:
        if self.closed:
            return
        if self.listener is not None:
            self.accept()
        try:
            for flow in self.flows:
                flow.move()
        except OSError:  # one end was reset: the other shall see it
            self.close()
            return
        if not all(flow.done for flow in self.flows) or not self.flows:
            self.host.loop.call_soon(self.turn)
        else:
            self.close()

    def accept(self) -> None:
        assert self.listener is not None
        try:
            left, _ = self.listener.accept()
        except BlockingIOError:
            return
        self.listener.close()
        self.listener = None
        right = socket.socket()
        for sock in (left, right):
            if self.cut is trickle:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        right.connect(("127.0.0.1", self.to_port))
        left.setblocking(False)
        right.setblocking(False)
        self.flows = [Flow(left, right, self.cut), Flow(right, left, self.cut)]

    def close(self) -> None:
        self.closed = True
        if self.listener is not None:
            self.listener.close()
        for flow in self.flows:
            flow.source.close()


CUTS = {
    "whole": whole,
    "single bytes": single_bytes,
    "7-byte pieces": sevens,
    "records": records,
    "inside record headers": inside_headers,
    "glued": glued,
    "small buffers": trickle,
}
SIZES = {"single bytes": 1500, "7-byte pieces": 15_000}  # bytes that go each way; otherwise two hundred thousand
