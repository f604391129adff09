"""Routes by the name and the protocol that a client asks for, passthrough, and certificates by name."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Callable, NamedTuple, Optional

import pytest

from command_helpers import Identity
from self_signed import EC_KEY, RSA_KEY, Folder

from .running import Proxy, accept, connect, end_output, listener, receive_all, receive_exactly, running, transfer


class Routed(NamedTuple):
    """A proxy with routes, and a listening socket for each."""

    proxy: Proxy
    back_ends: dict[str, socket.socket]

    def accept(self, name: str, context: Optional[ssl.SSLContext] = None) -> socket.socket:
        return accept(self.back_ends[name], context)


@pytest.fixture(scope="module")
def routed(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    folder = tmp_path_factory.mktemp("routes")
    names = ("exact", "wildcard", "protocol", "passed", "both", "encrypted")
    with contextlib.ExitStack() as stack:
        back_ends = {name: stack.enter_context(listener()) for name in names}
        ports = {name: sock.getsockname()[1] for name, sock in back_ends.items()}
        text = f"""
[[listener]]
listen = "tls://127.0.0.1:0"
cert = "{identity.cert}"
key = "{identity.key}"
alpn = ["h2", "http/1.1"]

[[listener.route]]
server-names = "both.example"
alpn = "http/1.1"
to = "tcp://127.0.0.1:{ports["both"]}"

[[listener.route]]
server-names = ["exact.example", "one.wild.example"]
to = "tcp://127.0.0.1:{ports["exact"]}"

[[listener.route]]
server-names = "*.wild.example"
to = "tcp://127.0.0.1:{ports["wildcard"]}"

[[listener.route]]
server-names = "passed.example"
to = "tcp://127.0.0.1:{ports["passed"]}"
passthrough = true

[[listener.route]]
server-names = "encrypted.example"
to = "tls://localhost:{ports["encrypted"]}"
to-ca = "{identity.ca}"

[[listener.route]]
alpn = ["special/1", "http/1.1"]
to = "tcp://127.0.0.1:{ports["protocol"]}"
"""
        file = folder / "proxy.toml"
        file.write_text(text)
        yield Routed(stack.enter_context(running("--config", file)), back_ends)


def client_context(*protocols: str) -> ssl.SSLContext:
    """The name that is asked for is not the certificate's, which is not looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.mark.parametrize(
    ("name", "protocols", "expected"),
    [
        ("exact.example", (), "exact"),
        ("EXACT.Example", (), "exact"),
        ("one.wild.example", (), "exact"),  # the first that fits
        ("two.wild.example", (), "wildcard"),
        ("encrypted.example", (), "encrypted"),
        (None, ("special/1",), "protocol"),
        ("any.example", ("h2", "special/1"), "protocol"),
        ("both.example", ("http/1.1",), "both"),
        ("both.example", ("special/1",), "protocol"),
    ],
)
def test_where_a_client_comes_out(
    routed: Routed, identity: Identity, name: Optional[str], protocols: tuple[str, ...], expected: str
) -> None:
    context = identity.server_context() if expected == "encrypted" else None
    with connect(routed.proxy.port, client_context(*protocols), name) as client, routed.accept(expected, context) as server:
        client.sendall(b"who is there?")
        assert receive_exactly(server, 13) == b"who is there?"
        end_output(client)
        end_output(server)
    assert routed.proxy.record()["sni"] == name


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(("h2", "http/1.1"), "http/1.1"), (("special/1", "http/1.1"), "special/1"), (("special/1",), "special/1")],
)
def test_a_route_by_protocol_agrees_on_that_protocol(routed: Routed, offered: tuple[str, ...], agreed: str) -> None:
    """The listener prefers h2, which this route's back end may not speak."""
    with connect(routed.proxy.port, client_context(*offered), None) as client, routed.accept("protocol"):
        assert client.selected_alpn_protocol() == agreed
    assert routed.proxy.record()["alpn"] == agreed


@pytest.mark.parametrize(
    ("name", "protocols"), [("a.b.wild.example", ()), ("wild.example", ()), (None, ()), ("x.example", ("h2",))]
)
def test_no_route(routed: Routed, name: Optional[str], protocols: tuple[str, ...]) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        connect(routed.proxy.port, client_context(*protocols), name)
    record = routed.proxy.record()
    assert (record["reason"], record["sni"]) == ("no_route", name)


def test_passthrough_shows_the_back_ends_own_certificate(routed: Routed, tmp_path: FilePath) -> None:
    pair = Folder(tmp_path).pair("passed.example")
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pair.certificate, pair.key)
    server_context.set_alpn_protocols(["special/1"])
    verifying = ssl.create_default_context(cafile=pair.certificate)
    verifying.set_alpn_protocols(["special/1"])
    with socket.create_connection(("127.0.0.1", routed.proxy.port), 30) as raw:
        ends: list[Any] = []
        thread = threading.Thread(target=lambda: ends.append(routed.accept("passed", server_context)), daemon=True)
        thread.start()
        with verifying.wrap_socket(raw, server_hostname="passed.example") as client:
            thread.join(30)
            with ends[0] as server:
                assert client.selected_alpn_protocol() == "special/1"
                transfer(client, server, 1 << 20, 1 << 20)
                end_output(client)
                assert receive_all(server) == b""
                end_output(server)
                assert receive_all(client) == b""
    record = routed.proxy.record()
    assert (record["sni"], record["version"], record["reason"]) == ("passed.example", None, "ended")
    assert record["bytes_forward"] > 1 << 20, "TLS itself went through"


def hello_of(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_a_hello_that_comes_byte_by_byte_passes_through_unchanged(routed: Routed) -> None:
    hello = hello_of("passed.example")
    with socket.create_connection(("127.0.0.1", routed.proxy.port), 30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in hello:
            client.send(bytes([byte]))
        client.sendall(b"and more")
        with routed.accept("passed") as server:
            assert receive_exactly(server, len(hello) + 8) == hello + b"and more"
    routed.proxy.record()


# An SSL 2 ClientHello for TLS 1.2, which libssl understands: it has no names, so it must not get past the routes.
SUITES = b"\x00\xc0\x2b\x00\xc0\x2f\x00\x00\xff"
SSL2_BODY = b"\x01\x03\x03" + struct.pack("!HHH", len(SUITES), 0, 32) + SUITES + bytes(32)
SSL2_HELLO = struct.pack("!H", 0x8000 | len(SSL2_BODY)) + SSL2_BODY


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0" * 100,
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        SSL2_HELLO,
        b"\x16\x03\x01\x00\x00",
    ],
    ids=["http", "zeros", "short hello", "ssl2", "empty record"],
)
def test_garbage_in_place_of_a_hello(routed: Routed, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", routed.proxy.port), 30) as client:
        client.sendall(garbage)
        answer = receive_all(client)
    assert answer == b"" or (answer[:2] == b"\x15\x03" and len(answer) == 7), "nothing, or one alert"
    record = routed.proxy.record()
    assert record["reason"] == "handshake_failed"
    assert record["error"]


@pytest.mark.parametrize(("count", "reason"), [(0, "probe"), (1, "handshake_failed"), (50, "handshake_failed")])
def test_a_hello_that_is_cut_off(routed: Routed, count: int, reason: str) -> None:
    with socket.create_connection(("127.0.0.1", routed.proxy.port), 30) as client:
        client.sendall(hello_of("exact.example")[:count])
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b""
    assert routed.proxy.record()["reason"] == reason


def in_records(hello: bytes, size: int) -> bytes:
    """The same ClientHello in records of `size` bytes."""
    body = hello[5:]
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"\x16\3\1" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize("dripped", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("size", [1, 3, 100, 16384])
def test_a_hello_in_any_pieces_finds_its_way(routed: Routed, size: int, dripped: bool) -> None:
    hello = in_records(hello_of("passed.example"), size)
    with connect(routed.proxy.port) as client:
        send_in_pieces(client, hello, dripped)
        with routed.accept("passed") as server:
            assert receive_exactly(server, len(hello)) == hello  # unopened
    assert routed.proxy.record()["sni"] == "passed.example"

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="exact.example")
    with connect(routed.proxy.port) as client:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        send_in_pieces(client, in_records(outgoing.read(), size), dripped)
        while True:
            incoming.write(client.recv(65536))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        send_in_pieces(client, outgoing.read(), dripped)
        routed.accept("exact").close()  # TLS ends at the proxy
    assert routed.proxy.record()["version"] == "TLSv1.3"


def send_in_pieces(client: socket.socket, data: bytes, dripped: bool) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for place in range(0, len(data), 1 if dripped else len(data)):
        client.sendall(data[place : place + 1] if dripped else data)


# Certificates by name


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, dict[str, str]]]:
    """A proxy with several certificates, and the files by a word for each."""
    folder = Folder(tmp_path_factory.mktemp("certificates"))
    pairs = {
        "default": folder.pair("default.example"),
        "exact": folder.pair("www.site.example"),
        "wildcard": folder.pair("*.site.example"),
        "double": folder.pair("double.example", key=EC_KEY),
        "double rsa": folder.pair("double.example", key=RSA_KEY),
        "part": folder.pair("www.shop.example", "shop.example", key=EC_KEY),
        "part rsa": folder.pair("*.shop.example", key=RSA_KEY),
    }
    options = [word for pair in pairs.values() for word in ("--cert", pair.certificate, "--key", pair.key)]
    with (
        listener() as back,
        running("--listen", "tls://127.0.0.1:0", "--to", f"tcp://127.0.0.1:{back.getsockname()[1]}", *options) as proxy,
    ):
        yield proxy, {word: pair.certificate for word, pair in pairs.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (None, "default"),
        ("nobody.example", "default"),
        ("www.site.example", "exact"),
        ("WWW.SITE.EXAMPLE", "exact"),
        ("other.site.example", "wildcard"),
        ("a.b.site.example", "default"),
        ("double.example", "double"),
        ("www.shop.example", "part"),
        ("shop.example", "part"),
        ("other.shop.example", "part rsa"),
    ],
)
def test_the_certificate_for_a_name(several: tuple[Proxy, dict[str, str]], name: Optional[str], expected: str) -> None:
    proxy, files = several
    with connect(proxy.port, client_context(), name) as client:
        shown = ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True))
    assert shown == FilePath(files[expected]).read_text()


@pytest.mark.parametrize(("name", "expected"), [("double.example", "double rsa"), ("www.shop.example", "part rsa")])
def test_rsa_beside_ecdsa_for_a_client_that_knows_no_other(
    several: tuple[Proxy, dict[str, str]], name: str, expected: str
) -> None:
    proxy, files = several
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    with connect(proxy.port, context, name) as client:
        shown = ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True))
    assert shown == FilePath(files[expected]).read_text()


def test_a_certificate_made_in_memory(start: Callable[..., Proxy], tmp_path: FilePath) -> None:
    authority = tmp_path / "authority.pem"
    with listener() as back:
        to = f"tcp://127.0.0.1:{back.getsockname()[1]}"
        proxy = start("--listen", "tls://127.0.0.1:0", "--to", to, "--ca-out", authority)
        with connect(proxy.port, ssl.create_default_context(cafile=str(authority))) as client, accept(back) as server:
            server.sendall(b"x")
            assert receive_exactly(client, 1) == b"x"


def test_a_certificate_made_in_memory_stays_when_all_is_read_again(start: Callable[..., Proxy], tmp_path: FilePath) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    authority = folder / "authority.pem"
    proxy = start("--listen", "tls://127.0.0.1:0", "--to", "tcp://127.0.0.1:1", "--ca-out", authority)
    context = ssl.create_default_context(cafile=str(authority))
    authority.unlink()
    folder.rmdir()  # a reload writes it no more, and does not ask for it
    proxy.process.send_signal(signal.SIGHUP)
    proxy.wait_for_message("SIGHUP: read again")
    connect(proxy.port, context).close()
