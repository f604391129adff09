"""Bytes and ends through all combinations of schemes."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from typing import Any, Callable

import pytest

from command_helpers import Identity, openssl
from interop.talkers import BEGIN, talk_with_key_updates, talkers
from peers import MEMORY_TELLS, reset

from .operations import wait_until
from .running import (
    PERIOD,
    TIMEOUT,
    Path,
    Proxy,
    address_of,
    end_output,
    pattern,
    receive_all,
    receive_exactly,
    transfer,
)

MIB = 1 << 20
BULK = (1024 if os.environ.get("SSLSOCK_FULL") else 128) * MIB  # each way at once; a GiB takes a minute where it is checked


def only(*pairs: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("through", pairs, indirect=True, ids=["-".join(pair) for pair in pairs], scope="session")


# The end of a stream without close_notify.
CUT = ssl.SSLEOFError if sys.version_info >= (3, 10) else ssl.SSLError

TLS = only(("tls", "tcp"), ("tcp", "tls"), ("tls", "tls"))
TLS_CLIENT = only(("tls", "tcp"), ("tls", "tls"))
TLS_BACK_END = only(("tcp", "tls"), ("tls", "tls"))


def closed(through: Path, client: Any, server: Any) -> dict[str, Any]:
    """End both, the client first, and return the record."""
    end_output(client)
    assert receive_all(server) == b""
    end_output(server)
    assert receive_all(client) == b""
    record: dict[str, Any] = through.record()
    return record


def await_ends(through: Path, clients: set[str]) -> None:
    """Until the proxy has logged the end of every one of `clients`, named as in its records."""
    while clients:
        clients.discard(through.proxy.record()["peer"])


# Bytes


def test_bytes_both_ways_at_once(through: Path) -> None:
    with through.connected() as (client, server):
        transfer(client, server, 8 * MIB, 8 * MIB)
        record = closed(through, client, server)
    assert (record["reason"], record["error"]) == ("ended", None)
    assert (record["bytes_forward"], record["bytes_back"]) == (8 * MIB, 8 * MIB)
    assert record["backend"] == address_of(through.listening)


@pytest.mark.slow
def test_bulk_both_ways_at_once(through: Path) -> None:
    with through.connected() as (client, server):
        transfer(client, server, BULK, BULK)
        record = closed(through, client, server)
    assert record["reason"] == "ended"
    assert (record["bytes_forward"], record["bytes_back"]) == (BULK, BULK)


def test_one_byte_at_a_time(through: Path) -> None:
    with through.connected() as (client, server):
        for sock in (client, server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(500):
            client.sendall(bytes([number & 255]))
            assert receive_exactly(server, 1) == bytes([number & 255])
            server.sendall(bytes([~number & 255]))
            assert receive_exactly(client, 1) == bytes([~number & 255])
        record = closed(through, client, server)
    assert (record["bytes_forward"], record["bytes_back"]) == (500, 500)


def test_a_client_that_sends_before_the_back_end_is_there(through: Path) -> None:
    data = bytes(pattern(0, 0, 256 * 1024))
    with through.connect_client() as client:
        # More than is kept of it: the rest has to wait in the kernel.
        sender = threading.Thread(target=client.sendall, args=(data,), daemon=True)
        sender.start()
        with through.accept() as server:
            assert receive_exactly(server, len(data)) == data
            sender.join(TIMEOUT)
            assert closed(through, client, server)["bytes_forward"] == len(data)


def test_a_client_that_sends_and_ends_before_the_back_end_is_there(through: Path) -> None:
    with through.connect_client() as client:
        client.sendall(b"all I have to say")
        end_output(client)
        with through.accept() as server:
            assert receive_all(server) == b"all I have to say"
            server.sendall(b"and the answer")
            end_output(server)
            assert receive_all(client) == b"and the answer"
    assert through.record()["reason"] == "ended"


@TLS_CLIENT
def test_data_with_the_last_handshake_message(through: Path) -> None:
    """The client's Finished and its first data arrive in one packet, and its end."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = through.client_context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", through.proxy.port), TIMEOUT) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        tls.write(b"first words")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        sock.sendall(outgoing.read())
        sock.shutdown(socket.SHUT_WR)
        with through.accept() as server:
            assert receive_all(server) == b"first words"
        peer = address_of(sock)
    assert through.proxy.record(peer)["bytes_forward"] == 11


# Ends


@pytest.mark.parametrize("size", [0, 5, 3 * MIB])
def test_the_client_half_closes_and_gets_its_answer(through: Path, size: int) -> None:
    with through.connected() as (client, server):
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        end_output(client)
        assert receive_all(server) == b"GET / HTTP/1.0\r\n\r\n"
        body = bytes(PERIOD) * (size // PERIOD + 1)
        sender = threading.Thread(target=lambda: (server.sendall(body[:size]), end_output(server)), daemon=True)
        sender.start()
        assert receive_all(client) == body[:size]
        sender.join(TIMEOUT)
    record = through.record()
    assert (record["reason"], record["bytes_back"]) == ("ended", size)


def test_the_back_end_ends_first_as_in_http_1_0_without_a_length(through: Path) -> None:
    with through.connected() as (client, server):
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        receive_exactly(server, 18)
        server.sendall(b"HTTP/1.0 200 OK\r\n\r\nbody")
        end_output(server)
        assert receive_all(client) == b"HTTP/1.0 200 OK\r\n\r\nbody"
        client.sendall(b"more")  # the other direction goes on
        end_output(client)
        assert receive_all(server) == b"more"
    assert through.record()["reason"] == "ended"


@TLS_CLIENT
def test_openssl_s_client_with_piped_input(through: Path) -> None:
    arguments = [openssl(), "s_client", "-quiet", "-connect", f"127.0.0.1:{through.proxy.port}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"question\n")
        process.stdin.close()
        with through.accept() as server:
            assert receive_exactly(server, 9) == b"question\n"
            server.sendall(b"answer\n")
            end_output(server)
            assert process.stdout.read() == b"answer\n"
        assert process.wait(TIMEOUT) == 0
    record = through.proxy.record()
    assert (record["bytes_forward"], record["bytes_back"]) == (9, 7)


@TLS_CLIENT
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_client_that_wants_small_records(through: Path, version: str) -> None:
    """RFC 6066, 4."""
    body = bytes(pattern(5, 0, 4 * MIB + 1))
    arguments = [openssl(), "s_client", "-quiet", version, "-maxfraglen", "512"]
    arguments += ["-connect", f"127.0.0.1:{through.proxy.port}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"question\n")
        process.stdin.close()
        with through.accept() as server:
            assert receive_exactly(server, 9) == b"question\n"
            sender = threading.Thread(target=lambda: (server.sendall(body), end_output(server)), daemon=True)
            sender.start()
            assert process.stdout.read() == body
            sender.join(TIMEOUT)
        assert process.wait(TIMEOUT) == 0
    assert through.proxy.record()["bytes_back"] == len(body)


def test_a_back_end_that_resets(through: Path) -> None:
    """What came before still gets to the client."""
    data = bytes(pattern(3, 0, 200_000))
    with through.connected() as (client, server):
        server.sendall(data)
        assert receive_exactly(client, 1) == data[:1]
        raw = socket.socket(fileno=server.detach())
        reset(raw)
        rest = bytearray()
        with contextlib.suppress(ConnectionResetError, CUT):
            while piece := client.recv(65536):
                rest += piece
        # A reset destroys what lies in the proxy's kernel, so not all of it need be there; what is, must be right.
        assert bytes(rest) == data[1 : 1 + len(rest)]
    record = through.record()
    assert record["reason"] == "backend_reset"
    assert record["error"]


def test_what_came_before_a_reset_is_delivered(through: Path) -> None:
    with through.connected() as (client, server):
        server.sendall(b"before")
        assert receive_exactly(client, 3) == b"bef"
        raw = socket.socket(fileno=server.detach())
        reset(raw)
        assert receive_exactly(client, 3) == b"ore"
        if through.front == "tls":
            with pytest.raises(CUT):  # nobody has said that the data is complete
                client.recv(1)
        else:
            assert client.recv(1) == b""
    assert through.record()["reason"] == "backend_reset"


def test_a_client_that_resets(through: Path) -> None:
    with through.connected() as (client, server):
        client.sendall(b"before")
        assert receive_exactly(server, 6) == b"before"
        reset(socket.socket(fileno=client.detach()))
        with contextlib.suppress(CUT, ConnectionResetError):
            assert server.recv(1) == b""
    assert through.record()["reason"] == "client_reset"


@TLS_CLIENT
def test_truncation_is_passed_on_and_named(through: Path) -> None:
    """A client's FIN without close_notify becomes one without close_notify."""
    with through.connected() as (client, server):
        client.sendall(b"cut")
        assert receive_exactly(server, 3) == b"cut"
        socket.socket.shutdown(client, socket.SHUT_WR)
        if through.back == "tls":
            with pytest.raises(CUT):
                server.recv(1)
            raw = socket.socket(fileno=server.detach())
            raw.close()
        else:
            assert server.recv(1) == b""
            server.close()
        # OpenSSL 3.5 answers a cut with an alert, and the client's own way out is closed.
        with contextlib.suppress(CUT, BrokenPipeError):
            assert receive_all(client) == b""  # its tickets, too: a socket that is closed with something unread is reset
    assert through.record()["reason"] == "truncated"  # also where libssl answers such an end with an alert


# Slow and many


def test_a_client_that_stops_reading_costs_no_memory(through: Path) -> None:
    before = through.proxy.resident()
    size = 64 * MIB
    with through.connected() as (client, server):
        server.settimeout(0.5)
        sent = 0
        while sent < size:
            try:
                sent += server.send(pattern(9, sent, 65536))
            except (TimeoutError, socket.timeout):
                break
        assert sent < size, "everything fits into the buffers, so nothing was tested"
        grown = through.proxy.resident() - before
        if MEMORY_TELLS:
            assert grown < 8 * MIB, f"{grown} bytes for one client that does not read"
        server.settimeout(TIMEOUT)
        received = 0
        while received < sent:  # it reads again
            data = client.recv(65536)
            assert data == pattern(9, received, len(data))
            received += len(data)
        assert closed(through, client, server)["bytes_back"] == sent


def test_many_connections_at_once(through: Path) -> None:
    """2,000 without TLS; with it, whose handshakes this process makes one after the other, 100."""
    count = 2000 if through.front == "tcp" and through.back == "tcp" else 100
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(through.connected()) for _ in range(count)]
        for number, (client, server) in enumerate(pairs):
            client.sendall(b"%8d" % number)
            server.sendall(b"%8d" % -number)
        for number, (client, server) in enumerate(pairs):
            assert receive_exactly(server, 8) == b"%8d" % number
            assert receive_exactly(client, 8) == b"%8d" % -number
        clients = {address_of(client) for client, _ in pairs}
    await_ends(through, clients)


@pytest.mark.slow
def test_two_thousand_connections_at_once(through: Path) -> None:
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(through.connected()) for _ in range(2000)]
        for client, server in pairs:
            client.sendall(b"there")
            server.sendall(b"back")
        for client, server in pairs:
            assert receive_exactly(server, 5) == b"there"
            assert receive_exactly(client, 4) == b"back"
        clients = {address_of(client) for client, _ in pairs}
    await_ends(through, clients)


# TLS


@TLS
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_versions_of_tls_on_either_side(through: Path, identity: Identity, version: str) -> None:
    client_context, server_context = None, None
    if through.front == "tls":
        client_context = identity.client_context()
        client_context.minimum_version = client_context.maximum_version = ssl.TLSVersion[version]
    if through.back == "tls":
        server_context = identity.server_context()
        server_context.minimum_version = server_context.maximum_version = ssl.TLSVersion[version]
    with through.connect_client(context=client_context) as client, through.accept(server_context) as server:
        transfer(client, server, MIB, MIB)
        for sock in (client, server):
            if isinstance(sock, ssl.SSLSocket):
                assert sock.version() == version.replace("_", ".")
        record = closed(through, client, server)
    assert record["reason"] == "ended"
    assert record["version"] == (version.replace("_", ".") if through.front == "tls" else None)


@TLS_CLIENT
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_clients_resume_their_sessions(through: Path, identity: Identity, version: str) -> None:
    context = identity.client_context()
    context.maximum_version = ssl.TLSVersion[version]
    session, resumed = None, []
    for _ in range(3):
        with through.connect_client(context=context, session=session) as client, through.accept() as server:
            server.sendall(b"x")
            assert receive_exactly(client, 1) == b"x"  # in TLS 1.3 the ticket lies before it
            session = client.session
            resumed.append((client.session_reused, closed(through, client, server)["resumed"]))
    assert resumed == [(False, False), (True, True), (True, True)]


@TLS_BACK_END
def test_sessions_with_the_back_end_are_resumed(through: Path) -> None:
    resumed = []
    for _ in range(3):
        with through.connected() as (client, server):
            server.sendall(b"x")  # the proxy reads the ticket with it
            assert receive_exactly(client, 1) == b"x"
            resumed.append(server.session_reused)
            closed(through, client, server)
    assert resumed[1:] == [True, True]


def test_key_updates_on_both_sides(start: Callable[..., Proxy], identity: Identity, tmp_path: Any) -> None:
    with talkers(wait_until, identity.ca, identity.both, tmp_path) as (server, port, connect_client):
        front = ("--listen", "tls://127.0.0.1:0", "--cert", identity.cert, "--key", identity.key)
        proxy = start(*front, "--to", f"tls://127.0.0.1:{port}", "--to-ca", identity.ca)
        client = connect_client(proxy.port)
        talk_with_key_updates(wait_until, client, server)
        client.program.write(b"Q\n")  # close_notify; how s_server leaves is its own affair
        record = proxy.record()
        assert record["reason"] in ("ended", "truncated", "backend_reset"), record
        assert record["bytes_forward"] == len(BEGIN + server.expected), record
        assert record["bytes_back"] == len(BEGIN + client.expected), record


@TLS_CLIENT
def test_openssl_resumes_by_a_file(through: Path, tmp_path: Any) -> None:

    def s_client(*options: str) -> bytes:
        arguments = [openssl(), "s_client", "-connect", f"127.0.0.1:{through.proxy.port}", "-ign_eof", *options]
        pipe = subprocess.PIPE
        with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT) as process:
            with through.accept() as server:
                server.sendall(b"goodbye\n")
                end_output(server)
                assert process.stdout is not None
                output = process.stdout.read()
            assert process.wait(TIMEOUT) == 0
        assert through.proxy.record()["bytes_back"] == 8
        return output

    file = str(tmp_path / "session")
    assert b"\nNew, TLSv1.3" in s_client("-sess_out", file)
    assert b"\nReused, TLSv1.3" in s_client("-sess_in", file)
