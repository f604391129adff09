"""Endpoints: what the methods of a socket that every event uses do by themselves, and when the program ends the connection
inside one of them."""

import contextlib
import gc
import sys

import pytest

import sslsock
from sslsock.core.channel import Channel
from sslsock.core.endpoint import Endpoint

from .pairs import drive, socket_pair

DATA = b"some words\nand more\n"
READING = {
    "read": lambda endpoint: endpoint.read(5),
    "read_all": lambda endpoint: endpoint.read_all(),
    "peek": lambda endpoint: endpoint.peek(),
    "read_line": lambda endpoint: endpoint.read_line(),
    "read_into": lambda endpoint: endpoint.read_into(bytearray(5)),
}
WRITING = {
    "write": lambda endpoint: endpoint.write(bytearray(100)),
    "write, at once": lambda endpoint: endpoint.write(bytes(300_000)),
}


class Connected(Endpoint):
    """An endpoint with a connection, which alone holds the channel. abort: lets go of all, as a socket does."""

    def __init__(self, loop):
        near, self.sock = socket_pair()
        self._loop = loop
        self._channel = self._source = self._sink = Channel(loop, self)
        self._channel.attach(near.detach())
        self.aborted = self.refused = False

    def abort(self):
        channel, self._channel = self._channel, None
        self._source = self._sink = None
        self.aborted = True
        if channel is not None:
            channel.abort()

    def fill(self, loop, bound=0):
        self._channel.read_bound = bound
        self.sock.send(DATA)
        drive(loop, lambda: self.bytes_available >= (bound or len(DATA)), "the data")


@pytest.fixture
def endpoint(loop):
    made = Connected(loop)
    yield made
    made.abort()
    made.sock.close()


def test_without_a_connection_there_is_nothing(loop):
    bare = Endpoint()
    bare._loop = loop
    assert bare.read() == bare.read_all() == bare.peek() == bare.read_line() == b""
    assert bare.read_into(bytearray(1)) == bare.bytes_available == bare.bytes_to_write == 0
    assert bare.write(b"data") == -1
    with pytest.raises(TypeError):
        bare.write("text")
    bare._on_readable()  # nobody to tell, nothing to drop


def test_what_nobody_may_read_is_dropped(loop, endpoint):
    channel, endpoint._source = endpoint._channel, None
    endpoint.sock.send(DATA)
    loop.dispatch(1)
    assert channel.bytes_available == 0


@pytest.mark.parametrize("name", READING)
def test_the_host_ends_the_connection_while_it_is_read(loop, endpoint, name):
    """Reading below a bound asks the host loop for a turn, which is a call of somebody's Python."""
    endpoint.fill(loop, bound=10)
    expected = DATA[:10]
    loop._host_call_soon = lambda callback: endpoint.abort()
    try:
        result = READING[name](endpoint)
    finally:
        loop._host_call_soon = None
    assert endpoint.aborted or name == "peek"
    assert result == (5 if name == "read_into" else expected[:5] if name == "read" else expected)


@pytest.mark.parametrize("name", WRITING)
def test_the_host_ends_the_connection_while_it_is_written_to(loop, endpoint, name):
    endpoint._bytes_written_handler = lambda endpoint, count: None
    loop._host_call_soon = lambda callback: endpoint.abort()
    try:
        assert WRITING[name](endpoint) in (100, 300_000)
    finally:
        loop._host_call_soon = None
    assert endpoint.aborted
    assert loop.watching == 0


def collect_inside(call, offset):
    """`call()`, with the garbage collector run at the allocation of number `offset` from now on."""
    gc.set_threshold(gc.get_count()[0] + offset, 1000, 1000)
    gc.enable()
    try:
        return call()
    finally:
        gc.disable()


@pytest.mark.parametrize("name", {**READING, **WRITING})
@pytest.mark.parametrize("offset", range(1, 7))
def test_the_collector_ends_the_connection_inside_a_method(loop, name, offset):
    endpoint = Connected(loop)
    endpoint.fill(loop, bound=10)
    call = {**READING, **WRITING}[name]

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            endpoint.abort()

    before = gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        Cycle()
        try:
            collect_inside(lambda: call(endpoint), offset)
        except RuntimeError as error:
            assert "finished or closed" in str(error)
    finally:
        gc.set_threshold(*before)
        gc.enable()
    gc.collect()
    assert endpoint.aborted
    assert loop.watching == 0
    endpoint.sock.close()


if sys.version_info >= (3, 12):  # PEP 688: before, no Python code runs when a buffer is asked for

    class Nasty:
        """A buffer; asked for it, or given it back, it does something."""

        def __init__(self, size, asked=lambda: None, returned=lambda: None):
            self.memory = bytearray(size)
            self.asked, self.returned = asked, returned

        def __buffer__(self, flags):
            self.asked()
            return memoryview(self.memory)

        def __release_buffer__(self, view):
            view.release()
            self.returned()

    @pytest.mark.parametrize("moment", ["asked", "returned"])
    def test_a_buffer_ends_the_connection(loop, endpoint, moment):
        endpoint.fill(loop)
        size = endpoint.read_into(Nasty(5, **{moment: endpoint.abort}))
        assert size == 5
        assert endpoint.aborted
        other = Connected(loop)
        assert other.write(Nasty(5, **{moment: other.abort})) == -1
        assert other.aborted
        other.sock.close()

    @pytest.mark.parametrize("moment", ["asked", "returned"])
    def test_a_buffer_reads_itself(loop, endpoint, moment):
        endpoint.fill(loop)
        taken = []
        buffer = Nasty(8, **{moment: lambda: taken.append(endpoint.read(15))})
        size = endpoint.read_into(buffer)
        both = [bytes(buffer.memory[:size]), taken[0]]
        assert b"".join(both if moment == "returned" else both[::-1]) == DATA
        assert endpoint.bytes_available == 0


@pytest.mark.parametrize("kind", [sslsock.TcpSocket, sslsock.SslSocket], ids=lambda kind: kind.__name__)
def test_an_object_whose_class_has_forgotten_init_raises(kind):
    """Whatever is asked of it: it has no loop."""

    class Forgetful(kind):
        def __init__(self):
            pass

    forgetful = Forgetful()
    for name in [name for name in dir(Endpoint) if not name.startswith("__")]:
        for arguments in ((), (b"data",)):
            with contextlib.suppress(AttributeError, TypeError):  # not the end of the process
                method = getattr(forgetful, name)
                if callable(method):
                    method(*arguments)
    for name in ("bytes_available", "can_read_line", "bytes_to_write"):
        with pytest.raises(AttributeError):
            getattr(forgetful, name)
    with pytest.raises(AttributeError):
        forgetful.write(b"data")
