"""For the tests of the commands: `python -m sslsock` as a process, and servers of the standard library and of
openssl(1).

Every server listens on a port that the system chooses. Nothing sleeps; whatever hangs is ended by a time-out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
import trustme

import sslsock

TIMEOUT = 180.0  # seconds: far more than anything takes, also on a machine that has much else to do
ROOT = str(Path(sslsock.__file__).resolve().parents[1])
ENVIRONMENT = {
    **os.environ,
    # The package under test, also where it is not installed.
    "PYTHONPATH": os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")])),
    "PYTHONWARNINGS": "error",
    "RES_OPTIONS": "timeout:1 attempts:1",  # where nobody answers questions for names (resolv.conf(5))
}


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "sslsock", *map(str, args)]


def run(*args: object, input: Optional[bytes] = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end. Standard input is `input`, else empty."""
    if "stdin" not in options:
        options["input"] = input or b""
    options.setdefault("stdout", subprocess.PIPE)
    environment = {**ENVIRONMENT, **options.pop("env", {})}
    return subprocess.run(command(*args), stderr=subprocess.PIPE, env=environment, timeout=TIMEOUT, **options)


@contextlib.contextmanager
def started(*args: object, lifetime: float = TIMEOUT, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A command while it runs; killed at the end if it still does, or after `lifetime` seconds."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    with subprocess.Popen(command(*args), env=ENVIRONMENT, **options) as process:
        watchdog = threading.Timer(lifetime, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def one_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """The last line on standard error: the message of a failure."""
    text = result.stderr.decode()
    assert "Traceback" not in text, text
    return text.rstrip("\n").rpartition("\n")[2]


def heeding_cuts(context: ssl.SSLContext) -> ssl.SSLContext:
    """A missing close_notify is an error: CPython 3.9 sets SSL_OP_IGNORE_UNEXPECTED_EOF, and takes it for an end."""
    context.options &= ~0x80
    return context


class Identity:
    """An authority and a certificate for localhost, as objects of trustme and as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.issued = self.authority.issue_cert("localhost", "127.0.0.1", "::1", common_name="localhost")
        self.client = self.authority.issue_cert("client@example.org", common_name="client")
        self.ca = folder / "ca.pem"
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.both = folder / "both.pem"
        self.client_both = folder / "client.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.cert.write_bytes(b"".join(pem.bytes() for pem in self.issued.cert_chain_pems))
        self.issued.private_key_pem.write_to_path(self.key)
        self.issued.private_key_and_cert_chain_pem.write_to_path(self.both)
        self.client.private_key_and_cert_chain_pem.write_to_path(self.client_both)
        for secret in (self.key, self.both, self.client_both):
            secret.chmod(0o600)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issued.configure_cert(context)
        return heeding_cuts(context)

    def client_context(self) -> ssl.SSLContext:
        return heeding_cuts(ssl.create_default_context(cafile=str(self.ca)))


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity(tmp_path_factory.mktemp("identity"))


@contextlib.contextmanager
def server(
    script: Callable[[socket.socket], object], address: str = "127.0.0.1", family: int = socket.AF_INET
) -> Iterator[int]:
    """A server for one connection: `script` has it, in a thread. Yields the port; what the script raises,
    fails the test.

    OSErrors are not failures: the other end may go whenever it likes.
    """
    failures: list[BaseException] = []

    def run_script() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(TIMEOUT)
                script(connection)
        except OSError:
            pass
        except BaseException as exc:
            failures.append(exc)

    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        listener.settimeout(TIMEOUT)
        thread = threading.Thread(target=run_script, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the script of the server hangs"
    if failures:
        raise failures[0]


def tls_server(
    identity: Identity, script: Callable[[ssl.SSLSocket], object], **options: Any
) -> contextlib.AbstractContextManager[int]:
    """The same with TLS from the first byte."""
    context = options.pop("context", None) or identity.server_context()

    def run_script(raw: socket.socket) -> None:
        with context.wrap_socket(raw, server_side=True) as connection:
            script(connection)

    return server(run_script, **options)


def openssl() -> str:
    path = shutil.which("openssl")
    if path is None:
        pytest.skip("there is no openssl program")
    return path


@contextlib.contextmanager
def s_server(identity: Identity, *options: str) -> Iterator[int]:
    """`openssl s_server`; yields its port."""
    arguments = [openssl(), "s_server", "-accept", "127.0.0.1:0", "-cert", str(identity.both), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        watchdog = threading.Timer(TIMEOUT, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith(b"ACCEPT")), b"")
            assert line, "openssl s_server does not start"
            yield int(line.rpartition(b":")[2])
        finally:
            watchdog.cancel()
            process.kill()
