"""The network between two sockets under test: it forwards when it is told to, in pieces, and may stop, cut and reset."""

from __future__ import annotations

import random
import socket
from typing import Optional

from peers import reset

PIECES = (1, 2, 5, 100, 1400, 16_406, 100_000, 1 << 20)
SMALL = 32_768  # bytes of kernel buffer; with much less, the system's timers decide when the next bytes come


class Flow:
    """One direction."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.waiting = bytearray()
        self.seen = bytearray()  # all that has come from the source
        self.ended = self.done = False

    def move(self, size: int) -> bool:
        """Forward `size` bytes at most. True when something has changed; OSError when one end is gone."""
        changed = False
        if not self.ended and len(self.waiting) < size:
            try:
                data = self.source.recv(size)
            except BlockingIOError:
                pass
            else:
                changed = True
                self.ended = not data
                self.waiting += data
                self.seen += data
        if self.waiting:
            try:
                sent = self.target.send(self.waiting[:size])
            except BlockingIOError:
                return changed
            del self.waiting[:sent]
            changed = True
        if self.ended and not self.waiting and not self.done:
            self.done = changed = True
            self.target.shutdown(socket.SHUT_WR)
        return changed


class Wire:
    """One connection: `taken` has come from the client, a new one goes to `port`."""

    def __init__(self, taken: socket.socket, port: int, small: bool) -> None:
        self.client_port = taken.getpeername()[1]
        self.faulty = False  # it has not been a perfect network
        self.broken = False
        onward = socket.create_connection(("127.0.0.1", port), 20)
        self.server_port = onward.getsockname()[1]
        for sock in (taken, onward):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self.up, self.down = Flow(taken, onward), Flow(onward, taken)

    @property
    def over(self) -> bool:
        return self.broken or (self.up.done and self.down.done)

    def move(self, choose: Optional[random.Random] = None) -> bool:
        """Forward a random piece one way, or all there is both ways. True when something has changed."""
        if self.broken:
            return False
        flows = (self.up, self.down) if choose is None else (choose.choice((self.up, self.down)),)
        try:
            changed = [flow.move(1 << 20 if choose is None else choose.choice(PIECES)) for flow in flows]
        except OSError:  # one end was reset: the other shall see it
            self.cut(hard=True)
            return True
        if self.over:
            self.close()
        return any(changed)

    def widen(self) -> None:
        """Room for all: else the system's timers decide when the next bytes come."""
        for flow in (self.up, self.down):
            if flow.source.fileno() >= 0:
                flow.source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def cut(self, hard: bool) -> None:
        """End the connection on both sides, by a reset or as a program does that ends."""
        self.faulty = True
        self.close(hard)

    def close(self, hard: bool = False) -> None:
        self.broken = True
        for flow in (self.up, self.down):
            if flow.source.fileno() >= 0:
                (reset if hard else socket.socket.close)(flow.source)


class Exchange:
    """Listens, and makes a wire to `port` of each connection that comes."""

    def __init__(self, port: int, small: bool) -> None:
        self.to_port, self.small = port, small
        self.listener = socket.socket()
        if small:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.wires: list[Wire] = []

    def accept(self) -> bool:
        try:
            taken, _ = self.listener.accept()
        except BlockingIOError:
            return False
        try:
            self.wires.append(Wire(taken, self.to_port, self.small))
        except ConnectionRefusedError:  # nobody listens any more
            taken.close()
        return True

    def move(self) -> bool:
        """All there is, on every wire."""
        return any([self.accept(), *(wire.move() for wire in self.wires)])

    def close(self) -> None:
        self.listener.close()
        for wire in self.wires:
            wire.close()
