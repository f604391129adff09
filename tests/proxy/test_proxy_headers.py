"""The PROXY protocol in and out of a running proxy."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Callable

import pytest

from command_helpers import Identity
from sslsock.proxy_protocol import (
    MAXIMUM_TLVS,
    PP2_SUBTYPE_SSL_CIPHER,
    PP2_SUBTYPE_SSL_CN,
    PP2_SUBTYPE_SSL_VERSION,
    PP2_TYPE_ALPN,
    PP2_TYPE_AUTHORITY,
    PP2_TYPE_CLIENT_NAME,
    PP2_TYPE_NETNS,
    PP2_TYPE_NOOP,
    PP2_TYPE_SSL,
    PP2_TYPE_UNIQUE_ID,
    Header,
    TlsFields,
    encode_v1,
    encode_v2,
    parse,
)

from .running import (
    TIMEOUT,
    Path,
    Proxy,
    accept,
    address_of,
    connect,
    end_of,
    listener,
    path,
    receive_all,
    receive_exactly,
)

Start = Callable[..., Proxy]
TRUSTED = ("--proxy-protocol-in", "--trusted-proxy", "127.0.0.0/8")
SOURCE, DESTINATION = ("192.0.2.7", 4711), ("198.51.100.1", 443)
HEADERS = {
    "v1": encode_v1(SOURCE, DESTINATION),
    "v2": encode_v2(SOURCE, DESTINATION, authority="x.example", checksum=True),
}


def header_of(sock: Any) -> Header:
    """What a back end receives first."""
    data = bytearray()
    while True:
        found = parse(bytes(data)) if data else None
        if found is not None:
            assert found.size == len(data)
            return found
        piece = sock.recv(1)
        assert piece, f"the end came within the header: {bytes(data)!r}"
        data += piece


@pytest.fixture(scope="module", params=["tls", "tcp"])
def informed(request: pytest.FixtureRequest, identity: Identity) -> Iterator[Path]:
    """A proxy that wants headers."""
    with path(request.param, "tcp", identity, *TRUSTED) as made:
        yield made


@pytest.fixture(scope="module", params=["tls", "tcp"])
def impatient(request: pytest.FixtureRequest, identity: Identity) -> Iterator[Path]:
    """The same, with a short time for them."""
    with path(request.param, "tcp", identity, *TRUSTED, "--handshake-timeout", "1") as made:
        yield made


def tls_after(raw: socket.socket, context: Any) -> Any:
    return raw if context is None else context.wrap_socket(raw, server_hostname="localhost")


@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("together", [True, False])
def test_the_client_that_a_header_tells_of(informed: Path, version: str, together: bool) -> None:
    with socket.create_connection(("127.0.0.1", informed.proxy.port), TIMEOUT) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if together:
            raw.sendall(HEADERS[version])
        else:
            for byte in HEADERS[version]:
                raw.send(bytes([byte]))
        with tls_after(raw, informed.client_context) as client:
            client.sendall(b"behind the header")
            with informed.accept() as server:
                assert receive_exactly(server, 17) == b"behind the header"
    record = informed.proxy.record()
    assert (record["peer"], record["local"]) == ("192.0.2.7:4711", "198.51.100.1:443")


def test_a_health_check_by_a_proxy_itself(informed: Path) -> None:
    """LOCAL: the connection's own addresses count."""
    with socket.create_connection(("127.0.0.1", informed.proxy.port), TIMEOUT) as raw:
        peer = address_of(raw)
        raw.sendall(encode_v2(None, None))
        with tls_after(raw, informed.client_context) as client, informed.accept() as server:
            server.sendall(b"x")
            assert receive_exactly(client, 1) == b"x"
    assert informed.proxy.record()["peer"] == peer


@pytest.mark.parametrize("version", HEADERS)
def test_every_truncation_then_the_end(informed: Path, version: str) -> None:
    header = HEADERS[version]
    expected = {}
    for size in range(len(header)):
        with socket.create_connection(("127.0.0.1", informed.proxy.port), TIMEOUT) as raw:
            raw.sendall(header[:size])
            raw.shutdown(socket.SHUT_WR)
            assert receive_all(raw) == b""
            expected[address_of(raw)] = "bad_proxy_header" if size else "probe"
    found = [informed.proxy.record() for _ in header]
    assert {record["peer"]: record["reason"] for record in found} == expected


@pytest.mark.parametrize("version", HEADERS)
def test_every_truncation_then_silence(impatient: Path, version: str) -> None:
    header, socks = HEADERS[version], []
    for size in range(len(header)):
        socks.append(socket.create_connection(("127.0.0.1", impatient.proxy.port), TIMEOUT))
        socks[-1].sendall(header[:size])
    for sock in socks:
        with sock:
            assert end_of(sock) == "reset"
    assert {impatient.proxy.record()["reason"] for _ in socks} == {"proxy_header_timeout"}


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"PROXY TCP4 1.2.3.4\r\n", b"\0" * 16]
)
def test_no_header(informed: Path, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", informed.proxy.port), TIMEOUT) as raw:
        raw.sendall(data)
        assert end_of(raw) == "reset"
    record = informed.proxy.record()
    assert record["reason"] == "bad_proxy_header"
    assert record["error"]


@pytest.mark.parametrize("impatient", ["tls"], indirect=True)
def test_a_header_then_no_handshake(impatient: Path) -> None:
    with socket.create_connection(("127.0.0.1", impatient.proxy.port), TIMEOUT) as raw:
        raw.sendall(HEADERS["v2"])
        assert end_of(raw) == "clean"
    assert impatient.proxy.record()["reason"] == "handshake_timeout"


def test_a_peer_that_is_not_trusted(start: Start) -> None:
    with listener() as listening:
        to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        options = ("--proxy-protocol-in", "--trusted-proxy", "10.0.0.0/8")
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to, *options)
        with socket.socket() as client:
            client.settimeout(TIMEOUT)
            client.bind(("127.0.0.1", 0))
            peer = address_of(client)
            with pytest.raises(ConnectionResetError):  # perhaps before `connect` returns
                client.connect(("127.0.0.1", proxy.port))
                client.sendall(HEADERS["v1"])
                client.recv(1)
        record = proxy.record()
    assert (record["reason"], record["peer"]) == ("untrusted_proxy", peer), "what it claims is not believed"


# Out


@pytest.mark.parametrize("version", [1, 2])
def test_the_header_for_a_back_end(start: Start, version: int) -> None:
    with listener() as listening:
        to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to, "--proxy-protocol-out", f"v{version}")
        with connect(proxy.port) as client, accept(listening) as server:
            client.sendall(b"data")
            header = header_of(server)
            assert (header.version, header.source, header.destination) == (version, client.getsockname(), client.getpeername())
            assert receive_exactly(server, 4) == b"data"


def test_what_tls_has_agreed_on_is_told(start: Start, identity: Identity) -> None:
    context = identity.client_context()
    context.set_alpn_protocols(["h2"])
    identity.client.configure_cert(context)
    with listener() as listening:
        to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        front = ("--listen", "tls://127.0.0.1:0", "--cert", identity.both, "--client-ca", identity.ca, "--alpn", "h2")
        proxy = start(*front, "--to", to, "--proxy-protocol-out", "v2")
        session, certificates = None, []
        for _ in range(2):
            with connect(proxy.port, context, session=session) as client, accept(listening) as server:
                header = header_of(server)
                server.sendall(b"x")
                assert receive_exactly(client, 1) == b"x"
                session = client.session
                assert header.tlv(PP2_TYPE_ALPN) == b"h2"
                assert header.tlv(PP2_TYPE_AUTHORITY) == b"localhost"
                tls = header.tlv(PP2_TYPE_SSL)
                assert tls is not None and tls[1:5] == bytes(4), "verified"
                certificates.append(tls[0])
                fields = dict(fields_of(tls[5:]))
                assert fields[PP2_SUBTYPE_SSL_VERSION] == b"TLSv1.3"
                assert fields[PP2_SUBTYPE_SSL_CN] == b"client"
                assert fields[PP2_SUBTYPE_SSL_CIPHER] == client.cipher()[0].encode()
    assert certificates == [1 | 2 | 4, 1 | 4], "shown in this connection; then only in the session"


def fields_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size = int.from_bytes(data[1:3], "big")
        yield data[0], data[3 : 3 + size]
        data = data[3 + size :]


def test_the_header_goes_before_tls_with_the_back_end(start: Start, identity: Identity) -> None:
    with listener() as listening:
        to = ("--to", f"tls://127.0.0.1:{listening.getsockname()[1]}", "--to-ca", identity.ca)
        proxy = start("--listen", "tcp://127.0.0.1:0", *to, "--proxy-protocol-out", "v2")
        with connect(proxy.port) as client, accept(listening) as raw:
            assert header_of(raw).source == client.getsockname()
            with identity.server_context().wrap_socket(raw, server_side=True) as server:
                client.sendall(b"data")
                assert receive_exactly(server, 4) == b"data"


def test_a_client_is_told_on_from_proxy_to_proxy(start: Start, identity: Identity) -> None:
    with listener() as listening:
        last = start(
            "--listen", "tls://127.0.0.1:0", "--cert", identity.both, *TRUSTED, "--proxy-protocol-out", "v2",
            "--to", f"tcp://127.0.0.1:{listening.getsockname()[1]}",
        )  # fmt: skip
        first = start("--listen", "tcp://127.0.0.1:0", "--to", f"tcp://127.0.0.1:{last.port}", "--proxy-protocol-out", "v1")
        with connect(first.port, identity.client_context()) as client, accept(listening) as server:
            header = header_of(server)
            assert (header.source, header.destination) == (client.getsockname(), client.getpeername())
            assert header.tlv(PP2_TYPE_AUTHORITY) == b"localhost"


def test_a_header_through_a_passthrough_route(start: Start, tmp_path: FilePath) -> None:
    with listener() as listening:
        file = tmp_path / "proxy.toml"
        file.write_text(
            '[[listener]]\nlisten = "tls://127.0.0.1:0"\nproxy-protocol-in = true\ntrusted-proxy = "127.0.0.1"\n'
            'proxy-protocol-out = "v2"\n[[listener.route]]\npassthrough = true\n'
            f'to = "tcp://127.0.0.1:{listening.getsockname()[1]}"\n'
        )
        proxy = start("--config", file)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="name.example")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        with connect(proxy.port) as client:
            client.sendall(HEADERS["v2"] + hello)
            with accept(listening) as server:
                header = header_of(server)
                assert (header.source, header.destination) == (SOURCE, DESTINATION)
                assert header.tlv(PP2_TYPE_AUTHORITY) == b"name.example"
                assert receive_exactly(server, len(hello)) == hello


# On, from one proxy to the next

CAME = (
    (0xE9, b"first"),
    (PP2_TYPE_NOOP, b"padding"),
    (PP2_TYPE_NETNS, b"blue"),
    (PP2_TYPE_CLIENT_NAME, b"spiffe://example.org/forged"),
    (0xE9, b"second"),
)


def sent_on(start: Start, listen: str, header: bytes, *words: Any, context: Any = None) -> tuple[Header, dict[str, Any]]:
    """What a back end gets of a connection that begins with `header`, and the line of the log."""
    with listener() as listening:
        to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        proxy = start("--listen", listen, "--to", to, *TRUSTED, "--proxy-protocol-out", "v2", *words)
        with connect(proxy.port) as raw:
            raw.sendall(header)
            with tls_after(raw, context) as client, accept(listening) as server:
                found = header_of(server)
                server.sendall(b"x")
                assert receive_exactly(client, 1) == b"x"
        return found, proxy.record()


def test_what_came_in_is_handed_on(start: Start) -> None:
    tls = TlsFields("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", verified=True, in_session=True, common_name="before")
    header = encode_v2(
        SOURCE, DESTINATION, tls=tls, alpn=b"h2", authority="x.example", unique_id=b"one-7", tlvs=CAME, checksum=True
    )
    found, record = sent_on(start, "tcp://127.0.0.1:0", header)
    assert (found.source, found.destination, found.tls()) == (SOURCE, DESTINATION, tls)
    came = parse(header)
    assert came is not None
    kept = [entry for entry in came.tlvs if entry[0] not in (PP2_TYPE_NOOP, 3)]
    assert sorted(found.tlvs) == sorted(kept)
    order = [value for kind, value in found.tlvs if kind == 0xE9]
    assert order == [b"first", b"second"] and record["id"] == "one-7"


def test_of_tls_that_ends_here_this_proxy_alone_tells(start: Start, identity: Identity) -> None:
    tls = TlsFields("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", verified=True, in_session=True, common_name="before")
    header = encode_v2(SOURCE, DESTINATION, tls=tls, alpn=b"before", authority="x.example", unique_id=b"\0\xff", tlvs=CAME)
    found, record = sent_on(
        start, "tls://127.0.0.1:0", header, "--cert", identity.both, context=identity.client_context()
    )
    told = found.tls()
    assert told is not None and (told.version, told.verified, told.common_name) == ("TLSv1.3", False, None)
    assert found.tlv(PP2_TYPE_ALPN) is None, "nothing was agreed on with this client"
    assert found.tlv(PP2_TYPE_AUTHORITY) == b"localhost" and found.tlv(PP2_TYPE_CLIENT_NAME) is None
    assert found.tlv(PP2_TYPE_NETNS) == b"blue" and found.tlv(PP2_TYPE_UNIQUE_ID) == b"\0\xff"
    assert record["id"] == "0x00ff"
    kinds = [kind for kind, _ in found.tlvs if kind != 0xE9]
    assert len(kinds) == len(set(kinds)), "of one thing one says something"


def test_what_does_not_fit_any_more_is_left_out(start: Start) -> None:
    came = [(0xEA, bytes(MAXIMUM_TLVS - 3 - 3 - 5)), (0xEB, b"small")]
    found, _ = sent_on(start, "tcp://127.0.0.1:0", encode_v2(SOURCE, DESTINATION, tlvs=came))
    assert [kind for kind, _ in found.tlvs] == [PP2_TYPE_UNIQUE_ID, 0xEB]


def test_the_verified_name_of_a_client(start: Start, identity: Identity) -> None:
    context = identity.client_context()
    identity.client.configure_cert(context)
    for allowed, name in (((), b"CN:client"), (("--allow-name", "*@example.org"), b"email:client@example.org")):
        with listener() as listening:
            to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
            front = ("--listen", "tls://127.0.0.1:0", "--cert", identity.both, "--client-ca", identity.ca, *allowed)
            proxy = start(*front, "--to", to, "--proxy-protocol-out", "v2")
            with connect(proxy.port, context), accept(listening) as server:
                assert header_of(server).tlv(PP2_TYPE_CLIENT_NAME) == name


def test_each_connection_has_an_id_that_the_log_has_too(start: Start) -> None:
    told, logged = [], []
    with listener() as listening:
        to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to, "--proxy-protocol-out", "v2")
        for _ in range(20):
            with connect(proxy.port), accept(listening) as server:
                unique_id = header_of(server).tlv(PP2_TYPE_UNIQUE_ID)
                assert unique_id is not None
                told.append(unique_id.decode("ascii"))
            logged.append(proxy.record()["id"])
    assert logged == told and len(set(told)) == 20
