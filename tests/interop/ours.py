"""Our side of the tests: a client that is connected, a server that takes what comes."""

from __future__ import annotations

import random
from typing import Any, Callable, Optional

from peers import Host, Recorder, listening
from sslsock import SocketState, SslConfiguration, SslProtocol, SslServer, SslSocket

from .pki import NAME, Identity, Pki, trusting

PAYLOAD = random.Random(7).randbytes(4 << 20)


def limited(configuration: SslConfiguration, version: Optional[str]) -> SslConfiguration:
    """`configuration` with one protocol version only, or as it is."""
    if version is not None:
        configuration.minimum_protocol = configuration.maximum_protocol = SslProtocol[version]
    return configuration


def client_configuration(pki: Pki, version: Optional[str] = None, identity: Optional[Identity] = None) -> SslConfiguration:
    configuration = trusting(pki.root) if identity is None else identity.configuration(pki.root)
    return limited(configuration, version)


def server_configuration(pki: Pki, version: Optional[str] = None, identity: Optional[Identity] = None) -> SslConfiguration:
    return limited((identity or pki.server).configuration(pki.root), version)


def dial(port: int, configuration: SslConfiguration, name: str = NAME) -> Recorder:
    """A client on its way to a port of 127.0.0.1."""
    sock = SslSocket()
    sock.configuration = configuration
    sock.peer_verify_name = name
    recorder = Recorder(sock)
    sock.connect_encrypted("127.0.0.1", port)
    return recorder


def connected(host: Host, port: int, configuration: SslConfiguration, name: str = NAME) -> Recorder:
    """A client whose handshake is done."""
    recorder = dial(port, configuration, name)
    host.wait_for(lambda: recorder.has("encrypted") or recorder.has("error"), recorder.events)
    assert recorder.socket.encrypted, recorder.socket.error_string
    return recorder


def exchange(host: Host, recorder: Recorder, data: bytes, answer: Optional[bytes] = None) -> None:
    """Send `data`, and wait for `answer`, by default the same."""
    expected = data if answer is None else answer
    before = len(recorder.data)
    assert recorder.socket.write(data) == len(data)
    host.wait_for(lambda: len(recorder.data) - before >= len(expected) or recorder.has("error"), "the answer", 30)
    assert recorder.data[before:] == expected, recorder.events


def ended(host: Host, recorder: Recorder) -> None:
    """Wait until the connection is over."""
    host.wait_for(lambda: recorder.socket.state is SocketState.UNCONNECTED_STATE, recorder.events)


class OurServer:
    """An SslServer that takes every connection: `taken` has the recorders, `serve` is called with each."""

    def __init__(
        self,
        configuration: SslConfiguration,
        serve: Optional[Callable[[Recorder], object]] = None,
        *,
        encrypted: bool = True,
        prepare: Optional[Callable[[SslServer], object]] = None,
    ) -> None:
        self.taken: list[Recorder] = []
        self.serve = serve
        self.encrypted = encrypted
        self.server = SslServer()
        self.server.configuration = configuration
        self.server.new_connection_handler = self._take
        if prepare is not None:
            prepare(self.server)
        listening(self.server)
        self.port = self.server.port

    def _take(self, server: SslServer) -> None:
        while server.has_pending_connections:
            sock = server.next_pending_secure_connection() if self.encrypted else server.next_pending_connection()
            assert sock is not None
            recorder = Recorder(sock)
            self.taken.append(recorder)
            if self.serve is not None:
                self.serve(recorder)

    def last(self, host: Host) -> Recorder:
        """The newest connection, when its handshake is done or has failed."""
        host.wait_for(lambda: self.taken and (self.taken[-1].has("encrypted") or self.taken[-1].has("error")), "a connection")
        return self.taken[-1]

    def close(self) -> None:
        self.server.close()


def echo(recorder: Recorder) -> None:
    """Send back what comes."""

    def on_ready(sock: Any) -> None:
        data = sock.read_all()
        recorder.data += data
        sock.write(data)

    recorder.socket.ready_read_handler = on_ready
