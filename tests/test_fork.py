"""A handler forks, and its child returns from it, into the middle of what its parent was doing.

In the child nothing of the parent's may go on: no handler, no byte from or to the parent's connections, no end of one. What the
child can do is to leave `run` or `dispatch`, which raise RuntimeError, and to make a loop of its own. Every child here says
through a pipe what it met; the parent waits for its end before it goes on, so that the child had every chance to do harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import threading
from typing import Any, Callable, Optional

import pytest

import sslsock
from peers import DEADLINE, listening, make_ssl_pair, make_tcp_pair, plain_listener, secure_server
from sslsock import EventLoop, Relay, SslServer, SslSocket, TcpServer, TcpSocket, TicketKeys


class Fork:
    """Forks where it is called, the first time. In the child, everything is told to the parent."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.child: Optional[int] = None
        self.status: Optional[int] = None

    def __call__(self, *_: Any) -> bool:
        if self.child is None:
            self.child = os.fork()
            if self.child:
                self.status = os.waitpid(self.child, 0)[1]
                EventLoop.current().stop()
            else:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(int(DEADLINE))  # so that one that does not end fails the test
        else:
            self.note("called again")
        return True

    def note(self, what: str) -> None:
        if self.child == 0:
            os.write(self.writing, f"{what};".encode())

    def during(self, run: Callable[[], object]) -> None:
        """Call `run`; what the child meets in it ends the child."""
        try:
            run()
        except BaseException as exc:
            if self.child != 0:
                raise
            self.note(f"{type(exc).__name__}: {exc}")
        finally:
            if self.child == 0:
                os._exit(0)

    def said(self) -> str:
        assert self.child, "nothing has forked"
        os.close(self.writing)
        with open(self.reading, "rb") as pipe:
            words = pipe.read().decode()
        assert self.status == 0, f"the child ended with {self.status}, after {words!r}"
        return words


PARENTS = "RuntimeError: this event loop belongs to the parent process: a forked child must make its own;"


class Stage:
    """Two pairs of sockets, one encrypted, one not; `fork` is to be called in some handler of the loop's."""

    def __init__(self, host, certificates):
        self.host, self.loop, self.certificates = host, host.loop, certificates
        self.fork = Fork()
        self.plain = make_tcp_pair(host)
        self.secure = make_ssl_pair(host, certificates.client(), certificates.server())
        self.written: dict[TcpSocket, bytes] = {}
        self.ends = contextlib.ExitStack()
        self.kept: list[Any] = []

    def watch_child(self):
        """Every handler of the pairs tells when it is called in the child."""
        for pair in (self.plain, self.secure):
            for recorder in (pair.left, pair.right):
                events = recorder.events = Told(self.fork)
                assert events == []

    def write(self, sock, data):
        sock.write(data)
        self.written[sock] = self.written.get(sock, b"") + data

    def exchange(self):
        """All that was written on the parent's connections arrives, once, and they end in order."""
        for pair in (self.plain, self.secure):
            if pair.client.state is not TcpSocket.CONNECTED_STATE:
                continue
            for sock, receiver in ((pair.client, pair.right), (pair.server, pair.left)):
                self.write(sock, b"to and fro" * 20_000)
                self.host.wait_for(lambda sock=sock, receiver=receiver: len(receiver.data) >= len(self.written[sock]))
            pair.client.disconnect()
            self.host.wait_for(lambda pair=pair: pair.right.has("disconnected"), pair.right.events)
            assert pair.right.data == self.written[pair.client]
            assert pair.left.data == self.written[pair.server]
            assert not pair.left.has("error"), pair.left.events

    def connect(self, name: str = "localhost", **handlers: Any) -> SslSocket:
        server = self.listen()
        client = SslSocket()
        client.configuration = self.certificates.client()
        client.peer_verify_name = name
        for attribute, handler in handlers.items():
            setattr(client, attribute, handler)
        client.connect_encrypted("127.0.0.1", server.port)
        self.kept.append(client)
        return client

    def listen(self):
        server = secure_server(self.certificates)
        server.new_connection_handler = lambda s: self.kept.append(s.next_pending_secure_connection())
        self.ends.callback(server.close)
        return server


class Told(list):
    """Events, which the child's process tells."""

    def __init__(self, fork):
        super().__init__()
        self.fork = fork

    def append(self, event):
        self.fork.note(f"handler {event[0]}")
        super().append(event)


def in_call(stage):
    stage.loop.call_soon(stage.fork)
    stage.loop.call_soon(stage.fork.note, "the next call")
    stage.loop.call_soon_threadsafe(stage.fork.note, "another thread's call")


def in_call_of_another_thread(stage):
    stage.loop.call_soon_threadsafe(stage.fork)
    stage.loop.call_soon_threadsafe(stage.fork.note, "the next call")


def in_timer(stage):
    stage.loop.call_later(0, stage.fork)
    stage.loop.call_later(0, stage.fork.note, "the next timer")


def in_nested_turn(stage):
    def outer():
        stage.loop.call_soon(stage.fork)
        stage.fork.during(stage.loop.dispatch)

    stage.loop.call_soon(outer)
    stage.loop.call_soon(stage.fork.note, "the next call")


def in_watch(stage):
    reading, writing = os.pipe2(os.O_NONBLOCK)
    stage.ends.callback(os.close, reading)
    stage.ends.callback(os.close, writing)
    watch = stage.loop.watch(reading, select.EPOLLIN, stage.fork)
    stage.ends.callback(watch.close)
    os.write(writing, b"x")


def in_signal_handler(stage):
    before = signal.signal(signal.SIGUSR1, stage.fork)
    stage.ends.callback(signal.signal, signal.SIGUSR1, before)
    stage.loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)


def in_exception_handler(stage):
    stage.loop.exception_handler = stage.fork
    stage.loop.call_soon(lambda: 1 / 0)


def in_destructor(stage):
    class Thing:
        def __del__(self):
            stage.fork()

    def drop():
        things.clear()

    things = [Thing()]
    stage.loop.call_soon(drop)


def answering(stage, pair):
    """Both ends have something to receive and to send in the event in which one forks."""

    def answer(sock):
        stage.write(sock, b"written before the fork")
        sock.ready_read_handler = before
        stage.fork()
        before(sock)

    before, pair.server.ready_read_handler = pair.server.ready_read_handler, answer
    stage.write(pair.client, b"a question")


def in_ready_read(stage):
    answering(stage, stage.plain)


def in_ready_read_of_tls(stage):
    answering(stage, stage.secure)


def in_bytes_written(stage):
    stage.secure.client.bytes_written_handler = stage.fork
    stage.write(stage.secure.client, b"x")


def in_bytes_written_at_the_end(stage):
    def forks(sock, count):
        stage.fork()

    stage.secure.client.bytes_written_handler = forks
    stage.secure.client.write(b"the last words")
    stage.secure.client.disconnect()
    stage.checks = lambda: stage.host.wait_for(lambda: stage.secure.right.has("disconnected"), stage.secure.right.events)


def in_disconnected(stage):
    stage.secure.client.disconnected_handler = stage.fork
    stage.secure.server.disconnect()


def in_error(stage):
    stage.plain.client.error_handler = stage.fork
    stage.plain.server.abort()


def in_state_changed(stage):
    stage.connect(state_changed_handler=stage.fork)


def in_connected(stage):
    stage.connect(connected_handler=stage.fork)


def in_encrypted(stage):
    client = stage.connect(encrypted_handler=stage.fork)
    stage.checks = lambda: stage.host.wait_for(lambda: client.encrypted)


def in_verification(stage):
    """Below libssl, in the handshake."""

    def forks(sock, errors):
        sock.ignore_ssl_errors()
        stage.fork()

    client = stage.connect(ssl_errors_handler=forks, name="other.example")
    client.encrypted_handler = lambda s: stage.fork.note("handler encrypted")
    client.error_handler = lambda s, error: stage.fork.note("handler error")
    stage.checks = lambda: stage.host.wait_for(lambda: client.encrypted, lambda: client.error_string)


def in_client_hello(stage):
    server = SslServer()
    server.configuration = stage.certificates.server()
    server.client_hello_handler = stage.fork
    server.new_connection_handler = lambda s: stage.kept.append(s.next_pending_secure_connection())
    listening(server)
    stage.ends.callback(server.close)
    client = SslSocket()
    client.configuration = stage.certificates.client()
    client.peer_verify_name = "localhost"
    client.connect_encrypted("127.0.0.1", server.port)
    stage.kept.append(client)
    stage.checks = lambda: stage.host.wait_for(lambda: client.encrypted, lambda: client.error_string)


def in_new_connection(stage):
    server = listening(TcpServer())
    server.new_connection_handler = stage.fork
    stage.ends.callback(server.close)
    for _ in range(5):
        sock = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        stage.ends.callback(sock.close)
    stage.checks = lambda: stage.host.wait_for(lambda: server._listener.pending == 5)


def in_relay_closed(stage):
    one, two = make_tcp_pair(stage.host), make_tcp_pair(stage.host)
    relay = Relay(one.server, two.client)
    relay.closed_handler = stage.fork
    stage.host.wait_for(lambda: relay.joined)
    one.client.abort()
    stage.kept += [one, two, relay]


PLACES = [
    in_call,
    in_call_of_another_thread,
    in_timer,
    in_nested_turn,
    in_watch,
    in_signal_handler,
    in_exception_handler,
    in_destructor,
    in_ready_read,
    in_ready_read_of_tls,
    in_bytes_written,
    in_bytes_written_at_the_end,
    in_disconnected,
    in_error,
    in_state_changed,
    in_connected,
    in_encrypted,
    in_verification,
    in_client_hello,
    in_new_connection,
    in_relay_closed,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_child_that_returns_from_a_handler_leaves_run_and_nothing_else_happens(own_host, certificates, place):
    stage = Stage(own_host, certificates)
    stage.watch_child()
    stage.checks = lambda: None
    handler = stage.loop.exception_handler

    def act():
        place(stage)
        for pair in (stage.plain, stage.secure):  # so that events wait in the same batch as the one that forks
            for sock in (pair.client, pair.server):
                if sock.state is TcpSocket.CONNECTED_STATE:
                    stage.write(sock, b"and more")
        sslsock.run()

    with stage.ends:
        stage.fork.during(act)
        stage.loop.exception_handler = handler
        assert stage.fork.said() == PARENTS
        stage.checks()
        stage.exchange()


def test_a_child_may_end_itself_in_the_handler(own_host):
    """sys.exit() is how most children end."""
    fork = Fork()

    def forks():
        fork()
        if fork.child == 0:
            raise SystemExit(3)

    own_host.loop.call_soon(forks)
    fork.during(sslsock.run)
    assert fork.said() == "SystemExit: 3;"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_a_child_that_returns_into_asyncio_does_no_harm(certificates, kind):
    """asyncio is told, as of any exception of a callback; what it goes on with in the child is its own affair."""
    make = asyncio.new_event_loop if kind == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    fork = Fork()

    async def main():
        told = asyncio.get_running_loop().create_future()

        def on_exception(host, context):
            if fork.child == 0:
                fork.note(f"{type(context['exception']).__name__}: {context['exception']}")
                os._exit(0)

        def forks(sock):
            sock.write(b"answer")
            fork()
            told.set_result(sock.read_all())

        asyncio.get_running_loop().set_exception_handler(on_exception)
        server = secure_server(certificates)
        client = SslSocket()
        client.configuration = certificates.client()
        answered = asyncio.get_running_loop().create_future()
        client.ready_read_handler = lambda s: answered.set_result(s.read_all())
        taken = []

        def new(server):
            taken.append(server.next_pending_secure_connection())
            taken[0].ready_read_handler = forks

        server.new_connection_handler = new
        client.connect_encrypted("localhost", server.port)
        client.write(b"question")
        assert await asyncio.wait_for(told, DEADLINE) == b"question"
        assert await asyncio.wait_for(answered, DEADLINE) == b"answer"
        EventLoop.current().close()

    host = make()
    try:
        fork.during(lambda: host.run_until_complete(main()))
    finally:
        host.close()
    assert fork.said() == PARENTS


def in_thread(target: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_a_fork_while_another_thread_relays_without_the_gil(certificates):
    """The child has only the thread that forked; of the other's loop nothing works, and nothing is harmed."""
    ready, finish, loops = threading.Event(), threading.Event(), []
    data = os.urandom(1 << 20) * 8

    with plain_listener() as left, plain_listener() as right:
        alice = socket.create_connection(left.getsockname(), DEADLINE)
        bob = socket.create_connection(right.getsockname(), DEADLINE)
        ends = [left.accept()[0], right.accept()[0]]

        def relaying():
            from sslsock.core.relay import ChannelRelay

            loop = EventLoop.current()
            loops.append(loop)

            class Observer:
                def _on_relay_closed(self, reason):
                    finish.set()

            for end in ends:
                end.setblocking(False)
            loops.append(ChannelRelay(loop, ends[0].detach(), ends[1].detach(), Observer()))
            ready.set()
            loop.run()
            loop.close()

        thread = in_thread(relaying)
        assert ready.wait(DEADLINE)
        received = bytearray()

        def receive():
            while piece := bob.recv(1 << 16):
                received.extend(piece)
                if 0 < len(received) - len(piece) < len(data) // 2 <= len(received):
                    half.set()

        half = threading.Event()
        reader = in_thread(receive)
        writer = in_thread(lambda: (alice.sendall(data), alice.shutdown(socket.SHUT_WR)))
        assert half.wait(DEADLINE)
        fork = Fork()
        fork.child = os.fork()
        if fork.child == 0:

            def child():
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(int(DEADLINE))
                for use in (loops[0].check, loops[0].run, loops[1].close, lambda: loops[0].call_soon_threadsafe(print)):
                    with pytest.raises(RuntimeError, match="parent process"):
                        use()
                loops.clear()
                gc.collect()
                fork.note(echo_in_this_process())

            fork.during(child)
        fork.status = os.waitpid(fork.child, 0)[1]
        assert fork.said() == "an echo;"
        for one in (writer, reader):
            one.join(DEADLINE)
        assert received == data
        bob.close()
        alice.close()
        assert finish.wait(DEADLINE)
        thread.join(DEADLINE)


def echo_in_this_process() -> str:
    """What comes back, through this thread's loop."""
    loop = EventLoop.current()
    server = listening(TcpServer())
    heard: list[bytes] = []

    def answer(sock):
        sock.write(sock.read_all())

    def take(server):
        sock = server.next_pending_connection()
        sock.ready_read_handler = answer
        server.close()

    server.new_connection_handler = take
    client = TcpSocket()
    client.ready_read_handler = lambda s: (heard.append(s.read_all()), s.disconnect())
    client.connect("127.0.0.1", server.port)
    client.write(b"an echo")
    sslsock.run()
    loop.close()
    return b"".join(heard).decode()


def test_a_child_that_returned_from_a_handler_makes_a_loop_of_its_own(own_host):
    fork = Fork()
    pair = make_tcp_pair(own_host)
    numbers = {pair.client._channel.fileno(), pair.server._channel.fileno()}

    def act():
        own_host.loop.call_soon(fork)
        try:
            sslsock.run()
        except RuntimeError:
            assert EventLoop.current() is not own_host.loop
            fork.note(echo_in_this_process())
            own_host.loop.close()
            still_open = []
            for number in numbers:
                with contextlib.suppress(OSError):
                    still_open.append(os.fstat(number))
            assert not still_open
            raise

    fork.during(act)
    assert fork.said() == "an echo;" + PARENTS
    pair.client.write(b"still there")
    own_host.wait_for(lambda: pair.right.data == b"still there")
    pair.client.abort()


def test_ticket_keys_work_on_both_sides_of_a_fork():
    """The fork takes their lock, so that no thread has it then, and both sides let go of it."""
    keys = TicketKeys()
    before = keys.names
    fork = Fork()
    fork.child = os.fork()
    if fork.child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(DEADLINE))
        fork.during(lambda: (keys.rotate(), fork.note(str(keys.names[1:] == before))))
    fork.status = os.waitpid(fork.child, 0)[1]
    assert fork.said() == "True;"
    assert keys.names == before
    keys.rotate()
    assert keys.names[1:] == before
