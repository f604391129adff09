"""What others do to a connection in the middle of a call of it: close it, shut its socket down, change its limit of time,
interrupt it with signals. A call ends as the interpreter's does, and loses nothing.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import ssl as stdlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from test_ssl_sockets import Interrupted, alarm, narrow, read_all, refuse
from tls_pairs import NAME, Files, connected, fails_at_the_end

from sslsock import ssl

both = pytest.mark.parametrize("module", [ssl, stdlib], ids=["ours", "the interpreter's"])
limits = pytest.mark.parametrize("limit", [None, 60.0], ids=["blocking", "with a time limit"])
DATA = bytes(range(256)) * 4000


# Of x86-64 and aarch64: read, write, poll, sendto, recvfrom, ppoll. Not a futex, which is how a thread waits for Python's GIL.
SLEEPS = {"0", "1", "7", "44", "45", "271", "63", "64", "206", "207", "73"}
TOLD = Path("/proc/self/syscall")

pytestmark = pytest.mark.skipif(not TOLD.exists(), reason="the system does not say what a thread waits for")


def wait_until_asleep(thread: threading.Thread) -> None:
    """Until the system has put it to sleep in a call of the socket."""
    place = Path(f"/proc/self/task/{thread.native_id}/syscall")
    while thread.is_alive():
        if place.read_text().split()[0] in SLEEPS:
            return
        time.sleep(0.001)
    raise AssertionError("it does not wait")


class Doing:
    """A call in a thread."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.outcome: Any = None
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(call, arguments), daemon=True)
        self.thread.start()

    def run(self, call: Any, arguments: tuple[Any, ...]) -> None:
        self.ready.set()
        try:
            self.outcome = call(*arguments)
        except BaseException as exc:
            self.outcome = exc

    def wait_until_asleep(self) -> None:
        self.ready.wait()
        wait_until_asleep(self.thread)

    def end(self) -> Any:
        self.thread.join(60)
        assert not self.thread.is_alive(), "the call hangs"
        return self.outcome


# ---- close and shutdown --------------------------------------------------------------------------------------


@both
@limits
@pytest.mark.parametrize("way", [socket.SHUT_RD, socket.SHUT_RDWR])
def test_the_socket_is_shut_down_during_a_read(files: Files, module: Any, limit: Any, way: int) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        one.settimeout(limit)
        reading = Doing(one.recv, 10)
        reading.wait_until_asleep()
        socket.socket.shutdown(one, way)  # SSLSocket's own forgets TLS
        told = reading.end()  # b"": suppress_ragged_eofs
        if not (fails_at_the_end(module) and isinstance(told, BrokenPipeError)):
            assert told == b""
            assert one.recv(10) == b""
        with contextlib.suppress(OSError):
            other.close()


@both
@limits
def test_shutdown_of_the_tls_socket_during_a_read(files: Files, module: Any, limit: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, _):
        one.settimeout(limit)
        reading = Doing(one.recv, 10)
        reading.wait_until_asleep()
        one.shutdown(socket.SHUT_RDWR)
        told = reading.end()
        assert told == b"" or (fails_at_the_end(module) and isinstance(told, BrokenPipeError))
        assert one.version() is None


@both
@limits
def test_the_socket_is_shut_down_during_a_write(files: Files, module: Any, limit: Any) -> None:
    with narrow(module, files) as (one, _):
        one.settimeout(limit)
        writing = Doing(one.sendall, DATA)
        writing.wait_until_asleep()
        socket.socket.shutdown(one, socket.SHUT_RDWR)
        assert isinstance(writing.end(), OSError)


@both
@limits
def test_the_peer_leaves_during_a_write(files: Files, module: Any, limit: Any) -> None:
    with narrow(module, files) as (one, other):
        one.settimeout(limit)
        writing = Doing(one.sendall, DATA)
        writing.wait_until_asleep()
        other.close()
        assert isinstance(writing.end(), OSError)


@both
@limits
@pytest.mark.parametrize("call", ["recv", "sendall"])
def test_the_connection_is_closed_during_a_call(files: Files, module: Any, limit: Any, call: str) -> None:
    """The system keeps the socket open for the call. It ends when the peer does something, with data, an end or an error."""
    with narrow(module, files) as (one, other):
        one.settimeout(limit)
        doing = Doing(one.recv, 10) if call == "recv" else Doing(one.sendall, DATA)
        doing.wait_until_asleep()
        one.close()
        if call == "recv":
            other.sendall(b"late")
        other.close()
        outcome = doing.end()
        assert isinstance(outcome, OSError) or outcome in (b"", b"late"), outcome
        assert one.fileno() == -1


@both
def test_the_connection_is_closed_during_the_handshake(files: Files, module: Any) -> None:
    left, right = socket.socketpair()
    with right:
        one = files.client(module).wrap_socket(left, server_hostname=NAME, do_handshake_on_connect=False)
        shaking = Doing(one.do_handshake)
        shaking.wait_until_asleep()
        one.close()
        right.close()
        assert isinstance(shaking.end(), OSError)


@both
@limits
def test_unwrap_that_waits_is_ended_by_the_sockets_end(files: Files, module: Any, limit: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        one.settimeout(limit)
        unwrapping = Doing(one.unwrap)
        unwrapping.wait_until_asleep()
        socket.socket.shutdown(other, socket.SHUT_WR)
        assert isinstance(unwrapping.end(), (OSError, socket.socket))


# ---- another limit of time -----------------------------------------------------------------------------------


@both
def test_a_limit_that_is_set_during_a_call_holds_for_the_next(files: Files, module: Any) -> None:
    with connected(files.client(module), files.server(module)) as (one, other):
        one.settimeout(60)
        reading = Doing(one.recv, 10)
        reading.wait_until_asleep()
        one.settimeout(0.01)
        other.sendall(b"data")
        assert reading.end() == b"data"
        with pytest.raises(socket.timeout):
            one.recv(10)


def test_a_blocking_call_goes_on_when_the_socket_no_longer_blocks(files: Files) -> None:
    """`settimeout(0)` of another thread changes the descriptor; the call is still one that waits."""
    with narrow(ssl, files) as (one, other):
        one.settimeout(None)
        writing = Doing(one.send, DATA)
        writing.wait_until_asleep()
        one.settimeout(0)
        assert read_all(other, len(DATA)) == DATA
        assert writing.end() == len(DATA)
        one.settimeout(None)
        reading = Doing(one.recv, 10)
        reading.wait_until_asleep()
        one.settimeout(0)
        other.sendall(b"1")
        assert reading.end() == b"1"
        again = Doing(lambda: [one.settimeout(None), one.recv(10)][1])
        again.wait_until_asleep()
        one.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            one.recv(1)  # the other has the turn
        other.sendall(b"2")
        assert again.end() == b"2"


@both
def test_a_program_that_changes_between_waiting_and_not(files: Files, module: Any) -> None:
    """In the middle of a record, of a write, of a handshake."""
    left, right = socket.socketpair()
    context = files.server(module)
    server = Doing(lambda: context.wrap_socket(right, server_side=True))
    with files.client(module).wrap_socket(left, server_hostname=NAME, do_handshake_on_connect=False) as one:
        limits = [0, None, 0.001, 0, 5.0]
        for turn in range(1000):
            one.settimeout(limits[turn % len(limits)])
            try:
                one.do_handshake()
                break
            except (module.SSLWantReadError, socket.timeout):
                pass
        other = server.end()
        with other:
            for end in one, other:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            reader = Doing(read_all, other, len(DATA))
            for turn in range(100_000):
                one.settimeout(limits[turn % len(limits)])
                try:
                    assert one.send(DATA) == len(DATA)
                    break
                except (module.SSLWantWriteError, socket.timeout):
                    pass
            assert reader.end() == DATA
            writer = Doing(other.sendall, DATA)
            got = b""
            for turn in range(1_000_000):
                one.settimeout(limits[turn % len(limits)])
                with contextlib.suppress(module.SSLWantReadError, socket.timeout):
                    got += one.recv(5000)
                if len(got) == len(DATA):
                    break
            assert got == DATA
            assert writer.end() is None


# ---- signals -------------------------------------------------------------------------------------------------


def until_it_works(call: Any) -> Any:
    while True:
        with contextlib.suppress(Interrupted):
            return call()


class Signals:
    """Five, each when the main thread has been put to sleep by a call; then `afterwards` runs, in a thread."""

    def __init__(self, handler: Any, afterwards: Any) -> None:
        self.handler, self.afterwards = handler, afterwards
        self.count = 0

    def __enter__(self) -> Doing:
        self.before = signal.signal(signal.SIGUSR1, self.handle)
        self.doing = Doing(self.send)
        return self.doing

    def __exit__(self, *_: object) -> None:
        self.doing.thread.join()
        signal.signal(signal.SIGUSR1, self.before)

    def handle(self, *arguments: object) -> None:
        self.count += 1
        self.handler(*arguments)

    def send(self) -> Any:
        main = threading.main_thread()
        for number in range(5):
            wait_until_asleep(main)
            signal.pthread_kill(main.ident, signal.SIGUSR1)
            while self.count == number:
                time.sleep(0.001)
        return self.afterwards()


handlers = pytest.mark.parametrize("handler", [refuse, lambda *_: None], ids=["raises", "returns"])


@both
@limits
@handlers
def test_signals_in_a_handshake(files: Files, module: Any, limit: Any, handler: Any) -> None:
    """It is called again and goes on where it was."""
    left, right = socket.socketpair()
    left.settimeout(limit)
    context = files.server(module)
    with files.client(module).wrap_socket(left, server_hostname=NAME, do_handshake_on_connect=False) as one:
        with Signals(handler, lambda: context.wrap_socket(right, server_side=True)) as server:
            until_it_works(one.do_handshake)
        with server.outcome as other:
            one.sendall(b"works")
            assert other.recv(10) == b"works"


@pytest.mark.parametrize(
    ("module", "limit", "call"),
    [
        (module, limit, call)
        for module in (ssl, stdlib)
        for limit in (None, 60.0)
        for call in ("recv", "recv_into", "read", "send", "sendall", "unwrap")
        # The interpreter's looks for signals when libssl has sent all of it, and takes one in `unwrap` for the end.
        if module is ssl or call.startswith(("recv", "read")) or (limit and call.startswith("send"))
    ],
)
@handlers
def test_signals_in_a_call(files: Files, module: Any, limit: Any, handler: Any, call: str) -> None:
    with narrow(module, files) as (one, other):
        one.settimeout(limit)
        memory = bytearray(10)

        def peer() -> Any:
            if call.startswith("send"):
                return read_all(other, len(DATA))
            if call == "unwrap":
                assert other.recv(10) == b""
                return other.unwrap()
            return other.sendall(b"data")

        if call == "sendall" and handler is refuse:
            call = "send"  # sendall does not say how much it has sent
        arguments = {"recv": (10,), "recv_into": (memory,), "read": (10,), "unwrap": ()}.get(call, (DATA,))
        with Signals(handler, peer) as answer:
            result = until_it_works(lambda: getattr(one, call)(*arguments))
        assert not isinstance(answer.outcome, Exception)
        if call in ("recv", "read"):
            assert result == b"data"
        elif call == "recv_into":
            assert memory[:result] == b"data"
        elif call.startswith("send"):
            assert answer.outcome == DATA
        else:
            assert one.version() is None


def test_a_signal_while_another_thread_reads(files: Files) -> None:
    """The main thread waits for its turn, and its handler is called all the same."""
    with connected(files.client(ssl), files.server(ssl)) as (one, other):
        reading = Doing(one.recv, 10)
        reading.wait_until_asleep()
        with pytest.raises(Interrupted), alarm(refuse):
            one.recv(10)
        other.sendall(b"data")
        assert reading.end() == b"data"
        assert not select.select([one], [], [], 0)[0]
