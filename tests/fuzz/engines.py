"""Two engines joined by hand, by a seed: what one encrypts the other decrypts, in any pieces, whatever is between them."""

from __future__ import annotations

import contextlib
import random
from typing import Any, Optional

from core.pairs import TLS_1_2, TLS_1_3, client_context, server_context
from sslsock import Context, Engine, TlsError

from . import foreign
from .streams import check_text, text

SIZES = (0, 1, 2, 15, 100, 511, 512, 513, 1000, 4096, 16383, 16384, 16385, 40_000, 150_000)
PIECES = (1, 2, 4, 5, 6, 64, 1000, 5000, 16406, 100_000)

_contexts: dict[tuple[bool, int], Context] = {}


def context(server: bool, version: int) -> Context:
    """One for all plays. Clients have no session key, so nothing of one play is seen in the next."""
    key = (server, version)
    if key not in _contexts:
        make = server_context if server else client_context
        # Ed25519's signatures have one size: the same seed gives the same bytes to cut.
        _contexts[key] = make(version if not server else 0, "ed25519")
    return _contexts[key]


class Side:
    """One engine, and what it has written and read."""

    def __init__(self, name: str, engine: Any) -> None:
        self.name = name
        self.engine = engine
        self.wire = bytearray()  # what it has sent and its peer has not got
        self.sent = self.got = 0
        self.closed = self.failed = False

    @property
    def foreign(self) -> bool:
        return isinstance(self.engine, foreign.ForeignClient)


class EnginePlay:
    """One run; `trace` tells its steps."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"engines {seed}")
        self.trace: list[str] = []
        version = self.random.choice((TLS_1_2, TLS_1_3))
        client: Any
        if foreign.LIB is not None and self.random.random() < 0.5:
            fragment = self.random.randint(0, 4)
            client = foreign.ForeignClient(version, fragment)
            self.trace.append(f"foreign client, fragment {fragment}, version {version:x}")
        else:
            release = self.random.random() < 0.5
            client = Engine(context(False, version), server_name="localhost", verify_name="localhost", release_buffers=release)
            self.trace.append(f"client, release_buffers {release}, version {version:x}")
        server = Engine(context(True, version), release_buffers=self.random.random() < 0.5)
        self.sides = [Side("client", client), Side("server", server)]
        self.tampered = False

    def run(self) -> None:
        for side in self.sides:
            side.wire += side.engine.start()
        for _ in range(self.random.randint(5, 120)):
            self.step()
        for _ in self.until_quiet():
            for side in self.sides:
                self.deliver(side, len(side.wire))
        for side, peer in zip(self.sides, reversed(self.sides)):
            self.check_arrived(side, peer)

    def until_quiet(self) -> Any:
        while any(side.wire and not peer.failed for side, peer in zip(self.sides, reversed(self.sides))):
            yield

    def check_arrived(self, side: Side, peer: Side) -> None:
        if self.tampered or side.failed or peer.failed:
            return
        assert peer.got == side.sent, f"{peer.name} got {peer.got} of {side.sent} bytes"
        if side.closed:
            assert peer.engine.peer_closed, f"{peer.name} was not told that {side.name} has closed"

    def step(self) -> None:
        side = self.random.choice(self.sides)
        action = self.random.choices(
            (self.deliver, self.write, self.look, self.update, self.close, self.tamper), (50, 30, 10, 4, 0.7, 0.3)
        )[0]
        action(side)

    def deliver(self, side: Side, size: Optional[int] = None) -> None:
        """Some of what `side` has sent comes to its peer."""
        peer = self.sides[1 - self.sides.index(side)]
        if peer.failed:
            side.wire.clear()
            return
        size = min(self.random.choice(PIECES) if size is None else size, len(side.wire))
        data = bytes(side.wire[:size])
        del side.wire[:size]
        self.trace.append(f"{peer.name} gets {size}")
        try:
            if peer.foreign or self.random.random() < 0.5:
                plain = peer.engine.decrypt(data)
            else:
                plain = self.decrypt_into(peer.engine, data)
        except (TlsError, foreign.ForeignError) as error:
            self.fail(peer, error)
            return
        check_text(self.sides.index(side), peer.got, plain, peer.name)
        peer.got += len(plain)
        peer.wire += peer.engine.take()

    def decrypt_into(self, engine: Engine, data: bytes) -> bytes:
        found = bytearray()
        while True:
            room = bytearray(self.random.choice((1, 7, 100, 5000, 20_000)))
            count = engine.decrypt_into(data, room)
            found += room[:count]
            if count < len(room):
                return bytes(found)
            data = b""

    def write(self, side: Side) -> None:
        if not side.engine.handshake_done or side.closed or side.failed:
            return
        size = self.random.choice(SIZES)
        self.trace.append(f"{side.name} writes {size}")
        stream = self.sides.index(side)
        kinds = (bytes, bytearray, memoryview)
        try:
            side.wire += side.engine.encrypt(self.random.choice(kinds)(text(stream, side.sent, size)))
        except TlsError as error:  # of a record that came, whose predecessors were given first
            self.fail(side, error)
        else:
            side.sent += size

    def look(self, side: Side) -> None:
        """Every property, at any time."""
        if not side.foreign:
            for name in dir(side.engine):
                if not name.startswith("_"):
                    value = getattr(side.engine, name)
                    if name == "peer_certificate_chain":
                        value()

    def update(self, side: Side) -> None:
        if side.foreign and side.engine.handshake_done and not side.closed and not side.failed:
            with contextlib.suppress(foreign.ForeignError):  # TLS 1.2 has none
                side.engine.update_keys()
                side.wire += side.engine.take()
                self.trace.append(f"{side.name} updates its keys")

    def close(self, side: Side) -> None:
        if not side.closed and not side.failed and side.engine.handshake_done:
            side.closed = True
            self.trace.append(f"{side.name} closes")
            side.wire += side.engine.close()

    def tamper(self, side: Side) -> None:
        if side.wire:
            at = self.random.randrange(len(side.wire))
            side.wire[at] ^= 1 << self.random.randrange(8)
            self.tampered = True
            self.trace.append(f"byte {at} of what {side.name} has sent is changed")

    def fail(self, side: Side, error: Exception) -> None:
        """One that has failed stays so, and says so."""
        side.failed = True
        self.trace.append(f"{side.name} fails: {error}")
        assert self.tampered, f"{side.name}: {error}"
        with contextlib.suppress(TlsError, foreign.ForeignError):
            side.wire += side.engine.take()
        if side.foreign:
            return
        for call in (lambda: side.engine.decrypt(b""), lambda: side.engine.encrypt(b"x")):
            try:
                call()
            except (TlsError, RuntimeError):
                continue
            raise AssertionError(f"{side.name} goes on after it has failed")
