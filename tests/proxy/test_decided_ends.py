"""Ends that the proxy decides: no client takes one for an end in order, and nothing more is taken from it."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
from pathlib import Path as FilePath
from typing import Any, Callable

import pytest
import trustme

from command_helpers import Identity
from peers import refused_port, stuck_port
from sslsock.proxy.observability.record import REASONS

from .operations import proxy
from .running import (
    TIMEOUT,
    Proxy,
    accept,
    connect,
    end_of,
    end_of_new,
    end_output,
    listener,
    receive,
    receive_all,
    receive_exactly,
)

Start = Callable[..., Proxy]

DOCUMENT = FilePath(__file__).resolve().parents[2] / "docs" / "proxy-observability.md"

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=["tls1.2", "tls1.3"])
def context(request: pytest.FixtureRequest, identity: Identity) -> ssl.SSLContext:
    made = identity.client_context()
    made.minimum_version = made.maximum_version = request.param
    return made


def front(identity: Identity) -> tuple[object, ...]:
    return ("--listen", "tls://127.0.0.1:0", "--cert", identity.both)


def assert_nothing_is_taken(client: Any) -> None:
    """What a client goes on to send is reset at once; for 5 s it would fill the buffers of both ends, and more."""
    with pytest.raises(ConnectionError):
        while True:
            client.sendall(bytes(1000))


def test_no_back_end(start: Start, identity: Identity, context: ssl.SSLContext) -> None:
    with refused_port() as port:
        proxy = start(*front(identity), "--to", f"tcp://127.0.0.1:{port}")
        with connect(proxy.port, context) as client:
            client.sendall(b"a line of a log\n")
            assert end_of(client) == "internal_error"
            with socket.socket(fileno=client.detach()) as raw:
                assert_nothing_is_taken(raw)
        assert proxy.record()["reason"] == "no_backend"


def test_no_back_end_in_time(start: Start, identity: Identity, context: ssl.SSLContext) -> None:
    with stuck_port() as port:
        proxy = start(*front(identity), "--to", f"tcp://127.0.0.1:{port}", "--connect-timeout", 0.2)
        with connect(proxy.port, context) as client:
            client.sendall(b"a line of a log\n" * 1000)
            assert end_of(client) == "internal_error"
        assert proxy.record()["reason"] == "connect_timeout"


def test_a_back_end_whose_certificate_is_refused(start: Start, identity: Identity, context: ssl.SSLContext) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(own)
    with listener() as back:
        to = f"tls://127.0.0.1:{back.getsockname()[1]}"
        proxy = start(*front(identity), "--to", to, "--to-ca", identity.ca)
        with connect(proxy.port, context) as client:
            with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
                accept(back, own)  # it hears why, too
            assert end_of(client) == "internal_error"
        assert proxy.record()["reason"] == "backend_handshake_failed"


def test_the_proxy_is_told_to_end_while_a_back_end_is_dialled(identity: Identity, context: ssl.SSLContext) -> None:
    with stuck_port() as port:
        options = ("--to", f"tcp://127.0.0.1:{port}", "--connect-timeout", 60, "--drain-timeout", 0.1)
        with proxy(*front(identity), *options, "--log-format", "text") as ending:
            with connect(ending.port, context) as client:
                assert ending.end() == 0
                assert end_of(client) == "internal_error"
            ending.wait_for_line("reason=drained")


@pytest.mark.parametrize(
    ("option", "seconds"), [("--idle-timeout", 1), ("--half-closed-timeout", 1), ("--connection-lifetime", 3)]
)
@pytest.mark.parametrize("scheme", ["tls", "tcp"])
def test_bytes_went_through(start: Start, identity: Identity, scheme: str, option: str, seconds: int) -> None:
    context = identity.client_context() if scheme == "tls" else None
    listening = front(identity) if scheme == "tls" else ("--listen", "tcp://127.0.0.1:0")
    with listener() as back:
        to = f"tcp://127.0.0.1:{back.getsockname()[1]}"
        proxy = start(*listening, "--to", to, option, seconds)
        with connect(proxy.port, context) as client, accept(back) as server:
            half = option == "--half-closed-timeout"
            with contextlib.suppress(OSError):  # on a slow machine its time may be over
                client.sendall(b"half of a file")
            if half:
                end_output(client)
                assert receive_all(server) == b"half of a file", "it said that this was all"
            else:
                with pytest.raises(ConnectionResetError):  # a FIN says that the file is complete
                    receive_all(server)
            if context is None:
                assert end_of(client) == "reset"
            else:
                with pytest.raises(ssl.SSLEOFError):
                    client.recv(1)
        assert proxy.record()["reason"] == option[2:].replace("-", "_").replace("connection_", "")


def test_a_name_without_a_route(start: Start, identity: Identity, tmp_path: FilePath, context: ssl.SSLContext) -> None:
    config = tmp_path / "proxy.toml"
    config.write_text(
        f'[[listener]]\nlisten = "tls://127.0.0.1:0"\ncert = "{identity.both}"\n'
        '[[listener.route]]\nserver-names = "elsewhere.example"\nto = "tcp://127.0.0.1:1"\n'
    )
    proxy = start("--config", config)
    with socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        raw.sendall(outgoing.read())
        assert receive(raw)[-1] == 112  # unrecognized_name
        assert_nothing_is_taken(raw)
    assert proxy.record()["reason"] == "no_route"


@pytest.mark.parametrize(
    "first", [b"POST / HTTP/1.1\r\n\r\n", b"\x16\3\1\0\5\1\0\0\1\0", b"\x16"], ids=["HTTP", "malformed", "late"]
)
def test_behind_a_refused_hello_little_is_taken(start: Start, identity: Identity, first: bytes) -> None:
    """However fast it sends; the bound of an end in order would be 16 MiB."""
    options = ("--handshake-timeout", 0.2) if first == b"\x16" else ()
    proxy = start(*front(identity), "--to", "tcp://127.0.0.1:9", *options)
    with connect(proxy.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        client.sendall(first)
        client.recv(100)  # an alert, or the end
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 32 << 20:
                sent += client.send(bytes(65536))
    assert sent < 12 << 20  # what the systems hold of it may be several MiB


def test_a_client_that_leaves_a_handshake_half_done(start: Start, identity: Identity, context: ssl.SSLContext) -> None:
    proxy = start(*front(identity), "--to", "tcp://127.0.0.1:9", "--handshake-timeout", 0.2)
    with socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT) as raw:
        outgoing = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
        raw.sendall(outgoing.read())
        while raw.recv(65536):
            pass  # the proxy's part of it, and the end
    record = proxy.record()
    assert (record["reason"], record["error"]) == ("handshake_timeout", "the TLS handshake was not done in time")


def test_without_tls_it_is_a_reset(start: Start) -> None:
    with refused_port() as port:
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", f"tcp://127.0.0.1:{port}")
        assert end_of_new(proxy.port) == "reset"
        assert proxy.record()["reason"] == "no_backend"


def test_who_sees_a_back_end_cut_off_and_says_so_has_not_failed(
    start: Start, identity: Identity, context: ssl.SSLContext
) -> None:
    """OpenSSL 3 answers an end without close_notify with an alert; what has happened is still that end."""
    with listener() as back:
        to = f"tls://127.0.0.1:{back.getsockname()[1]}"
        proxy = start(*front(identity), "--to", to, "--to-ca", identity.ca)
        with connect(proxy.port, context) as client:
            with accept(back, identity.server_context()) as server:
                client.sendall(b"x")
                assert receive_exactly(server, 1) == b"x"
                server.sendall(b"whole answer")
                with socket.socket(fileno=server.detach()):
                    pass  # no close_notify
            assert receive_exactly(client, 12) == b"whole answer"
            assert end_of(client) == "UNEXPECTED_EOF_WHILE_READING"
        record = proxy.record()
        assert (record["reason"], record["error"]) == ("truncated", None)


# What the client does while the proxy looks for a back end, and what that is called.


def send_garbage(client: Any) -> None:
    """A record that does not decrypt."""
    with socket.socket(fileno=client.detach()) as raw:
        raw.sendall(b"\x17\3\3\0\x30" + bytes(0x30))
        assert receive(raw)  # an alert


def reset(client: Any) -> None:
    with socket.socket(fileno=client.detach()) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


CLIENTS = {"garbage": (send_garbage, "tls_failed"), "reset": (reset, "client_reset")}


@pytest.mark.parametrize("does", CLIENTS)
@pytest.mark.parametrize("stage", ["dialing", "greeting"])
def test_what_the_client_breaks_is_named_alike_in_every_stage(
    start: Start, identity: Identity, context: ssl.SSLContext, stage: str, does: str
) -> None:
    act, reason = CLIENTS[does]
    options = (*front(identity), "--to-ca", identity.ca, "--connect-timeout", 0, "--to")
    if stage == "dialing":
        with stuck_port() as port:
            proxy = start(*options, f"tls://127.0.0.1:{port}")
            with connect(proxy.port, context) as client:
                act(client)
            assert proxy.record()["reason"] == reason
        return
    with listener() as back:
        proxy = start(*options, f"tls://127.0.0.1:{back.getsockname()[1]}")
        with connect(proxy.port, context) as client, accept(back) as server:
            assert receive(server)  # a ClientHello, which is not answered
            act(client)
            assert proxy.record()["reason"] == reason
            assert end_of_all(server)


def test_a_client_that_is_cut_off_while_a_back_end_is_greeted(
    start: Start, identity: Identity, context: ssl.SSLContext
) -> None:
    """It may still hear an answer, so that is no end yet; afterwards it is what it was."""
    with listener() as back:
        to = f"tls://127.0.0.1:{back.getsockname()[1]}"
        proxy = start(*front(identity), "--to-ca", identity.ca, "--connect-timeout", 0, "--to", to)
        with connect(proxy.port, context) as client, back.accept()[0] as raw:
            raw.settimeout(TIMEOUT)
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)  # without close_notify
            with identity.server_context().wrap_socket(raw, server_side=True, suppress_ragged_eofs=False) as server:
                assert receive_exactly(server, 8) == b"question"
                assert end_of(server) == "UNEXPECTED_EOF_WHILE_READING"
        assert proxy.record()["reason"] == "truncated"


def end_of_all(sock: socket.socket) -> bool:
    with pytest.raises(ConnectionResetError):
        while receive(sock):
            pass
        raise ConnectionResetError  # an end in order will do: nothing of a client has come this way
    return True


def test_every_reason_stands_in_the_documents() -> None:
    text = DOCUMENT.read_text()
    table = text.partition("| `reason` | |")[2].partition("\n\n")[0]
    told = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(told) == sorted(REASONS)


def test_a_name_is_up_when_one_of_its_addresses_is(start: Start) -> None:
    """Where localhost is ::1 first and the server is at 127.0.0.1."""
    with listener() as back:
        port = back.getsockname()[1]
        options = ("--to", f"tcp://localhost:{port}", "--metrics", "127.0.0.1:0")
        proxy = start("--listen", "tcp://127.0.0.1:0", *options)
        for _ in range(4):
            with connect(proxy.port) as client, accept(back) as server:
                server.sendall(b"x")
                assert receive_exactly(client, 1) == b"x"
                end_output(server)
                end_output(client)
            proxy.record()
        lines = proxy.metrics()
        assert [line for line in lines if line.startswith("sslsock_proxy_backend_up{")] == [
            f'sslsock_proxy_backend_up{{backend="localhost:{port}"}} 1.0'
        ]
        assert f'sslsock_proxy_backend_address_up{{address="127.0.0.1:{port}",backend="localhost:{port}"}} 1.0' in lines
