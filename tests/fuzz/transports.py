"""Joined asyncio transports, by a seed: protocols that write, pause, close, abort, raise and change in every callback, and
garbage that does so inside a call, over a network that cuts the stream into any pieces. Whatever happens, these hold:

- connection_made comes first, connection_lost once and last, never inside a call of the transport's.
- What is received is what was written, in order; and all of it where the end was one in order.
- Nothing is received after pause_reading, or after the peer's end.
- pause_writing and resume_writing take turns.
- The exception handler is told what protocols raise, and nothing else.
- No descriptor, transport or object is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import ssl
import time
import weakref
from collections.abc import Iterator
from typing import Any, Callable, Optional, Union

import trustme

import sslsock.ssl
from peers import open_descriptors
from sslsock.aio import EventLoop

from .garbage import collected_inside
from .streams import Mistake, check_text, text
from .wire import PIECES, SMALL, Flow

DEADLINE = 60.0  # seconds until a run that does not come to its end has failed
SIZES = (0, 1, 7, 100, 5000, 16384, 16385, 70_000, 300_000)
ROOMS = (1, 10, 1000, 20_000)  # a BufferedProtocol's buffers
LIMITS = (None, 0, 1, 1000, 100_000)
MOST_WRITTEN = 2 << 20  # by one end

_contexts: dict[tuple[bool, bool], Any] = {}


def context(server: bool, ours: bool) -> Any:
    """One for all plays. ours: of `sslsock.ssl`, not of the interpreter's."""
    if not _contexts:
        ca = trustme.CA()
        for module in (ssl, sslsock.ssl):
            for role in (True, False):
                made = module.SSLContext(ssl.PROTOCOL_TLS_SERVER if role else ssl.PROTOCOL_TLS_CLIENT)
                ca.issue_cert("localhost").configure_cert(made) if role else ca.configure_trust(made)
                _contexts[role, module is sslsock.ssl] = made
    return _contexts[server, ours]


class End:
    """One end of the connection: what its protocols were told and what they do. Callbacks come here from either kind."""

    def __init__(self, play: TransportPlay, server: bool) -> None:
        self.play, self.server = play, server
        self.name = "server" if server else "client"
        self.random = random.Random(f"transports {play.seed} {self.name}")
        self.transport: Any = None
        self.sent = self.got = 0
        self.made = self.lost = 0
        self.paused = self.full = self.ended = False
        self.gave_up = False  # it does not want what still comes
        self.cut = False  # what it wrote may not arrive
        self.closed = False  # it has said itself that it sends no more
        self.inside = 0  # calls of the transport's that are under way
        self.depth = 0
        self.quiet = False  # it is about to start TLS

    def ours(self) -> bool:
        return self.random.random() < 0.7

    # What is told

    def told(self, name: str) -> None:
        self.play.note(f"{self.name}: {name}")
        assert self.made or name == "connection_made", f"{self.name}: {name} before connection_made"
        assert not self.lost, f"{self.name}: {name} after connection_lost"

    def on_made(self, transport: Any) -> None:
        self.told("connection_made")
        self.made += 1
        assert self.made == 1, f"{self.name}: connection_made twice"
        self.transport = transport
        if self.quiet:
            transport.pause_reading()  # what comes next is the peer's handshake
        self.misbehave()

    def on_data(self, data: bytes) -> None:
        self.told(f"{len(data)} bytes")
        assert not self.inside, f"{self.name}: data inside a call"
        assert not self.paused, f"{self.name}: data after pause_reading"
        assert not self.ended, f"{self.name}: data after the end"
        assert data, f"{self.name}: no data"
        check_text(int(not self.server), self.got, data, self.name)
        self.got += len(data)
        self.misbehave()

    def on_end(self) -> Optional[bool]:
        self.told("eof_received")
        assert not self.ended, f"{self.name}: eof_received twice"
        assert not self.paused, f"{self.name}: eof_received after pause_reading"
        self.ended = True
        self.misbehave()
        keep = self.play.style == "plain" and self.random.random() < 0.5
        if not keep:
            self.closed = True
        return keep

    def on_full(self) -> None:
        self.told("pause_writing")
        assert not self.full, f"{self.name}: pause_writing twice"
        self.full = True
        self.misbehave()

    def on_room(self) -> None:
        self.told("resume_writing")
        assert self.full, f"{self.name}: resume_writing without pause_writing"
        self.full = False
        self.misbehave()

    def on_lost(self, exc: Optional[BaseException]) -> None:
        self.told(f"connection_lost {exc!r}")
        assert not self.inside, f"{self.name}: connection_lost inside a call"
        self.lost += 1
        if exc is not None:
            self.cut = self.gave_up = True
        assert exc is None or isinstance(exc, (OSError, Mistake)), f"{self.name}: {exc!r}"

    # What it does

    def misbehave(self) -> None:
        if self.play.settling or self.quiet or self.depth > 2 or self.random.random() > self.play.wildness:
            return
        self.depth += 1
        try:
            self.act()
        finally:
            self.depth -= 1

    def act(self) -> None:
        actions = {
            self.write: 30,
            self.write_many: 6,
            self.pause: 8,
            self.resume: 10,
            self.set_limits: 3,
            self.change_protocol: 5,
            self.end_output: 1,
            self.close: 1,
            self.abort: 0.5,
            self.fail: 1,
            self.look: 4,
            gc.collect: 1,
        }
        self.random.choices(list(actions), list(actions.values()))[0]()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Inside a call of the transport's. Sometimes Python code runs in it, wherever an object is made."""
        self.inside += 1
        disturbed = not self.play.settling and self.depth < 3 and self.random.random() < 0.05
        try:
            if not disturbed:
                yield
                return
            victim = self.random.choice((self.abort, self.close, self.pause))
            self.play.note(f"{self.name} has garbage: {victim.__name__}")
            self.cut |= victim != self.pause  # what is about to be written may not be
            depth, self.depth = self.depth, 9
            try:
                with collected_inside(lambda: None if self.play.settling else victim()):
                    yield
            finally:
                self.depth = depth
        finally:
            self.inside -= 1

    @property
    def over(self) -> bool:
        """Whether what is written goes nowhere."""
        return self.closed or self.gave_up or self.transport.is_closing()

    def piece(self) -> Any:
        size = min(self.random.choice(SIZES), MOST_WRITTEN - self.sent)
        data = self.random.choice((bytes, bytearray, memoryview))(text(int(self.server), self.sent, size))
        if not self.over:
            self.sent += size
        return data

    def write(self) -> None:
        data = self.piece()
        self.play.note(f"{self.name} writes {len(data)}")
        with self.call(), self.after_end():
            self.transport.write(data)

    def write_many(self) -> None:
        pieces = [self.piece() for _ in range(self.random.randint(0, 5))]
        self.play.note(f"{self.name} writes {[len(piece) for piece in pieces]}")
        with self.call(), self.after_end():
            self.transport.writelines(pieces)

    @contextlib.contextmanager
    def after_end(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as exc:
            assert "after write_eof" in str(exc) and self.closed, f"{self.name}: {exc!r}"

    def pause(self) -> None:
        self.play.note(f"{self.name} pauses")
        self.paused |= not self.transport.is_closing()
        with self.call():
            self.transport.pause_reading()

    def resume(self) -> None:
        self.play.note(f"{self.name} resumes")
        self.paused = False
        with self.call():
            self.transport.resume_reading()

    def set_limits(self) -> None:
        high = self.random.choice(LIMITS)
        self.play.note(f"{self.name} limits {high}")
        with self.call():
            self.transport.set_write_buffer_limits(high)

    def change_protocol(self) -> None:
        self.play.note(f"{self.name} changes its protocol")
        with self.call():
            self.transport.set_protocol(self.play.new_protocol(self))

    def end_output(self) -> None:
        if self.transport.can_write_eof():
            self.play.note(f"{self.name} ends its output")
            self.closed = True
            with self.call():
                self.transport.write_eof()

    def close(self) -> None:
        self.play.note(f"{self.name} closes")
        self.closed = self.gave_up = True
        with self.call():
            self.transport.close()

    def abort(self) -> None:
        self.play.note(f"{self.name} aborts")
        self.closed = self.gave_up = self.cut = True
        with self.call():
            self.transport.abort()

    def fail(self) -> None:
        self.play.note(f"{self.name} raises")
        raise Mistake

    def look(self) -> None:
        transport = self.transport
        repr(transport)
        assert transport.get_write_buffer_size() >= 0
        for name in ("peername", "socket", "ssl_object", "cipher", "clean_close"):
            transport.get_extra_info(name)
        assert transport.is_reading() is not (self.paused or transport.is_closing()), f"{self.name}: is_reading is wrong"


class Streaming(asyncio.Protocol):
    def __init__(self, end: End) -> None:
        self.end = end

    def connection_made(self, transport: Any) -> None:
        self.end.on_made(transport)

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.end.on_data(data)

    def eof_received(self) -> Optional[bool]:
        return self.end.on_end()

    def pause_writing(self) -> None:
        self.end.on_full()

    def resume_writing(self) -> None:
        self.end.on_room()

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        self.end.on_lost(exc)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, end: End) -> None:
        self.end = end
        self.lent: Any = None

    connection_made = Streaming.connection_made
    eof_received = Streaming.eof_received
    pause_writing = Streaming.pause_writing
    resume_writing = Streaming.resume_writing
    connection_lost = Streaming.connection_lost

    def get_buffer(self, hint: int) -> Any:
        assert self.end.made and not self.end.lost
        room = bytearray(self.end.random.choice(ROOMS))
        self.lent = self.end.random.choice((bytearray, memoryview))(room)
        self.end.misbehave()
        return self.lent

    def buffer_updated(self, count: int) -> None:
        assert 0 < count <= len(self.lent)
        self.end.on_data(bytes(self.lent[:count]))


class TransportPlay:
    """One run; `trace` tells its steps."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(f"transports {seed}")
        self.trace: list[str] = []
        self.style = self.random.choice(("plain", "tls", "tls", "starttls", "layered"))  # layered: TLS in TLS
        self.wildness = self.random.choice((0, 0.1, 0.4))
        self.small = self.random.random() < 0.3
        self.faults = self.random.choice((0, 0, 0.01))
        self.cancels = self.random.random() < 0.1
        self.settling = self.faulty = False
        self.told: list[dict[str, Any]] = []
        self.lower: list[Any] = []  # transports that others were put upon

    def note(self, *what: object) -> None:
        self.trace.append(" ".join(map(str, what)))

    def new_protocol(self, end: End) -> Union[Streaming, Buffered]:
        return end.random.choice((Streaming, Buffered))(end)

    def run(self) -> None:
        gc.collect()
        descriptors = open_descriptors()
        self.loop = EventLoop()
        self.loop.set_exception_handler(lambda loop, told: self.told.append(told))
        gc.disable()
        try:
            self.play()
            self.check()
            transports = [weakref.ref(end.transport) for end in self.ends if end.transport is not None]
        finally:
            gc.enable()
            for flow in self.flows:
                flow.source.close()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()
        del self.loop, self.ends, self.flows, self.tasks
        self.told.clear()
        gc.collect()
        assert not [one for one in transports + self.lower if one() is not None], "transports were left"
        now = open_descriptors()
        assert len(now) <= len(descriptors), f"descriptors were left open: {sorted(now.items() - descriptors.items())}"

    def play(self) -> None:
        self.note(self.style, "small" if self.small else "", f"wildness {self.wildness}")
        outer = [socket.socketpair(), socket.socketpair()]
        inner = [pair[1] for pair in outer]
        for pair in outer:
            for sock in pair:
                sock.setblocking(False)
                if self.small:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        self.flows = [Flow(inner[0], inner[1]), Flow(inner[1], inner[0])]
        self.ends = [End(self, True), End(self, False)]
        self.tasks = [self.loop.create_task(self.begin(end, pair[0])) for end, pair in zip(self.ends, outer)]
        for task, end, (sock, _) in zip(self.tasks, self.ends, outer):
            task.add_done_callback(lambda task, end=end, sock=sock: self.begun(task, end, sock))
        for _ in range(self.random.randint(20, 150)):
            self.step()
        if self.random.random() < 0.1:
            self.note("the loop closes")
            for task in self.tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
            for end in self.ends:
                end.cut = end.gave_up = True
                if end.transport is not None:
                    end.transport.abort()
            self.turn()
            return
        self.settle()

    async def begin(self, end: End, sock: socket.socket) -> None:
        """The connection of one end, as a program makes it."""
        tls = context(end.server, end.ours()) if self.style in ("tls", "layered") else None
        make: Callable[[], Any] = lambda: self.new_protocol(end)  # noqa: E731
        end.quiet = starts = self.style in ("starttls", "layered")
        if end.server:
            await self.loop.connect_accepted_socket(make, sock, ssl=tls)
        else:
            name = "localhost" if tls else None
            await self.loop.create_connection(make, sock=sock, ssl=tls, server_hostname=name)
        if starts and end.transport is not None and not end.transport.is_closing():
            await self.start_tls(end)
        end.quiet = False

    async def start_tls(self, end: End) -> None:
        name = None if end.server else "localhost"
        tls = context(end.server, end.ours())
        self.lower.append(weakref.ref(end.transport))
        end.transport = await self.loop.start_tls(
            end.transport, self.new_protocol(end), tls, server_side=end.server, server_hostname=name
        )

    def begun(self, task: asyncio.Task[None], end: End, sock: socket.socket) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed:
            self.note(f"{end.name}: no connection, {task}")
            end.gave_up = end.cut = True
            sock.close()  # it has none if the task was cancelled before it ran

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def step(self) -> None:
        kind = self.random.random()
        if kind < self.faults:
            self.cut()
        elif kind < 0.02 and self.cancels:
            self.note("a beginning is cancelled")
            self.random.choice(self.tasks).cancel()
        elif kind < 0.45:
            self.turn()
        elif kind < 0.8:
            self.move(self.random.choice(self.flows), self.random.choice(PIECES))
        else:
            end = self.random.choice(self.ends)
            if end.transport is not None and not end.lost and not end.quiet:
                with contextlib.suppress(Mistake):
                    end.act()

    def move(self, flow: Flow, size: int) -> bool:
        if self.faulty:
            return False
        try:
            return flow.move(size)
        except OSError:  # one end is gone: the other shall see it
            self.cut()
            return True

    def cut(self) -> None:
        self.note("the wire is cut")
        self.faulty = True
        for flow in self.flows:
            flow.source.close()

    def settle(self) -> None:
        """The network is perfect, everybody reads and then ends, until nothing is left."""
        self.note("settling")
        self.settling = True
        self.pump(lambda: all(task.done() for task in self.tasks), "the beginning")
        for task in self.tasks:
            failed = None if task.cancelled() else task.exception()
            if failed is not None and (not isinstance(failed, (OSError, Mistake)) or "longer than" in str(failed)):
                raise failed  # with a perfect network no handshake takes too long
        for end in self.ends:
            if end.transport is not None and not end.lost:
                end.resume()
        one, other = self.ends
        self.pump(lambda: self.arrived(one, other) and self.arrived(other, one), "what was written")
        for end in self.ends:
            if end.transport is not None and not end.lost:
                end.close()
        self.pump(lambda: all(end.lost or not end.made for end in self.ends), "the end")

    def arrived(self, one: End, other: End) -> bool:
        return other.got >= one.sent or one.cut or other.gave_up or bool(other.lost) or not other.made or self.faulty

    def pump(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < until, f"{what} does not come: {[end.transport for end in self.ends]}"
            moved = [self.move(flow, 1 << 20) for flow in self.flows]
            self.turn()
            if not any(moved):
                self.loop.run_until_complete(asyncio.sleep(0.001))

    # What holds

    def check(self) -> None:
        for told in self.told:
            if not isinstance(told.get("exception"), Mistake):
                raise AssertionError(f"the exception handler was told {told['message']}") from told.get("exception")
        for source, target in (self.ends, self.ends[::-1]):
            assert target.got <= source.sent, f"{target.name}: {target.got} bytes have come of {source.sent}"
            quiet = not (source.cut or target.cut or target.gave_up or self.faulty)
            if target.ended and quiet:
                assert target.got == source.sent, f"{target.name}: an end after {target.got} of {source.sent} bytes"
        for end in self.ends:
            assert end.lost == end.made, f"{end.name}: connection_lost came {end.lost} times"
