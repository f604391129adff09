"""`demo`: a server and a client in one process, and what happens between them, line by line as it happens.

`Trace` puts a line on every handler of a socket and then lets the scene's own handler run. The scenes below
follow one another by turning the loop until their end is there (`Stage.until`); a program would be all
handlers, or live in asyncio.
"""

from __future__ import annotations

import argparse
import os
import sys
from time import perf_counter, process_time
from typing import Any, Callable, Optional

from .. import (
    EventLoop,
    SocketError,
    SslConfiguration,
    SslError,
    SslServer,
    SslSocket,
    __version__,
    openssl_version,
)
from ..core.issue import issue_certificate, make_authority
from ..sockets.certificate_text import certificate_lines
from .common import CommandError, protocol_text, wants_colour

HOST = "127.0.0.1"
NAME = "localhost"
SCENE_SECONDS = 20.0

VOLUME = 256 << 20  # bytes of the transfer
VOLUME_SECONDS = 4.0  # after which it is cut short, on a slow machine
PIECE = 256 * 1024
UNSENT = 4 * PIECE

COLOURS = {"client": "36", "server": "32", "title": "1", "error": "31", "dim": "2"}


class Stage:
    """Where the demonstration is shown: the loop, the clock and the output."""

    def __init__(self) -> None:
        self.loop = EventLoop.current()
        self.loop.exception_handler = self.on_exception
        self.colours = wants_colour(1)
        self.terminal = os.isatty(1)
        self.begin = perf_counter()
        self.failure: Optional[BaseException] = None

    def on_exception(self, loop: object, context: dict[str, Any]) -> None:
        self.failure = context["exception"]

    def paint(self, text: str, colour: str) -> str:
        return f"\033[{COLOURS[colour]}m{text}\033[0m" if self.colours and colour in COLOURS else text

    def title(self, text: str) -> None:
        print(f"\n{self.paint(text, 'title')}", flush=True)

    def line(self, who: str, what: str, text: str, colour: str = "") -> None:
        """Time since the start, in seconds; who; what has happened; details."""
        time = self.paint(f"{perf_counter() - self.begin:8.4f}", "dim")
        print(
            f"{time}  {self.paint(f'{who:<7}', who)} {self.paint(f'{what:<24}', colour)} {text}".rstrip(),
            flush=True,
        )

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until the condition holds."""
        end = perf_counter() + SCENE_SECONDS
        while not condition():
            self.loop.dispatch(0.1)
            if self.failure is not None:
                raise self.failure
            if perf_counter() > end:
                raise CommandError("the demonstration has stopped: what should come next does not come")


class Trace:
    """Shows the handlers of one socket. `actions` is what the scene wants done: name of a handler ->
    callable(socket)."""

    def __init__(self, stage: Stage, who: str, socket: SslSocket, **actions: Callable[[SslSocket], object]) -> None:
        self.stage = stage
        self.who = who
        self.actions = actions
        socket.state_changed_handler = lambda s, state: self.show(s, "state_changed", state.name)
        socket.mode_changed_handler = lambda s, mode: self.show(s, "mode_changed", mode.name)
        socket.host_found_handler = lambda s: self.show(s, "host_found")
        socket.connected_handler = lambda s: self.show(s, "connected")
        socket.encrypted_handler = self.on_encrypted
        socket.ready_read_handler = lambda s: self.show(s, "ready_read", f"{s.bytes_available} bytes: {s.peek()!r}")
        socket.bytes_written_handler = lambda s, count: self.show(s, "bytes_written", str(count))
        socket.error_handler = self.on_error
        socket.ssl_errors_handler = self.on_ssl_errors
        socket.disconnected_handler = lambda s: self.show(s, "disconnected")

    def show(self, socket: SslSocket, handler: str, text: str = "", colour: str = "") -> None:
        self.stage.line(self.who, f"{handler}_handler", text, colour)
        action = self.actions.get(handler)
        if action is not None:
            action(socket)

    def on_encrypted(self, socket: SslSocket) -> None:
        agreed = [protocol_text(socket.session_protocol), socket.session_cipher, socket.session_group]
        resumed = "resumed" if socket.session_reused else "full handshake"
        self.show(socket, "encrypted", ", ".join(part for part in [*agreed, resumed] if part))

    def on_error(self, socket: SslSocket, error: SocketError) -> None:
        usual = error is SocketError.REMOTE_HOST_CLOSED_ERROR and socket.clean_close
        self.show(socket, "error", f"{error.name}: {socket.error_string}", "" if usual else "error")

    def on_ssl_errors(self, socket: SslSocket, errors: list[SslError]) -> None:
        self.show(socket, "ssl_errors", "; ".join(error.error_string for error in errors), "error")


class Scene:
    """A server that listens, with the certificate of the demonstration, and clients that trust its
    authority."""

    def __init__(self, stage: Stage, server: SslConfiguration, client: SslConfiguration) -> None:
        self.stage = stage
        self.configuration = client
        self.server = SslServer()
        self.server.configuration = server
        if not self.server.listen(0, HOST):
            raise CommandError(self.server.error_string)

    def make_client(self) -> SslSocket:
        client = SslSocket()
        client.configuration = self.configuration
        client.peer_verify_name = NAME
        return client

    def take(self, *, secure: bool = True) -> SslSocket:
        """The server's next connection."""
        self.stage.until(lambda: self.server.has_pending_connections)
        taken = self.server.next_pending_secure_connection() if secure else self.server.next_pending_connection()
        assert taken is not None
        return taken


def ended(*sockets: SslSocket) -> bool:
    return all(socket.state == SslSocket.UNCONNECTED_STATE for socket in sockets)


def make_configurations() -> tuple[SslConfiguration, SslConfiguration]:
    """For a server that has a new certificate, and for clients that trust its authority and no other."""
    authority, authority_key = make_authority()
    server, client = SslConfiguration(), SslConfiguration()
    server.local_certificate, server.private_key = issue_certificate(authority, authority_key)
    server.peer_verify_mode = SslConfiguration.VERIFY_NONE
    client.add_ca_certificate(authority)
    client.use_system_ca = server.use_system_ca = False
    return server, client


def show_certificate(stage: Stage, configuration: SslConfiguration) -> None:
    stage.title("A certificate, made in memory")
    assert configuration.local_certificate is not None
    for what, text in certificate_lines(configuration.local_certificate):
        stage.line("", what, text)


def show_connection(stage: Stage, scene: Scene) -> None:
    stage.title("A connection: a question, an answer, the end")
    client = scene.make_client()

    def answered(socket: SslSocket) -> None:
        socket.read_all()
        socket.disconnect()

    Trace(stage, "client", client, ready_read=answered)
    client.connect_encrypted(HOST, scene.server.port)
    client.write(b"Is anybody there?\n")  # sent once it can be encrypted
    server = scene.take()
    Trace(stage, "server", server, ready_read=lambda s: s.write(b"Yes: " + s.read_all()))
    stage.until(lambda: ended(client, server))


def show_wrong_name(stage: Stage, scene: Scene) -> None:
    stage.title("A certificate for another name is refused")
    client = scene.make_client()
    client.peer_verify_name = "bank.example"
    Trace(stage, "client", client)
    client.connect_encrypted(HOST, scene.server.port)
    server = scene.take()
    Trace(stage, "server", server)
    stage.until(lambda: ended(client, server))
    if client.error is not SocketError.SSL_HANDSHAKE_FAILED_ERROR:
        raise CommandError("the certificate for another name was not refused")


def show_resumption(stage: Stage) -> None:
    stage.title("The second connection with one configuration resumes the session of the first")
    scene = Scene(stage, *make_configurations())  # of its own: equal configurations share their sessions

    def connect(number: str) -> bool:
        client = scene.make_client()
        client.ready_read_handler = lambda s: s.disconnect()
        begin = perf_counter()
        client.connect_encrypted(HOST, scene.server.port)
        server = scene.take()
        server.encrypted_handler = lambda s: s.write(b"hello")
        stage.until(lambda: client.encrypted)
        took = (perf_counter() - begin) * 1000
        resumed = client.session_reused
        stage.line("client", number, f"session_reused is {resumed}, {took:.1f} ms from connect to encrypted")
        stage.until(lambda: ended(client, server))
        return resumed

    connect("first")
    resumed = connect("second")
    scene.server.close()
    if not resumed:
        raise CommandError("the session was not resumed")


def show_starttls(stage: Stage, scene: Scene) -> None:
    stage.title("STARTTLS: in the clear first")
    client = scene.make_client()

    def client_reads(socket: SslSocket) -> None:
        if socket.read_all() == b"GO AHEAD\r\n":
            socket.start_client_encryption()
        else:
            socket.disconnect()

    def server_reads(socket: SslSocket) -> None:
        if socket.read_all() == b"STARTTLS\r\n":
            socket.write(b"GO AHEAD\r\n")
            socket.start_server_encryption()
        else:
            socket.write(b"and it stays between us\r\n")

    Trace(
        stage,
        "client",
        client,
        connected=lambda s: s.write(b"STARTTLS\r\n"),
        encrypted=lambda s: s.write(b"a secret\r\n"),
        ready_read=client_reads,
    )
    client.connect(HOST, scene.server.port)
    server = scene.take(secure=False)
    Trace(stage, "server", server, ready_read=server_reads)
    stage.until(lambda: ended(client, server))


class Transfer:
    """Bytes from the server to the client, as fast as they go. `received` counts them."""

    def __init__(self, client: SslSocket, server: SslSocket) -> None:
        self.received = self.seen = 0
        self.piece = bytes(PIECE)
        self.buffer = bytearray(PIECE)
        client.ready_read_handler = self.on_readable
        server.encrypted_handler = self.send
        server.bytes_written_handler = lambda s, count: self.send(s)
        self.left = VOLUME

    def send(self, socket: SslSocket) -> None:
        for _ in range(8):
            if not self.left or socket.bytes_to_write >= UNSENT:
                break
            self.left -= socket.write(self.piece)

    def has_more(self) -> bool:
        """Whether any have come since it was asked last."""
        more, self.seen = self.received > self.seen, self.received
        return more

    def on_readable(self, socket: SslSocket) -> None:
        while count := socket.read_into(self.buffer):
            self.received += count


def show_transfer(stage: Stage, scene: Scene) -> None:
    stage.title(f"A transfer of {VOLUME >> 20} MiB, both ends in this process")
    client = scene.make_client()
    client.connect_encrypted(HOST, scene.server.port)
    server = scene.take()
    transfer = Transfer(client, server)
    stage.until(lambda: client.encrypted)
    begin, cpu, shown = perf_counter(), process_time(), 0.0
    while transfer.received < VOLUME and perf_counter() - begin < VOLUME_SECONDS:
        stage.until(transfer.has_more)
        if stage.terminal and perf_counter() - shown > 0.1:
            shown = perf_counter()
            bar = "#" * (40 * transfer.received // VOLUME)
            rate = transfer.received / (shown - begin) / 2**20
            print(f"\r  [{bar:<40}] {transfer.received >> 20:>4} MiB, {rate:.0f} MiB/s ", end="", flush=True)
    seconds, cpu = perf_counter() - begin, process_time() - cpu
    if stage.terminal:
        print("\r\033[K", end="")
    size = transfer.received / 2**20
    stage.line("", "rate", f"{size:.0f} MiB in {seconds:.2f} s: {size / seconds:.0f} MiB/s")
    stage.line(
        "",
        "processor",
        f"{cpu / size * 1024:.2f} s per GiB for sending, receiving, encrypting and decrypting",
    )
    client.abort()
    server.abort()


def run(arguments: argparse.Namespace) -> int:
    stage = Stage()
    print(f"sslsock {__version__} on {openssl_version()}; Python {sys.version.split()[0]}")
    server, client = make_configurations()
    show_certificate(stage, server)
    scene = Scene(stage, server, client)
    show_connection(stage, scene)
    show_wrong_name(stage, scene)
    show_resumption(stage)
    show_starttls(stage, scene)
    show_transfer(stage, scene)
    scene.server.close()
    stage.loop.close()
    print()
    return 0
