"""Listeners: the limit, pausing, descriptors that run out, and the end."""

import os
import socket
import struct
import subprocess
import sys
import textwrap

import pytest

from sslsock.core.door import Door
from sslsock.core.listener import Listener
from sslsock.core.loop import Loop
from sslsock.core.source_limits import SourceLimits

from .pairs import descriptors, drive, turns


class Waiting:
    """A ListenerConsumer that writes down what it is told."""

    def __init__(self, _on_pending=None):
        self.pending = 0
        self.errors = []
        self.hook = _on_pending

    def _on_pending(self):
        self.pending += 1
        if self.hook is not None:
            self.hook()

    def _on_accept_error(self, number):
        self.errors.append(number)


@pytest.fixture
def port(loop):
    """A listening socket's (descriptor, address); the descriptor is the listener's to close."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.setblocking(False)
    return listening.detach, listening.getsockname()


def listen(loop, port, limit=5, consumer=None):
    consumer = consumer or Waiting()
    return Listener(loop, port[0](), consumer, limit), consumer


def connect(port, count=1):
    return [socket.create_connection(port[1]) for _ in range(count)]


def take_all(listener):
    """The descriptors of all that wait."""
    taken = []
    while (connection := listener.take()) is not None:
        taken.append(connection[0])
    return taken


def close_all(*lists):
    for item in (item for items in lists for item in items):
        os.close(item) if isinstance(item, int) else item.close()


def test_a_connection_is_accepted_and_taken(loop, port):
    listener, told = listen(loop, port)
    assert listener.take() is None
    (client,) = connect(port)
    drive(loop, lambda: listener.pending)
    assert told.pending == 1
    taken = take_all(listener)
    assert len(taken) == 1 and not os.get_blocking(taken[0]) and not os.get_inheritable(taken[0])
    client.sendall(b"hello")
    with socket.socket(fileno=taken[0]) as peer:
        peer.setblocking(True)
        assert peer.recv(5) == b"hello"
    close_all([client])
    listener.close()


@pytest.mark.parametrize("taken", [0, 1])
def test_who_is_not_taken_is_counted_no_longer_than_the_listener_lives(loop, port, taken):
    limits = SourceLimits()
    limits.follow(connections=9)
    listener = Listener(loop, port[0](), Waiting(), 5, Door(None, limits, True))
    clients = connect(port, 2)
    drive(loop, lambda: listener.pending == 2)
    mine = [listener.take_counted() for _ in range(taken)]
    listener.close()
    assert limits.present == taken
    for connection in mine:
        limits.leave(connection[2], True)
    assert limits.present == 0
    close_all(clients, [connection[0] for connection in mine])


def test_at_the_limit_the_kernel_queues_until_one_is_taken(loop, port):
    listener, _ = listen(loop, port, limit=3)
    clients = connect(port, 8)
    drive(loop, lambda: listener.pending == 3)
    turns(loop)
    assert listener.pending == 3
    taken = [listener.take()[0]]
    turns(loop)
    assert listener.pending == 3
    while len(taken) < 8:
        drive(loop, lambda: listener.pending)
        taken += take_all(listener)
    listener.close()
    close_all(clients, taken)


def test_a_raised_limit_is_used_at_once(loop, port):
    listener, _ = listen(loop, port, limit=1)
    clients = connect(port, 4)
    drive(loop, lambda: listener.pending == 1)
    listener.limit = 4
    assert listener.limit == 4
    drive(loop, lambda: listener.pending == 4)
    listener.close()
    close_all(clients)


def test_they_are_taken_in_the_order_they_came(loop, port):
    listener, _ = listen(loop, port, limit=100)
    clients = connect(port, 20)
    names = [client.getsockname() for client in clients]
    drive(loop, lambda: listener.pending == 20)
    for name in names:
        fd, address, number = listener.take()
        with socket.socket(fileno=fd) as peer:
            assert peer.getpeername() == (address, number) == name
    listener.close()
    close_all(clients)


@pytest.mark.parametrize(
    "host, family, both, shown",
    [
        ("127.0.0.1", socket.AF_INET, False, "127.0.0.1"),
        ("::1", socket.AF_INET6, False, "::1"),
        ("127.0.0.1", socket.AF_INET6, True, "127.0.0.1"),  # the system shows ::ffff:127.0.0.1
    ],
)
def test_a_connection_comes_with_its_peers_name(loop, host, family, both, shown):
    with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as listening:
        listening.setblocking(False)
        listener = Listener(loop, os.dup(listening.fileno()), Waiting(), 5)
        client = socket.create_connection((host, listening.getsockname()[1]))
    name = client.getsockname()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # a reset: nobody can ask for the name now
    drive(loop, lambda: listener.pending)
    fd, address, number = listener.take()
    assert (address, number) == (shown, name[1])
    listener.close()
    os.close(fd)


def test_a_connection_without_an_address_has_no_name(loop, tmp_path):
    path = os.fspath(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(path)
        listening.listen()
        listening.setblocking(False)
        listener = Listener(loop, os.dup(listening.fileno()), Waiting(), 5)
        client.connect(path)
        drive(loop, lambda: listener.pending)
        fd, address, number = listener.take()
        assert (address, number) == ("", 0)
        listener.close()
        os.close(fd)


def test_more_than_one_turns_worth_is_accepted(loop, port):
    listener, told = listen(loop, port, limit=200)
    clients = connect(port, 100)
    drive(loop, lambda: listener.pending == 100)
    assert told.pending >= 2, "one turn accepts no more than its share"
    listener.close()
    close_all(clients)


def test_pausing_leaves_them_to_the_kernel(loop, port):
    listener, told = listen(loop, port)
    listener.pause()
    assert listener.paused
    clients = connect(port, 2)
    turns(loop)
    assert listener.pending == 0 and told.pending == 0
    listener.resume()
    assert not listener.paused
    drive(loop, lambda: listener.pending == 2)
    listener.close()
    close_all(clients)


def test_pausing_in_the_handler_holds(loop, port):
    listener, told = listen(loop, port, limit=100)
    told.hook = listener.pause
    clients = connect(port, 80)
    drive(loop, lambda: listener.pending)
    turns(loop)
    assert listener.pending < 80 and told.pending == 1
    told.hook = None
    listener.resume()
    drive(loop, lambda: listener.pending == 80)
    listener.close()
    close_all(clients)


@pytest.mark.parametrize("close_loop", [False, True])
def test_closing_closes_what_nobody_has_taken(close_loop):
    loop = Loop()
    before = descriptors()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    address = listening.getsockname()
    listener = Listener(loop, listening.detach(), Waiting(), 10)
    clients = [socket.create_connection(address) for _ in range(3)]
    drive(loop, lambda: listener.pending == 3)
    os.close(listener.take()[0])
    if close_loop:
        loop.close()
    listener.close()
    assert listener.pending == 0 and listener.fileno() == -1
    for client in clients:
        client.settimeout(5)
        assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    close_all(clients)
    listener.close()
    loop.close()
    assert descriptors() == before - 4


def test_closing_in_the_handler_is_fine(loop, port):
    listener, told = listen(loop, port)
    told.hook = listener.close
    clients = connect(port, 3)
    drive(loop, lambda: told.pending)
    turns(loop)
    assert told.pending == 1 and listener.fileno() == -1
    close_all(clients)


def test_a_consumer_that_closes_in_its_finalizer_closes_once(loop, port):
    class Last(Waiting):
        def __del__(self):
            self.listener.close()
            decoys.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(3))

    decoys = []
    consumer = Last()
    consumer.listener = listener = Listener(loop, port[0](), consumer, 5)
    number = listener.fileno()
    del consumer
    listener.close()
    assert number in decoys
    turns(loop)
    for decoy in decoys:
        os.fstat(decoy)
    close_all(decoys)


@pytest.mark.parametrize("exception", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_handler_is_reported(loop, port, exception):
    def hook():
        raise exception("mine")

    listener, _ = listen(loop, port, consumer=Waiting(hook))
    clients = connect(port)
    if exception is ValueError:
        drive(loop, lambda: listener.pending)
        assert isinstance(loop.exception_handler.take()[0], ValueError)
    else:
        with pytest.raises(KeyboardInterrupt):
            drive(loop, lambda: False)
    assert listener.pending == 1
    listener.close()
    close_all(clients)


def test_a_nested_turn_in_the_handler_is_fine(loop, port):
    listener, told = listen(loop, port, limit=100)
    told.hook = lambda: turns(loop, 2)
    clients = connect(port, 80)
    drive(loop, lambda: listener.pending == 80)
    listener.close()
    close_all(clients)


def test_what_does_not_listen_cannot_be_watched(loop):
    with pytest.raises(OSError):
        Listener(loop, -1, Waiting(), 1)
    with pytest.raises(TypeError):
        Listener(None, 0, Waiting(), 1)


def test_connections_that_are_reset_while_they_wait_do_no_harm(loop, port):
    listener, told = listen(loop, port, limit=50)
    for client in connect(port, 10):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    (client,) = connect(port)
    drive(loop, lambda: listener.pending)
    turns(loop)
    assert not told.errors
    close_all(take_all(listener), [client])
    listener.close()


def test_without_descriptors_it_rests_and_goes_on_later():
    """In a process of its own, for its limit on descriptors is low."""
    program = textwrap.dedent("""
        import errno, os, resource, socket
        from sslsock.core.listener import Listener
        from sslsock.core.loop import Loop

        class Consumer:
            errors = []
            def _on_pending(self): pass
            def _on_accept_error(self, number): self.errors.append(number)

        loop = Loop()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        address = listening.getsockname()
        listener = Listener(loop, listening.detach(), Consumer(), 30)
        clients = [socket.create_connection(address) for _ in range(4)]
        highest = max(map(int, os.listdir("/proc/self/fd")))
        spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, *spare) + 1,) * 2)
        while True:  # the holes below the limit
            try:
                spare.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        begin, turns = loop.time(), 0
        while len(Consumer.errors) < 3:
            loop.dispatch(5)
            turns += 1
        assert set(Consumer.errors) == {errno.EMFILE}, Consumer.errors
        assert loop.time() - begin > 0.1 and turns < 50, (loop.time() - begin, turns)
        for fd in spare[:5]:
            os.close(fd)
        while listener.pending < min(4, len(spare)):
            loop.dispatch(5)
        listener.close()
        loop.close()
        print("fine")
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stderr
