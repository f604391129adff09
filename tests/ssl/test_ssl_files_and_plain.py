"""`sendfile`, `makefile`, and a socket that turns to TLS, back to plain, and on again.

Every test is run with the interpreter's `ssl` too, which has to do the same.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl as stdlib
import threading
from pathlib import Path
from typing import Any

import pytest
from test_ssl_sockets import narrow, read_all
from tls_pairs import NAME, Files, connected, fails_at_the_end

from sslsock import ssl

both = pytest.mark.parametrize("module", [ssl, stdlib], ids=["ours", "the interpreter's"])
limits = pytest.mark.parametrize("limit", [None, 60.0], ids=["blocking", "with a time limit"])
DATA = os.urandom(1000) * 1001  # no multiple of a block


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files") / "data"
    made.write_bytes(DATA)
    return made


# ---- sendfile ------------------------------------------------------------------------------------------------


@both
@limits
@pytest.mark.parametrize(
    ("offset", "count"), [(0, None), (0, 1), (1, None), (999, 50_000), (500_000, 10_000_000), (len(DATA), None), (5, len(DATA))]
)
def test_sendfile(files: Files, place: Path, module: Any, limit: Any, offset: int, count: Any) -> None:
    wanted = DATA[offset:] if count is None else DATA[offset : offset + count]
    with connected(files.client(module), files.server(module)) as (one, other), open(place, "rb") as file:
        one.settimeout(limit)
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_all(other, len(wanted))), daemon=True)
        reader.start()
        assert one.sendfile(file, offset, count) == len(wanted)
        assert file.tell() == offset + len(wanted)
        reader.join()
        assert got == [wanted]
        one.sendall(b"behind")
        assert other.recv(10) == b"behind"


@both
def test_sendfile_of_what_has_no_descriptor(files: Files, module: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        assert one.sendfile(io.BytesIO(b"0123456789"), 2, 5) == 5
        assert other.recv(10) == b"23456"


@both
def test_wrong_arguments_of_sendfile(files: Files, place: Path, module: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        with open(place, "rb") as file:
            for offset, count in ((-1, None), (0, 0), (0, -1), (0, 1.5)):
                with pytest.raises((ValueError, TypeError, OSError)):
                    one.sendfile(file, offset, count)
        with open(place) as text, pytest.raises(ValueError, match="binary"):
            one.sendfile(text)
        one.setblocking(False)
        with open(place, "rb") as file, pytest.raises(ValueError, match="non-blocking"):
            one.sendfile(file)
        one.setblocking(True)
        one.sendall(b"works")
        assert other.recv(10) == b"works"


@both
def test_sendfile_whose_time_is_up(files: Files, place: Path, module: Any) -> None:
    """The place in the file says how much was accepted; the block that was begun is written again as it was."""
    with connected(files.client(module), files.server(module)) as (one, other), open(place, "rb") as file:
        one.settimeout(0.1)
        with pytest.raises(socket.timeout, match="The write operation timed out"):
            one.sendfile(file)
        sent = file.tell()
        assert 0 < sent < len(DATA)
        one.settimeout(60)
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_all(other, len(DATA))), daemon=True)
        reader.start()
        assert one.sendfile(file, sent) == len(DATA) - sent
        reader.join()
        assert got == [DATA]


@both
def test_sendfile_to_a_peer_that_leaves(files: Files, place: Path, module: Any) -> None:
    with narrow(module, files) as (one, other), open(place, "rb") as file:
        other.close()
        with pytest.raises(OSError):
            one.sendfile(file)


# ---- makefile ------------------------------------------------------------------------------------------------


@both
@limits
@pytest.mark.parametrize("buffering", [0, None, 1, 100, 100_000])
def test_binary_files(files: Files, module: Any, limit: Any, buffering: Any) -> None:
    if buffering == 1:
        buffering = 2  # 1 is lines, for text
    with connected(files.client(module), files.server(module)) as (one, other):
        one.settimeout(limit)
        with one.makefile("wb", buffering) as writer, other.makefile("rb", buffering) as reader:
            failed: list[BaseException] = []

            def write() -> None:
                try:
                    view = memoryview(DATA)
                    while view:
                        view = view[writer.write(view[:70_000]) :]
                    writer.flush()
                except BaseException as exc:
                    failed.append(exc)

            thread = threading.Thread(target=write, daemon=True)
            thread.start()
            got = b""
            while len(got) < len(DATA):
                piece = reader.read(len(DATA) - len(got))
                assert piece
                got += piece
            thread.join()
            assert not failed
            assert got == DATA


@both
def test_text_files(files: Files, module: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        with one.makefile("rw", encoding="utf-8", newline="\r\n") as left, other.makefile("rw", encoding="utf-8") as right:
            left.write("question: ä\n")
            left.flush()
            assert right.readline() == "question: ä\n"
            right.write("answer\n" * 3)
            right.flush()
            assert left.buffer.read(21) == b"answer\n" * 3
        assert one.fileno() >= 0


@both
def test_a_file_keeps_the_connection_open(files: Files, module: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        reader = one.makefile("rb")
        one.close()
        other.sendall(b"line\nrest")
        assert reader.readline() == b"line\n"
        other.close()
        with contextlib.suppress(*[BrokenPipeError] * fails_at_the_end(module)):
            assert reader.read() == b"rest"
        reader.close()


@both
def test_lines_that_do_not_come_in_time(files: Files, module: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other), one.makefile("rb") as reader:
        one.settimeout(0.05)
        other.sendall(b"half a li")
        with pytest.raises(socket.timeout):
            reader.readline()


@both
@pytest.mark.parametrize("mode", ["", "x", "rr", "a", "r+", None])
def test_modes_that_are_none(files: Files, module: Any, mode: Any) -> None:
    """Those that only plain sockets' `makefile` decides on, as it does."""
    with connected(files.client(module), files.server(module)) as (one, _):
        plain, other = socket.socketpair()
        with plain, other:

            def outcome(sock: socket.socket) -> Any:
                try:
                    with sock.makefile(mode) as made:
                        return type(made)
                except Exception as exc:
                    return type(exc), str(exc)

            assert outcome(one) == outcome(plain)


# ---- plain, TLS, plain, TLS ----------------------------------------------------------------------------------


@both
@limits
@pytest.mark.parametrize("first", ["the client", "the server"])
def test_a_socket_turns_to_tls_and_back_and_on_again(files: Files, module: Any, limit: Any, first: str) -> None:
    """Twenty times, and either end begins the end of TLS. What is sent in the clear right behind close_notify stays."""
    left, right = socket.socketpair()
    client, server = files.client(module), files.server(module)
    failed: list[BaseException] = []

    def answer(end: Any, talk: Any) -> None:
        end.settimeout(limit)
        try:
            talk(end)
        except BaseException as exc:
            failed.append(exc)
            end.close()

    def turn_off(tls: Any, begins: bool) -> Any:
        if not begins:
            assert tls.recv(100) == b""
        return tls.unwrap()

    def serve(plain: Any) -> None:
        for _ in range(20):
            assert plain.recv(8) == b"STARTTLS"
            plain.sendall(b"OK")
            tls = server.wrap_socket(plain, server_side=True)
            assert tls.recv(100) == b"secret"
            tls.sendall(b"answer")
            plain = turn_off(tls, first == "the server")
            plain.sendall(b"clear")
        plain.close()

    def use(plain: Any) -> None:
        for _ in range(20):
            plain.sendall(b"STARTTLS")
            assert plain.recv(2) == b"OK"
            tls = client.wrap_socket(plain, server_hostname=NAME)
            tls.sendall(b"secret")
            assert tls.recv(100) == b"answer"
            plain = turn_off(tls, first == "the client")
            assert read_all(plain, 5) == b"clear"
        plain.close()

    both_ends = [threading.Thread(target=answer, args=arguments, daemon=True) for arguments in ((right, serve), (left, use))]
    for one in both_ends:
        one.start()
    for one in both_ends:
        one.join()
    assert not failed


@both
def test_tls_begins_behind_plaintext_that_was_read(files: Files, module: Any) -> None:
    """The client's hello has come with the last plain line."""
    left, right = socket.socketpair()
    with left:
        incoming, outgoing = stdlib.MemoryBIO(), stdlib.MemoryBIO()
        client = files.client(stdlib).wrap_bio(incoming, outgoing, server_hostname=NAME)
        with pytest.raises(stdlib.SSLWantReadError):
            client.do_handshake()
        left.sendall(b"STARTTLS\r\n" + outgoing.read())
        assert right.recv(10) == b"STARTTLS\r\n"
        with files.server(module).wrap_socket(right, server_side=True, do_handshake_on_connect=False) as server:
            server.setblocking(False)
            with pytest.raises(module.SSLWantReadError):
                server.do_handshake()
            incoming.write(left.recv(65536))
            client.do_handshake()
            left.sendall(outgoing.read())
            server.setblocking(True)
            server.do_handshake()
            assert server.version() == "TLSv1.3"
