"""`serve`: an application in the loops of several threads; how it begins, spreads and ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import ssl as standard
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from peers import DEADLINE, Certificates
from sslsock import aio, ssl

THREADS = 3


class Served:
    """What the threads of one call of `serve` have done. act: runs in a thread of its own when all loops listen, with the first
    address; then a signal ends it."""

    def __init__(self, act: Callable[[Any], object] = lambda address: None, number: int = signal.SIGTERM) -> None:
        self.act, self.number = act, number
        self.threads: list[int] = []
        self.errors: list[BaseException] = []
        self.addresses: list[Any] = []

    def started(self, addresses: list[Any]) -> None:
        self.addresses = addresses
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            self.act(self.addresses[0])
        except BaseException as exc:
            self.errors.append(exc)
        finally:
            if self.number:
                os.kill(os.getpid(), self.number)

    def serve(self, app: Any, *where: Any, **options: Any) -> None:
        options.setdefault("threads", THREADS)
        try:
            aio.serve(app, *where, started=self.started, **options)
        finally:
            if self.addresses:
                self.thread.join(DEADLINE)
            for error in self.errors:
                raise error

    def note(self) -> None:
        self.threads.append(threading.get_ident())


def call(address: Any, text: bytes = b"hello\n") -> bytes:
    with socket.socket(socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_INET) as sock:
        sock.connect(address)
        sock.sendall(text)
        answer = b""
        while piece := sock.recv(1000):
            answer += piece
        return answer


def many_calls(address: Any) -> None:
    for _ in range(60):
        assert call(address) == b"hello\n"


@pytest.fixture
def signals() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


pytestmark = pytest.mark.usefixtures("signals")


def application(kind: str, served: Served) -> Any:
    """An echo of one line, of each kind that there is."""

    async def streams(reader: Any, writer: Any) -> None:
        served.note()
        writer.write(await reader.readline())
        writer.close()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            served.note()
            self.transport.write(data)
            self.transport.close()

    async def main(sockets: Any) -> None:
        servers = [await asyncio.start_server(streams, sock=sock) for sock in sockets]
        await asyncio.gather(*(server.serve_forever() for server in servers))

    return {"streams": streams, "protocol": Protocol, "sockets": main}[kind]


@pytest.mark.parametrize("kind", ["streams", "protocol", "sockets"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_every_thread_serves_until_a_signal_comes(kind: str, number: int) -> None:
    served = Served(many_calls, number)
    served.serve(application(kind, served), "127.0.0.1", 0)
    assert len(served.threads) == 60 and len(set(served.threads)) == THREADS
    assert threading.get_ident() in served.threads
    with pytest.raises(ConnectionRefusedError):
        call(served.addresses[0])


def test_the_port_is_the_same_for_all_loops_and_addresses() -> None:
    ports: list[int] = []

    async def main(sockets: list[socket.socket]) -> None:
        ports.extend(sock.getsockname()[1] for sock in sockets)
        await asyncio.get_running_loop().create_future()

    served = Served()
    served.serve(main, ["127.0.0.1", "127.0.0.2"], 0)
    assert len(ports) == 2 * THREADS and len(set(ports)) == 1 and ports[0]
    assert [address[0] for address in served.addresses] == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_port_that_somebody_has_is_not_shared(threads: int) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}") as caught:
            aio.serve(asyncio.Protocol, "127.0.0.1", port, threads=threads)
        assert caught.value.errno == errno.EADDRINUSE
        served = Served()
        served.serve(asyncio.Protocol, "127.0.0.1", port, threads=threads, reuse_port=True)
        assert served.addresses == [("127.0.0.1", port)]


@pytest.mark.parametrize("given", ["path", "abstract", "sock"])
def test_a_socket_that_all_loops_accept_from(given: str, tmp_path: Path) -> None:
    served = Served(many_calls)
    app = application("streams", served)
    path = str(tmp_path / "socket")
    if given == "sock":
        with socket.create_server(("127.0.0.1", 0)) as listening:
            served.serve(app, sock=listening)
            assert listening.getsockname() == served.addresses[0]  # it is the program's still
    elif given == "abstract":
        served.serve(app, path=f"\0{path}")
    else:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)  # and nobody listens
        served.serve(app, path=path)
        assert not os.path.exists(path)
    assert len(served.threads) == 60


def test_a_path_where_somebody_listens_is_left_to_him(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(OSError, match="listens at"):
            aio.serve(asyncio.Protocol, path=path, threads=1)
        assert os.path.exists(path)


@pytest.mark.parametrize("mine", [True, False], ids=["calling thread", "other thread"])
@pytest.mark.parametrize("error", [ValueError("that is it"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_one_loop_raises_ends_all_and_comes_out(
    mine: bool, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []

    async def main(sockets: Any) -> None:
        if (threading.current_thread() is threading.main_thread()) is mine and not raised:
            raised.append(True)
            raise error
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(threading.get_ident())

    raised: list[bool] = []
    with pytest.raises(type(error)) as caught:
        aio.serve(main, "127.0.0.1", 0, threads=2)
    assert caught.value is error and len(ended) == 1
    error.__traceback__ = None  # and with it the loop and its tasks
    del caught
    gc.collect()
    assert not caplog.records


def test_the_first_that_returns_ends_all() -> None:
    async def main(sockets: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        await asyncio.get_running_loop().create_future()

    aio.serve(main, "127.0.0.1", 0, threads=2)


def test_an_option_that_is_wrong_comes_out_of_the_call() -> None:
    with pytest.raises(ValueError, match="ssl_handshake_timeout is only meaningful with ssl"):
        aio.serve(asyncio.Protocol, "127.0.0.1", 0, threads=2, ssl_handshake_timeout=5)


def test_connections_may_end_by_themselves() -> None:
    """The signal comes while a connection is served: it gets its answer, and new ones are not accepted."""
    reading = threading.Event()

    async def app(reader: Any, writer: Any) -> None:
        reading.set()
        with contextlib.suppress(ConnectionError):  # of those who try whether it listens still
            writer.write(await reader.readline())
        writer.close()

    def act(address: Any) -> None:
        with socket.create_connection(address) as sock:
            reading.wait(DEADLINE)
            os.kill(os.getpid(), signal.SIGTERM)
            with contextlib.suppress(ConnectionError):
                while True:  # until nobody listens
                    socket.create_connection(address).close()
            sock.sendall(b"late\n")
            assert sock.recv(100) == b"late\n"

    served = Served(act, 0)
    served.serve(app, "127.0.0.1", 0, shutdown_timeout=DEADLINE)


@pytest.mark.parametrize("how", ["bound", "second signal"])
@pytest.mark.parametrize("kind", ["streams", "protocol"])
def test_connections_that_do_not_end_are_closed(how: str, kind: str) -> None:
    lost = threading.Event()
    made = threading.Event()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"made")
            made.set()

        def connection_lost(self, exc: Any) -> None:
            assert exc is None
            lost.set()

    async def streams(reader: Any, writer: Any) -> None:
        writer.write(b"made")
        made.set()
        with contextlib.suppress(ConnectionError):  # of those who try whether it listens still
            assert await reader.read() == b""
        lost.set()
        writer.close()

    def act(address: Any) -> None:
        with socket.create_connection(address) as sock:
            made.wait(DEADLINE)
            os.kill(os.getpid(), signal.SIGTERM)
            if how == "second signal":
                with contextlib.suppress(ConnectionError):
                    while True:  # until the first has been heard
                        socket.create_connection(address).close()
                os.kill(os.getpid(), signal.SIGINT)
            assert sock.recv(100) == b"made" and sock.recv(100) == b""

    served = Served(act, 0)
    timeout = 0.05 if how == "bound" else 1000.0
    served.serve(streams if kind == "streams" else Protocol, "127.0.0.1", 0, shutdown_timeout=timeout)
    assert lost.is_set()


def test_an_application_that_will_not_end(caplog: pytest.LogCaptureFixture) -> None:
    async def main(sockets: Any) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()

    served = Served()
    served.serve(main, "127.0.0.1", 0, shutdown_timeout=0, threads=1)
    assert "was cancelled and does not end" in caplog.text


def test_over_tls_in_every_thread(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates._server.configure_cert(context)
    client = standard.create_default_context()
    certificates.ca.configure_trust(client)

    def act(address: Any) -> None:
        session = None
        for number in range(20):
            sock = socket.create_connection(address)
            with client.wrap_socket(sock, server_hostname="localhost", session=session) as tls:
                tls.sendall(b"hello\n")
                assert tls.recv(100) == b"hello\n"
                assert tls.session_reused is (number > 0)  # whichever loop it was begun in
                session = tls.session

    served = Served(act)
    served.serve(application("streams", served), "127.0.0.1", 0, ssl=context, limit=1000)
    assert len(served.threads) == 20 and len(set(served.threads)) > 1


def test_from_a_thread_that_takes_no_signals() -> None:
    done: list[bool] = []

    async def main(sockets: Any) -> None:
        return

    def other() -> None:
        aio.serve(main, "127.0.0.1", 0, threads=2)
        done.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(DEADLINE)
    assert done


async def nothing() -> None: ...


async def three(a: Any, b: Any, c: Any) -> None: ...


async def keyword(sockets: Any, *, needed: Any) -> None: ...


async def main_of_sockets(sockets: Any) -> None: ...


@pytest.mark.parametrize(
    "app, where, options, error, text",
    [
        (None, ("", 0), {}, TypeError, "application"),
        (nothing, ("", 0), {}, TypeError, "takes nothing"),
        (three, ("", 0), {}, TypeError, "takes neither"),
        (keyword, ("", 0), {}, TypeError, "takes neither"),
        (main_of_sockets, ("", 0), {"ssl": None}, TypeError, "no 'ssl' for an app"),
        (asyncio.Protocol, ("", 0), {"start_serving": False}, TypeError, "start_serving"),
        (asyncio.Protocol, ("", 0), {"threads": 0}, ValueError, "threads"),
        (asyncio.Protocol, ("", 0), {"threads": True}, ValueError, "threads"),
        (asyncio.Protocol, ("", 0), {"shutdown_timeout": -1}, ValueError, "shutdown_timeout"),
        (asyncio.Protocol, (), {}, ValueError, "one of"),
        (asyncio.Protocol, ("", 0), {"path": "x"}, ValueError, "one of"),
    ],
)
def test_what_cannot_be_served(app: Any, where: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        aio.serve(app, *where, **options)


def test_not_below_a_loop_that_runs() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            aio.serve(asyncio.Protocol, "127.0.0.1", 0)

    aio.run(main())
