"""Connections over sockets: partial reads and writes, limits of time, what lies behind what, callbacks that use their own one.

The tests with `module` are run with the interpreter's `ssl` too, which has to do the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import ssl as stdlib
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tls_pairs import NAME, Files, connected, fails_at_the_end, python, reasons

from sslsock import ssl

both = pytest.mark.parametrize("module", [ssl, stdlib], ids=["ours", "the interpreter's"])
versions = pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])


@contextlib.contextmanager
def narrow(module: Any, files: Files, version: str = "TLSv1_3") -> Iterator[tuple[Any, Any]]:
    """A pair whose sockets hold little, so that hardly a record goes at once."""
    client = files.client(module)
    client.maximum_version = module.TLSVersion[version]
    with connected(client, files.server(module)) as (one, other):
        for end in one, other:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        yield one, other


def read_all(end: Any, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = end.recv(min(65536, size - len(got)))
        assert data, f"the end came after {len(got)} bytes"
        got += data
    return got


# ---- partial writes ------------------------------------------------------------------------------------------


@both
@versions
def test_a_write_that_found_no_room_goes_on_with_the_same_data(files: Files, module: Any, version: str) -> None:
    data = bytes(range(256)) * 1200
    with narrow(module, files, version) as (one, other):
        one.setblocking(False)
        other.setblocking(False)
        received, wants, written = b"", 0, 0
        while len(received) < len(data):
            if not written:
                try:
                    written = one.send(data)
                except module.SSLWantWriteError:
                    wants += 1
            with contextlib.suppress(module.SSLWantReadError):
                received += other.recv(4000)
        assert wants > 0 and written == len(data) and received == data


def test_a_write_goes_on_with_more_data(files: Files) -> None:
    data = bytes(range(256)) * 1200
    with narrow(ssl, files) as (one, other):
        one.setblocking(False)
        with pytest.raises(ssl.SSLWantWriteError):
            one.send(data[:-1000])
        one.setblocking(True)
        reader: list[bytes] = []
        thread = threading.Thread(target=lambda: reader.append(read_all(other, len(data))), daemon=True)
        thread.start()
        assert one.send(data) == len(data)
        thread.join()
        assert reader == [data]


@both
def test_a_write_does_not_go_on_with_less_data(files: Files, module: Any) -> None:
    with narrow(module, files) as (one, _):
        one.setblocking(False)
        with pytest.raises(module.SSLWantWriteError):
            one.send(b"x" * 400_000)
        with pytest.raises(module.SSLError) as caught:
            one.send(b"x")
        assert caught.value.reason in ("BAD_LENGTH", "BAD_WRITE_RETRY")


@both
def test_a_write_that_takes_too_long(files: Files, module: Any) -> None:
    with narrow(module, files) as (one, _):
        one.settimeout(0.05)
        before = time.monotonic()
        with pytest.raises(socket.timeout, match="The write operation timed out"):
            one.sendall(b"x" * 1_000_000)
        assert time.monotonic() - before >= 0.05


@both
def test_a_read_that_takes_too_long(files: Files, module: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        one.settimeout(0.05)
        before = time.monotonic()
        with pytest.raises(socket.timeout, match="The read operation timed out"):
            one.recv(1)
        assert time.monotonic() - before >= 0.05
        other.sendall(b"late")
        assert one.recv(10) == b"late"


def test_drops_keep_the_limit_of_a_call(files: Files) -> None:
    """A peer that sends a little of a record now and then does not make a call longer."""
    left, right = socket.socketpair()
    with files.client(ssl).wrap_socket(left, server_hostname=NAME, do_handshake_on_connect=False) as one, right:
        one.settimeout(0.2)
        finished = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                right.sendall(b"\x16\x03\x03\x40\x00")
                while not finished.wait(0.01):
                    right.sendall(b"\0")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        try:
            with pytest.raises(socket.timeout):
                one.do_handshake()
        finally:
            finished.set()
            thread.join()


# ---- what lies behind what -----------------------------------------------------------------------------------


@both
def test_buffers_of_all_kinds(files: Files, module: Any) -> None:
    import array
    import ctypes
    import mmap

    with connected(files.client(module), files.server(module)) as (one, other), mmap.mmap(-1, 4096) as mapped:
        numbers = array.array("b" if module is stdlib and sys.version_info < (3, 11) else "i", [0] * 16)  # it counted items
        for buffer in (bytearray(10), numbers, (ctypes.c_char * 10)(), memoryview(bytearray(10))[2:], mapped):
            one.sendall(b"abcdefgh")
            assert other.recv_into(buffer) == 8
            assert bytes(memoryview(buffer).cast("B"))[:8] == b"abcdefgh"
        one.sendall(b"abcdefgh")
        assert other.recv_into(bytearray(10), 3) == 3
        assert other.recv_into(bytearray(4), 100) == 4
        for wrong in (b"bytes", memoryview(bytearray(10))[::2], "text", None if module is ssl else b"bytes"):
            with pytest.raises((TypeError, BufferError, ValueError)):
                if wrong is None:
                    raise TypeError
                other.recv_into(wrong)
        assert other.recv(10) == b"h"
        memory = bytearray(10)
        one.sendall(b"x")
        assert other.recv_into(memory) == 1
        memory.append(0)  # nobody holds it


def test_several_records_in_one_read(files: Files) -> None:
    with connected(files.client(ssl), files.server(ssl)) as (one, other):
        for number in range(100):
            one.sendall(b"%3d" % number)
        got = b""
        while len(got) < 300:
            got += other.recv(65536)
        assert got == b"".join(b"%3d" % number for number in range(100))


def raw_pair(files: Files, module: Any) -> tuple[Any, Any, socket.socket]:
    """A client's connection, and its server's SSLObject with the socket beneath, for records made by hand."""
    left, right = socket.socketpair()
    incoming, outgoing = stdlib.MemoryBIO(), stdlib.MemoryBIO()
    peer = files.server(stdlib).wrap_bio(incoming, outgoing, server_side=True)
    peer.written = outgoing
    client = files.client(module).wrap_socket(left, server_hostname=NAME, do_handshake_on_connect=False)
    client.setblocking(False)
    right.setblocking(False)
    waiting = [client, peer]
    while waiting:
        for end in list(waiting):
            with contextlib.suppress(module.SSLWantReadError):
                end.do_handshake()
                waiting.remove(end)
            with contextlib.suppress(BlockingIOError):
                incoming.write(right.recv(65536))
            right.sendall(outgoing.read())
    client.settimeout(20)
    right.settimeout(20)
    return client, peer, right


@both
@pytest.mark.parametrize("behind", ["a bad record", "close_notify", "the end", "plaintext"])
def test_data_comes_before_what_is_behind_it(files: Files, module: Any, behind: str) -> None:
    client, peer, right = raw_pair(files, module)
    with client, right:
        records = b""
        for _ in range(3):
            peer.write(b"good")
            records += peer.written.read()
        if behind == "a bad record":
            records += b"\x17\x03\x03\x00\x20" + b"\0" * 32
        elif behind == "close_notify":
            with contextlib.suppress(stdlib.SSLWantReadError):
                peer.unwrap()
            records += peer.written.read()
        elif behind == "plaintext":
            records += b"GET / HTTP/1.0\r\n\r\n"
        right.sendall(records)
        right.shutdown(socket.SHUT_WR)
        assert read_all(client, 12) == b"good" * 3
        if behind in ("close_notify", "the end"):
            assert client.recv(100) == client.recv(100) == b""  # suppress_ragged_eofs
        else:
            with pytest.raises(module.SSLError) as caught:
                client.recv(100)
            wanted = {"a bad record": ["DECRYPTION_FAILED_OR_BAD_RECORD_MAC"]}
            assert caught.value.reason in reasons(module, *wanted.get(behind, ["WRONG_VERSION_NUMBER", "BAD_RECORD_TYPE"]))


def test_what_is_received_is_pending(files: Files) -> None:
    client, peer, right = raw_pair(files, ssl)
    with client, right:
        records = b""
        for _ in range(5):
            peer.write(b"record")
            records += peer.written.read()
        with contextlib.suppress(stdlib.SSLWantReadError):
            peer.unwrap()
        right.sendall(records + peer.written.read())
        got = client.recv(1)
        while client.pending() or select.select([client], [], [], 0)[0]:
            assert client.pending() == client.pending()  # it takes nothing away
            data = client.recv(4)
            if not data:
                break
            got += data
        assert got == b"record" * 5
        assert client.pending() == 0, "a program that reads while there is something comes to an end"
        assert client.recv(10) == b""


def test_pending_says_that_the_end_is_known_until_it_is_read(files: Files) -> None:
    client, peer, right = raw_pair(files, ssl)
    with client, right:
        peer.write(b"ab")
        records = peer.written.read()
        with contextlib.suppress(stdlib.SSLWantReadError):
            peer.unwrap()
        right.sendall(records + peer.written.read())
        assert client.recv(4096) == b"ab"
        # close_notify was received with the data; the socket has nothing more, so only this tells.
        assert [client.pending(), client.pending(), client.pending()] == [1, 1, 1]
        assert client.recv(1) == b""
        assert client.pending() == 0


@both
def test_unwrap_leaves_plaintext_that_follows(files: Files, module: Any) -> None:
    client, peer, right = raw_pair(files, module)
    with right:
        with contextlib.suppress(stdlib.SSLWantReadError):
            peer.unwrap()
        right.sendall(peer.written.read() + b"plain text")
        plain = client.unwrap()
        with plain:
            assert plain.recv(100) == b"plain text"


def test_unwrap_says_what_it_cannot_give_back(files: Files) -> None:
    client, peer, right = raw_pair(files, ssl)
    with client, right:
        peer.write(b"data")
        records = peer.written.read()
        with contextlib.suppress(stdlib.SSLWantReadError):
            peer.unwrap()
        right.sendall(records + peer.written.read() + b"plain text")
        assert client.recv(100) == b"data"
        with pytest.raises(ssl.SSLError, match="10 bytes that follow the peer's close_notify"):
            client.unwrap()


def reset(end: Any) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def end_and_close(end: Any) -> None:
    end.settimeout(0)
    with contextlib.suppress(stdlib.SSLError):
        end.unwrap()
    end.close()


@pytest.mark.parametrize("call", ["unwrap", "recv and unwrap", "recv", "sendall"])
@pytest.mark.parametrize("go", [end_and_close, reset, lambda end: end.close()], ids=["ends", "resets", "closes"])
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
@versions
def test_what_a_call_finds_when_the_peer_has_gone(files: Files, version: str, tcp: bool, go: Any, call: str) -> None:
    """The same as the interpreter's: its own close_notify that cannot be sent, a reset, a truncated stream."""

    def found(module: Any) -> Any:
        left, right = tcp_pair() if tcp else socket.socketpair()
        client = files.client(stdlib)
        client.maximum_version = stdlib.TLSVersion[version]

        def come_and_go() -> None:
            end = client.wrap_socket(left, server_hostname=NAME)
            end.sendall(b"x")
            end.recv(1)
            go(end)

        thread = threading.Thread(target=come_and_go)
        thread.start()
        with files.server(module).wrap_socket(right, server_side=True, suppress_ragged_eofs=False) as server:
            server.recv(1)
            server.sendall(b"y")
            thread.join()
            results: list[Any] = []
            for name in call.split(" and "):
                given: dict[str, list[Any]] = {"recv": [10], "sendall": [bytes(1 << 20)]}
                try:
                    result = getattr(server, name)(*given.get(name, []))
                    if name == "unwrap":
                        result.close()
                        result = "plain"
                except OSError as exc:
                    result = type(exc), exc.errno
                results.append(result)
            return results

    ours, theirs = found(ssl), found(stdlib)
    if not tcp and "recv" in call and fails_at_the_end(stdlib):
        # It answers an end, and CPython's tells that the answer has found nobody: docs/ssl-differences.md.
        ends = [(stdlib.SSLEOFError, stdlib.SSL_ERROR_EOF), (stdlib.SSLZeroReturnError, stdlib.SSL_ERROR_ZERO_RETURN)]
        theirs = [one if one in ends and their == (BrokenPipeError, errno.EPIPE) else their for one, their in zip(ours, theirs)]
    assert ours == theirs


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        return left, listener.accept()[0]


def test_nothing_is_read_ahead_where_it_is_switched_off(files: Files) -> None:
    assert (
        python(
            """
            import contextlib, os, sys
            sys.path[:0] = sys.argv[1:3]
            import pathlib, ssl as stdlib, tempfile
            from sslsock import ssl
            from tls_pairs import Files
            from test_ssl_sockets import raw_pair

            client, peer, right = raw_pair(Files(pathlib.Path(tempfile.mkdtemp())), ssl)
            peer.write(b"data")
            records = peer.written.read()
            with contextlib.suppress(stdlib.SSLWantReadError):
                peer.unwrap()
            right.sendall(records + peer.written.read() + b"plain text")
            with client, right:
                data = client.recv(100)
                with client.unwrap() as plain:
                    print(data, plain.recv(100))
            """,
            __file__.rsplit("/", 1)[0],
            __file__.rsplit("/", 2)[0],
            SSLSOCK_READ_AHEAD="0",
        )
        == "b'data' b'plain text'\n"
    )


# ---- ends that are not waited for ----------------------------------------------------------------------------


@both
def test_a_client_that_leaves_before_its_tickets_has_been_heard(files: Files, module: Any) -> None:
    """It has sent what it wanted, and closed: the tickets find nobody, and its data is there."""
    left, right = socket.socketpair()
    incoming, outgoing = stdlib.MemoryBIO(), stdlib.MemoryBIO()
    client = files.client(stdlib).wrap_bio(incoming, outgoing, server_hostname=NAME)
    with left, files.server(module).wrap_socket(right, server_side=True, do_handshake_on_connect=False) as server:
        server.setblocking(False)
        with pytest.raises(stdlib.SSLWantReadError):
            client.do_handshake()
        left.sendall(outgoing.read())
        with pytest.raises(module.SSLWantReadError):
            server.do_handshake()
        incoming.write(left.recv(65536))
        client.do_handshake()
        client.write(b"data")
        left.sendall(outgoing.read())
        left.close()
        server.settimeout(20)
        server.do_handshake()
        assert server.recv(100) == b"data"
        try:
            assert server.recv(100) == b""
        except BrokenPipeError:  # the answer to the end, an alert, finds nobody
            assert fails_at_the_end(module)


@both
def test_no_signal_kills_who_writes_to_nobody(files: Files, module: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        other.close()
        before = signal.signal(signal.SIGPIPE, signal.SIG_DFL) if module is ssl else None
        try:
            with pytest.raises(OSError):
                for _ in range(3):
                    one.sendall(b"x" * 100_000)
        finally:
            if before is not None:
                signal.signal(signal.SIGPIPE, before)


# ---- signals -------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


@contextlib.contextmanager
def alarm(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refuse(*_: object) -> None:
    raise Interrupted


@pytest.mark.parametrize("limit", [None, 30.0])
def test_a_handler_that_raises_ends_the_call_and_loses_nothing(files: Files, limit: Any) -> None:
    data = bytes(range(256)) * 2000
    with narrow(ssl, files) as (one, other):
        one.settimeout(limit)
        other.settimeout(limit)
        with pytest.raises(Interrupted), alarm(refuse):
            other.recv(1)
        with pytest.raises(Interrupted), alarm(refuse):
            one.send(data)
        reader: list[bytes] = []
        thread = threading.Thread(target=lambda: reader.append(read_all(other, len(data))), daemon=True)
        thread.start()
        assert one.send(data) == len(data)  # goes on where it was
        thread.join()
        assert reader == [data]


def test_a_handler_may_use_the_connection_that_waits(files: Files) -> None:
    with connected(files.client(ssl), files.server(ssl)) as (one, other):
        turns = iter([lambda: one.sendall(b"ping"), lambda: other.sendall(other.recv(4)), lambda: None])

        def handler(*_: object) -> None:
            next(turns, lambda: None)()

        with alarm(handler):
            assert one.recv(10) == b"ping"


def test_a_handler_that_closes_the_socket_ends_the_call(files: Files) -> None:
    """Its number belongs to another file by then, which is left alone."""
    near, far = socket.socketpair()
    with near, far, connected(files.client(ssl), files.server(ssl)) as (one, _):
        numbers: list[int] = []

        def handler(*_: object) -> None:
            if not numbers:
                numbers.append(socket.socket.detach(one))
                os.dup2(near.fileno(), numbers[0])
                far.sendall(b"not for the connection")

        with alarm(handler):
            try:
                assert one.recv(100) == b""  # versions of Python that take a failed system call for the end
            except OSError as exc:
                assert not isinstance(exc, socket.timeout)
        os.close(numbers[0])
        assert near.recv(100) == b"not for the connection"


# ---- callbacks that use their own connection -----------------------------------------------------------------


@pytest.mark.parametrize("call", ["read", "write", "do_handshake", "unwrap"])
def test_a_callback_that_uses_its_connection_is_told_so(files: Files, call: str) -> None:
    server, told = files.server(ssl), []

    def callback(connection: Any, name: str, context: Any) -> None:
        try:
            getattr(connection, call)(*{"read": (10,), "write": (b"x",)}.get(call, ()))
        except Exception as exc:
            told.append((type(exc), str(exc)))
        _ = connection.pending(), connection.version(), connection.cipher()

    server.sni_callback = callback
    with connected(files.client(ssl), server) as (one, other):
        one.sendall(b"works")
        assert other.recv(10) == b"works"
    assert told == [(RuntimeError, "this connection is in use by the callback that uses it")]


@pytest.mark.parametrize("over", ["sockets", "memory"])
def test_messages_that_are_told_of_may_use_the_connection(files: Files, over: str) -> None:
    client = files.client(ssl)
    told: set[type] = set()

    def callback(connection: Any, *_: object) -> None:
        for call in (lambda: connection.write(b"x"), connection.pending, connection.version, connection.session_reused):
            try:
                call()
            except Exception as exc:
                told.add(type(exc))

    client._msg_callback = callback
    if over == "sockets":
        with connected(client, files.server(ssl)) as (one, other):
            one.sendall(b"works")
            assert other.recv(10) == b"works"
    else:
        from tls_pairs import in_memory

        in_memory(client, files.server(ssl), ssl)
    assert RuntimeError in told


def test_a_callback_that_closes_its_connection(files: Files) -> None:
    server = files.server(ssl)
    server.sni_callback = lambda connection, name, context: connection.close()
    with pytest.raises(OSError), connected(files.client(ssl), server):
        pass


def test_a_callback_may_change_its_context(files: Files) -> None:
    """Whatever it changes: who is in a callback reads nothing of the context."""
    server, seen = files.server(ssl), []

    def callback(connection: Any, name: str, context: Any) -> None:
        context.set_ciphers("ECDHE+AESGCM")
        context.set_alpn_protocols(["h2"])
        context.load_verify_locations(files.ca_file)
        context.load_cert_chain(files.server_file)
        context.sni_callback = None
        seen.append(name)
        connection.context = files.server(ssl)

    server.sni_callback = callback
    for _ in range(2):
        with connected(files.client(ssl), server) as (one, other):
            one.sendall(b"works")
            assert other.recv(10) == b"works"
    assert seen == [NAME]
