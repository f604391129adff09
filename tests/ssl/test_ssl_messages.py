"""What comes after the handshake: key updates, renegotiation, a certificate that is asked for later. `openssl` and the
interpreter's `ssl` are the peers.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl as stdlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from test_ssl_sockets import narrow, read_all
from tls_pairs import NAME, Files, connected, in_memory

from sslsock import ssl

both = pytest.mark.parametrize("module", [ssl, stdlib], ids=["ours", "the interpreter's"])
with_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program")
WAIT = 60.0  # seconds; it fails then
ALLOW_CLIENT_RENEGOTIATION = 1 << 8  # SSL_CTX_set_options(3); `ssl` has no name for it


class OpenSsl:
    """`openssl s_server` or `s_client`, whose commands are lines of its standard input."""

    def __init__(self, *arguments: Any) -> None:
        command = ["openssl", *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, bufsize=0)
        self.text = ""
        self.more = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout
        while data := self.process.stdout.read(65536):
            with self.more:
                self.text += data.decode("latin-1")
                self.more.notify_all()

    def wait_for(self, pattern: str, count: int = 1) -> Any:
        """The match, when it has said that so often."""
        with self.more:
            said = self.more.wait_for(lambda: len(re.findall(pattern, self.text)) >= count, WAIT)
            assert said, f"{pattern!r} is not there: {self.text[-2000:]}"
            return list(re.finditer(pattern, self.text))[count - 1]

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")

    def __enter__(self) -> OpenSsl:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def to_server(files: Files, context: Any, *options: str) -> Iterator[tuple[Any, OpenSsl]]:
    """A connection of `context` to s_server."""
    with OpenSsl("s_server", "-accept", "127.0.0.1:0", "-cert", files.server_file, "-key", files.server_file, *options) as peer:
        port = int(peer.wait_for(r"ACCEPT \S+:(\d+)")[1])
        plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        with context.wrap_socket(plain, server_hostname=NAME) as one:
            peer.wait_for("Shared ciphers|CIPHER is")
            yield one, peer


@contextlib.contextmanager
def to_client(files: Files, context: Any, *options: Any) -> Iterator[tuple[Any, OpenSsl]]:
    """A connection of s_client to `context`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT)
        port = listener.getsockname()[1]
        with OpenSsl("s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", files.ca_file, *options) as peer:
            plain, _ = listener.accept()
            plain.settimeout(WAIT)
            with context.wrap_socket(plain, server_side=True) as one:
                peer.wait_for("Verify return code")
                yield one, peer


def talk(one: Any, peer: OpenSsl, word: str) -> None:
    """A line each way."""
    one.sendall(b"to-" + word.encode() + b"\n")
    peer.wait_for(f"to-{word}\n")
    peer.say(f"from-{word}")
    wanted = f"from-{word}\n".encode()
    got = b""
    while len(got) < len(wanted):
        data = one.recv(100)
        assert data, f"the end came after {got!r}"
        got += data
    assert got == wanted


# ---- key updates: RFC 8446, 4.6.3 ----------------------------------------------------------------------------


@both
@with_openssl
@pytest.mark.parametrize("end", [to_server, to_client], ids=["of a server", "of a client"])
@pytest.mark.parametrize("command", ["k", "K"], ids=["told of", "asked for"])
@pytest.mark.parametrize("limit", [WAIT, None])
def test_key_updates(files: Files, module: Any, end: Any, command: str, limit: Optional[float]) -> None:
    context = files.client(module) if end is to_server else files.server(module)
    with end(files, context, "-msg") as (one, peer):
        one.settimeout(limit)
        talk(one, peer, "before")
        for number in range(5):
            peer.say(command)
            peer.wait_for(r">>> TLS 1.3, Handshake \[length 0005\], KeyUpdate", number + 1)
            talk(one, peer, f"after{number}")


# ---- renegotiation: RFC 5246, 7.4.1.1 ------------------------------------------------------------------------


@both
@with_openssl
def test_a_server_that_renegotiates(files: Files, module: Any) -> None:
    context = files.client(module)
    context.maximum_version = module.TLSVersion.TLSv1_2
    with to_server(files, context) as (one, peer):
        for number in range(3):
            talk(one, peer, f"before{number}")
            peer.say("r")
            talk(one, peer, f"after{number}")
        assert context.session_stats()["connect_renegotiate"] > 0


@both
@with_openssl
def test_a_client_that_renegotiates(files: Files, module: Any) -> None:
    context = files.server(module)
    context.maximum_version = module.TLSVersion.TLSv1_2
    context.options |= ALLOW_CLIENT_RENEGOTIATION
    with to_client(files, context) as (one, peer):
        for number in range(3):
            talk(one, peer, f"before{number}")
            peer.say("R")
            peer.wait_for("RENEGOTIATING", number + 1)
            peer.say("from-it")  # until this is read we may not write: RFC 5246, 7.4.1.2
            assert one.recv(100) == b"from-it\n"
            talk(one, peer, f"after{number}")
        assert context.session_stats()["accept_renegotiate"] > 0


@both
@with_openssl
def test_renegotiation_that_is_switched_off(files: Files, module: Any) -> None:
    context = files.client(module)
    context.maximum_version = module.TLSVersion.TLSv1_2
    context.options |= module.OP_NO_RENEGOTIATION
    with to_server(files, context) as (one, peer):
        talk(one, peer, "before")
        peer.say("r")
        talk(one, peer, "after")
        assert context.session_stats()["connect_renegotiate"] == 0


@pytest.mark.parametrize("limit", [20.0, None])
def test_both_ends_have_much_to_send_and_one_must_answer(files: Files, limit: Optional[float]) -> None:
    """What we have to send finds no room, for the peer reads only when we have read. So we read on meanwhile."""
    with narrow(ssl, files) as (one, other):
        one.settimeout(limit)
        # Fill the way to `other`, which reads nothing yet.
        one.setblocking(False)
        blob = b"z" * 1_000_000
        with pytest.raises(ssl.SSLWantWriteError):
            one.send(blob)
        one.settimeout(limit)
        sender = threading.Thread(target=other.sendall, args=(b"d" * 500_000,), daemon=True)
        sender.start()
        assert read_all(one, 500_000) == b"d" * 500_000  # although what we have to send goes nowhere
        sender.join()
        reader: list[bytes] = []
        thread = threading.Thread(target=lambda: reader.append(read_all(other, len(blob))), daemon=True)
        thread.start()
        assert one.send(blob) == len(blob)
        thread.join()
        assert reader == [blob]


# ---- a certificate that is asked for later: RFC 8446, 4.6.2 --------------------------------------------------


def with_certificate(files: Files, context: Any, folder: Path) -> Any:
    issued = files.ca.issue_cert("client@example.com")
    place = folder / "client.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(place))
    context.load_cert_chain(place)
    context.post_handshake_auth = True
    return context


def asking(files: Files, module: Any) -> Any:
    context = files.server(module)
    context.post_handshake_auth = True
    context.verify_mode = module.CERT_REQUIRED
    context.load_verify_locations(files.ca_file)
    return context


@pytest.mark.parametrize("server", [ssl, stdlib], ids=["our server", "the interpreter's server"])
@pytest.mark.parametrize("client", [ssl, stdlib], ids=["our client", "the interpreter's client"])
@pytest.mark.parametrize("limit", [WAIT, None])
def test_a_certificate_that_is_asked_for_later(files: Files, client: Any, server: Any, limit: Any, tmp_path: Path) -> None:
    with connected(with_certificate(files, files.client(client), tmp_path), asking(files, server)) as (one, other):
        one.settimeout(limit)
        other.settimeout(limit)
        one.sendall(b"1")
        assert other.recv(10) == b"1"
        assert not other.getpeercert()
        other.verify_client_post_handshake()
        other.sendall(b"2")
        assert one.recv(10) == b"2"  # and the question before it, which is answered
        one.sendall(b"3")
        assert other.recv(10) == b"3"
        assert other.getpeercert()["subjectAltName"] == (("email", "client@example.com"),)


@pytest.mark.parametrize("server", [ssl, stdlib], ids=["our server", "the interpreter's server"])
@pytest.mark.parametrize("client", [ssl, stdlib], ids=["our client", "the interpreter's client"])
def test_a_client_that_has_none_is_refused(files: Files, client: Any, server: Any) -> None:
    context = files.client(client)
    context.post_handshake_auth = True
    with connected(context, asking(files, server)) as (one, other):
        other.verify_client_post_handshake()
        other.sendall(b"x")
        assert one.recv(10) == b"x"
        one.sendall(b"y")
        with pytest.raises(server.SSLError) as caught:
            other.recv(10)
        assert caught.value.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
        with pytest.raises(client.SSLError) as caught:
            one.recv(10)
        assert "CERTIFICATE_REQUIRED" in caught.value.reason


@both
def test_who_has_not_offered_it_cannot_be_asked(files: Files, module: Any) -> None:
    for version, reason in (("TLSv1_3", "EXTENSION_NOT_RECEIVED"), ("TLSv1_2", "WRONG_SSL_VERSION")):
        client = files.client(module)
        client.maximum_version = module.TLSVersion[version]
        server = files.server(module)
        server.post_handshake_auth = True
        one, other = in_memory(client, server, module)
        with pytest.raises(module.SSLError) as caught:
            other._sslobj.verify_client_post_handshake()
        assert caught.value.reason == reason
        with pytest.raises(module.SSLError) as caught:
            one._sslobj.verify_client_post_handshake()
        assert caught.value.reason in ("NOT_SERVER", "WRONG_SSL_VERSION")


@both
@with_openssl
def test_s_client_is_asked_later(files: Files, module: Any, tmp_path: Path) -> None:
    with_certificate(files, files.client(module), tmp_path)
    place = tmp_path / "client.pem"
    with to_client(files, asking(files, module), "-enable_pha", "-cert", place, "-key", place) as (one, peer):
        talk(one, peer, "before")
        assert not one.getpeercert()
        one.verify_client_post_handshake()
        talk(one, peer, "after")
        assert one.getpeercert()["subjectAltName"] == (("email", "client@example.com"),)
