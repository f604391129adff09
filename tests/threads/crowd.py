"""Threads that do things at once, what they share, and how a test waits for them: nothing sleeps.

Made from the package alone, so that an interpreter for which there is no trustme can run it (ci/thread-sanitizer).
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable

from sslsock import SslCertificate, SslKey
from sslsock.core.context import Context
from sslsock.core.engine import Engine
from sslsock.core.issue import issue_pem

DEADLINE = 60.0  # seconds until a test that waits has failed
THREADS = 4
ROUNDS = int(os.environ.get("SSLSOCK_THREAD_ROUNDS", 12))  # that each thread makes of its work

# Of an authority that nobody has, until 2049.
CRL = b"""-----BEGIN X509 CRL-----
MIG1MF0CAQEwCgYIKoZIzj0EAwIwFzEVMBMGA1UEAwwMYW4gYXV0aG9yaXR5Fw0y
MDAxMDEwMDAwMDBaFw00OTAxMDEwMDAwMDBaMBUwEwICEmcXDTIwMDEwMTAwMDAw
MFowCgYIKoZIzj0EAwIDSAAwRQIhAPdomGJDZCy/w7Si1QfEZHBIOCQhUchB7CgU
eUi8mQpsAiApi8UwKBGfxBQdUkVikzlJ7F6mKl3zD8hAqfvssHLkPQ==
-----END X509 CRL-----
"""


class Crowd:
    """Threads that begin together. `work(task)` has one made in each of `count`; `meanwhile(task)` one that is called again and
    again as long as they are at work, once at least."""

    def __init__(self) -> None:
        self.workers: list[threading.Thread] = []
        self.others: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.done = threading.Event()

    def guarded(self, task: Callable[[], object]) -> None:
        self.begin.wait()
        try:
            task()
        except BaseException as exc:
            self.errors.append(exc)
            self.done.set()

    def work(self, task: Callable[[], object], count: int = THREADS) -> Crowd:
        self.workers += [threading.Thread(target=self.guarded, args=(task,), daemon=True) for _ in range(count)]
        return self

    def meanwhile(self, task: Callable[[], object]) -> Crowd:
        def again() -> None:
            task()
            while not self.done.is_set():
                task()

        self.others.append(threading.Thread(target=self.guarded, args=(again,), daemon=True))
        return self

    def run(self) -> None:
        """What one of them raises comes out of here."""
        everybody = self.workers + self.others
        self.begin = threading.Barrier(len(everybody))
        for thread in everybody:
            thread.start()
        for thread in self.workers:
            thread.join(DEADLINE)
        self.done.set()
        for thread in self.others:
            thread.join(DEADLINE)
        if self.errors:
            raise self.errors[0]
        assert not any(thread.is_alive() for thread in everybody), "a thread stands still"


def repeated(task: Callable[[], object], rounds: int = ROUNDS) -> Callable[[], None]:
    def work() -> None:
        for _ in range(rounds):
            task()

    return work


@functools.cache
def files() -> Any:
    """Two identities for localhost of one kind each: (certificate, key, authority) as PEM, and their folder."""
    folder = tempfile.TemporaryDirectory(prefix="sslsock-threads-")
    made = []
    for number in range(2):
        certificate, key, authority = issue_pem()
        for name, text in (("cert", certificate), ("key", key), ("ca", authority)):
            Path(folder.name, f"{name}{number}.pem").write_bytes(text)
        made.append((certificate, key, authority))
    return made, folder


def path_of(name: str) -> str:
    return os.path.join(files()[1].name, name)


def server_context(number: int = 0, **settings: Any) -> Context:
    certificate, key, _ = files()[0][number]
    return Context(
        server_side=True,
        certificate=SslCertificate(certificate),
        private_key=SslKey(key),
        verify_mode=0,
        use_system_ca=False,
        **settings,
    )


def client_context(**settings: Any) -> Context:
    authorities = [SslCertificate(authority) for _, _, authority in files()[0]]
    return Context(server_side=False, ca_certificates=authorities, use_system_ca=False, **settings)


def joined(client: Engine, server: Engine) -> None:
    """The handshake, and the tickets behind it."""
    server.start()
    to_server = client.start()
    while to_server or not (client.handshake_done and server.handshake_done):
        server.decrypt(to_server)
        client.decrypt(server.take())
        to_server = client.take()
    client.decrypt(server.take())


def talk(client: Engine, server: Engine, text: bytes) -> None:
    assert server.decrypt(client.encrypt(text)) == text
    assert client.decrypt(server.encrypt(text)) == text
