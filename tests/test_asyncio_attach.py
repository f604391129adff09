"""Sockets that exist before the asyncio loop that is to serve them: whatever is done with them in it attaches their loop."""

from __future__ import annotations

import asyncio
import gc
import select
import subprocess
import sys
import threading
import warnings

import pytest

import sslsock
from peers import DEADLINE, HOSTS, Recorder, listening, make_tcp_pair, plain_listener
from sslsock import EventLoop, SslSocket, TcpServer, TcpSocket


@pytest.fixture(params=HOSTS[1:])
def run(request, own_host):
    """`asyncio.run`, of both kinds of loop."""
    if request.param == "asyncio":
        return asyncio.run
    uvloop = pytest.importorskip("uvloop")

    def run(main):
        host = uvloop.new_event_loop()
        try:
            return host.run_until_complete(main)
        finally:
            host.run_until_complete(host.shutdown_asyncgens())
            host.close()

    return run


SERVER_USES = {
    "port": lambda server: server.port,
    "address": lambda server: server.address,
    "listening": lambda server: server.listening,
    "has_pending_connections": lambda server: server.has_pending_connections,
    "error": lambda server: server.error,
    "loop": lambda server: server.loop,
    "pause_accepting": lambda server: (server.pause_accepting(), server.resume_accepting()),
    "next_pending_connection": lambda server: server.next_pending_connection(),
    "listen again": lambda server: server.listen(0),
    "handler": lambda server: setattr(server, "new_connection_handler", server.new_connection_handler),
    "another server": lambda server: TcpServer(),
    "another socket": lambda server: TcpSocket(),
    "EventLoop.current": lambda server: EventLoop.current(),
}


@pytest.mark.parametrize("use", SERVER_USES.values(), ids=SERVER_USES)
def test_a_server_that_listened_before(own_host, run, use):
    server = listening(TcpServer())
    port = server.port

    def take(server):
        sock = server.next_pending_connection()
        sock.ready_read_handler = lambda s: s.write(s.read_all())

    server.new_connection_handler = take

    async def main():
        use(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.read(5), DEADLINE) == b"hello"
        writer.close()
        server.close()

    run(main())


SOCKET_USES = {
    "write": lambda sock: sock.write(b""),
    "read": lambda sock: sock.read(),
    "read_into": lambda sock: sock.read_into(bytearray(1)),
    "peek": lambda sock: sock.peek(),
    "bytes_available": lambda sock: sock.bytes_available,
    "bytes_to_write": lambda sock: sock.bytes_to_write,
    "can_read_line": lambda sock: sock.can_read_line,
    "state": lambda sock: sock.state,
    "remote_port": lambda sock: sock.remote_port,
    "error": lambda sock: sock.error,
    "handler": lambda sock: setattr(sock, "connected_handler", None),
    "read_buffer_size": lambda sock: setattr(sock, "read_buffer_size", 0),
    "open": lambda sock: sock.open(3),
    "mode": lambda sock: sock.mode,
    "encrypted": lambda sock: sock.encrypted,
    "loop": lambda sock: sock.loop,
}


@pytest.mark.parametrize("use", SOCKET_USES.values(), ids=SOCKET_USES)
def test_a_socket_that_was_connected_before(own_host, run, use):
    with plain_listener() as listener:
        sock = SslSocket()
        recorder = Recorder(sock)
        sock.connect("127.0.0.1", listener.getsockname()[1])
        own_host.wait_for(lambda: recorder.has("connected"))
        with listener.accept()[0] as peer:

            async def main():
                peer.sendall(b"hello")
                use(sock)
                end = asyncio.get_running_loop().time() + DEADLINE
                while recorder.data != b"hello" and asyncio.get_running_loop().time() < end:
                    await asyncio.sleep(0.001)
                assert recorder.data == b"hello"

            run(main())
            sock.abort()


def test_a_read_that_waits_for_a_handler_alone(own_host, run):
    """Nothing but the handler is set in the new asyncio loop."""
    with plain_listener() as listener:
        sock = TcpSocket()
        recorder = Recorder(sock)

        async def first():
            sock.connect("127.0.0.1", listener.getsockname()[1])
            while not recorder.has("connected"):
                await asyncio.sleep(0.001)

        run(first())
        with listener.accept()[0] as peer:
            peer.sendall(b"hello")

            async def second():
                read = asyncio.get_running_loop().create_future()
                sock.ready_read_handler = lambda s: read.set_result(s.read_all())
                assert await asyncio.wait_for(read, DEADLINE) == b"hello"

            run(second())
            sock.abort()


@pytest.mark.parametrize("kind", HOSTS[1:])
def test_what_was_written_in_one_host_leaves_in_the_next(own_host, kind):
    """The first ends before, or after, the turn that it was asked for."""
    pair = make_tcp_pair(own_host)
    make = asyncio.new_event_loop if kind == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def write(data, size):
        pair.client.write(data)
        while len(pair.right.data) < size:
            await asyncio.sleep(0.001)

    for data, size in ((b"one ", 0), (b"two ", 0), (b"three", 13)):
        host = make()
        host.run_until_complete(asyncio.wait_for(write(data, size), DEADLINE))
        host.close()
    assert pair.right.data == b"one two three"
    pair.client.abort()


def test_a_loop_goes_from_its_own_run_into_asyncio_and_back(own_host, run):
    pair = make_tcp_pair(own_host)
    for number in range(3):
        pair.client.write(b"a")
        pair.right.socket.ready_read_handler = lambda s: (pair.right.data.extend(s.read_all()), sslsock.stop())
        sslsock.run()

        async def main(size=2 * number + 2):
            pair.client.write(b"b")
            while len(pair.right.data) < size:
                await asyncio.sleep(0.001)

        run(main())
    assert pair.right.data == b"ab" * 3
    pair.client.abort()


def test_two_hosts_in_turns(own_host):
    """Neither is closed; each serves the sockets while it runs."""
    hosts = [asyncio.new_event_loop() for _ in range(2)]
    pair = make_tcp_pair(own_host)

    async def main(size):
        pair.client.write(b"x")
        while len(pair.right.data) < size:
            await asyncio.sleep(0.001)

    for size in range(1, 7):
        hosts[size % 2].run_until_complete(asyncio.wait_for(main(size), DEADLINE))
    pair.client.abort()
    own_host.loop.close()
    for host in hosts:
        host.close()


def test_a_host_that_was_set_and_does_not_run_yet(own_host):
    """As Twisted's asyncioreactor and older programs have it: nothing of ours is called in it any more."""
    host = asyncio.new_event_loop()
    asyncio.set_event_loop(host)
    try:
        server = listening(TcpServer())

        def take(server):
            sock = server.next_pending_connection()
            sock.ready_read_handler = lambda s: s.write(s.read_all())

        server.new_connection_handler = take
        port = server.port

        async def main():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await asyncio.wait_for(reader.read(5), DEADLINE) == b"hello"
            writer.close()

        host.run_until_complete(main())
        own_host.wait_for(lambda: True)
        sslsock.EventLoop.current().call_soon(server.close)
        sslsock.run()  # it runs by itself as well
    finally:
        asyncio.set_event_loop(None)
        own_host.loop.close()
        host.close()


TWISTED = """
import sys
from twisted.internet import asyncioreactor
asyncioreactor.install()
from twisted.internet import protocol, reactor
import sslsock

def take(server):
    sock = server.next_pending_connection()
    sock.ready_read_handler = lambda s: s.write(s.read_all())

server = sslsock.TcpServer()
server.new_connection_handler = take
assert server.listen(0, "127.0.0.1")

class Client(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(b"hello")

    def dataReceived(self, data):
        print(data.decode())
        reactor.stop()

factory = protocol.ClientFactory()
factory.protocol = Client
reactor.connectTCP("127.0.0.1", server.port, factory)
reactor.run()
server.close()
"""


def test_a_server_that_listens_before_twisteds_reactor_runs():
    pytest.importorskip("twisted")
    done = subprocess.run([sys.executable, "-c", TWISTED], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr


def test_the_descriptor_tells_of_work_while_the_host_rests(own_host):
    """Whoever nests the loop by hand sees it there."""
    host = asyncio.new_event_loop()

    async def attach():
        EventLoop.current()

    host.run_until_complete(attach())
    own_host.turn()
    seen = []
    own_host.loop.call_soon(seen.append, 1)
    assert select.select([own_host.loop.fileno()], [], [], DEADLINE)[0]
    own_host.loop.dispatch(0)
    assert seen == [1]
    own_host.loop.close()
    host.close()


def test_an_asyncio_loop_that_watches_no_descriptors_is_refused_in_words(own_host):
    class Blind(asyncio.SelectorEventLoop):
        def add_reader(self, *args):
            raise NotImplementedError

    host = Blind()

    async def main():
        with pytest.raises(RuntimeError, match="add_reader"):
            TcpSocket()

    try:
        host.run_until_complete(main())
    finally:
        host.close()


def test_an_asyncio_loop_inside_a_handler_is_told_that_it_cannot_serve(own_host, run):
    """The turn that called the handler has to end first: what would be waited for there never came, without a word."""
    server, sock, failures = listening(TcpServer()), TcpSocket(), []

    async def main():
        for use in (TcpSocket, TcpServer, EventLoop.current, lambda: sock.connect("127.0.0.1", server.port), sslsock.run):
            with pytest.raises(RuntimeError, match="inside a handler of sslsock's own loop"):
                use()

    def handler():
        try:
            run(main())
        except BaseException as exc:
            failures.append(exc)
        sslsock.stop()

    sslsock.run(handler)
    assert not failures
    sock.connect("127.0.0.1", server.port)  # afterwards all is as before
    own_host.wait_for(lambda: sock.state is TcpSocket.CONNECTED_STATE)
    sock.abort()
    server.close()


def test_other_threads_do_not_attach(own_host):
    """A property that is asked in another thread, which has an asyncio loop of its own."""
    server = listening(TcpServer())

    async def main():
        assert server.port
        with pytest.raises(RuntimeError, match="another thread"):
            server.pause_accepting()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(DEADLINE)
    assert own_host.loop.host is None
    server.close()


# What is left, and never served


def said(code: str, *options: str) -> str:
    """What a program writes to its standard error."""
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
    return done.stderr


def test_a_program_that_never_runs_its_loop_is_told():
    code = "import sslsock; s = sslsock.TcpServer(); assert s.listen(0, '127.0.0.1')"
    text = said(code, "-X", "dev")
    assert "ResourceWarning" in text and "has never run" in text and "sslsock.run()" in text
    assert said(code) == ""


@pytest.mark.parametrize("end", ["s.close()", "s.close(); sslsock.run()", "sslsock.EventLoop.current().close()"])
def test_a_program_that_closes_what_it_opened_is_told_nothing(end):
    assert said(f"import sslsock; s = sslsock.TcpServer(); assert s.listen(0, '127.0.0.1'); {end}", "-X", "dev") == ""


def test_a_loop_that_is_dropped_with_open_sockets_is_told_of():
    def thread():
        server = listening(TcpServer())
        assert server.listening

    with pytest.warns(ResourceWarning, match="an event loop with 1 open sockets has never run"):
        worker = threading.Thread(target=thread)
        worker.start()
        worker.join()
        for _ in range(3):
            gc.collect()


def test_a_loop_that_could_not_be_made_leaves_no_word_but_its_error():
    code = """
import os, resource, sslsock
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
try:
    sslsock.EventLoop()
except OSError as error:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert error.errno == 24
"""
    assert said(code, "-X", "dev") == ""


def test_a_loop_of_another_thread_that_outlives_the_program_does_no_harm():
    code = """
import threading, sslsock
def work():
    global server
    server = sslsock.TcpServer()
    assert server.listen(0, "127.0.0.1")
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    assert "Exception ignored" not in said(code, "-X", "dev")


def test_a_loop_that_has_run_is_dropped_in_silence():
    def thread():
        server = listening(TcpServer())
        EventLoop.current().call_soon(sslsock.stop)
        sslsock.run()
        assert server.listening

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        worker = threading.Thread(target=thread)
        worker.start()
        worker.join()
        gc.collect()


async def connect(sock, listener):
    connected = asyncio.get_running_loop().create_future()
    sock.connected_handler = connected.set_result
    sock.connect("127.0.0.1", listener.getsockname()[1])
    await asyncio.wait_for(connected, DEADLINE)


def test_data_that_is_unsent_at_the_end_of_asyncio_run_is_told_of(run):
    with plain_listener() as listener:
        sock = TcpSocket()

        async def main():
            await connect(sock, listener)
            sock.write(bytes(64 << 20))
            await asyncio.sleep(0)

        with pytest.warns(ResourceWarning, match="the asyncio loop ends while [0-9]+ bytes wait to be sent"):
            run(main())
        sock.abort()


def test_data_that_was_sent_is_not_told_of(run):
    with plain_listener() as listener:
        sock = TcpSocket()

        async def main():
            await connect(sock, listener)
            sock.write(b"a few bytes")

        run(main())
        with listener.accept()[0] as peer:
            peer.settimeout(DEADLINE)
            assert peer.recv(100) == b"a few bytes"
        sock.abort()
