"""ssl_half_close: each direction of a connection with TLS ends by itself, in every way in which one is made."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from far_end import NAME, Certificates, FarEnd, Plain, World

import sslsock.ssl
from peers import DEADLINE
from sslsock import aio

OF = {"ours": sslsock.ssl, "the interpreter's": ssl}


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("of", OF)
def test_the_program_ends_first_and_reads_on(server: bool, of: str, certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        near_context = certificates.context(OF[of], server)
        beginning, far = await w.raw(lambda: Plain(w), ssl=near_context, ssl_half_close=True)
        await far.start_tls(w.far, not server)
        if not server:
            await beginning
        await w.told("connection_made")
        near = w.recorders[-1]
        transport = near.transport
        assert transport.can_write_eof()
        transport.write(b"request")
        transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            transport.write(b"more")
        assert await far.receive_all() == b"request"
        await far.send(b"answer")
        await w.until(lambda: near.received == b"answer")
        assert not transport.is_closing()
        await far.say_end()
        await w.told("connection_lost")
        assert transport.get_extra_info("clean_close") is True

    events = World(certificates, True, True, server).run(scenario)
    assert events == [("connection_made",), ("data",), ("eof_received",), ("connection_lost", None)]


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("of", OF)
def test_the_peer_ends_first_and_the_protocol_goes_on(server: bool, of: str, certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        near_context = certificates.context(OF[of], server)
        more: dict[str, Any] = {"ssl": near_context, "ssl_half_close": True}
        beginning, far = await w.raw(lambda: Plain(w, eof_received=lambda near: True), **more)
        await far.start_tls(w.far, not server)
        if not server:
            await beginning
        await w.told("connection_made")
        near = w.recorders[-1]
        await far.send(b"request")
        await far.say_end()
        await w.told("eof_received")
        assert near.received == b"request" and not near.transport.is_closing()
        near.transport.write(b"answer")
        near.transport.close()
        assert await far.receive_all() == b"answer"
        await w.told("connection_lost")

    events = World(certificates, True, True, server).run(scenario)
    assert events == [("connection_made",), ("data",), ("eof_received",), ("connection_lost", None)]


@pytest.mark.parametrize("starts", [False, True], ids=["from the beginning", "start_tls"])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_streams(starts: bool, family: str, certificates: Certificates, tmp_path: Path) -> None:
    contexts = {server: certificates.context(sslsock.ssl, server) for server in (False, True)}
    keywords: dict[str, Any] = {} if starts else {"ssl_half_close": True}
    served: asyncio.Future[bytes]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if starts:
            writer.transport.pause_reading()
            writer.write(b"go\n")
            await begin(writer, server_side=True)
        data = await reader.read()
        writer.write(b"got " + data)  # the client has ended its direction
        await writer.drain()
        writer.close()
        served.set_result(data)

    async def begin(writer: asyncio.StreamWriter, **role: Any) -> None:
        loop: Any = asyncio.get_running_loop()
        context = contexts[bool(role.get("server_side"))]
        protocol = writer.transport.get_protocol()
        assert await loop.start_tls(writer.transport, protocol, context, ssl_half_close=True, **role) is writer.transport

    async def main() -> None:
        nonlocal served
        loop = asyncio.get_running_loop()
        served = loop.create_future()
        tls = {} if starts else {"ssl": contexts[True]}
        if family == "tcp":
            server = await aio.start_server(loop, serve, "127.0.0.1", 0, **tls, **keywords)
        else:
            server = await aio.start_unix_server(loop, serve, str(tmp_path / "socket"), **tls, **keywords)
        address = server.sockets[0].getsockname()
        tls = {} if starts else {"ssl": contexts[False], "server_hostname": NAME}
        if family == "tcp":
            reader, writer = await aio.open_connection(loop, *address, **tls, **keywords)
        else:
            reader, writer = await aio.open_unix_connection(loop, address, **tls, **keywords)
        if starts:
            assert await reader.readline() == b"go\n"
            await begin(writer, server_hostname=NAME)
        writer.write(b"all of it")
        writer.write_eof()
        assert await reader.read() == b"got all of it"
        assert await served == b"all of it"
        writer.close()
        server.close()

    aio.run(asyncio.wait_for(main(), DEADLINE))


def test_a_connected_socket(certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        one, other = socket.socketpair()
        one.setblocking(False)
        far = FarEnd(w.loop, other)
        w.closes.append(far.close)
        loop: Any = w.loop
        making = w.loop.create_task(loop.connect_accepted_socket(lambda: Plain(w), one, ssl=w.near, ssl_half_close=True))
        await far.start_tls(w.far, False)
        transport, near = await making
        transport.write_eof()
        assert await far.receive_all() == b""
        await far.send(b"answer")
        await w.until(lambda: near.received == b"answer")

    World(certificates, True, True, True).run(scenario)


@pytest.mark.parametrize("host", ["asyncio", "uvloop"])
def test_in_other_loops(host: str, certificates: Certificates) -> None:
    if host == "uvloop":
        loop: Any = pytest.importorskip("uvloop").new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop()

    async def main() -> None:
        aio.attach(loop)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        server = await aio.start_server(
            loop, serve, "127.0.0.1", 0, ssl=certificates.context(sslsock.ssl, True), ssl_half_close=True
        )
        client = certificates.context(sslsock.ssl, False)
        address = server.sockets[0].getsockname()
        reader, writer = await aio.open_connection(loop, *address, ssl=client, server_hostname=NAME, ssl_half_close=True)
        writer.write(b"there and back")
        writer.write_eof()
        assert await reader.read() == b"there and back"
        writer.close()
        server.close()
        await asyncio.sleep(0)

    try:
        loop.run_until_complete(asyncio.wait_for(main(), DEADLINE))
    finally:
        loop.close()


def test_without_tls_it_means_nothing() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for call in (loop.create_connection, loop.create_server):
            with pytest.raises(ValueError, match="ssl_half_close is only meaningful with ssl"):
                await call(asyncio.Protocol, "127.0.0.1", 0, ssl_half_close=True)

    aio.run(main())


@pytest.mark.parametrize("asked", [NAME, None])
def test_the_server_knows_which_name_was_asked_for(asked: Any, certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        w.far.check_hostname = False
        _beginning, far = await w.raw(lambda: Plain(w), ssl=w.near)
        await far.start_tls(w.far, False, asked)
        await w.told("connection_made")
        transport = w.recorders[-1].transport
        await far.say_end()
        await w.told("connection_lost")
        assert transport.get_extra_info("requested_server_name") == asked  # after the end, too
        assert transport.get_extra_info("requested_server_name", "none") == (asked or "none")

    World(certificates, True, True, True).run(scenario)


def test_a_client_was_asked_for_no_name(certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        near, _far = await w.connect()
        assert near.transport.get_extra_info("requested_server_name") is None

    World(certificates, True, True, False).run(scenario)
