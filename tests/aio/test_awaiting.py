"""`await` of the family: what each wait waits for, and how it ends: by the event, a failure, the program, a cancellation."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import socket
import subprocess
import sys
import threading
import weakref

import pytest
from hosts import HOSTS, Runner, begun, connected, secure_pair, turns, until

import sslsock
from peers import DEADLINE, refused_port, reset, stuck_port
from sslsock import EventLoop, Relay, SocketError, SocketFailure, SslServer, SslSocket, TcpServer, TcpSocket
from sslsock.sockets.awaiting import Search


@pytest.fixture(params=HOSTS)
def run(request):
    runner = Runner(request.param)
    yield runner
    EventLoop.current().close()
    assert runner.told == []
    assert runner.reported == []


async def fails(awaitable, error, words=None):
    with pytest.raises(SocketFailure, match=words) as caught:
        await awaitable
    assert caught.value.error is error
    assert str(caught.value) == caught.value.error_string
    return caught.value


# The connection


def test_a_connection_and_its_end(run):
    async def main():
        async with connected() as (near, _far):
            assert near.connected
            await near.connected()  # at once
            waiting = await begun(near.disconnected())
            near.disconnect()
            await waiting
            assert not near.connected
            await near.disconnected()

    run(main())


def test_an_attempt_that_fails(run):
    async def main():
        sock = TcpSocket()
        told = []
        sock.error_handler = lambda s, error: told.append(error)
        with refused_port() as port:
            sock.connect("127.0.0.1", port)
            first = await fails(sock.connected(), SocketError.CONNECTION_REFUSED_ERROR, "127.0.0.1")
            assert (first.error, first.error_string) == (sock.error, sock.error_string)
            assert told == [sock.error]
            await fails(sock.connected(), SocketError.CONNECTION_REFUSED_ERROR)  # it is over, and why is known
            assert isinstance(first, ConnectionError)
            await sock.disconnected()

    run(main())


def test_a_name_that_there_is_not(run):
    async def main():
        sock = TcpSocket()
        sock.error_handler = lambda s, error: None
        sock.connect("there-is-no.such-name.invalid", 1)
        await fails(asyncio.wait_for(sock.connected(), DEADLINE), SocketError.HOST_NOT_FOUND_ERROR)

    run(main())


@pytest.mark.parametrize("end", ["abort", "disconnect", "close"])
def test_an_attempt_that_the_program_gives_up(run, end):
    async def main():
        sock = SslSocket()
        with stuck_port() as port:
            sock.connect_encrypted("127.0.0.1", port)
            waiting = [await begun(sock.connected()), await begun(sock.encrypted())]
            reading, gone = await begun(sock.ready_read()), await begun(sock.disconnected())
            getattr(sock, end)()
            for one in (*waiting, reading):
                await fails(one, SocketError.OPERATION_ERROR)
            await gone

    run(main())


def test_there_is_no_connection(run):
    async def main():
        sock = SslSocket()
        for wait in (sock.connected, sock.encrypted, sock.ready_read, lambda: sock.read_exactly(1), sock.read_until):
            await fails(wait(), SocketError.OPERATION_ERROR, "connect it first")
        with pytest.raises(SocketFailure):
            async for _line in sock:
                raise AssertionError
        await sock.disconnected()
        await sock.bytes_written()
        assert sock.bind(0)
        for wait in (sock.connected, sock.ready_read):
            await fails(wait(), SocketError.OPERATION_ERROR)
        await sock.disconnected()
        sock.abort()

    run(main())


def test_a_connection_that_stood_for_a_moment_was_connected(run):
    async def main():
        sock = TcpSocket()
        sock.connected_handler = lambda s: s.abort()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock.connect(*listener.getsockname())
            await sock.connected()
            assert not sock.connected

    run(main())


def test_a_wait_belongs_to_its_connection(run):
    """A handler connects again at the end of the connection that is waited for."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = TcpSocket()

            def again(s):
                s.disconnected_handler = None
                s.connect(*listener.getsockname())

            sock.connect(*listener.getsockname())
            await sock.connected()
            sock.disconnected_handler = again
            gone = await begun(sock.disconnected())
            sent = await begun(sock.bytes_written(0)) if sock.write(bytes(8 << 20)) and sock.bytes_to_write else None
            reading = await begun(sock.read_exactly(3))
            sock.abort()
            await gone
            await fails(reading, SocketError.OPERATION_ERROR)
            if sent is not None:
                await fails(sent, SocketError.OPERATION_ERROR)
            await sock.connected()
            sock.abort()

    run(main())


def test_a_task_that_is_told_of_data_and_comes_to_another_connection(run):
    """Connected again after the event, and before the task has run."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with connected() as (near, far):

                def again():
                    near.abort()
                    near.connect(*listener.getsockname())

                def ready(sock):
                    sock.ready_read_handler = None
                    asyncio.get_running_loop().call_soon(again)

                near.ready_read_handler = ready
                task = await begun(near.read_exactly(5))
                far.sendall(b"abc")
                await fails(task, SocketError.OPERATION_ERROR)
                assert not near.bytes_available

    run(main())


def test_an_error_handler_that_aborts(run):
    async def main():
        async with connected() as (near, far):
            near.error_handler = lambda s, error: s.abort()
            task = await begun(near.ready_read())
            reset(far)
            await fails(task, SocketError.REMOTE_HOST_CLOSED_ERROR)

    run(main())


def test_an_error_handler_that_connects_again(run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener, refused_port() as port:
            sock = TcpSocket()
            sock.error_handler = lambda s, error: s.connect(*listener.getsockname())
            sock.connect("127.0.0.1", port)
            await fails(sock.connected(), SocketError.CONNECTION_REFUSED_ERROR)
            await sock.connected()
            sock.abort()

    run(main())


def test_two_wait_and_handlers_are_called_as_ever(run):
    async def main():
        sock = TcpSocket()
        called = []
        sock.connected_handler = lambda s: called.append("connected")
        sock.ready_read_handler = lambda s: called.append(s.peek())
        sock.disconnected_handler = lambda s: called.append("disconnected")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock.connect(*listener.getsockname())
            await asyncio.gather(sock.connected(), sock.connected())
            far, _ = listener.accept()
        with far:
            tasks = [await begun(sock.ready_read()), await begun(sock.ready_read())]
            far.sendall(b"abc")
            assert await asyncio.gather(*tasks) == [3, 3]
            ends = [await begun(sock.disconnected()), await begun(sock.disconnected())]
            far.close()
            await asyncio.gather(*ends)
        assert called == ["connected", b"abc", "disconnected"]
        assert sock.read() == b"abc"

    run(main())


# TLS


def test_both_sides_wait_for_the_handshake(run, certificates):
    async def main():
        client, taken = await secure_pair(certificates)
        assert client.encrypted and taken.encrypted
        await client.encrypted()
        client.write(b"hello\n")
        assert await taken.read_until() == b"hello\n"
        client.disconnect()
        assert await taken.ready_read() == 0
        await asyncio.gather(client.disconnected(), taken.disconnected())
        assert not client.encrypted
        await fails(client.encrypted(), SocketError.OPERATION_ERROR)

    run(main())


def test_a_certificate_that_is_refused(run, certificates):
    async def main():
        server = SslServer()
        server.configuration = certificates.server()
        assert server.listen(0, "127.0.0.1")
        client = SslSocket()
        client.configuration.use_system_ca = False
        client.error_handler = lambda s, error: None
        client.connect_encrypted("localhost", server.port)
        await client.connected()
        await until(lambda: server.has_pending_connections)
        taken = server.next_pending_secure_connection()
        server.close()
        taken.error_handler = lambda s, error: None
        there = asyncio.get_running_loop().create_task(taken.encrypted())
        failure = await fails(client.encrypted(), SocketError.SSL_HANDSHAKE_FAILED_ERROR, "certificate")
        assert failure.error_string == client.error_string
        await fails(there, SocketError.SSL_HANDSHAKE_FAILED_ERROR)
        await fails(client.ready_read(), SocketError.SSL_HANDSHAKE_FAILED_ERROR)

    run(main())


def test_a_configuration_that_cannot_be_used(run):
    async def main():
        sock = SslSocket()
        sock.error_handler = lambda s, error: None
        sock.configuration.ciphersuites = "NO_SUCH_SUITE"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock.connect_encrypted(*listener.getsockname())
            await fails(sock.encrypted(), SocketError.SSL_INVALID_USERDATA_ERROR)

    run(main())


def test_encryption_that_begins_while_somebody_waits_for_it(run, certificates):
    async def main():
        server = TcpServer()
        assert server.listen(0, "127.0.0.1")
        client = SslSocket()
        client.configuration = certificates.client()
        client.connect("localhost", server.port)
        waiting = await begun(client.encrypted())
        await client.connected()
        await turns(3)
        assert not waiting.done()
        client.start_client_encryption()
        client.abort()
        server.close()
        await fails(waiting, SocketError.OPERATION_ERROR)

    run(main())


def test_a_connection_that_is_cut_is_no_end(run, certificates):
    """Without close_notify data may be missing: reading raises, after what has come."""

    async def main():
        client, taken = await secure_pair(certificates)
        client.error_handler = lambda s, error: None
        taken.write(b"all\nhal")
        await taken.bytes_written()
        taken.abort()
        lines = []
        with pytest.raises(SocketFailure, match="close_notify") as caught:
            async for line in client:
                lines.append(line)
        assert lines == [b"all\n"]
        assert caught.value.error is SocketError.REMOTE_HOST_CLOSED_ERROR
        await client.disconnected()
        assert not client.clean_close
        assert await client.ready_read() == 3
        assert client.read() == b"hal"
        await fails(client.ready_read(), SocketError.REMOTE_HOST_CLOSED_ERROR, "close_notify")

    run(main())


@pytest.mark.parametrize("value", [False, True])
def test_what_can_be_awaited_is_a_truth_value_as_well(run, value):
    async def main():
        async with connected(SslSocket()) as (near, _far):
            truth = near.connected if value else near.encrypted
            assert truth == value and truth != (not value) and bool(truth) is value and hash(truth) == hash(value)
            assert (repr(truth), str(truth), f"{truth}", f"{truth:>6}") == (*[str(value)] * 3, f"{value:>6}")
            assert json.loads(json.dumps(truth)) == value and {truth: 1}[value] == 1
            assert pickle.loads(pickle.dumps(truth)) is value

    run(main())


# Reading


@pytest.mark.parametrize("wait", [lambda s: s.ready_read(), lambda s: s.read_exactly(3), lambda s: s.read_until(b"c")])
def test_what_has_come_is_given_at_once_also_after_the_end(run, wait):
    async def main():
        async with connected() as (near, far):
            far.sendall(b"abcd")
            far.close()
            await near.disconnected()
            assert await wait(near) in (4, b"abc")

    run(main())


def test_exactly_so_many_bytes_in_pieces(run):
    async def main():
        async with connected() as (near, far):
            assert await near.read_exactly(0) == b""
            task = await begun(near.read_exactly(5))
            for piece in (b"a", b"bc", b"d"):
                far.sendall(piece)
                await until(lambda: near.bytes_available)
                await turns(3)
            assert not task.done()
            far.sendall(b"efg")
            assert await task == b"abcde"
            assert await near.read_exactly(2) == b"fg"

    run(main())


@pytest.mark.parametrize("separator", [b"\n", b"\r\n\r\n", b"x" * 300])
def test_up_to_a_separator_in_pieces(run, separator):
    async def main():
        async with connected() as (near, far):
            text = b"a" * 700 + separator
            for size in (1, 299, len(text)):
                task = await begun(near.read_until(separator))
                for start in range(0, len(text), size):
                    far.sendall(text[start : start + size])
                    if size > 1:
                        await turns(2)
                assert await task == text
            with pytest.raises(ValueError, match="one byte"):
                await near.read_until(b"")
            with pytest.raises(TypeError):
                await near.read_until("\n")

    run(main())


def test_what_is_sought_lies_anywhere_in_what_has_come(run):
    """Also half in what was kept and half in what has just come, which lies elsewhere while the handler runs."""

    async def main():
        async with connected() as (near, far):
            text, checked = b"abcabcdab\0cd", []

            def ready(sock):
                have = sock.peek()
                for start in range(len(have) + 2):
                    for size in range(1, 6):
                        for wanted in {text[at : at + size] for at in range(len(text))} | {b"x" * size, b"d" * size}:
                            assert sock._source.find(wanted, start) == have.find(wanted, start), (have, wanted, start)
                checked.append(have)

            near.ready_read_handler = ready
            for at in range(0, len(text), 3):
                far.sendall(text[at : at + 3])
                await until(lambda at=at: near.bytes_available == len(text[: at + 3]))
            assert checked[-1] == text
            before = near._source.taken
            near.read(5)
            near._source.discard()
            assert near._source.taken == before + len(text)

    run(main())


def test_no_byte_is_searched_again_and_again():
    """A long line in many pieces, of which another reads some."""

    class Source:
        data, taken, looked = bytearray(), 0, 0
        bytes_available = property(lambda self: len(self.data))

        def find(self, wanted, start):
            self.looked += len(self.data) - start
            return self.data.find(wanted, start)

    class Socket:
        _source, _read_buffer_size = Source(), 0

    source = Socket._source
    search = Search(Socket, b"\r\n", 10**6)
    for count in range(10_000):
        source.data += b"x" * 9 + b"\r"
        assert search.step() == 0
        if count == 5_000:
            del source.data[:10_000]
            source.taken = 10_000
    source.data += b"\n"
    assert search.step() == 90_001
    assert source.looked < 10_000 * 13


def test_an_end_before_all_has_come_leaves_what_came(run):
    async def main():
        async with connected() as (near, far):
            tasks = [await begun(near.read_exactly(5)), await begun(near.read_until(b";"))]
            far.sendall(b"abc")
            far.close()
            for task in tasks:
                await fails(task, SocketError.REMOTE_HOST_CLOSED_ERROR, "has ended before")
            assert near.read() == b"abc"
            assert await near.ready_read() == 0
            assert [line async for line in near] == []

    run(main())


def test_lines(run):
    async def main():
        async with connected() as (near, far):
            far.sendall(b"one\n\ntw")
            lines = aiter_of(near)
            assert [await lines.__anext__(), await lines.__anext__()] == [b"one\n", b"\n"]
            task = await begun(lines.__anext__())
            far.sendall(b"o\nthree")
            assert await task == b"two\n"
            far.close()
            assert [line async for line in lines] == [b"three"]
            with pytest.raises(StopAsyncIteration):
                await lines.__anext__()

    run(main())


def aiter_of(sock):
    return type(sock).__aiter__(sock)


@pytest.mark.parametrize("bound", [0, 8])
def test_a_line_that_is_too_long(run, bound):
    async def main():
        async with connected() as (near, far):
            near.read_buffer_size = bound
            far.sendall(b"short\n" + b"x" * 20 + b"\n")
            lines = near.lines() if bound else near.lines(10)
            assert await lines.__anext__() == b"short\n"
            with pytest.raises(ValueError, match="a line does not end in the first"):
                await lines.__anext__()
            with pytest.raises(ValueError, match="a line does not end in the first"):
                await near.read_until(b"\n", 10)
            near.read_buffer_size = 0
            assert await near.read_until() == b"x" * 20 + b"\n"
            far.sendall(b"y" * 9 + b"\n")
            assert await near.lines(10).__anext__() == b"y" * 9 + b"\n"
            for wrong in (0, -1):
                with pytest.raises(ValueError):
                    near.lines(wrong)
            with pytest.raises(TypeError):
                near.lines("10")

    run(main())


def test_a_bound_that_is_lowered_while_somebody_waits_for_more(run):
    async def main():
        async with connected() as (near, far):
            tasks = [await begun(near.read_exactly(10)), await begun(near.read_until())]
            far.sendall(b"123456")
            await until(lambda: near.bytes_available == 6)
            near.read_buffer_size = 4
            for task in tasks:
                with pytest.raises(ValueError):
                    await task
            with pytest.raises(ValueError, match="read_buffer_size"):
                await near.read_exactly(7)
            assert await near.read_exactly(6) == b"123456"

    run(main())


def test_what_another_reads_does_not_hide_what_comes(run):
    """As much comes as has been taken away: the count is the same again."""

    async def main():
        async with connected() as (near, far):
            far.sendall(b"abc")
            await near.ready_read()
            task = await begun(near.read_exactly(4))
            assert near.read() == b"abc"
            far.sendall(b"xyz")
            await until(lambda: near.bytes_available)
            await turns(3)
            far.sendall(b"!")
            assert await task == b"xyz!"

    run(main())


def test_two_tasks_read_one_line_each(run):
    async def main():
        async with connected() as (near, far):
            tasks = [await begun(near.read_until()), await begun(near.read_until())]
            far.sendall(b"one\ntwo\n")
            assert await asyncio.gather(*tasks) == [b"one\n", b"two\n"]

    run(main())


def test_a_handler_that_takes_all_leaves_nothing_to_wait_for(run):
    async def main():
        async with connected() as (near, far):
            taken = []
            near.ready_read_handler = lambda s: taken.append(s.read_all())
            task = await begun(near.ready_read())
            far.sendall(b"abc")
            await until(lambda: taken)
            await turns(3)
            assert not task.done()
            near.ready_read_handler = None
            far.sendall(b"de")
            assert await task == 2

    run(main())


READS = {
    "ready_read": lambda s: s.ready_read(),
    "read_exactly": lambda s: s.read_exactly(9),
    "read_until": lambda s: s.read_until(),
    "line": lambda s: s.lines().__anext__(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_when_the_connection_fails(run, read):
    async def main():
        async with connected() as (near, far):
            near.error_handler = lambda s, error: None
            task = await begun(read(near))
            reset(far)
            failure = await fails(task, SocketError.REMOTE_HOST_CLOSED_ERROR)
            assert failure.error_string == near.error_string
            await fails(read(near), SocketError.REMOTE_HOST_CLOSED_ERROR)

    run(main())


@pytest.mark.parametrize("heard", [True, False])
def test_an_error_is_logged_unless_a_task_hears_it(run, caplog, heard):
    async def main():
        async with connected() as (near, far):
            task = await begun(near.ready_read() if heard else near.disconnected())
            reset(far)
            if heard:
                await fails(task, SocketError.REMOTE_HOST_CLOSED_ERROR)
            else:
                await task
        with refused_port() as port:
            sock = TcpSocket()
            sock.connect("127.0.0.1", port)
            if heard:
                await fails(sock.connected(), SocketError.CONNECTION_REFUSED_ERROR)
            else:
                await sock.disconnected()
        errors = [record.getMessage().split(":")[0] for record in caplog.records if record.name == "sslsock"]
        assert errors == ([] if heard else ["REMOTE_HOST_CLOSED_ERROR", "CONNECTION_REFUSED_ERROR"])

    run(main())


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("end", ["disconnect", "close", "abort"])
def test_reading_when_the_program_ends_the_connection(run, read, end):
    async def main():
        async with connected() as (near, _far):
            task = await begun(read(near))
            getattr(near, end)()
            for ending in (task, read(near)):
                if end == "abort":
                    await fails(ending, SocketError.OPERATION_ERROR, "aborted by the program")
                elif read is READS["ready_read"]:
                    assert await ending == 0
                elif read is READS["line"]:
                    with pytest.raises(StopAsyncIteration):
                        await ending
                else:
                    await fails(ending, SocketError.REMOTE_HOST_CLOSED_ERROR, "has ended before")

    run(main())


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_when_the_connection_is_given_to_a_relay(run, read):
    async def main():
        async with connected() as (near, _far), connected() as (other, _other_far):
            task = await begun(read(near))
            gone = await begun(near.disconnected())
            relay = Relay(near, other)
            await fails(task, SocketError.OPERATION_ERROR, "relay")
            await fails(near.bytes_written(), SocketError.OPERATION_ERROR, "relay")
            assert near.connected
            relay.close()
            await gone
            await fails(read(near), SocketError.OPERATION_ERROR, "relay")

    run(main())


def test_a_socket_that_is_not_open_for_reading(run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock = TcpSocket()
            sock.connect(*listener.getsockname(), TcpSocket.WRITE_ONLY_MODE)
            await sock.connected()
            await fails(sock.ready_read(), SocketError.OPERATION_ERROR, "not open for reading")
            sock.abort()

    run(main())


# Writing


def test_what_was_written_is_handed_to_the_system(run):
    async def main():
        async with connected() as (near, far):
            await near.bytes_written()
            near.write(b"small")
            await near.bytes_written()
            assert near.bytes_to_write == 0
            near.write(bytes(32 << 20))
            await turns(3)
            assert near.bytes_to_write > 1 << 20
            most, all_ = await begun(near.bytes_written(1 << 20)), await begun(near.bytes_written())
            far.setblocking(False)
            received = 0
            while not all_.done():
                try:
                    received += len(far.recv(1 << 20))
                except BlockingIOError:
                    await asyncio.sleep(0)
                if most.done() and not all_.done():
                    assert near.bytes_to_write <= 1 << 20
            assert most.done() and near.bytes_to_write == 0
            await asyncio.gather(most, all_)
            for wrong, kind in ((-1, ValueError), ("1", TypeError)):
                with pytest.raises(kind):
                    await near.bytes_written(wrong)

    run(main())


def test_the_handler_of_what_is_written_and_those_who_wait_for_it(run):
    async def main():
        async with connected() as (near, far):
            counted = []
            near.bytes_written_handler = lambda s, count: counted.append(count)
            near.write(b"12345")
            await near.bytes_written()
            assert counted == [5]
            near.write(bytes(32 << 20))
            first, second = await begun(near.bytes_written()), await begun(near.bytes_written())
            near.bytes_written_handler = None  # which would have the channel count no more
            first.cancel()
            await turns(2)
            far.setblocking(False)
            while not second.done():
                try:
                    far.recv(1 << 20)
                except BlockingIOError:
                    await asyncio.sleep(0)
            await second
            assert near._channel.notify_written is False

    run(main())


@pytest.mark.parametrize("how", ["reset", "abort"])
def test_what_was_written_and_does_not_leave(run, how):
    async def main():
        async with connected() as (near, far):
            near.error_handler = lambda s, error: None
            near.write(bytes(32 << 20))
            task = await begun(near.bytes_written())
            if how == "reset":
                reset(far)
                await fails(task, SocketError.REMOTE_HOST_CLOSED_ERROR)
                await fails(near.bytes_written(), SocketError.REMOTE_HOST_CLOSED_ERROR)
            else:
                near.abort()
                await fails(task, SocketError.OPERATION_ERROR, "aborted")

    run(main())


def test_what_the_system_has_refused_was_not_sent(run):
    """The queue is empty then, and the failure not yet told."""

    async def main():
        async with connected() as (near, far):
            near.error_handler = lambda s, error: None
            reset(far)
            near.write(bytes(1 << 20))
            assert near.bytes_to_write == 0 and near.connected
            await fails(near.bytes_written(), SocketError.REMOTE_HOST_CLOSED_ERROR)

    run(main())


def test_what_was_written_before_a_handshake_that_the_program_does_not_let_begin(run):
    async def main():
        server = SslServer()
        server.client_hello_handler = lambda s, hello: None
        assert server.listen(0, "127.0.0.1")
        with socket.create_connection(("127.0.0.1", server.port)):
            sock = await server.next_connection()
            sock.write(b"secret")
            task = await begun(sock.bytes_written())
            sock.disconnect()
            await fails(task, SocketError.OPERATION_ERROR, "could be encrypted")
            assert sock.bytes_to_write == 0
        server.close()

    run(main())


# The end of a block


def test_a_block_ends_in_order_when_all_is_sent(run):
    async def main():
        async with connected() as (near, far):
            received = bytearray()
            reader = threading.Thread(target=lambda: [received.extend(piece) for piece in iter(lambda: far.recv(1 << 20), b"")])
            reader.start()
            async with near as same:
                assert same is near
                near.write(bytes(8 << 20))
            assert near.state is TcpSocket.UNCONNECTED_STATE and not near.is_open
            while reader.is_alive():
                await asyncio.sleep(0.001)
            assert len(received) == 8 << 20

    run(main())


def test_a_block_that_raises_aborts(run):
    async def main():
        async with connected() as (near, far):
            with pytest.raises(ZeroDivisionError):
                async with near:
                    near.write(bytes(32 << 20))
                    raise ZeroDivisionError
            assert near.state is TcpSocket.UNCONNECTED_STATE
            far.setblocking(False)

    run(main())


def test_a_block_that_cannot_send_all_says_so(run):
    async def main():
        async with connected() as (near, far):
            near.error_handler = lambda s, error: None
            with pytest.raises(SocketFailure):
                async with near:
                    near.write(bytes(32 << 20))
                    asyncio.get_running_loop().call_soon(reset, far)

    run(main())


def test_a_block_whose_connection_has_ended_before_is_quiet(run):
    async def main():
        async with connected() as (near, far):
            near.error_handler = lambda s, error: None
            async with near:
                reset(far)
                await near.disconnected()
            async with near:  # never connected again
                pass

    run(main())


def test_a_block_that_is_cancelled_at_its_end_aborts(run):
    async def main():
        async with connected() as (near, _far):

            async def block():
                async with near:
                    near.write(bytes(32 << 20))

            task = await begun(block())
            assert near.state is TcpSocket.CLOSING_STATE
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert near.state is TcpSocket.UNCONNECTED_STATE

    run(main())


# Cancelling

WAITS = {
    **READS,
    "connected": lambda s: s.connected(),
    "encrypted": lambda s: s.encrypted(),
    "disconnected": lambda s: s.disconnected(),
    "bytes_written": lambda s: s.bytes_written(),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_wait_that_is_cancelled_leaves_nothing_and_the_connection_as_it_is(run, wait):
    async def main():
        with stuck_port() as port:
            sock = SslSocket()
            sock.connect_encrypted("127.0.0.1", port)
            sock.write(b"x")
            for patience in (False, True):
                other = await begun(wait(sock))
                if patience:
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(wait(sock), 0.001)
                else:
                    task = await begun(wait(sock))
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                assert len(sock._waits) == len(sock.loop._awaited) == 1
                other.cancel()
                await turns(2)
                assert sock._waits is None
            assert sock.state is TcpSocket.CONNECTING_STATE
            gone = weakref.ref(sock)
            sock.abort()
            del sock, task, other
            await turns(2)
            gc.collect()
            assert gone() is None

    run(main())


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_that_is_cancelled_in_any_turn_loses_no_byte(run, read):
    async def main():
        async with connected() as (near, far):
            count = ended = 0
            while not ended:
                task = asyncio.get_running_loop().create_task(read(near))
                if count > 1:
                    far.sendall(b"12345678\n")
                await turns(count)
                count += 1
                ended = task.done()
                task.cancel()
                result = (await asyncio.gather(task, return_exceptions=True))[0]
                if count > 2 and not ended:
                    await near.ready_read()
                    assert near.read(9) == b"12345678\n"
            assert result in (b"12345678\n", 9) and near.read_all() in (b"", b"12345678\n")
            assert (near.bytes_available == 0) or read is READS["ready_read"]

    run(main())


def test_an_answer_and_a_cancellation_in_one_turn(run):
    """The event has settled the wait, and the task is cancelled before it runs."""

    async def main():
        async with connected() as (near, far):
            task = await begun(near.read_exactly(3))
            near.ready_read_handler = lambda s: asyncio.get_running_loop().call_soon(task.cancel)
            far.sendall(b"abc")
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            near.ready_read_handler = None
            assert (result == b"abc") != (near.read() == b"abc")

    run(main())


# Where there is no loop


def drive(awaitable):
    """What a coroutine does where no loop runs."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        awaitable.close()
    raise AssertionError("it waits")


def test_no_asyncio_loop_runs(own_host):
    sock = TcpSocket()
    drive(sock.disconnected())  # there is nothing to wait for
    with stuck_port() as port:
        sock.connect("127.0.0.1", port)
        with pytest.raises(RuntimeError, match=r"asyncio\.run"):
            drive(sock.connected())
        future = sock.read_async()
        with pytest.raises(RuntimeError, match=r"asyncio\.run"):
            next(future.__await__())
        sock.abort()
    own_host.wait_for(future.done)


def test_another_threads_socket(run):
    async def main():
        async with connected(SslSocket()) as (near, _far):
            caught = []

            async def elsewhere():
                for wait in WAITS.values():
                    try:
                        await wait(near)  # `connected` is true, in every thread
                    except RuntimeError as exc:
                        caught.append(exc)

            thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.001)
            assert len(caught) == len(WAITS) - 1 and all("another thread" in str(exc) for exc in caught)

    run(main())


def test_asyncio_inside_a_handler_of_the_own_loop(own_host):
    """Its turn cannot end, so nothing would ever be answered."""
    sock = TcpSocket()
    caught = []

    def handler():
        with stuck_port() as port:
            sock.connect("127.0.0.1", port)
            try:
                asyncio.run(sock.connected())
            except RuntimeError as exc:
                caught.append(exc)
            sock.abort()

    own_host.loop.call_soon(handler)
    own_host.wait_for(lambda: caught)
    assert "inside a handler" in str(caught[0])


@pytest.mark.parametrize("run", sorted(HOSTS.keys() - {"ours"}), indirect=True)
def test_a_loop_of_sockets_that_is_closed_ends_the_waits(run):
    async def main():
        with stuck_port() as port:
            sock = TcpSocket()
            sock.connect("127.0.0.1", port)
            task = await begun(sock.connected())
            sock.loop.close()
            with pytest.raises(RuntimeError, match="was closed"):
                await task
            with pytest.raises(RuntimeError, match="is closed"):
                await sock.connected()

    run(main())


def test_an_asyncio_loop_that_ends_while_a_task_waits(own_host):
    """The event comes in the next asyncio loop of the thread; the task of the first is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = TcpSocket()

        async def first():
            sock.connect(*listener.getsockname())
            await sock.connected()
            return asyncio.get_running_loop().create_task(sock.ready_read()), await turns(2)

        host = asyncio.new_event_loop()
        host.set_exception_handler(lambda loop, context: None)  # a task that is pending
        task, _ = host.run_until_complete(first())
        host.close()
        with listener.accept()[0] as far:
            far.sendall(b"abc")

            async def second():
                return await sock.ready_read(), sock.read()

            assert asyncio.run(second()) == (3, b"abc")
        del task
        gc.collect()
        assert sock._waits is None
        sock.abort()


def test_importing_sslsock_imports_no_asyncio():
    code = "import sys, sslsock; sslsock.SslSocket, sslsock.SslServer, sslsock.run; assert 'asyncio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE)


def test_a_failure_is_pickled(own_host):
    failure = pickle.loads(pickle.dumps(SocketFailure(SocketError.NETWORK_ERROR, "why")))
    assert (failure.error, failure.error_string, str(failure)) == (SocketError.NETWORK_ERROR, "why", "why")
    assert issubclass(SocketFailure, OSError) and failure.errno is None and sslsock.SocketFailure is SocketFailure


# Twins


def test_the_future_of_a_twin_is_awaited(run):
    async def main():
        async with connected() as (near, far):
            far.sendall(b"hello")
            await near.ready_read()
            assert await near.read_async(2) == b"he"
            assert await asyncio.gather(near.peek_async(), near.write_async(b"x")) == [b"llo", 1]
            with pytest.raises(ValueError):
                await near.bind_async(70000)
            future = near.read_async()
            assert await future == await future == b"llo"

    run(main())


def test_the_future_of_a_twin_is_awaited_in_another_thread(run):
    async def main():
        async with connected() as (near, far):
            far.sendall(b"hello")
            await near.ready_read()
            results = []

            async def elsewhere():
                results.append(await near.read_async(2))
                results.append(await near.read_async())

            thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.001)
            assert results == [b"he", b"llo"]

    run(main())


def test_a_task_that_is_cancelled_cancels_the_call_of_the_twin(run):
    """The loop of another thread, which has not come to the call."""
    made, cancelled, socks = threading.Event(), threading.Event(), []

    def elsewhere():
        socks.append(TcpSocket())
        made.set()
        cancelled.wait(DEADLINE)
        socks[0].loop.dispatch(0)
        socks[0].loop.close()

    async def main():
        task = await begun(wait_for(socks[0].bind_async(0)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns(3)

    async def wait_for(future):
        return await future

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert made.wait(DEADLINE)
    run(main())
    cancelled.set()
    thread.join()
    assert socks[0].state is TcpSocket.UNCONNECTED_STATE
