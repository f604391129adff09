"""TLS to back ends: what is verified, asked for, shown and offered; and what the client sees when it fails."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import Any, Callable, Optional

import pytest
import trustme

from command_helpers import Identity
from self_signed import Folder

from .running import Proxy, accept, address_of, connect, end_of, end_of_new, end_output, listener, receive_exactly

NOW = datetime.datetime.now(datetime.timezone.utc)


@contextmanager
def shaking(listening: socket.socket, context: ssl.SSLContext) -> Iterator[list[BaseException]]:
    """A back end that only shakes hands, in a thread, with as many as come; yields what its handshakes have failed of."""
    failures: list[BaseException] = []
    ends = threading.Event()

    def run() -> None:
        while not ends.is_set():
            try:
                sock = listening.accept()[0]
            except OSError:
                return
            try:
                sock.settimeout(30)
                context.wrap_socket(sock, server_side=True).close()
            except (OSError, ValueError) as exc:
                failures.append(exc)
                sock.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield failures
    ends.set()
    listening.shutdown(socket.SHUT_RDWR)
    thread.join(30)


def to_option(listening: socket.socket, host: str = "127.0.0.1") -> str:
    return f"tls://{host}:{listening.getsockname()[1]}"


def failed(start: Callable[..., Proxy], identity: Identity, context: ssl.SSLContext, *options: object) -> dict[str, Any]:
    """Connect through a proxy whose back end cannot be trusted, hear an alert, and return the record."""
    with listener() as listening, shaking(listening, context):
        proxy = start("--listen", "tls://127.0.0.1:0", "--cert", identity.both, "--to", to_option(listening), *options)
        with connect(proxy.port, identity.client_context()) as client:
            assert end_of(client) == "internal_error"
        return proxy.record()


def test_a_wrong_authority(start: Callable[..., Proxy], identity: Identity, tmp_path: FilePath) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    record = failed(start, identity, identity.server_context(), "--to-ca", tmp_path / "other.pem")
    assert record["reason"] == "backend_handshake_failed"
    assert "issuer" in record["error"]


def test_a_wrong_name(start: Callable[..., Proxy], identity: Identity) -> None:
    options = ("--to-ca", identity.ca, "--to-server-name", "elsewhere.example")
    record = failed(start, identity, identity.server_context(), *options)
    assert record["reason"] == "backend_handshake_failed"
    assert "host" in record["error"].lower() or "name" in record["error"]


def test_an_expired_certificate(start: Callable[..., Proxy], identity: Identity, tmp_path: FilePath) -> None:
    pair = Folder(tmp_path).pair("IP:127.0.0.1", end=NOW - datetime.timedelta(days=1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    record = failed(start, identity, context, "--to-ca", pair.certificate)
    assert record["reason"] == "backend_handshake_failed"
    assert "expired" in record["error"]


def test_a_back_end_that_speaks_no_tls(start: Callable[..., Proxy], identity: Identity) -> None:
    with listener() as listening:
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to_option(listening), "--to-ca", identity.ca)
        with connect(proxy.port) as client, accept(listening) as server:
            server.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            assert end_of(client) == "reset"
        assert proxy.record()["reason"] == "backend_handshake_failed"


def test_a_back_end_that_is_silent_is_given_the_time_to_connect(start: Callable[..., Proxy], identity: Identity) -> None:
    with listener() as listening:
        proxy = start(
            "--listen", "tcp://127.0.0.1:0", "--to", to_option(listening), "--to-ca", identity.ca, "--connect-timeout", 0.2
        )
        with connect(proxy.port) as client, accept(listening):
            assert end_of(client) == "reset"
            assert proxy.record()["reason"] == "connect_timeout"


def use(proxy: Proxy, identity: Identity, good: socket.socket, source: str = "127.0.0.1", **options: Any) -> None:
    """A client from `source` that is served by the good back end."""
    with connect(proxy.port, source=source, **options) as client, accept(good, identity.server_context()) as server:
        client.sendall(b"hello")
        assert receive_exactly(server, 5) == b"hello"
    assert proxy.record()["backend"] == address_of(good)


def was_left_out(proxy: Proxy) -> list[bool]:
    """One for each time that it said so."""
    return [True for line in proxy.messages if "is left out" in line]


def untrusted() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_one_that_fails_handshakes_of_different_clients_is_left_out(start: Callable[..., Proxy], identity: Identity) -> None:
    with listener() as bad, listener() as good, shaking(bad, untrusted()) as failures:
        to = ("--to", to_option(bad), "--to", to_option(good), "--to-ca", identity.ca)
        proxy = start("--listen", "tcp://127.0.0.1:0", *to)
        sources = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        for source in sources:
            assert not was_left_out(proxy)
            use(proxy, identity, good, source)
        assert "certificate" in proxy.wait_for_message("is left out")
        use(proxy, identity, good, "127.0.0.4")
        assert len(failures) == len(sources)


def test_one_client_alone_leaves_no_back_end_out(start: Callable[..., Proxy], identity: Identity) -> None:
    """Each of its connections still gets to the next one."""
    with listener() as bad, listener() as good, shaking(bad, untrusted()) as failures:
        to = ("--to", to_option(bad), "--to", to_option(good), "--to-ca", identity.ca)
        proxy = start("--listen", "tcp://127.0.0.1:0", *to)
        for _ in range(8):
            use(proxy, identity, good)
        assert "certificate" in proxy.wait_for_message(to_option(bad)), "the operator is told, though"
        assert len(proxy.messages) == 1 and not was_left_out(proxy)
        assert len(failures) >= 4, "it has its turns"


def test_a_protocol_that_the_back_end_does_not_speak_is_the_clients_trouble(
    start: Callable[..., Proxy], identity: Identity
) -> None:
    """ALPN goes on from client to back end, so a client can make every handshake with it fail (RFC 7301, 3.2)."""
    own, other = identity.server_context(), identity.client_context()
    other.set_alpn_protocols(["h2"])
    with listener() as good:
        front = ("--listen", "tls://127.0.0.1:0", "--cert", identity.both, "--alpn", "h2,http/1.1")
        proxy = start(*front, "--to", to_option(good), "--to-ca", identity.ca)

        def refuse() -> None:
            with good.accept()[0] as sock, contextlib.suppress(OSError):
                sock.settimeout(30)
                sock.recv(65536)  # the ClientHello
                sock.sendall(b"\x15\x03\x03\0\2\2\x78")  # no_application_protocol

        for _ in range(5):
            with connect(proxy.port, other) as client:
                refuse()
                assert end_of(client) == "internal_error"
            record = proxy.record()
            assert record["reason"] == "backend_handshake_failed" and "application protocol" in record["error"]
        with connect(proxy.port, identity.client_context()) as client, accept(good, own) as server:
            server.sendall(b"x")
            assert receive_exactly(client, 1) == b"x"
        assert not was_left_out(proxy)


def test_a_success_in_between_begins_the_count_anew(start: Callable[..., Proxy], identity: Identity) -> None:
    with listener() as back:
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to_option(back), "--to-ca", identity.ca)
        for number in range(6):
            with connect(proxy.port, source=f"127.0.0.{number + 1}") as client:
                if number % 3 == 2:
                    with accept(back, identity.server_context()) as server:
                        server.sendall(b"x")
                        assert receive_exactly(client, 1) == b"x"
                else:
                    accept(back).close()
                    assert end_of(client) == "reset"
        assert not was_left_out(proxy)


def test_routes_to_one_address_do_not_share_what_goes_wrong(
    start: Callable[..., Proxy], identity: Identity, tmp_path: FilePath
) -> None:
    """One of them asks for a name that the back end has not: its failures are not the other's."""
    with listener() as back, shaking(back, identity.server_context()):
        target = f'to = "{to_option(back)}"\nto-ca = "{identity.ca}"\n'
        config = tmp_path / "proxy.toml"
        config.write_text(
            f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\n{target}to-server-name = "elsewhere.example"\n'
            f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\n{target}'
        )
        proxy = start("--config", config, listeners=2)
        for number in range(1, 4):
            assert end_of_new(proxy.ports[0], source=f"127.0.0.{number}") == "reset"
            assert proxy.record()["reason"] == "backend_handshake_failed"
        proxy.wait_for_message("is left out")
        with connect(proxy.ports[1]) as client:
            assert end_of(client) == "clean"
        assert proxy.record()["reason"] in ("ended", "truncated")
        assert sum(was_left_out(proxy)) == 1 and not any("used again" in line for line in proxy.messages)


def test_insecure(start: Callable[..., Proxy], tmp_path: FilePath) -> None:
    pair = Folder(tmp_path).pair("elsewhere.example", end=NOW - datetime.timedelta(days=1))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with listener() as listening:
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to_option(listening), "--to-insecure")
        with connect(proxy.port) as client, accept(listening, context) as server:
            server.sendall(b"trust me")
            assert receive_exactly(client, 8) == b"trust me"


@pytest.mark.parametrize(
    ("host", "option", "expected"),
    [
        ("localhost", None, "localhost"),
        ("127.0.0.1", None, None),  # RFC 6066, 3: addresses are not sent
        ("127.0.0.1", "db.example.com", "db.example.com"),
    ],
)
def test_the_name_that_is_asked_for(
    start: Callable[..., Proxy], tmp_path: FilePath, host: str, option: Optional[str], expected: Optional[str]
) -> None:
    pair = Folder(tmp_path).pair("localhost", "db.example.com", "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    asked: list[Optional[str]] = []
    context.sni_callback = lambda sock, name, context: asked.append(name)
    with listener() as listening:
        name = () if option is None else ("--to-server-name", option)
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to_option(listening, host), "--to-ca", pair.certificate, *name)
        with connect(proxy.port) as client, accept(listening, context) as server:
            server.sendall(b"x")
            assert receive_exactly(client, 1) == b"x"
    assert asked == [expected]


def test_a_client_certificate_is_shown(start: Callable[..., Proxy], identity: Identity) -> None:
    context = identity.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(identity.ca)
    with listener() as listening:
        to = ("--to", to_option(listening), "--to-ca", identity.ca, "--to-cert", identity.client_both)
        proxy = start("--listen", "tcp://127.0.0.1:0", *to)
        with connect(proxy.port), accept(listening, context) as server:
            assert (("commonName", "client"),) in server.getpeercert()["subject"]


def test_a_demanded_client_certificate_that_there_is_not(start: Callable[..., Proxy], identity: Identity) -> None:
    """In TLS 1.3 the alert comes after the proxy's handshake is done: the connection is there, and breaks."""
    context = identity.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(identity.ca)
    with listener() as listening, shaking(listening, context):
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to_option(listening), "--to-ca", identity.ca)
        assert end_of_new(proxy.port) in ("clean", "reset")
        record = proxy.record()
    assert record["reason"] in ("tls_failed", "backend_handshake_failed")
    assert "certificate required" in record["error"]


@pytest.mark.parametrize(
    ("client_offers", "options", "expected"),
    [
        (["h2", "http/1.1"], ("--alpn", "h2,http/1.1"), "h2"),  # the client's, all the way
        (["http/1.1"], ("--alpn", "h2,http/1.1"), "http/1.1"),
        ([], ("--alpn", "h2,http/1.1"), None),
        (["h2"], ("--alpn", "h2", "--to-alpn", "http/1.1"), "http/1.1"),
        ([], ("--to-alpn", "h2"), "h2"),
    ],
)
def test_protocols(
    start: Callable[..., Proxy], identity: Identity, client_offers: list[str], options: tuple[str, ...], expected: Optional[str]
) -> None:
    server_context, client_context = identity.server_context(), identity.client_context()
    server_context.set_alpn_protocols(["http/1.1", "h2"])
    if client_offers:
        client_context.set_alpn_protocols(client_offers)
    with listener() as listening:
        front = ("--listen", "tls://127.0.0.1:0", "--cert", identity.cert, "--key", identity.key)
        proxy = start(*front, "--to", to_option(listening), "--to-ca", identity.ca, *options)
        with connect(proxy.port, client_context) as client, accept(listening, server_context) as server:
            assert server.selected_alpn_protocol() == expected
            end_output(client)
            end_output(server)
        assert proxy.record()["alpn"] == (client_offers[0] if client_offers else None)
