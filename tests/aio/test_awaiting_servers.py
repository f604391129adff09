"""Servers and relays that are awaited: connections as they come, until the server is closed."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hosts import HOSTS, Runner, begun, connected, turns, until

from peers import listening, secure_server
from sslsock import EventLoop, Relay, RelayReason, SocketError, SocketFailure, SslServer, SslSocket, TcpServer, TcpSocket


@pytest.fixture(params=HOSTS)
def run(request):
    runner = Runner(request.param)
    yield runner
    EventLoop.current().close()
    assert runner.told == []
    assert runner.reported == []


def client_of(server):
    return socket.create_connection(("127.0.0.1", server.port))


def test_connections_as_they_come(run):
    async def main():
        server = listening(TcpServer())
        taken = []

        async def serve():
            async for sock in server:
                assert type(sock) is TcpSocket and sock.connected
                taken.append(sock)

        with client_of(server), client_of(server):
            task = asyncio.get_running_loop().create_task(serve())
            await until(lambda: len(taken) == 2)
            with client_of(server):
                await until(lambda: len(taken) == 3)
                assert not task.done()
                server.close()
                await task
                assert all(sock.connected for sock in taken)
                for sock in taken:
                    sock.abort()

    run(main())


def test_a_server_of_encrypted_connections(run, certificates):
    async def main():
        async with secure_server(certificates) as server:
            client = SslSocket()
            client.configuration = certificates.client()
            client.connect_encrypted("localhost", server.port)
            sock = await server.next_connection()
            assert sock.mode is SslSocket.SSL_SERVER_MODE
            await asyncio.gather(sock.encrypted(), client.encrypted())
            client.disconnect()
            async for line in sock:
                raise AssertionError(line)
            with client_of(server):
                plain = await server.next_connection(secure=False)
                assert plain.mode is SslSocket.UNENCRYPTED_MODE
                plain.abort()
            with client_of(server):
                async for sock in server:
                    assert sock.mode is SslSocket.SSL_SERVER_MODE
                    sock.abort()
                    break
        assert not server.listening

    run(main())


@pytest.mark.parametrize("kind", [TcpServer, SslServer])
def test_a_server_that_does_not_listen(run, kind):
    async def main():
        server = kind()
        with pytest.raises(SocketFailure, match="does not listen") as caught:
            await server.next_connection()
        assert caught.value.error is SocketError.OPERATION_ERROR
        with pytest.raises(SocketFailure):
            async for _sock in server:
                raise AssertionError
        with socket.create_server(("127.0.0.1", 0)) as other:
            assert not server.listen(other.getsockname()[1], "127.0.0.1")
            with pytest.raises(SocketFailure, match="cannot listen") as caught:
                await server.next_connection()
            assert caught.value.error is server.error
            assert caught.value.error_string == server.error_string

    run(main())


def test_a_server_that_is_closed_while_it_is_awaited(run):
    async def main():
        server = listening(TcpServer())
        waiting = [await begun(server.next_connection()), await begun(server.__aiter__().__anext__())]
        server.close()
        with pytest.raises(SocketFailure, match="does not listen"):
            await waiting[0]
        with pytest.raises(StopAsyncIteration):
            await waiting[1]
        assert server._waits is None

    run(main())


def test_two_tasks_take_one_connection_each(run):
    async def main():
        async with listening(TcpServer()) as server:
            tasks = [await begun(server.next_connection()), await begun(server.next_connection())]
            with client_of(server) as first:
                await until(lambda: any(task.done() for task in tasks))
                await turns(3)
                assert [task.done() for task in tasks].count(True) == 1
                with client_of(server) as second:
                    socks = await asyncio.gather(*tasks)
                    assert {sock.remote_port for sock in socks} == {first.getsockname()[1], second.getsockname()[1]}
            for sock in socks:
                sock.abort()

    run(main())


def test_a_cancelled_task_takes_no_connection(run):
    async def main():
        async with listening(TcpServer()) as server:
            for at_once in (True, False):
                task = await begun(server.next_connection())
                if at_once:
                    task.cancel()
                else:  # when it has been told, and has not run
                    server.new_connection_handler = lambda server, task=task: asyncio.get_running_loop().call_soon(task.cancel)
                with client_of(server):
                    result = (await asyncio.gather(task, return_exceptions=True))[0]
                    server.new_connection_handler = None
                    sock = result if isinstance(result, TcpSocket) else await server.next_connection()
                    assert sock.connected
                    sock.abort()
            assert server._waits is None

    run(main())


def test_a_handler_takes_connections_first(run):
    async def main():
        async with listening(TcpServer()) as server:
            taken = []
            server.new_connection_handler = lambda server: taken.append(server.next_pending_connection())
            task = await begun(server.next_connection())
            with client_of(server):
                await until(lambda: taken)
                await turns(3)
                assert not task.done()
                server.new_connection_handler = None
                with client_of(server):
                    (await task).abort()
            taken[0].abort()

    run(main())


def test_a_block_that_raises_closes_the_server(run):
    async def main():
        server = TcpServer()
        with pytest.raises(ZeroDivisionError):
            async with server as same:
                assert same is server and server.listen(0, "127.0.0.1")
                raise ZeroDivisionError
        assert not server.listening

    run(main())


@pytest.mark.parametrize("end", ["close", "peer"])
def test_the_end_of_a_relay(run, end):
    async def main():
        async with connected() as (near, far), connected() as (other, other_far):
            relay = Relay(near, other)
            waiting = [await begun(relay.closed()), await begun(relay.closed())]
            waiting[0].cancel()
            assert not relay.closed
            if end == "close":
                relay.close()
            else:
                far.close()
                other_far.close()
            await waiting[1]
            await relay.closed()
            assert relay.closed and relay.reason is (RelayReason.ABORTED if end == "close" else relay.reason)
            assert relay._waits is None
            await turns(2)

    run(main())
