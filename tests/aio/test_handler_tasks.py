"""Handlers that are an `async def`: run by tasks, one at a time, in order, held until they are done."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import socket
import sys
import warnings
import weakref

import pytest
from hosts import HOSTS, Runner, connected, turns, until

from peers import listening, make_tcp_pair, refused_port, reset, secure_server
from sslsock import (
    EventLoop,
    Relay,
    RelayReason,
    SocketError,
    SocketFailure,
    SocketState,
    SslServer,
    SslSocket,
    TcpSocket,
)


@pytest.fixture(params=HOSTS)
def run(request):
    runner = Runner(request.param)
    yield runner
    EventLoop.current().close()
    assert runner.told == []
    assert runner.reported == []


def test_a_server_and_a_client_of_coroutines(run, certificates):
    async def serve(sock):
        async for line in sock:
            sock.write(line.upper())

    async def take(server):
        while (sock := server.next_pending_secure_connection()) is not None:
            sock.ready_read_handler = serve

    async def greet(sock):
        sock.write(b"one\ntwo\n")

    async def main():
        server = secure_server(certificates)
        server.new_connection_handler = take
        async with SslSocket() as client:
            client.configuration = certificates.client()
            client.encrypted_handler = greet
            client.connect_encrypted("localhost", server.port)
            assert [await client.read_until(), await client.read_until()] == [b"ONE\n", b"TWO\n"]
        server.close()
        await until(lambda: not client.loop._tasks)

    run(main())


class CallableObject:
    async def __call__(self, sock, *args):
        await act(sock, *args)


acts = []


async def act(sock, *args):
    await asyncio.sleep(0)
    acts.append(args)


async def with_more(more, sock, *args):
    await act(sock, *args)


class Methods:
    async def act(self, sock, *args):
        await act(sock, *args)


FORMS = {
    "function": act,
    "partial": functools.partial(functools.partial(with_more, 1)),
    "method": Methods().act,
    "object": CallableObject(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_coroutine_function(run, form):
    async def main():
        acts.clear()
        async with connected() as (near, _far):
            near.state_changed_handler = form
            assert near.state_changed_handler is form or near.state_changed_handler == form
            near.disconnect()
            await near.disconnected()
            await until(lambda: not near.loop._tasks)
            assert acts[-1] == (SocketState.UNCONNECTED_STATE,)

    run(main())


def test_methods_of_a_class(run):
    class Client(TcpSocket):
        async def ready_read_handler(self):
            self.heard = [await self.read_until(), await self.read_until()]

        def disconnected_handler(self):
            self.gone = True

    class Quiet(Client):
        ready_read_handler = None

    async def main():
        async with connected(Client()) as (near, far):
            handler = near.ready_read_handler
            assert handler.__func__ is Client.ready_read_handler and handler.__self__ is near
            near.ready_read_handler = handler
            near.ready_read_handler = lambda s: None
            del near.ready_read_handler
            far.sendall(b"one\ntwo\n")
            await until(lambda: hasattr(near, "heard"))
            assert near.heard == [b"one\n", b"two\n"]
            assert Quiet().ready_read_handler is None
        assert near.gone

    run(main())


def test_data_that_comes_while_the_task_runs_is_told_once_afterwards(run):
    async def main():
        calls, go_on = [], asyncio.Event()

        async def ready(sock):
            calls.append("begins")
            await go_on.wait()
            calls.append(sock.read_all())

        async with connected() as (near, far):
            near.ready_read_handler = ready
            for count in range(1, 5):
                far.sendall(b"x")
                await until(lambda count=count: near.bytes_available == count)
                await turns(2)
            assert calls == ["begins"]
            go_on.set()
            await until(lambda: not near.loop._tasks)
            assert calls == ["begins", b"xxxx"]  # it had read all: there was nothing more to tell
            far.sendall(b"yz")
            await until(lambda: len(calls) == 4)
            assert calls[2:] == ["begins", b"yz"]

            async def take_one(sock):
                calls.append(sock.read(1))
                await asyncio.sleep(0)

            near.ready_read_handler = take_one
            calls.clear()
            far.sendall(b"12")
            await until(lambda: calls)
            far.sendall(b"3")
            await until(lambda: len(calls) == 2)
            await until(lambda: not near.loop._tasks)
            assert calls == [b"1", b"2"]  # two events, at the most: as with any handler

    run(main())


def test_events_that_say_the_same_are_one_while_they_wait(run):
    async def main():
        calls, go_on = [], asyncio.Event()

        async def ready(sock):
            calls.append(sock.bytes_available)
            await go_on.wait()

        async with connected() as (near, far):
            near.ready_read_handler = ready
            for count in range(1, 5):
                far.sendall(b"x")
                await until(lambda count=count: near.bytes_available == count)
                await turns(2)
            go_on.set()
            await until(lambda: not near.loop._tasks)
            assert calls == [1, 4]

    run(main())


def test_a_task_of_a_loop_that_has_stopped_holds_up_no_event(own_host):
    """It may go on when its loop does, and meanwhile another loop serves the socket."""
    calls = []

    async def ready(sock):
        calls.append(sock.read_all())
        if len(calls) == 1:
            await stopped

    async def heard(far, count):
        assert sock.state is TcpSocket.CONNECTED_STATE  # which its loop follows
        far.sendall(b"abc")
        await until(lambda: len(calls) == count)
        await turns(2)

    async def connect():
        sock.ready_read_handler = ready
        sock.connect(*listener.getsockname())
        await sock.connected()
        await heard(far := listener.accept()[0], 1)
        return far

    sock = TcpSocket()
    first = asyncio.new_event_loop()
    stopped = first.create_future()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = first.run_until_complete(connect())
    with far:
        asyncio.run(heard(far, 2))
        stopped.set_result(None)
        first.run_until_complete(heard(far, 3))
        assert calls == [b"abc"] * 3 and not sock.loop._tasks
        sock.abort()
    first.close()


def test_events_are_told_in_order_and_counts_are_added(run):
    async def main():
        states, counts, go_on = [], [], asyncio.Event()

        async def state_changed(sock, state):
            await go_on.wait()
            states.append(state.name)

        async def written(sock, count):
            await go_on.wait()
            counts.append(count)

        sock = TcpSocket()
        sock.state_changed_handler = state_changed
        async with connected(sock) as (near, _far):
            near.bytes_written_handler = written
            for _ in range(4):
                near.write(b"12345")
                await near.bytes_written()
            near.disconnect()
            await near.disconnected()
            assert (states, counts) == ([], [])
            go_on.set()
            await until(lambda: not near.loop._tasks)
            assert states == ["HOST_LOOKUP_STATE", "CONNECTING_STATE", "CONNECTED_STATE", "UNCONNECTED_STATE"]
            assert counts == [5, 15]

    run(main())


def test_handlers_of_one_socket_do_not_wait_for_one_another(run):
    """`connected_handler` awaits what `ready_read_handler` finds out."""

    async def main():
        answer = asyncio.get_running_loop().create_future()
        done = []

        async def on_connected(sock):
            sock.write(b"?")
            done.append(await answer)

        async def ready(sock):
            answer.set_result(await sock.read_exactly(1))

        sock = TcpSocket()
        sock.connected_handler = on_connected
        sock.ready_read_handler = ready
        async with connected(sock) as (near, far):
            far.sendall(b"!")
            await until(lambda: done)
            await until(lambda: not near.loop._tasks)
            assert done == [b"!"]

    run(main())


def test_the_task_goes_on_when_the_connection_has_ended(run):
    async def main():
        seen = []

        async def ready(sock):
            await sock.disconnected()
            await asyncio.sleep(0.001)
            seen.append((sock.read_all(), sock.state.name))

        async with connected() as (near, far):
            near.ready_read_handler = ready
            far.sendall(b"abc")
            far.close()
            await until(lambda: seen)
            await until(lambda: not near.loop._tasks)
            assert seen == [(b"abc", "UNCONNECTED_STATE")]

    run(main())


def test_a_handler_that_is_taken_away_is_told_nothing_more(run):
    async def main():
        calls, go_on = [], asyncio.Event()

        async def ready(sock):
            calls.append(sock.bytes_available)
            await go_on.wait()

        async with connected() as (near, far):
            near.ready_read_handler = ready
            far.sendall(b"a")
            await until(lambda: calls)
            far.sendall(b"b")
            await until(lambda: near.bytes_available == 2)
            near.ready_read_handler = None
            go_on.set()
            await until(lambda: not near.loop._tasks)
            assert calls == [1]
            near.ready_read_handler = ready
            far.sendall(b"c")
            near.loop.call_soon(lambda: None)
            await until(lambda: near.bytes_available == 3)
            await until(lambda: len(calls) == 2)

    run(main())


@pytest.mark.parametrize("error", [ValueError, SocketFailure])
def test_what_a_task_raises_goes_to_the_exception_handler_and_the_next_event_comes(run, error):
    async def main():
        calls = []

        async def ready(sock):
            calls.append(sock.read_all())
            if error is SocketFailure:
                await sock.connected()
                raise SocketFailure(SocketError.NETWORK_ERROR, "x")
            raise error("from a task")

        async with connected() as (near, far):
            near.ready_read_handler = ready
            for count in (1, 2):
                far.sendall(b"abc")
                await until(lambda count=count: len(calls) == count)
                await until(lambda: not near.loop._tasks)
            contexts = list(run.reported)
            assert [type(exc) for exc in run.take_reported()] == [error] * 2
            for context in contexts:
                assert context["message"] == "exception in ready_read_handler"
                assert context["source"] is near
            assert calls == [b"abc", b"abc"]

    run(main())


def test_an_exception_without_a_handler_for_it_is_logged(run, caplog):
    async def main():
        async def gone(sock):
            raise ValueError("from a task")

        async with connected() as (near, _far):
            near.loop.exception_handler = None
            near.disconnected_handler = gone
            near.disconnect()
            await until(lambda: caplog.records)
            record = caplog.records[0]
            assert (record.name, record.levelno) == ("sslsock", logging.ERROR)
            assert "exception in disconnected_handler" in record.getMessage()
            assert record.exc_info[0] is ValueError
            await until(lambda: not near.loop._tasks)

    run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_a_task_that_the_program_cancels(run, begun):
    async def main():
        calls = []

        async def ready(sock):
            calls.append(asyncio.current_task())
            await asyncio.Event().wait()

        async with connected() as (near, far):
            if begun:
                near.ready_read_handler = ready
                far.sendall(b"a")
                await until(lambda: calls)
                far.sendall(b"b")
                await until(lambda: near.bytes_available == 2)
                task = calls[0]
            else:  # before its first step
                near.ready_read_handler = ready
                near.ready_read_handler = None
                near._ready_read_handler = handler = TcpSocket.ready_read_handler._slot_value(ready, "name")
                handler(near)
                (running,) = near.loop._tasks.values()
                task = running.task
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns(2)
            assert not near.loop._tasks and len(calls) == begun
            near.ready_read_handler = ready
            far.sendall(b"c")
            await until(lambda: len(calls) == begun + 1)  # the next event is told
            calls[-1].cancel()
            await turns(3)

    run(main())


def test_a_task_that_nobody_else_knows_is_held(run):
    async def main():
        done = []

        async def gone(sock):
            future = asyncio.get_running_loop().create_future()
            me = weakref.ref(asyncio.current_task())
            asyncio.get_running_loop().call_later(0.01, set_result, weakref.ref(future))
            await future
            assert me() is not None
            done.append(True)

        def set_result(reference):
            gc.collect()
            future = reference()
            if future is None:
                done.append(False)
            else:
                future.set_result(None)

        async with connected() as (near, _far):
            near.disconnected_handler = gone
            near.abort()
        del near
        gc.collect()
        await until(lambda: done)
        assert done == [True]
        await turns(3)

    run(main())


def test_nothing_of_a_socket_is_left_when_its_tasks_are_done(run):
    async def main():
        done = []

        async def ready(sock):
            done.append(await sock.read_until())

        async with connected() as (near, far):
            near.ready_read_handler = ready
            far.sendall(b"a\n")
            await until(lambda: done)
            await turns(3)
        gone = weakref.ref(near)
        del near
        await turns(2)
        gc.collect()
        assert gone() is None

    run(main())


def test_a_program_that_ends_cancels_what_runs():
    """As asyncio.run does with every task; one that waits for its turn is not begun any more."""
    cancelled = []

    async def ready(sock):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main():
        sock = TcpSocket()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock.ready_read_handler = ready
            sock.connect(*listener.getsockname())
            await sock.connected()
            far, _ = listener.accept()
        with far:
            far.sendall(b"a")
            await until(lambda: sock.loop._tasks)
            await turns(2)
            far.sendall(b"b")
            await until(lambda: sock.bytes_available == 2)
        return sock

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sock = asyncio.run(main())
        assert cancelled == [True]

        async def later():
            return sock.state

        asyncio.run(later())  # which the sockets' loop follows
        assert not sock.loop._tasks
        sock.abort()


def test_no_asyncio_loop_runs(own_host):
    async def ready(sock):
        raise AssertionError("nobody runs this")

    pair = make_tcp_pair(own_host, reads=False)
    pair.client.ready_read_handler = ready
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a coroutine that nobody awaits
        pair.server.write(b"abc")
        own_host.wait_for(lambda: own_host.failures)
    (failure,) = own_host.failures
    assert failure["message"] == "exception in ready_read_handler"
    (exc,) = own_host.take_failures()
    assert isinstance(exc, RuntimeError) and "no asyncio loop runs" in str(exc) and "sslsock.aio.run()" in str(exc)
    assert pair.client.read() == b"abc"
    assert not own_host.loop._tasks


DECIDING = {
    "ssl_errors_handler": SslSocket,
    "pre_shared_key_handler": SslSocket,
    "pre_shared_key_handler of a server": SslServer,
}


@pytest.mark.parametrize("name", DECIDING)
def test_what_openssl_waits_for_is_no_coroutine(own_host, name):
    kind, name = DECIDING[name], name.split()[0]
    obj = kind()
    setattr(obj, name, kept := lambda *arguments: None)
    with pytest.raises(TypeError, match=f"{name} is called, not awaited: OpenSSL waits"):
        setattr(obj, name, act)
    assert getattr(obj, name) is kept
    with pytest.raises(TypeError, match=rf"Own\.{name} is called, not awaited"):
        type("Own", (kind,), {name: act})


def test_a_loop_whose_tasks_begin_at_once(run):
    def begin_at_once(loop, work, **options):
        return asyncio.Task(work, loop=loop, **{**options, "eager_start": True})

    factory = begin_at_once if sys.version_info >= (3, 12) else None

    async def main():
        asyncio.get_running_loop().set_task_factory(factory)
        calls = []

        async def ready(sock):
            calls.append(sock.read_all())
            if len(calls) == 1:
                await asyncio.sleep(0)

        async with connected() as (near, far):
            near.ready_read_handler = ready
            for count in (1, 2, 3):
                far.sendall(b"abc")
                await until(lambda count=count: len(calls) == count)
            asyncio.get_running_loop().set_task_factory(None)
            await turns(2)

    run(main())


def test_errors_and_ends_of_a_relay(run):
    async def main():
        told = []

        async def error(sock, error):
            await asyncio.sleep(0)
            told.append(error)

        async def closed(relay, reason):
            await asyncio.sleep(0)
            told.append(reason)

        async with connected() as (near, far):
            near.error_handler = error
            reset(far)
            await until(lambda: told)
        with refused_port() as port:
            near.connect("127.0.0.1", port)
            await until(lambda: len(told) == 2)
        assert told == [SocketError.REMOTE_HOST_CLOSED_ERROR, SocketError.CONNECTION_REFUSED_ERROR]
        async with connected() as (near, _far), connected() as (other, _other):
            relay = Relay(near, other)
            relay.closed_handler = closed
            relay.close()
            await until(lambda: len(told) == 3)
        assert told[2] is RelayReason.ABORTED
        await turns(3)

    run(main())


# The ClientHello


async def shaking(server, certificates):
    client = SslSocket()
    client.configuration = certificates.client()
    client.error_handler = lambda s, error: None
    client.connect_encrypted("localhost", server.port)
    await until(lambda: server.has_pending_connections)
    taken = server.next_pending_secure_connection()
    taken.error_handler = lambda s, error: None
    return client, taken


def hello_server(handler):
    server = SslServer()
    server.client_hello_handler = handler
    return listening(server)


def test_the_handshake_waits_for_the_task_that_chooses_a_configuration(run, certificates):
    async def main():
        go_on, names = asyncio.Event(), []

        async def choose(sock, hello):
            names.append((hello.server_name, sock.handshake_held))
            await go_on.wait()
            sock.configuration = certificates.server()

        server = hello_server(choose)
        client, taken = await shaking(server, certificates)
        await until(lambda: names)
        await turns(5)
        assert not client.encrypted and taken.handshake_held
        go_on.set()
        await asyncio.gather(client.encrypted(), taken.encrypted())
        assert names == [("localhost", True)]
        client.disconnect()
        await asyncio.gather(client.disconnected(), taken.disconnected())
        server.close()

    run(main())


def test_a_task_that_holds_the_handshake_itself(run, certificates):
    async def main():
        held = []

        async def choose(sock, hello):
            await asyncio.sleep(0)
            sock.hold_handshake()
            held.append(sock)

        server = hello_server(choose)
        client, taken = await shaking(server, certificates)
        await until(lambda: held)
        await turns(5)
        assert taken.handshake_held
        taken.configuration = certificates.server()
        taken.continue_handshake()
        await asyncio.gather(client.encrypted(), taken.encrypted())
        client.abort()
        taken.abort()
        server.close()

    run(main())


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
def test_a_choice_that_fails_ends_the_handshake(run, certificates, how):
    async def main():
        begun = []

        async def choose(sock, hello):
            begun.append(asyncio.current_task())
            if how == "raises":
                raise ValueError("no choice")
            await asyncio.Event().wait()

        server = hello_server(choose)
        client, taken = await shaking(server, certificates)
        await until(lambda: begun)
        if how == "is cancelled":
            begun[0].cancel()
        for one in (client, taken):
            with pytest.raises(SocketFailure) as caught:
                await one.encrypted()
            assert caught.value.error is SocketError.SSL_HANDSHAKE_FAILED_ERROR
        assert [type(exc) for exc in run.take_reported()] == ([ValueError] if how == "raises" else [])
        server.close()
        await turns(3)

    run(main())


@pytest.mark.parametrize("end", ["abort", "peer", "overdue"])
def test_a_connection_that_ends_before_the_choice(run, certificates, end):
    async def main():
        go_on, begun, over = asyncio.Event(), [], []

        async def choose(sock, hello):
            begun.append(True)
            await go_on.wait()
            over.append(sock.state)

        server = hello_server(choose)
        client, taken = await shaking(server, certificates)
        await until(lambda: begun)
        if end == "abort":
            taken.abort()
        elif end == "peer":
            client.abort()
        else:
            taken._on_hello_overdue(taken._hello)
        await taken.disconnected()
        go_on.set()
        await until(lambda: over)
        await turns(3)
        assert over == [SocketState.UNCONNECTED_STATE] and not taken.encrypted
        client.abort()
        server.close()

    run(main())


def test_a_choice_without_an_asyncio_loop(own_host, certificates):
    server = hello_server(act)
    client = SslSocket()
    client.configuration = certificates.client()
    client.error_handler = lambda s, error: None
    client.connect_encrypted("localhost", server.port)
    own_host.wait_for(lambda: server.has_pending_connections)
    taken = server.next_pending_secure_connection()
    taken.error_handler = lambda s, error: None
    own_host.wait_for(lambda: taken.state is client.state is SocketState.UNCONNECTED_STATE)
    assert taken.error is SocketError.SSL_HANDSHAKE_FAILED_ERROR
    (exc,) = own_host.take_failures()
    assert isinstance(exc, RuntimeError) and "client_hello_handler" in str(exc)
    server.close()
