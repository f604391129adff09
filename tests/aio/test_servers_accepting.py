"""How servers accept: names and sockets, context, errors, descriptors that run out, several loops on one socket."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import resource
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

import sslsock.ssl
from peers import DEADLINE
from sslsock import aio

ASYNCIO_TELLS = "Error on transport creation for incoming connection"
# serve_forever that is cancelled closes the connections as well in newer CPythons: https://github.com/python/cpython/issues/123720
CANCELLED_ENDS_CLIENTS = "close_clients" in asyncio.Server.serve_forever.__code__.co_names


class Kept(asyncio.Protocol):
    """A connection that stays, and is known by the server's `kept`."""

    def __init__(self, kept: list[Kept]) -> None:
        self.kept = kept
        self.task = asyncio.current_task()
        self.received = b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.kept.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data)

    def connection_lost(self, exc: Any) -> None:
        self.lost.set_result(exc)


async def until(condition: Callable[[], Any]) -> None:
    async def turns() -> None:
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(turns(), DEADLINE)


@contextlib.contextmanager
def clients(address: Any, count: int = 1, family: int = socket.AF_INET) -> Iterator[list[socket.socket]]:
    made = []
    try:
        for _ in range(count):
            made.append(socket.socket(family, socket.SOCK_STREAM))
            made[-1].connect(address)
        yield made
    finally:
        for sock in made:
            sock.close()


def serve(loop: Any, factory: Any, *where: Any, **options: Any) -> Any:
    return aio.create_server(loop, factory, *where, **options)


def test_no_task_and_no_socket_is_made_for_a_connection(host: Any) -> None:
    async def main() -> None:
        kept: list[Kept] = []
        server = await serve(host, lambda: Kept(kept), "127.0.0.1", 0)
        gc.collect()
        before = sum(isinstance(found, socket.socket) for found in gc.get_objects())
        with clients(server.sockets[0].getsockname(), 5) as near:
            await until(lambda: len(kept) == 5)
            assert [one.task for one in kept] == [None] * 5
            assert sum(isinstance(found, socket.socket) for found in gc.get_objects()) == before + len(near)
            sock = kept[0].transport.get_extra_info("socket")
            assert sock.getpeername() == near[0].getsockname() and sock.gettimeout() == 0
            assert sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.fileno() == kept[0].transport.get_extra_info("socket").fileno()
        server.close()
        await asyncio.gather(*(one.lost for one in kept))

    host.run_until_complete(main())


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", "path", "abstract"])
def test_names_are_those_that_the_socket_has(host: Any, where: str, tmp_path: Path) -> None:
    async def main() -> None:
        kept: list[Kept] = []
        family = socket.AF_INET6 if ":" in where else socket.AF_INET if "." in where else socket.AF_UNIX
        listening = socket.socket(family)
        own = f"\0{tmp_path}" if where == "abstract" else str(tmp_path / "client ü")
        if family == socket.AF_UNIX:
            listening.bind(f"\0{tmp_path}.server" if where == "abstract" else str(tmp_path / "server ü"))
            server = await aio.create_unix_server(host, lambda: Kept(kept), sock=listening)
        else:
            listening.bind((where, 0))
            server = await serve(host, lambda: Kept(kept), sock=listening)
        with socket.socket(family) as bound, socket.socket(family) as other:
            if family == socket.AF_UNIX:
                bound.bind(own)
            for sock in (bound, other):
                sock.connect(server.sockets[0].getsockname())
            await until(lambda: len(kept) == 2)
            for number, sock in enumerate((bound, other)):
                info = kept[number].transport.get_extra_info
                asked = info("socket")
                assert info("peername") == sock.getsockname() == asked.getpeername()
                assert info("sockname") == sock.getpeername() == asked.getsockname()
        server.close()
        await asyncio.gather(*(one.lost for one in kept))

    host.run_until_complete(main())


def test_what_was_never_asked_for_is_known_when_the_connection_is_lost(host: Any) -> None:
    async def main() -> None:
        kept: list[Kept] = []
        server = await serve(host, lambda: Kept(kept), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        with clients(address) as (near,):
            name = near.getsockname()
            await until(lambda: kept)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert isinstance(await kept[0].lost, ConnectionResetError)
        info = kept[0].transport.get_extra_info
        assert info("peername") == name and info("sockname") == address
        assert info("socket").fileno() == -1 and info("socket").family == socket.AF_INET
        server.close()

    host.run_until_complete(main())


def test_the_protocol_is_called_in_the_servers_context(host: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[Any] = []

    class Looks(Kept):
        def __init__(self, kept: list[Kept]) -> None:
            super().__init__(kept)
            seen.append(variable.get())
            variable.set(f"connection {len(seen)}")

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            seen.append(variable.get())

    async def main() -> None:
        kept: list[Kept] = []
        variable.set("server")
        server = await serve(host, lambda: Looks(kept), "127.0.0.1", 0)
        variable.set("later")
        for count in (1, 2):
            with clients(server.sockets[0].getsockname()):
                await until(lambda count=count: len(kept) == count)
        assert seen == ["server", "connection 1", "server", "connection 3"]
        server.close()
        await asyncio.gather(*(one.lost for one in kept))

    host.run_until_complete(main())


def test_whose_context_it_is_of_a_server_that_is_started_later(host: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[str] = []

    class Looks(Kept):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            seen.append(variable.get())

    async def main() -> None:
        kept: list[Kept] = []
        variable.set("made")
        server = await serve(host, lambda: Looks(kept), "127.0.0.1", 0, start_serving=False)
        variable.set("started")
        await server.start_serving()
        with clients(server.sockets[0].getsockname()):
            await until(lambda: seen)
        assert seen == ["made" if sys.version_info >= (3, 15) else "started"]
        server.close()
        await asyncio.gather(*(one.lost for one in kept))

    host.run_until_complete(main())


def test_a_factory_that_raises_is_told_and_the_next_is_served(host: Any) -> None:
    async def main() -> None:
        kept: list[Kept] = []
        told: list[Any] = []
        errors: list[BaseException] = [ValueError("first"), ConnectionError("second")]
        host.set_exception_handler(lambda loop, context: told.append(context))

        def factory() -> Kept:
            if errors:
                raise errors.pop(0)
            return Kept(kept)

        server = await serve(host, factory, "127.0.0.1", 0)
        with clients(server.sockets[0].getsockname(), 3) as near:
            await until(lambda: kept)
            assert [near[0].recv(1), near[1].recv(1)] == [b"", b""]
            assert {one["message"] for one in told} == {ASYNCIO_TELLS}
            assert [str(one["exception"]) for one in told] == ["first", "second"]
            assert kept[0].transport.get_extra_info("peername") == near[2].getsockname()
        server.close()
        await kept[0].lost

    host.run_until_complete(main())


def test_what_ends_programs_leaves_the_loop_from_a_factory() -> None:
    loop = aio.new_event_loop()

    def factory() -> Any:
        raise KeyboardInterrupt

    server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
    with clients(server.sockets[0].getsockname()) as (near,):
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert near.recv(1) == b""
    server.close()
    loop.run_until_complete(server.wait_closed())
    loop.close()


def test_a_factory_that_closes_the_server(host: Any) -> None:
    async def main() -> None:
        made: list[Kept] = []

        def factory() -> Kept:
            server.close()
            made.append(Kept([]))
            return made[-1]

        server = await serve(host, factory, "127.0.0.1", 0)
        with clients(server.sockets[0].getsockname()) as (near,):
            await until(lambda: made)
            with contextlib.suppress(ConnectionResetError):
                assert near.recv(1) == b""
        await server.wait_closed()
        assert not server.is_serving() and not server.sockets

    host.run_until_complete(main())


def test_three_hundred_at_once(host: Any) -> None:
    async def main() -> None:
        kept: list[Kept] = []
        server = await serve(host, lambda: Kept(kept), "127.0.0.1", 0, backlog=500)
        with clients(server.sockets[0].getsockname(), 300) as near:
            await until(lambda: len(kept) == 300)
            assert {one.transport.get_extra_info("peername") for one in kept} == {sock.getsockname() for sock in near}
        server.close()
        await asyncio.gather(*(one.lost for one in kept))

    host.run_until_complete(main())


def test_without_descriptors_it_rests_and_goes_on(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        kept: list[Kept] = []
        told: list[Any] = []
        host.set_exception_handler(lambda loop, context: told.append(context))
        server = await serve(host, lambda: Kept(kept), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for count in (1, 2):
            with clients(address):
                highest = max(map(int, os.listdir("/proc/self/fd")))
                taken = []
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
                try:
                    with contextlib.suppress(OSError):
                        while True:
                            taken.append(os.dup(0))
                    await until(lambda count=count: len(told) == count)
                    assert len(kept) == count - 1
                finally:
                    for number in taken:
                        os.close(number)
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                await until(lambda count=count: len(kept) == count)
            await kept[-1].lost  # and so its descriptor is free
        assert {one["message"] for one in told} == {"socket.accept() out of system resource"}
        assert {one["exception"].errno for one in told} == {errno.EMFILE}
        assert told[0]["socket"].getsockname() == address
        server.close()
        await asyncio.gather(*(one.lost for one in kept))

    host.run_until_complete(main())


def test_it_listens_from_start_serving_to_close(host: Any) -> None:
    async def main() -> None:
        kept: list[Kept] = []
        server = await serve(host, lambda: Kept(kept), "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        with pytest.raises(ConnectionRefusedError), clients(address):
            pass
        serving = host.create_task(server.serve_forever())
        await until(server.is_serving)
        with clients(address) as (near,):
            await until(lambda: kept)
            serving.cancel()
            with pytest.raises(ConnectionRefusedError):
                await until(lambda: not server.is_serving())
                with clients(address):
                    pass
            if CANCELLED_ENDS_CLIENTS:
                await kept[0].lost
            else:
                near.sendall(b"goes on")
                await until(lambda: kept[0].received == b"goes on")
        await kept[0].lost
        with pytest.raises(asyncio.CancelledError):
            await serving
        server.close()

    host.run_until_complete(main())


if hasattr(asyncio.Server, "close_clients"):  # from CPython 3.13 on

    @pytest.mark.parametrize("way", ["close_clients", "abort_clients"])
    def test_a_servers_clients_end_by_it(host: Any, way: str) -> None:
        async def main() -> None:
            kept: list[Kept] = []
            server = await serve(host, lambda: Kept(kept), "127.0.0.1", 0)
            with clients(server.sockets[0].getsockname(), 3):
                await until(lambda: len(kept) == 3)
                server.close()
                getattr(server, way)()
                await server.wait_closed()
                assert [one.lost.result() for one in kept] == [None] * 3

        host.run_until_complete(main())


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio of before has no ssl_shutdown_timeout")
def test_a_limit_that_is_none_is_refused_when_the_server_is_made(host: Any, name: str) -> None:
    async def main() -> None:
        context = sslsock.ssl.SSLContext(sslsock.ssl.PROTOCOL_TLS_SERVER)
        for seconds in (0, -1):
            with pytest.raises(ValueError, match=f"{name} should be a positive number"):
                await serve(host, asyncio.Protocol, "127.0.0.1", 0, ssl=context, **{name: seconds})

    host.run_until_complete(main())


def test_loops_of_two_threads_share_a_listening_socket() -> None:
    """As servers with several workers do. Who of them is faster takes what there is: the other must not wait for it."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    address = listening.getsockname()
    served: list[int] = []
    ready = threading.Barrier(3)

    def worker() -> None:
        async def main() -> None:
            class Answer(asyncio.Protocol):
                def connection_made(self, transport: Any) -> None:
                    served.append(threading.get_ident())
                    transport.write(b"served")
                    transport.close()

            server = await asyncio.get_running_loop().create_server(Answer, sock=listening.dup())
            await asyncio.get_running_loop().run_in_executor(None, ready.wait, DEADLINE)
            await asyncio.get_running_loop().run_in_executor(None, done.wait, DEADLINE)
            server.close()

        aio.run(main())

    done = threading.Event()
    threads = [threading.Thread(target=worker) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait(DEADLINE)
    with clients(address, 50) as near:
        for sock in near:
            sock.settimeout(DEADLINE)
            assert sock.recv(6) == b"served"
    done.set()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(served) == 50
    listening.close()
