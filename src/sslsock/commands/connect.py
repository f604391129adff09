"""`connect`: a TLS client that shows what was agreed on, then joins standard input and output to it.

What is shown goes to standard error, all of it before the first byte is sent; standard output gets the peer's
bytes and nothing else. The way of a connection:

    connect -> (STARTTLS dialogue) -> handshake -> joined -> end of input -> peer closes, or is silent -> end

The family has no half-close, so the end of the input is not told to the peer: it is closed when it has
closed, or has sent nothing for --wait seconds. A peer that closes is read to its last byte, however slow
standard output is.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from time import perf_counter
from typing import Any, Optional

from .. import EventLoop, SocketError, SslCertificate, SslConfiguration, SslError, SslSocket, stop
from .. import run as run_loop
from ..proxy.tls.certificates import CertificateError, read_certificates
from ..sockets.certificate_text import certificate_lines, name_text
from ..sockets.host_port import address_text
from .common import CommandError, UsageError, check_configuration, load_identity, printable, protocol_text
from .session_file import SessionFile
from .standard_streams import PIECE, InputThread, OutputThread
from .starttls import DIALOGUES, Dialogue

DIALOGUE_SECONDS = 30.0
LINE_LIMIT = 8192  # bytes of one line of a STARTTLS dialogue; RFC 9051, 4 advises this many
UNSENT = 4 * PIECE  # bytes written and not sent at which standard input is read no further


def make_configuration(arguments: argparse.Namespace) -> SslConfiguration:
    configuration = SslConfiguration()
    load_identity(configuration, arguments.cert, arguments.key)
    if arguments.ca is not None:
        try:
            configuration.ca_certificates = read_certificates(arguments.ca)
        except CertificateError as exc:
            raise UsageError(str(exc)) from None
        configuration.use_system_ca = False
    for path in arguments.crl:
        try:
            configuration.add_crl_file(path)
        except (OSError, ValueError) as exc:
            raise UsageError(f"--crl: {exc}") from None
    if arguments.partial_chain:
        configuration.verify_flags = SslConfiguration.VERIFY_X509_PARTIAL_CHAIN
    configuration.legacy_server_connect = arguments.legacy_server
    configuration.allowed_next_protocols = arguments.alpn
    if arguments.insecure:
        # Not VERIFY_NONE: what is wrong is still to be shown.
        configuration.peer_verify_mode = SslConfiguration.QUERY_PEER
    check_configuration(configuration, server_side=False)
    return configuration


class Client:
    """One run of the command. `failure` is what it ends with, None for a clean end."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.failure: Optional[str] = None
        self.host, self.port = arguments.address
        self.insecure: bool = arguments.insecure
        self.protocol: Optional[str] = arguments.starttls
        self.silence: float = arguments.wait
        self.times = {"start": 0.0}

        self.dialogue: Optional[Dialogue] = None
        self.deadline: Any = None
        self.input: Optional[InputThread] = None
        self.input_waits = False
        self.input_ended = False
        self.output: Optional[OutputThread] = None
        self.writing = False
        self.silent_since = 0.0

        self.loop = EventLoop.current()
        socket = self.socket = SslSocket()
        socket.configuration = make_configuration(arguments)
        if arguments.server_name:
            try:
                socket.peer_verify_name = arguments.server_name
            except ValueError as exc:
                raise UsageError(f"--server-name: {exc}") from None
        self.keeps_session = arguments.session_file is not None
        if self.keeps_session:
            SessionFile(arguments.session_file, self.say).offer(socket)
        socket.host_found_handler = lambda s: self.note("found")
        socket.connected_handler = self.on_connected
        socket.ssl_errors_handler = self.on_ssl_errors
        socket.encrypted_handler = self.on_encrypted
        socket.error_handler = self.on_error
        socket.disconnected_handler = self.on_end

    def begin(self) -> None:
        self.note("start")
        if self.protocol is None:
            self.socket.connect_encrypted(self.host, self.port)
        else:
            self.socket.connect(self.host, self.port)

    def finish(self) -> None:
        """After the loop: what is still to be written. OSError."""
        if self.output is not None:
            while data := self.socket.read(PIECE):
                self.output.write(data)
            self.output.finish()

    def note(self, event: str) -> None:
        self.times[event] = perf_counter()

    def say(self, text: str = "") -> None:
        with suppress(OSError, ValueError):  # nobody listens on standard error: the connection matters more
            print(text, file=sys.stderr, flush=True)

    # The connection

    def on_connected(self, socket: SslSocket) -> None:
        self.note("connected")
        self.say(f"Connected to {self.host} ({address_text(socket.remote_address, socket.remote_port)})")
        if self.protocol is None:
            return
        socket.read_buffer_size = LINE_LIMIT
        socket.ready_read_handler = self.on_line
        self.deadline = self.loop.call_later(DIALOGUE_SECONDS, self.on_late)
        self.dialogue = DIALOGUES[self.protocol](socket.local_address.partition("%")[0])
        next(self.dialogue)  # the server speaks first

    def on_late(self) -> None:
        self.give_up(f"STARTTLS: no answer from the server within {DIALOGUE_SECONDS:g} s")

    def on_line(self, socket: SslSocket) -> None:
        assert self.dialogue is not None
        try:
            while socket.can_read_line:
                socket.write(self.dialogue.send(socket.read_line().rstrip(b"\r\n")))
        except StopIteration:
            self.start_encryption(socket)
        except CommandError as exc:
            self.give_up(str(exc))
        else:
            if socket.bytes_available >= LINE_LIMIT:
                self.give_up(f"STARTTLS: the server sent a line of more than {LINE_LIMIT} bytes")

    def start_encryption(self, socket: SslSocket) -> None:
        self.deadline.cancel()
        self.note("asked")
        if socket.bytes_available:
            # They would be the handshake's and make it fail; this says why. Those still under way do.
            self.give_up(
                f"STARTTLS: {socket.bytes_available} bytes in the clear came after the server's reply; "
                "somebody may have put them in"
            )
            return
        socket.ready_read_handler = None
        socket.read_buffer_size = 0
        socket.start_client_encryption()

    def on_ssl_errors(self, socket: SslSocket, errors: list[SslError]) -> None:
        if self.insecure:
            return  # `report` tells
        # The handshake fails, so this is the time to show whom it was with.
        found = {error.depth: error.certificate for error in errors if error.certificate is not None}
        for depth, certificate in sorted(found.items()):
            self.show_certificate(depth, certificate)
        self.show_errors("FAILED", errors)

    def on_encrypted(self, socket: SslSocket) -> None:
        self.note("encrypted")
        self.report(socket)
        socket.read_buffer_size = 2 * PIECE
        socket.ready_read_handler = self.on_readable
        socket.bytes_written_handler = self.on_written
        self.output = OutputThread(self.loop, 1, self.on_output_written)
        self.input = InputThread(self.loop, 0, self.on_input)
        self.input.go_on()

    def report(self, socket: SslSocket) -> None:
        for depth, certificate in enumerate(socket.peer_certificate_chain):
            self.show_certificate(depth, certificate)
        if socket.ssl_handshake_errors:
            self.show_errors("FAILED, ignored (--insecure)", socket.ssl_handshake_errors)
        else:
            when = ", when the session began" if socket.session_reused else ""
            self.say(f"Verification  ok, for {socket.peer_verify_name or self.host}{when}")
        if self.keeps_session:
            self.say(f"Session       {'resumed' if socket.session_reused else 'new'}")
        self.say(f"Protocol      {protocol_text(socket.session_protocol)}")
        self.say(f"Cipher        {socket.session_cipher}")
        self.say(f"Group         {socket.session_group or '(none)'}")
        self.say(f"ALPN          {printable(socket.next_negotiated_protocol or '(none)')}")
        steps = [("lookup", "start", "found"), ("connect", "found", "connected")]
        if "asked" in self.times:
            steps += [("STARTTLS", "connected", "asked"), ("handshake", "asked", "encrypted")]
        else:
            steps += [("handshake", "connected", "encrypted")]
        times = [f"{name} {(self.times[end] - self.times[begin]) * 1000:.1f} ms" for name, begin, end in steps]
        self.say(f"Timing        {', '.join(times)}")
        self.say()

    def show_certificate(self, depth: int, certificate: SslCertificate) -> None:
        for number, (what, text) in enumerate(certificate_lines(certificate)):
            mark = f"{depth:>3} " if number == 0 else "    "
            self.say(f"{mark}{what:<10}{text}")

    def show_errors(self, result: str, errors: list[SslError]) -> None:
        self.say(f"Verification  {result}")
        for error in errors:
            whose = f" ({name_text(error.certificate.subject)})" if error.certificate is not None else ""
            self.say(f"  depth {error.depth}: {printable(error.error_string)}{whose}")

    def on_error(self, socket: SslSocket, error: SocketError) -> None:
        if error is SocketError.REMOTE_HOST_CLOSED_ERROR and socket.encrypted and socket.clean_close:
            return  # the usual end
        if self.failure is None:
            self.failure = printable(socket.error_string)
            if error is SocketError.REMOTE_HOST_CLOSED_ERROR and socket.mode == SslSocket.UNENCRYPTED_MODE:
                self.failure = "STARTTLS: the server closed the connection"
        if socket.state != SslSocket.CONNECTED_STATE:
            stop()  # there was no connection, so none will be told to have ended

    def give_up(self, failure: str) -> None:
        if self.failure is None:
            self.failure = failure
        self.socket.abort()

    def on_end(self, socket: SslSocket) -> None:
        stop()

    # Standard input

    def on_input(self, data: bytes) -> None:
        socket = self.socket
        if not socket.encrypted:
            return
        if not data:
            self.input_ended = True
            self.silent_since = perf_counter()
            self.loop.call_later(self.silence, self.on_silence)
            return
        socket.write(data)
        self.input_waits = True
        self.take_input()

    def on_written(self, socket: SslSocket, count: int) -> None:
        self.silent_since = perf_counter()
        self.take_input()

    def take_input(self) -> None:
        if self.input_waits and self.socket.bytes_to_write < UNSENT and self.input is not None:
            self.input_waits = False
            self.input.go_on()

    def on_silence(self) -> None:
        """The input has ended some time ago."""
        left = self.silent_since + self.silence - perf_counter()
        if self.writing:  # it is us who keep the peer waiting
            left = self.silence
        if left > 0:
            self.loop.call_later(left, self.on_silence)
        else:
            self.socket.disconnect()

    # Standard output

    def on_readable(self, socket: SslSocket) -> None:
        self.silent_since = perf_counter()
        if not self.writing and socket.bytes_available and self.output is not None:
            self.writing = True
            self.output.write(socket.read(PIECE))

    def on_output_written(self, error: Optional[OSError]) -> None:
        self.writing = False
        if error is not None:
            self.socket.abort()  # `finish` has the error
            stop()
        else:
            self.on_readable(self.socket)


def run(arguments: argparse.Namespace) -> int:
    client = Client(arguments)
    run_loop(client.begin)
    try:
        client.finish()
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise CommandError(f"standard output: {exc.strerror or exc}") from None
    if client.failure is not None:
        raise CommandError(client.failure)
    return 0
