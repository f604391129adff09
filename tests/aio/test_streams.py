"""Each scenario with asyncio's streams and with ours, over a transport that remembers its calls: results, exceptions and the
state of every attribute are the same.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import weakref
from collections.abc import Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from sslsock import aio

THEIRS: Any = SimpleNamespace(
    StreamReader=asyncio.StreamReader, StreamWriter=asyncio.StreamWriter, StreamReaderProtocol=asyncio.StreamReaderProtocol
)
OURS: Any = aio
HOSTS: list[Any] = [aio.new_event_loop, asyncio.SelectorEventLoop]

Scenario = Callable[["Kit"], Coroutine[Any, Any, None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


class Remembering(asyncio.Transport):
    """Does nothing, and tells what was asked of it."""

    def __init__(self, told: list[Any]) -> None:
        super().__init__({"peername": "somebody"})
        self.told = told
        self.closing = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("write", "writelines", "write_eof", "pause_reading", "resume_reading", "abort", "set_protocol"):
            return lambda *args: self.told.append((name, *(bytes(a) if isinstance(a, bytearray) else a for a in args)))
        return super().__getattribute__(name)

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.told.append("close")
        self.closing = True


def in_words(value: Any) -> Any:
    """What can be compared of it, whichever classes it comes from."""
    if isinstance(value, BaseException):
        more = {key: in_words(item) for key, item in vars(value).items()}
        return (type(value).__name__, str(value), more, in_words(value.__cause__), in_words(value.__context__))
    if isinstance(value, asyncio.Future):
        return ("future", value.done(), value.cancelled())
    if isinstance(value, (bytes, bytearray)):
        return (type(value).__name__, bytes(value))
    if isinstance(value, (type(None), bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple, dict)):
        return [in_words(item) for item in (value.items() if isinstance(value, dict) else value)]
    return type(value).__name__


class Kit:
    """The streams of one of the two, and what is told of them."""

    def __init__(self, classes: Any) -> None:
        self.classes = classes
        self.loop = asyncio.get_running_loop()
        self.told: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.kept: list[Any] = []
        self.transports: list[Remembering] = []
        self.loop.set_exception_handler(
            lambda loop, context: self.tell("handler", context["message"], context.get("exception"))
        )

    def tell(self, *what: Any) -> None:
        self.told.append(in_words(what))

    def reader(self, limit: Any = 8, **more: Any) -> Any:
        return self.classes.StreamReader(limit=limit, loop=self.loop, **more)

    def streams(self, limit: Any = 8, connected: Any = None) -> tuple[Any, Any, Any, Remembering]:
        """reader, writer, protocol, transport"""
        reader = self.reader(limit)
        protocol = self.classes.StreamReaderProtocol(reader, connected, loop=self.loop)
        transport = Remembering(self.told)
        protocol.connection_made(transport)
        writer = self.classes.StreamWriter(transport, protocol, reader, self.loop)
        self.kept.append((reader, writer))  # a writer that is gone closes its transport
        self.transports.append(transport)
        return reader, writer, protocol, transport

    async def ends(self, coroutine: Any) -> None:
        """What is awaited ends so."""
        try:
            result = await coroutine
        except BaseException as exc:
            self.tell("raised", exc)
        else:
            self.tell("returned", result)

    async def begin(self, coroutine: Any) -> asyncio.Task[Any]:
        """A task that waits."""
        task = self.loop.create_task(self.ends(coroutine))
        self.tasks.append(task)
        await self.turn()
        self.tell("waits", not task.done())
        return task

    async def turn(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    def state(self, instance: Any) -> None:
        """Every attribute that asyncio's instances have."""
        reader = THEIRS.StreamReader(loop=self.loop)
        model = reader if isinstance(instance, asyncio.StreamReader) else THEIRS.StreamReaderProtocol(reader, loop=self.loop)
        names = sorted(vars(model).keys() - {"_loop"})
        self.tell(type(instance).__name__, [(name, getattr(instance, name, "nothing")) for name in names])


def told_by(classes: Any, scenario: Callable[[Kit], Coroutine[Any, Any, None]], host: Any) -> list[Any]:
    async def main() -> list[Any]:
        kit = Kit(classes)
        await scenario(kit)
        for task in kit.tasks:
            task.cancel()
        await asyncio.gather(*kit.tasks, return_exceptions=True)
        for transport in kit.transports:
            transport.closing = True
        return kit.told

    loop = host()
    try:
        return list(loop.run_until_complete(main()))
    finally:
        loop.close()


# Reading


READS: dict[str, Callable[[Any], Any]] = {
    "read": lambda r: r.read(5),
    "read nothing": lambda r: r.read(0),
    "read all": lambda r: r.read(),
    "read -7": lambda r: r.read(-7),
    "read True": lambda r: r.read(True),
    "read much": lambda r: r.read(2**70),
    "readexactly": lambda r: r.readexactly(5),
    "readexactly nothing": lambda r: r.readexactly(0),
    "readexactly -1": lambda r: r.readexactly(-1),
    "readexactly much": lambda r: r.readexactly(20),
    "readexactly a text": lambda r: r.readexactly("5"),
    "readline": lambda r: r.readline(),
    "readuntil": lambda r: r.readuntil(),
    "readuntil two": lambda r: r.readuntil(b"\r\n"),
    "readuntil long": lambda r: r.readuntil(b"ab\r\ncd"),
    "readuntil nothing": lambda r: r.readuntil(b""),
    "readuntil a bytearray": lambda r: r.readuntil(bytearray(b"\n")),
    "readuntil one of": lambda r: r.readuntil((b"\r\n", b"b")),
    "readuntil none of": lambda r: r.readuntil(()),
    "readuntil a text": lambda r: r.readuntil("\n"),
    "anext": lambda r: r.__anext__(),
}
DATA = [
    *(b"", b"a\n", b"ab\r\ncd", b"abcde", b"abcdefgh\n", b"abcdefghi\n"),
    *(b"abcdefghijklmnopqrstuvwxyz", b"abcdefghijklmnopqrstuvw\n\n"),
]


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("data", DATA, ids=repr)
@pytest.mark.parametrize("limit", [1, 8, 9.5, 2**70])
def test_each_way_to_read(name: str, data: bytes, limit: Any) -> None:
    async def scenario(kit: Kit) -> None:
        for end in ("before", "after", "never", "exception before", "exception after"):
            reader, _writer, protocol, transport = kit.streams(limit)
            kit.tell(end)
            if end == "exception before":
                reader.set_exception(OSError("the line is cut"))
            if data:
                protocol.data_received(data)
            if end == "before":
                reader.feed_eof()
            await kit.begin(READS[name](reader))
            kit.state(reader)
            if end == "after":
                protocol.eof_received()
            elif end == "exception after":
                reader.set_exception(OSError("the line is cut"))
            await kit.turn()
            kit.state(reader)
            kit.tell(reader.at_eof(), reader.exception(), repr(reader._eof))
            await kit.begin(READS[name](reader))
            transport.closing = True

    assert told_by(OURS, scenario, aio.new_event_loop) == told_by(THEIRS, scenario, aio.new_event_loop)


@pytest.mark.parametrize("seed", range(60))
def test_any_pieces(seed: int) -> None:
    """Random data, in random pieces, read in random ways, with pauses; seeds are the cases."""

    async def scenario(kit: Kit) -> None:
        chance = random.Random(seed)
        reader, _writer, protocol, transport = kit.streams(chance.choice([1, 3, 8, 40]))
        left = bytes(chance.choice(b"ab\r\n") for _ in range(chance.randrange(200)))
        ways = [name for name in READS if name not in ("readuntil a text", "readexactly a text", "readexactly much")]
        while left:
            size = chance.randrange(1, 12)
            if chance.random() < 0.6:
                protocol.data_received(left[:size])
                left = left[size:]
            if chance.random() < 0.6:
                way = chance.choice(ways)
                kit.tell(way)
                await kit.begin(READS[way](reader))
            if chance.random() < 0.1 and kit.tasks:
                kit.tasks[-1].cancel()
            if chance.random() < 0.5:
                await kit.turn()
            kit.state(reader)
        protocol.eof_received()
        await kit.turn()
        for _ in range(3):
            await kit.begin(READS[chance.choice(ways)](reader))
            kit.state(reader)
        transport.closing = True

    assert told_by(OURS, scenario, aio.new_event_loop) == told_by(THEIRS, scenario, aio.new_event_loop)


@scenario
async def lines(kit: Kit) -> None:
    reader, _, protocol, _transport = kit.streams(64)
    protocol.data_received(b"one\ntwo\n\nthree")
    protocol.eof_received()
    async for line in reader:
        kit.tell(line)
    kit.state(reader)


@scenario
async def two_who_wait(kit: Kit) -> None:
    for first, second in (("read", "readline"), ("readline", "readuntil"), ("readexactly", "read"), ("anext", "readexactly")):
        reader, _, protocol, transport = kit.streams()
        await kit.begin(READS[first](reader))
        await kit.begin(READS[second](reader))
        kit.state(reader)
        protocol.data_received(b"enough\n")
        await kit.turn()
        kit.state(reader)
        transport.closing = True


@scenario
async def a_reader_is_cancelled_and_another_goes_on(kit: Kit) -> None:
    for name in ("read", "read all", "readexactly", "readline", "readuntil", "anext"):
        reader, _, protocol, transport = kit.streams()
        task = await kit.begin(READS[name](reader))
        task.cancel()
        await kit.turn()
        kit.state(reader)
        task = await kit.begin(READS[name](reader))
        protocol.data_received(b"a")
        task.cancel()  # when it is woken already
        await kit.turn()
        kit.state(reader)
        await kit.begin(READS[name](reader))
        protocol.data_received(b"bcdef\n")
        protocol.eof_received()
        await kit.turn()
        kit.state(reader)
        transport.closing = True


@scenario
async def woken_and_then_an_exception(kit: Kit) -> None:
    for name in ("read", "readexactly", "readline"):
        for data in (b"a", b"enough\n"):
            reader, _, protocol, transport = kit.streams()
            await kit.begin(READS[name](reader))
            protocol.data_received(data)
            reader.set_exception(OSError("the line is cut"))
            await kit.turn()
            kit.state(reader)
            transport.closing = True


@scenario
async def paused_and_resumed(kit: Kit) -> None:
    reader, _, protocol, _transport = kit.streams(4)
    for size in (8, 1, 1):
        protocol.data_received(b"x" * size)
        kit.state(reader)
    for size in (1, 4, 1, 1):
        await kit.ends(reader.read(size))
        kit.state(reader)
    protocol.data_received(b"y" * 20)
    await kit.begin(reader.readexactly(30))
    kit.state(reader)
    protocol.data_received(b"z" * 20)
    await kit.turn()
    kit.state(reader)
    await kit.begin(reader.readline())
    kit.state(reader)


@scenario
async def a_transport_that_cannot_pause(kit: Kit) -> None:
    class Unstoppable(Remembering):
        def __getattribute__(self, name: str) -> Any:
            if name == "pause_reading":
                return asyncio.ReadTransport().pause_reading
            return super().__getattribute__(name)

    reader = kit.reader(4)
    reader.set_transport(Unstoppable(kit.told))
    for _ in range(3):
        reader.feed_data(b"x" * 5)
        kit.state(reader)


@scenario
async def odd_food(kit: Kit) -> None:
    for data in (b"", bytearray(b"ab"), memoryview(b"cd"), [101, 102], "text", None, 5):
        reader = kit.reader()
        try:
            reader.feed_data(data)
        except Exception as exc:
            kit.tell(type(exc).__name__)
        kit.state(reader)
    reader.feed_eof()
    try:
        reader.feed_data(b"late")
    except AssertionError as exc:
        kit.tell(exc)


@scenario
async def a_buffer_that_somebody_looks_at(kit: Kit) -> None:
    """As redis-py does; and one that cannot be shortened while it is lent."""
    reader = kit.reader(64)
    reader.feed_data(b"one\ntwo\n")
    kit.tell(bytes(reader._buffer), len(reader._buffer))
    view = memoryview(reader._buffer)
    await kit.ends(reader.readexactly(2))
    try:
        reader.feed_data(b"three\n")
    except BufferError as exc:
        kit.tell(exc)
    view.release()
    kit.state(reader)
    await kit.ends(reader.readline())
    reader._buffer = bytearray(b"another\n")
    await kit.ends(reader.readline())
    del reader._buffer[:]
    task = await kit.begin(reader.readuntil(b"\n"))
    reader.feed_data(b"long enough")
    await kit.turn()
    reader._buffer.clear()
    reader.feed_data(b"x\n")
    await kit.turn()
    kit.tell(task.done())
    kit.state(reader)


@scenario
async def nothing_happens_before_it_is_awaited(kit: Kit) -> None:
    reader, writer, protocol, _transport = kit.streams(64)
    calls = [reader.readline(), reader.read(3), reader.readexactly(2), writer.drain()]
    kit.state(reader)
    protocol.data_received(b"one\ntwothree")
    for call in calls:
        await kit.ends(call)
    unused = reader.readline()
    unused.close()
    await kit.ends(unused)
    spent = reader.read(1)
    await spent
    await kit.ends(spent)
    try:
        spent.send(None)
    except RuntimeError as exc:
        kit.tell(exc)
    spent.close()
    fresh = reader.read(1)
    try:
        fresh.send(5)
    except TypeError as exc:
        kit.tell(exc)
    fresh.close()
    fresh = reader.read(1)
    try:
        fresh.throw(ValueError("thrown"))
    except ValueError as exc:
        kit.tell(exc)
    await kit.ends(fresh)
    kit.state(reader)


@scenario
async def closed_while_it_waits(kit: Kit) -> None:
    reader, _, _, _transport = kit.streams()
    call = reader.readline()
    future = call.send(None)
    kit.tell(future)
    kit.state(reader)
    call.close()
    kit.state(reader)
    call = reader.readline()
    call.send(None)
    try:
        call.throw(KeyError("thrown"))
    except KeyError as exc:
        kit.tell(exc)
    kit.state(reader)
    call = reader.readline()
    call.send(None)
    del call
    kit.state(reader)


@scenario
async def tasks_of_calls(kit: Kit) -> None:
    reader, writer, protocol, _transport = kit.streams(64)
    tasks = [asyncio.ensure_future(reader.readline()), kit.loop.create_task(writer.drain())]
    unused = [reader.readline(), writer.drain()]
    kit.tell([asyncio.iscoroutine(call) for call in unused])
    for call in unused:
        call.close()
    await kit.turn()
    kit.tell([task.done() for task in tasks], [repr(task.get_coro()).split(" at ")[0] for task in tasks])
    protocol.data_received(b"line\n")
    kit.tell(await asyncio.gather(*tasks))
    try:
        await asyncio.wait_for(reader.readline(), 0.001)
    except asyncio.TimeoutError:
        kit.tell("late")
    kit.state(reader)


# Writing


@scenario
async def writing(kit: Kit) -> None:
    reader, writer, protocol, transport = kit.streams()
    writer.write(b"data")
    writer.write(bytearray(b"more"))
    writer.writelines([b"a", b"b"])
    kit.tell(writer.can_write_eof(), writer.is_closing(), writer.get_extra_info("peername"), writer.get_extra_info("no", 5))
    writer.write_eof()
    await kit.ends(writer.drain())
    writer.close()
    await kit.ends(writer.drain())
    await kit.begin(writer.wait_closed())
    protocol.connection_lost(None)
    await kit.turn()
    await kit.ends(writer.drain())
    await kit.ends(writer.wait_closed())
    kit.state(protocol)
    kit.state(reader)
    kit.tell(repr(writer).split("=")[0], writer.transport is transport)


@scenario
async def draining_waits(kit: Kit) -> None:
    for exc in (None, OSError("the line is cut")):
        _reader, writer, protocol, transport = kit.streams()
        protocol.pause_writing()
        await kit.begin(writer.drain())
        protocol.resume_writing()
        await kit.turn()
        protocol.pause_writing()
        await kit.begin(writer.drain())
        kit.state(protocol)
        protocol.connection_lost(exc)
        await kit.turn()
        await kit.ends(writer.drain())
        kit.state(protocol)
        transport.closing = True
        await kit.ends(writer.drain())
        await kit.ends(writer.wait_closed())


@scenario
async def draining_is_cancelled(kit: Kit) -> None:
    _, writer, protocol, transport = kit.streams()
    protocol.pause_writing()
    task = await kit.begin(writer.drain())
    task.cancel()
    await kit.turn()
    kit.state(protocol)
    await kit.begin(writer.drain())
    protocol.resume_writing()
    await kit.turn()
    kit.state(protocol)
    transport.closing = True
    protocol.pause_writing()
    task = await kit.begin(writer.drain())
    task.cancel()
    await kit.turn()


@scenario
async def draining_of_a_reader_that_failed(kit: Kit) -> None:
    reader, writer, _, transport = kit.streams()
    reader.set_exception(OSError("the line is cut"))
    await kit.ends(writer.drain())
    writer = kit.classes.StreamWriter(transport, writer._protocol, None, kit.loop)
    await kit.ends(writer.drain())
    transport.closing = True


@scenario
async def draining_yields_while_the_transport_closes(kit: Kit) -> None:
    _, writer, protocol, transport = kit.streams()
    transport.closing = True
    kit.loop.call_soon(protocol.connection_lost, None)
    await kit.ends(writer.drain())


# The protocol


@scenario
async def a_callback_of_each_kind(kit: Kit) -> None:
    async def good(reader: Any, writer: Any) -> None:
        kit.tell("connected", await reader.readline(), type(writer).__name__)
        writer.close()

    async def bad(reader: Any, writer: Any) -> None:
        raise ValueError("a coroutine")

    async def patient(reader: Any, writer: Any) -> None:
        await reader.read()

    def plain(reader: Any, writer: Any) -> None:
        kit.tell("plain")
        writer.close()

    def bad_function(reader: Any, writer: Any) -> None:
        raise ValueError("a function")

    for connected in (good, bad, patient, plain, bad_function):
        kit.tell(connected.__name__)
        reader = kit.reader(64)
        protocol = kit.classes.StreamReaderProtocol(reader, connected, loop=kit.loop)
        transport = Remembering(kit.told)
        try:
            protocol.connection_made(transport)
        except ValueError as exc:
            kit.tell(exc)
        kit.tell(protocol._stream_reader is reader)
        protocol.data_received(b"line\n")
        await kit.turn()
        if connected is patient and sys.version_info >= (3, 13):
            protocol._task.cancel()
            await kit.turn()
        transport.closing = True
        protocol.eof_received()
        protocol.connection_lost(None)
        await kit.turn()
        kit.tell(protocol._stream_reader, protocol._transport)
        kit.state(reader)


@scenario
async def a_reader_that_is_gone(kit: Kit) -> None:
    reader = kit.reader()
    protocol = kit.classes.StreamReaderProtocol(reader, loop=kit.loop)
    transport = Remembering(kit.told)
    protocol.connection_made(transport)
    seen = weakref.ref(reader)
    del reader
    kit.tell(seen() is None, protocol._stream_reader)
    protocol.data_received(b"nobody reads this")
    kit.tell(protocol.eof_received())
    protocol.connection_lost(None)
    kit.state(protocol)
    await kit.turn()


@scenario
async def a_protocol_without_a_reader(kit: Kit) -> None:
    protocol = kit.classes.StreamReaderProtocol(None, loop=kit.loop)
    transport = Remembering(kit.told)
    protocol.connection_made(transport)
    protocol.data_received(b"nobody reads this")
    protocol.connection_lost(OSError("the line is cut"))
    kit.state(protocol)
    await kit.turn()


@scenario
async def classes_of_a_programs_own(kit: Kit) -> None:
    class Reader(kit.classes.StreamReader):  # type: ignore[name-defined, misc]
        def feed_data(self, data: Any) -> None:
            kit.tell("fed", data)
            super().feed_data(data)

        async def readuntil(self, separator: Any = b"\n") -> Any:
            kit.tell("readuntil", separator)
            return await super().readuntil(separator)

        async def _wait_for_data(self, name: str) -> None:
            kit.tell("waits", name)
            await super()._wait_for_data(name)

        def exception(self) -> Any:
            kit.tell("asked")
            return None

    class Writer(kit.classes.StreamWriter):  # type: ignore[name-defined, misc]
        async def drain(self) -> None:
            kit.tell("drains")
            await super().drain()

    class Protocol(kit.classes.StreamReaderProtocol):  # type: ignore[name-defined, misc]
        async def _drain_helper(self) -> None:
            kit.tell("helps")
            await super()._drain_helper()

    reader = Reader(limit=64, loop=kit.loop)
    protocol = Protocol(reader, loop=kit.loop)
    transport = Remembering(kit.told)
    protocol.connection_made(transport)
    writer = Writer(transport, protocol, reader, kit.loop)
    await kit.begin(reader.readline())
    protocol.data_received(b"a line\nand more than that")
    await kit.turn()
    for name in ("read", "readexactly"):
        await kit.ends(READS[name](reader))
    reader.feed_eof()
    await kit.ends(reader.__anext__())
    writer.write(b"x")
    await kit.ends(writer.drain())
    another = kit.classes.StreamWriter(transport, protocol, reader, kit.loop)
    await kit.ends(another.drain())
    transport.closing = True


# From CPython 3.13 on nothing keeps the writer of a callback that has failed.
@pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")
@pytest.mark.parametrize("host", HOSTS, ids=["our loop", "asyncio's loop"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario(name: str, host: Any) -> None:
    theirs = told_by(THEIRS, SCENARIOS[name], host)
    assert told_by(OURS, SCENARIOS[name], host) == theirs
    assert theirs


# What asyncio has nothing to be compared with


def test_what_was_never_awaited_is_told() -> None:
    async def main() -> None:
        reader = aio.StreamReader(loop=asyncio.get_running_loop())
        with pytest.warns(RuntimeWarning, match=r"coroutine 'StreamReader.readline' was never awaited"):
            reader.readline()

    aio.run(main())


@pytest.fixture
def nothing_left() -> Iterator[None]:
    names = ("ReadUntilCall", "ReadCall", "DrainCall", "StreamReader")

    def count() -> int:
        gc.collect()
        return sum(type(item).__name__ in names for item in gc.get_objects())

    before = count()
    yield
    assert count() == before


def test_a_task_that_waits_is_no_leak(nothing_left: None) -> None:
    """A cycle through a reader that waits is collected, and so is one whose task is destroyed."""

    async def main() -> None:
        async def forever() -> None:
            reader = aio.StreamReader(loop=asyncio.get_running_loop())
            reader.itself = reader  # type: ignore[attr-defined]
            await reader.readuntil(b"\n")

        waits = forever()
        waits.send(None)
        del waits
        task = asyncio.get_running_loop().create_task(forever())
        await asyncio.sleep(0)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        del task
        gc.collect()

    aio.run(main())
