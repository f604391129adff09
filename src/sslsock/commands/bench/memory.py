"""Engines over memory: what TLS costs without sockets. Client and server in one thread, no system call
between them.

Inside the timer: encrypting, moving the ciphertext across, decrypting into a buffer that is used again; for
handshakes also making and dropping both ends. Outside: contexts, certificates, the first handshake of a bulk
measure.
"""

from __future__ import annotations

import importlib
import ssl
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from ... import Context, Engine, SslCertificate, SslKey
from ...core.context import VERIFY_NONE
from ...core.issue import issue_pem
from ..common import CommandError
from .kinds import client_context, memory_file, server_context, ssl_module
from .measures import Measure, Sample, Settings, measure_loop

SIZES = (64, 1024, 16 * 1024, 1024 * 1024)
BATCH = 256 * 1024  # bytes between two looks at the clock
BUFFER = 256 * 1024
PEERS = ("sslsock", "sslsock-ssl", "ssl", "pyopenssl")


class Ends(Protocol):
    """A library's client and server in memory."""

    def connect(self) -> None:
        """A new pair of ends, with a handshake, full or resumed as the object was made for. CommandError."""

    def send(self, data: bytes) -> None:
        """From the client to the server."""

    def agreed(self) -> tuple[str, str]:
        """Protocol and cipher."""


class SslsockEnds:
    def __init__(self, certificate: bytes, key: bytes, authority: bytes, resumed: bool, suite: str) -> None:
        self.server_context = Context(
            server_side=True,
            ciphersuites=suite,
            certificate=SslCertificate(certificate),
            private_key=SslKey(key),
            verify_mode=VERIFY_NONE,
            use_system_ca=False,
        )
        self.client_context = Context(
            server_side=False,
            ciphersuites=suite,
            ca_certificates=[SslCertificate(authority)],
            use_system_ca=False,
        )
        self.resumed = resumed
        self.buffer = bytearray(BUFFER)

    def connect(self) -> None:
        client = Engine(
            self.client_context,
            server_name="localhost",
            verify_name="localhost",
            session_key="localhost" if self.resumed else None,
        )
        server = Engine(self.server_context)
        server.decrypt(client.start())
        while not (client.handshake_done and server.handshake_done):
            client.decrypt(server.take())
            server.decrypt(client.take())
        client.decrypt(server.take())
        self.client, self.server = client, server

    def send(self, data: bytes) -> None:
        cipher = self.client.encrypt(data)
        left = len(data)
        while left:
            left -= self.server.decrypt_into(cipher, self.buffer)
            cipher = b""

    def agreed(self) -> tuple[str, str]:
        return f"TLSv1.{self.client.protocol - 0x0301}", self.client.cipher

    def reused(self) -> bool:
        return self.client.session_reused


class SslEnds:
    own = False

    def __init__(self, certificate: bytes, key: bytes, authority: bytes, resumed: bool, suite: str) -> None:
        self.module = ssl_module(self.own)
        self.server_context = server_context(certificate, key, self.own)
        self.client_context = client_context(authority, self.own)
        self.resumed = resumed
        self.session: Any = None
        self.buffer = bytearray(BUFFER)

    def connect(self) -> None:
        up, down = self.module.MemoryBIO(), self.module.MemoryBIO()
        client = self.client_context.wrap_bio(down, up, server_hostname="localhost", session=self.session)
        server = self.server_context.wrap_bio(up, down, server_side=True)
        ends = [client, server]
        while ends:
            for end in list(ends):
                try:
                    end.do_handshake()
                    ends.remove(end)
                except ssl.SSLWantReadError:
                    pass
        with suppress(ssl.SSLWantReadError):
            client.read(1)  # tickets
        if self.resumed:
            self.session = client.session
        self.client, self.server = client, server

    def send(self, data: bytes) -> None:
        left = self.client.write(data)
        while left:
            left -= self.server.read(left, self.buffer)

    def agreed(self) -> tuple[str, str]:
        cipher = self.client.cipher()
        return self.client.version() or "", cipher[0] if cipher else ""

    def reused(self) -> bool:
        return bool(self.client.session_reused)


class OwnSslEnds(SslEnds):
    own = True


class PyOpenSslEnds:
    def __init__(self, certificate: bytes, key: bytes, authority: bytes, resumed: bool, suite: str) -> None:
        library = self.library = importlib.import_module("OpenSSL.SSL")
        self.server_context = library.Context(library.TLS_SERVER_METHOD)
        with memory_file(certificate + key) as path:
            self.server_context.use_certificate_chain_file(path)
            self.server_context.use_privatekey_file(path)
        self.server_context.set_session_id(b"bench")
        self.client_context = library.Context(library.TLS_CLIENT_METHOD)
        self.client_context.set_verify(library.VERIFY_PEER)
        with memory_file(authority) as path:
            self.client_context.load_verify_locations(path)
        self.resumed = resumed
        self.session: Any = None
        self.buffer = bytearray(BUFFER)

    def move(self, source: Any, target: Any) -> None:
        while True:
            try:
                target.bio_write(source.bio_read(BUFFER))
            except self.library.WantReadError:
                return

    def connect(self) -> None:
        library = self.library
        client, server = library.Connection(self.client_context), library.Connection(self.server_context)
        client.set_connect_state()
        server.set_accept_state()
        client.set_tlsext_host_name(b"localhost")
        if self.session is not None:
            client.set_session(self.session)
        done = False
        while not done:
            done = True
            for end, other in ((client, server), (server, client)):
                try:
                    end.do_handshake()
                except library.WantReadError:
                    done = False
                self.move(end, other)
        with suppress(library.WantReadError):
            client.recv(1)
        if self.resumed:
            self.session = client.get_session()
        self.client, self.server = client, server

    def send(self, data: bytes) -> None:
        left = len(data)
        sent = 0
        while left:
            if sent < len(data):
                sent += self.client.send(data[sent:] if sent else data)
            self.move(self.client, self.server)
            try:
                while left:
                    left -= self.server.recv_into(self.buffer)
            except self.library.WantReadError:
                pass

    def agreed(self) -> tuple[str, str]:
        return self.client.get_protocol_version_name(), self.client.get_cipher_name() or ""

    def reused(self) -> bool:
        reused = getattr(self.client, "session_reused", None)  # old versions cannot tell
        return True if reused is None else bool(reused())


CLASSES = {"sslsock": SslsockEnds, "sslsock-ssl": OwnSslEnds, "ssl": SslEnds, "pyopenssl": PyOpenSslEnds}


class Memory:
    """Makes the ends when they are first asked for, and keeps them for all rounds."""

    def __init__(self, settings: Settings) -> None:
        self.seconds = settings.seconds / 2
        self.suite = settings.suite
        self.identity = issue_pem()
        self._ends: dict[tuple[str, bool], Any] = {}

    def ends(self, peer: str, resumed: bool) -> Any:
        key = (peer, resumed)
        if key not in self._ends:
            self._ends[key] = CLASSES[peer](*self.identity, resumed, self.suite)
        return self._ends[key]

    def bulk(self, peer: str, size: int) -> Sample:
        ends = self.ends(peer, False)
        ends.connect()
        data = b"\7" * size
        count = max(1, BATCH // size)

        def work() -> float:
            for _ in range(count):
                ends.send(data)
            return size * count / 2**20

        return Sample(*measure_loop(work, self.seconds), *ends.agreed())

    def handshake(self, peer: str, resumed: bool) -> Sample:
        ends = self.ends(peer, resumed)
        if resumed:
            ends.connect()  # the one that gives the ticket

        def work() -> float:
            ends.connect()
            return 1

        sample = Sample(*measure_loop(work, self.seconds), *ends.agreed())
        if ends.reused() is not resumed and peer != "pyopenssl":
            raise CommandError(f"bench: {peer} did not {'resume its session' if resumed else 'make a full handshake'}")
        return sample


def size_text(size: int) -> str:
    if size >= 2**20:
        return f"{size >> 20} MiB"
    return f"{size >> 10} KiB" if size >= 1024 else f"{size} B"


def make_measures(peers: list[str], settings: Settings) -> list[Measure]:
    own = [peer for peer in PEERS if peer in peers]
    if not own:
        return []
    memory = Memory(settings)
    measures = [
        Measure(
            "Engine over memory",
            f"writes of {size_text(size)}",
            "MiB/s",
            "s per GiB",
            1024,
            own,
            partial(memory.bulk, size=size),
            "ssl",
        )
        for size in SIZES
    ]
    for resumed in (False, True):
        measures.append(
            Measure(
                "Handshakes over memory, both ends",
                "resumed" if resumed else "full",
                "/s",
                "ms each",
                1000,
                own,
                partial(memory.handshake, resumed=resumed),
                "ssl",
            )
        )
    return measures
