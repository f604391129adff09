"""What the network measures do, written once for every event-driven library.

An app is an `asyncio.Protocol` in all but name; a transport is anything with `write` and `close`. One for
sslsock's sockets is below, so that the very same apps run on it.

A client says first what it wants: a letter, then eight bytes with a size. E: every byte back. U: take so many
bytes, then answer with one. D: send so many bytes.
"""

from __future__ import annotations

import struct
from time import perf_counter
from typing import Any, Callable, Optional

from ... import SslSocket

REQUEST = struct.Struct("!cQ")
PIECE = bytes(256 * 1024)
HIGH, LOW = 1024 * 1024, 256 * 1024  # marks of the transport's buffer
ECHO_SIZE = 1024


class App:
    """Base of both sides. Deliberately not an asyncio.Protocol: the sslsock peers do without asyncio."""

    transport: Any

    def __init__(self) -> None:
        self.left = 0
        self.flowing = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError

    def eof_received(self) -> Optional[bool]:
        return None

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        pass

    def pause_writing(self) -> None:
        self.flowing = False

    def resume_writing(self) -> None:
        self.flowing = True
        self.pump()

    def pump(self) -> None:
        """Write as much as there is, until the transport has enough."""
        while self.left and self.flowing:
            piece = PIECE if self.left >= len(PIECE) else PIECE[: self.left]
            self.left -= len(piece)
            self.transport.write(piece)


class ServerApp(App):
    """One connection of the server."""

    def __init__(self) -> None:
        super().__init__()
        self.begin = b""
        self.wanted = b""

    def data_received(self, data: bytes) -> None:
        if self.wanted == b"E":
            self.transport.write(data)
        elif self.wanted == b"U":
            self.left -= len(data)
            if not self.left:
                self.transport.write(b"!")
        elif not self.wanted:
            self.begin += data
            if len(self.begin) >= REQUEST.size:
                self.wanted, self.left = REQUEST.unpack(self.begin[: REQUEST.size])
                if self.wanted == b"D":
                    self.pump()
                elif len(self.begin) > REQUEST.size:
                    self.data_received(self.begin[REQUEST.size :])


class Job:
    """One measure of the client's side: `count` connections that begin together once all of them stand.

    start(): called once they do; note_end() and finish(): called when all have ended. Who runs the job
    replaces them.
    """

    def __init__(self, kind: bytes, count: int, seconds: float, size: int) -> None:
        self.kind = kind
        self.count = count
        self.seconds = seconds
        self.size = size
        self.units = 0
        self.agreed: tuple[str, str] = ("", "")
        self.end = 0.0
        self.error: Optional[BaseException] = None
        self.clients: list[ClientApp] = []
        self._ready = self._ended = 0
        self.start: Callable[[], object] = self.begin
        self.note_end: Callable[[], object] = lambda: None
        self.finish: Callable[[], object] = lambda: None

    def make_client(self) -> ClientApp:
        client = EchoClient(self) if self.kind == b"E" else BulkClient(self)
        self.clients.append(client)
        return client

    def client_ready(self) -> None:
        self._ready += 1
        if self._ready == self.count:
            self.start()

    def begin(self) -> None:
        self.end = perf_counter() + self.seconds
        for client in self.clients:
            client.begin()

    def client_done(self, client: ClientApp) -> None:
        self._ended += 1
        if self._ended == self.count:
            self.note_end()
            self.finish()

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
            self.finish()


class ClientApp(App):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.done = False

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        if not self.done:
            self.job.fail(exc or ConnectionError("the connection was closed too early"))

    def begin(self) -> None:
        raise NotImplementedError

    def ended(self) -> None:
        self.done = True
        self.job.client_done(self)


class EchoClient(ClientApp):
    """Sends, waits for all of it, sends again; the first time before the clock runs."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.data = bytes(ECHO_SIZE)
        self.missing = len(self.data)
        transport.write(REQUEST.pack(b"E", 0) + self.data)
        self.warm = False

    def begin(self) -> None:
        self.missing = len(self.data)
        self.transport.write(self.data)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing:
            return
        if not self.warm:
            self.warm = True
            self.job.client_ready()
            return
        self.job.units += 1
        if perf_counter() < self.job.end:
            self.begin()
        else:
            self.ended()


class BulkClient(ClientApp):
    """U or D: one large amount of bytes. An echo of one byte before it would be a request of its own: none is
    made."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.job.client_ready()

    def begin(self) -> None:
        size = self.job.size
        self.missing = 1 if self.job.kind == b"U" else size
        self.transport.write(REQUEST.pack(self.job.kind, size))
        if self.job.kind == b"U":
            self.left = size
            self.pump()

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if not self.missing:
            self.job.units += self.job.size
            self.ended()


class SocketTransport:
    """An SslSocket as the transport of an app."""

    __slots__ = ("app", "paused", "socket", "write")

    def __init__(self, socket: SslSocket, app: App) -> None:
        self.socket = socket
        self.app = app
        self.paused = False
        self.write = self.write_and_watch
        socket.ready_read_handler = self.on_readable
        socket.disconnected_handler = self.on_end
        socket.error_handler = lambda socket, error: None  # on_end tells; else it is logged
        socket.bytes_written_handler = None

    def begin(self) -> None:
        self.app.connection_made(self)

    def write_and_watch(self, data: bytes) -> None:
        socket = self.socket
        socket.write(data)
        if not self.paused and socket.bytes_to_write > HIGH:
            self.paused = True
            socket.bytes_written_handler = self.on_written
            self.app.pause_writing()

    def on_readable(self, socket: SslSocket) -> None:
        self.app.data_received(socket.read_all())

    def on_written(self, socket: SslSocket, count: int) -> None:
        if self.paused and socket.bytes_to_write < LOW:
            self.paused = False
            self.app.resume_writing()

    def on_end(self, socket: SslSocket) -> None:
        words = socket.error_string
        self.app.connection_lost(ConnectionError(words) if words else None)

    def close(self) -> None:
        self.socket.abort()
