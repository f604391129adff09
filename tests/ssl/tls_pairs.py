"""For the tests of `sslsock.ssl`: contexts of either module for the same certificates, and connected pairs."""

from __future__ import annotations

import contextlib
import socket
import ssl as stdlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

import trustme

from command_helpers import ENVIRONMENT, TIMEOUT

NAME = "localhost"


def fails_at_the_end(module: Any) -> bool:
    """Whether a read may fail with BrokenPipeError at an end without close_notify, for the alert about it cannot be sent: the
    interpreter's does with OpenSSL 3.4 and newer (https://github.com/python/cpython/issues/127257). Ours tells the end."""
    return module is stdlib and stdlib.OPENSSL_VERSION_INFO >= (3, 4)


def reasons(module: Any, *wanted: str) -> set[Optional[str]]:
    """As what `module` may tell a failure of the record layer. `ssl` tells the last of OpenSSL's errors, and OpenSSL 3.2 and
    newer put one more behind the cause; CPython's before 3.14 has no name for that one."""
    if module.OPENSSL_VERSION_INFO < (3, 2):
        return {*wanted}
    return {*wanted, "RECORD_LAYER_FAILURE", *([None] if module is stdlib and sys.version_info < (3, 14) else [])}


class Files:
    """An authority and a server's certificate, as files."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        issued = self.ca.issue_cert(NAME, "127.0.0.1", common_name=NAME)
        self.ca_file, self.server_file = folder / "ca.pem", folder / "server.pem"
        self.ca.cert_pem.write_to_path(str(self.ca_file))
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.server_file))

    def client(self, module: Any) -> Any:
        """A context of `module`, which is `ssl` or `sslsock.ssl`."""
        context = module.SSLContext(module.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca_file)
        return context

    def server(self, module: Any) -> Any:
        context = module.SSLContext(module.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file)
        return context


@contextlib.contextmanager
def connected(client: Any, server: Any, name: Optional[str] = NAME, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Two sockets after their handshake, the server's made in a thread. options: of the client's wrap_socket."""
    left, right = socket.socketpair()
    made: list[Any] = []

    def accept() -> None:
        try:
            made.append(server.wrap_socket(right, server_side=True))
        except Exception as exc:
            made.append(exc)
            right.close()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        tls = client.wrap_socket(left, server_hostname=name, **options)
    finally:
        thread.join()
        if made and isinstance(made[0], Exception):
            left.close()
    if isinstance(made[0], Exception):
        raise made[0]
    with tls, made[0]:
        yield tls, made[0]


def in_memory(client: Any, server: Any, module: ModuleType) -> tuple[Any, Any]:
    """Two SSLObjects after their handshake, over MemoryBIO of `module`."""
    one, other = module.MemoryBIO(), module.MemoryBIO()
    ends = client.wrap_bio(one, other, server_hostname=NAME), server.wrap_bio(other, one, server_side=True)
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            with contextlib.suppress(module.SSLWantReadError):
                end.do_handshake()
                waiting.remove(end)
    return ends


def python(program: str, *arguments: object, options: tuple[str, ...] = (), **environment: str) -> str:
    """What a program prints, in a process of its own. It must end well and say nothing on standard error."""
    result = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(program), *map(str, arguments)],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        timeout=TIMEOUT,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr or result.stdout
    return result.stdout
