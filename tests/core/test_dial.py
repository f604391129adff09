"""Dials: one attempt to connect, whose descriptor is the caller's when it succeeds."""

import contextlib
import errno
import gc
import os
import socket
import struct
import weakref

import pytest

from sslsock.core.dial import Dial, pack_address
from sslsock.core.loop import Loop

from .pairs import descriptors, drive, turns


class Consumer:
    def __init__(self):
        self.fd = self.errno = None
        self.hook = None
        self.takes = True

    def on_dialed(self, descriptor):
        if self.takes:
            self.fd = descriptor.take()
        if self.hook is not None:
            self.hook()

    def on_dial_failed(self, number):
        self.errno = number
        if self.hook is not None:
            self.hook()


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def full():
    """A listener whose queue is full: a connection to it is not answered."""
    with socket.socket() as server, contextlib.ExitStack() as others:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        others.enter_context(socket.create_connection(server.getsockname()))
        for _ in range(3):
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(server.getsockname())
        yield server


PENDING = -errno.EINPROGRESS


def finish(loop, consumer, result):
    """The descriptor, when the dial that `start` gave `result` for has ended."""
    if result == PENDING:
        drive(loop, lambda: consumer.fd is not None or consumer.errno is not None, "the end of the dial")
        return consumer.fd
    return result if isinstance(result, int) else result.take()


def end_of(loop, consumer, result):
    """The errno with which it has failed, 0 when it has not."""
    if finish(loop, consumer, result) is None:
        return consumer.errno
    return -result if result < 0 and result != PENDING else 0


# addresses


def test_addresses_are_what_the_system_takes():
    packed = pack_address(socket.AF_INET, ("127.0.0.1", 0x1234))
    assert len(packed) == 16 and packed[2:8] == b"\x12\x34\x7f\x00\x00\x01"
    packed = pack_address(socket.AF_INET6, ("fe80::1%lo", 80, 0, 7))
    assert len(packed) == 28 and packed[8:24] == socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert packed[24:28] == (7).to_bytes(4, "little")


def test_what_is_no_numeric_address_is_refused():
    with pytest.raises(OSError):
        pack_address(socket.AF_INET, ("localhost", 80))
    with pytest.raises(OSError):
        pack_address(socket.AF_INET, ("::1", 80))
    with pytest.raises(ValueError, match="family"):
        pack_address(socket.AF_APPLETALK, ("/tmp/x", 80))
    for path in (b"", bytes(200)):
        with pytest.raises(ValueError, match="path"):
            pack_address(socket.AF_UNIX, (path,))
    with pytest.raises(OverflowError):
        pack_address(socket.AF_INET, ("127.0.0.1", 65536))


@pytest.mark.parametrize("address", [b"", b"\x02", b"\x02" * 15, b"\x02" * 17, bytes(200)])
def test_bytes_that_are_no_address_are_refused(loop, address):
    with pytest.raises(ValueError, match="pack_address"):
        Dial(loop, address, Consumer())


def test_both_addresses_are_of_one_family(loop):
    four, six = pack_address(socket.AF_INET, ("127.0.0.1", 1)), pack_address(socket.AF_INET6, ("::", 0))
    with pytest.raises(ValueError, match="family"):
        Dial(loop, four, Consumer(), local=six)
    with pytest.raises(ValueError, match="pack_address"):
        Dial(loop, four, Consumer(), local=b"x")


# connecting


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_it_gives_a_connected_descriptor_that_does_not_block(loop, family):
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as server:
        consumer = Consumer()
        fd = finish(loop, consumer, Dial(loop, pack_address(family, server.getsockname()), consumer).start(0))
        with socket.socket(fileno=fd) as near, server.accept()[0] as far:
            assert near.getpeername() == server.getsockname()
            assert not os.get_blocking(fd) and not os.get_inheritable(fd)
            assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            near.send(b"hello")
            assert far.recv(9) == b"hello"
    assert loop.idle


def test_a_refused_connection_is_told_once(loop):
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else's
        taken.bind(("127.0.0.1", 0))
        before, consumer = descriptors(), Consumer()
        dial = Dial(loop, pack_address(socket.AF_INET, taken.getsockname()), consumer)
        assert end_of(loop, consumer, dial.start(5)) == errno.ECONNREFUSED and consumer.fd is None
        assert loop.idle and descriptors() == before


def test_what_cannot_even_begin_is_the_errno(loop):
    before, consumer = descriptors(), Consumer()
    dial = Dial(loop, pack_address(socket.AF_INET6, ("fe80::1", 9, 0, 0)), consumer)  # link-local without an interface
    assert dial.start(5) in (-errno.EINVAL, -errno.ENETUNREACH, -errno.EADDRNOTAVAIL)
    assert consumer.fd is consumer.errno is None, "told twice"
    with pytest.raises(RuntimeError, match="once"):
        dial.start(5)
    assert descriptors() == before and loop.idle


HOSTS = pytest.mark.parametrize(
    ("family", "host", "any_host"),
    [(socket.AF_INET, "127.0.0.1", "0.0.0.0"), (socket.AF_INET6, "::1", "::"), (socket.AF_INET, "0.0.0.0", "0.0.0.0")],
)


@HOSTS
def test_it_connects_from_the_address_that_it_is_given(loop, family, host, any_host):
    with socket.create_server((host, 0), family=family) as server, socket.socket(family) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((any_host, 0))  # holds the port meanwhile, as a bound TcpSocket does
        local = pack_address(family, (any_host, keeper.getsockname()[1]))
        consumer = Consumer()
        fd = finish(loop, consumer, Dial(loop, pack_address(family, server.getsockname()), consumer, local=local).start(0))
        with socket.socket(fileno=fd) as near, server.accept()[0] as far:
            assert near.getsockname()[1] == keeper.getsockname()[1] == far.getpeername()[1]


def test_a_local_address_that_is_taken_is_the_errno(loop, listening):
    before, consumer = descriptors(), Consumer()
    address = pack_address(socket.AF_INET, listening.getsockname())
    assert Dial(loop, address, consumer, local=address).start(0) == -errno.EADDRINUSE
    assert descriptors() == before and loop.idle


@HOSTS
def test_nobody_is_connected_to_itself(loop, family, host, any_host):
    """On a port that nobody listens on, the two requests that meet make a connection (simultaneous open)."""
    with socket.socket(family) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((any_host, 0))  # its port is nobody else's then, of either family
        port = keeper.getsockname()[1]
        own = pack_address(family, (host, port))
        with socket.socket(family) as check:  # what this test is about does happen here
            check.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            check.bind((host, port))
            check.connect((host, port))
            assert check.getsockname()[1] == check.getpeername()[1] == port
            check.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        before = descriptors()
        for local in (own, pack_address(family, (any_host, port))):
            consumer = Consumer()
            assert end_of(loop, consumer, Dial(loop, own, consumer, local=local).start(0)) == errno.ECONNREFUSED
            assert consumer.fd is None
        assert descriptors() == before and loop.idle
    with socket.socket(family) as server:  # without SO_REUSEADDR: nothing of it lies in TIME_WAIT
        server.bind((host, port))


def test_a_connection_to_the_same_port_of_another_address_is_none_to_itself(loop):
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        local, consumer = pack_address(socket.AF_INET, ("127.0.0.1", port)), Consumer()
        dial = Dial(loop, pack_address(socket.AF_INET, ("127.0.0.2", port)), consumer, local=local)
        with socket.socket(fileno=finish(loop, consumer, dial.start(0))) as near:
            assert (near.getsockname(), near.getpeername()) == (("127.0.0.1", port), ("127.0.0.2", port))


def test_the_deadline_ends_it(loop, full):
    before, consumer = descriptors(), Consumer()
    assert Dial(loop, pack_address(socket.AF_INET, full.getsockname()), consumer).start(0.01) == PENDING
    gc.collect()  # the program holds no reference: the loop does
    drive(loop, lambda: consumer.errno is not None, "the deadline")
    assert consumer.errno == errno.ETIMEDOUT and consumer.fd is None
    assert descriptors() == before and loop.idle


def test_a_cancelled_one_tells_nobody(loop, full):
    before, consumer = descriptors(), Consumer()
    dial = Dial(loop, pack_address(socket.AF_INET, full.getsockname()), consumer)
    dial.cancel()
    assert dial.start(0.01) == PENDING
    dial.cancel()
    dial.cancel()
    assert loop.idle and descriptors() == before
    turns(loop)
    assert consumer.fd is consumer.errno is None
    with pytest.raises(RuntimeError, match="once"):
        dial.start(1)


def test_it_is_started_once(loop, full, listening):
    consumer = Consumer()
    dial = Dial(loop, pack_address(socket.AF_INET, full.getsockname()), consumer)
    dial.start(0)
    with pytest.raises(RuntimeError, match="once"):
        dial.start(0)
    dial.cancel()
    consumer = Consumer()
    dial = Dial(loop, pack_address(socket.AF_INET, listening.getsockname()), consumer)
    os.close(finish(loop, consumer, dial.start(0)))
    with pytest.raises(RuntimeError, match="once"):
        dial.start(0)


def test_without_descriptors_it_is_the_errno(loop, listening, limit_descriptors):
    dial = Dial(loop, pack_address(socket.AF_INET, listening.getsockname()), Consumer())
    with limit_descriptors():
        assert dial.start(1) == -errno.EMFILE


def test_a_consumer_may_raise_and_dial_again(loop, full):
    first, second = Consumer(), Consumer()
    address = pack_address(socket.AF_INET, full.getsockname())

    def again():
        Dial(loop, address, second).start(0.01)
        raise ZeroDivisionError

    first.hook = again
    Dial(loop, address, first).start(0.01)
    drive(loop, lambda: second.errno == errno.ETIMEDOUT, "the second dial's end")
    assert [type(error) for error in loop.exception_handler.take()] == [ZeroDivisionError]


def test_closing_the_loop_ends_it(full):
    before = descriptors()
    loop, consumer = Loop(), Consumer()
    gone = weakref.ref(consumer)
    dial = Dial(loop, pack_address(socket.AF_INET, full.getsockname()), consumer)
    dial.start(5)
    loop.close()
    assert descriptors() == before
    dial.cancel()
    with pytest.raises(RuntimeError):
        dial.start(1)
    del consumer
    gc.collect()
    assert gone() is None


def test_a_descriptor_that_nobody_takes_is_closed(listening):
    """The consumer has raised, or has no use for it any more."""
    loop, consumer = Loop(), Consumer()
    before = descriptors()
    consumer.takes = False
    told = []
    consumer.hook = lambda: told.append(1) or 1 / 0
    loop.exception_handler = lambda loop, context: told.append(context["exception"])
    Dial(loop, pack_address(socket.AF_INET, listening.getsockname()), consumer).start(0)
    drive(loop, lambda: len(told) == 2, "the end of the dial")
    assert isinstance(told[1], ZeroDivisionError)
    told.clear()
    gc.collect()
    assert descriptors() == before
    loop.close()
