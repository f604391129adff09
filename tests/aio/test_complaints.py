"""What is complained of in public about asyncio over TLS, each as a test: ends that stall, tracebacks after an end, data where
none may come, errors that reach the log and not the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import warnings
from typing import Any, Callable

import pytest
from far_end import Buffered, Certificates, FarEnd, Plain, Recorder, World, described

from peers import DEADLINE

ROLES = [False, True]
FOR_EVER = 100 * DEADLINE  # a time-out that no test sees


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


def world(certificates: Certificates, server: bool, tls: bool = True) -> World:
    return World(certificates, True, tls, server)


def names(w: World) -> list[Any]:
    return [event[0] for event in w.events]


# The end


@pytest.mark.parametrize("server", ROLES)
def test_a_close_does_not_wait_for_a_close_notify_that_never_comes(server: bool, certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        near, far = await w.connect()
        near.transport.write(b"last words")
        near.transport.close()
        await w.told("connection_lost")
        assert await far.receive_all() == b"last words"

    assert world(certificates, server).run(scenario) == [("connection_made",), ("connection_lost", None)]


@pytest.mark.parametrize("server", ROLES)
def test_what_the_peer_sends_after_our_close_surfaces_nowhere(
    server: bool, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(w: World) -> None:
        near, far = await w.connect()
        near.transport.close()
        await far.send(os.urandom(200_000))
        await w.told("connection_lost")
        assert await far.receive_all() == b""
        await far.send(os.urandom(200_000))
        await far.say_end()
        await w.quiet()

    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        assert world(certificates, server).run(scenario) == [("connection_made",), ("connection_lost", None)]
    assert not warned and not caplog.records


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has no such time limit")
@pytest.mark.parametrize("server", ROLES)
def test_a_peer_that_takes_nothing_holds_the_end_up_for_the_shutdown_time_out_only(
    server: bool, certificates: Certificates
) -> None:
    async def scenario(w: World) -> None:
        beginning, far = await w.raw(lambda: Plain(w), ssl=w.near, ssl_shutdown_timeout=0.05)
        await far.start_tls(w.far, not w.server)
        if not server:
            await beginning
        await w.told("connection_made")
        near = w.recorders[-1]
        near.transport.write(bytes(64 << 20))
        near.transport.close()
        assert "connection_lost" not in names(w)
        await w.told("connection_lost")

    events = world(certificates, server).run(scenario)
    assert events == [("connection_made",), ("pause_writing",), ("connection_lost", ("TimeoutError", None))]


@pytest.mark.parametrize("ends", ["in order", "cut"])
@pytest.mark.parametrize("server", ROLES)
def test_a_clean_end_and_a_cut_connection_can_be_told_apart(server: bool, ends: str, certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        near, far = await w.connect()
        transport = near.transport
        assert transport.get_extra_info("clean_close") is None
        await far.send(b"half of it")
        if ends == "in order":
            await far.say_end()
        else:
            far.cut()
        await w.told("connection_lost")
        assert near.received == b"half of it"
        assert transport.get_extra_info("clean_close") is (ends == "in order")

    world(certificates, server).run(scenario)


# Reading and writing


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_writelines_pauses_as_write_does(tls: bool, certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        near, far = await w.connect()
        pieces = [bytes(1 << 20) for _ in range(16)]
        near.transport.writelines(pieces)
        assert names(w) == ["connection_made", "pause_writing"]
        assert near.transport.get_write_buffer_size() > near.transport.get_write_buffer_limits()[1]
        await far.receive_exactly(16 << 20)
        await w.told("resume_writing")
        assert near.transport.get_write_buffer_size() == 0

    world(certificates, False, tls).run(scenario)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("memory", [bytearray, lambda size: memoryview(bytearray(size))], ids=["bytearray", "memoryview"])
@pytest.mark.parametrize("size", [1, 100, 16384, 100_000])
def test_any_writable_buffer_of_a_buffered_protocol(
    memory: Callable[[int], Any], size: int, tls: bool, certificates: Certificates
) -> None:
    data = os.urandom(3000 if size == 1 else 300_000)
    got = bytearray()

    class Filled(Buffered):
        def get_buffer(self, hint: int) -> Any:
            self.lent = memory(size)
            return self.lent

        def buffer_updated(self, count: int) -> None:
            assert 0 < count <= size
            got.extend(self.lent[:count])
            self.world.wake()

    async def scenario(w: World) -> None:
        _near, far = await w.connect(Filled)
        sending = w.loop.create_task(far.send(data))
        await w.until(lambda: len(got) == len(data))
        await sending

    world(certificates, True, tls).run(scenario)
    assert got == data


# What a protocol's callback raises


CALLBACKS: dict[str, tuple[type[Recorder], Callable[[World, Any, FarEnd], Any]]] = {
    "data_received": (Plain, lambda w, near, far: far.send(b"x")),
    "buffer_updated": (Buffered, lambda w, near, far: far.send(b"x")),
    "get_buffer": (Buffered, lambda w, near, far: far.send(b"x")),
    "eof_received": (Plain, lambda w, near, far: far.say_end()),
}


def raises(kind: type[BaseException]) -> Callable[[Any], Any]:
    def function(near: Any) -> None:
        raise kind("of the program")

    return function


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_an_exception_in_one_protocol_is_no_other_connections_trouble(
    callback: str, tls: bool, certificates: Certificates
) -> None:
    kind, provoke = CALLBACKS[callback]

    async def scenario(w: World) -> None:
        calm, calm_far = await w.connect()
        near, far = await w.connect(kind, **{callback: raises(ValueError)})
        await provoke(w, near, far)
        await w.told("connection_lost")
        assert near.lost and not calm.lost
        await calm_far.send(b"still here")
        await w.until(lambda: calm.received == b"still here")

    events = world(certificates, True, tls).run(scenario)
    handled = [event for event in events if event[0] == "exception handler"]
    told = f"Fatal error: protocol.{callback}() call failed."
    keys = ["exception", "message", "protocol", "transport"]
    assert handled == [("exception handler", told, ("ValueError", "of the program"), keys)]
    assert ("connection_lost", ("ValueError", "of the program")) in events


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("callback", [*CALLBACKS, "connection_made", "connection_lost", "pause_writing", "resume_writing"])
def test_what_ends_programs_leaves_run_forever_wherever_it_is_raised(
    callback: str, kind: type[BaseException], certificates: Certificates
) -> None:
    w = world(certificates, True)
    raising = raises(kind)

    async def scenario() -> None:
        protocol = CALLBACKS[callback][0] if callback in CALLBACKS else Plain
        near, far = await w.connect(protocol, **{callback: raising})
        if callback in CALLBACKS:
            await CALLBACKS[callback][1](w, near, far)
        elif callback == "connection_lost":
            near.transport.close()
        else:
            near.transport.write(bytes(16 << 20))
            await far.receive_exactly(16 << 20)
        await asyncio.sleep(FOR_EVER)

    task = w.loop.create_task(scenario())
    with pytest.raises(kind, match="of the program"):
        w.loop.run_until_complete(task)
    task.cancel()
    for recorder in w.recorders:
        recorder.then.clear()  # what was not read is there still

    async def after() -> int:
        await asyncio.sleep(0)
        return 5

    try:
        assert w.loop.run_until_complete(after()) == 5  # the loop goes on, if it is asked to
    finally:
        for close in w.closes:
            close()
        for recorder in w.recorders:
            if recorder.transport is not None:
                recorder.transport.abort()
        w.loop.run_until_complete(w.quiet())
        w.loop.close()


@pytest.mark.parametrize("server", ROLES)
def test_connection_made_that_raises_ends_a_connection_over_tls(server: bool, certificates: Certificates) -> None:
    async def scenario(w: World) -> None:
        beginning, far = await w.raw(lambda: Plain(w, connection_made=raises(ValueError)), ssl=w.near)
        with contextlib.suppress(ConnectionError):  # it may end before a client's last message has left
            await far.start_tls(w.far, not w.server)
        await w.told("connection_lost")
        if not server:
            with pytest.raises(ValueError, match="of the program"):
                await beginning

    events = world(certificates, server).run(scenario)
    told = "Fatal error: protocol.connection_made() call failed."
    keys = ["exception", "message", "protocol", "transport"]
    raised = ("ValueError", "of the program")
    assert events == [("connection_made",), ("exception handler", told, raised, keys), ("connection_lost", raised)]


async def connected(w: World, served: Any) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await w.loop.sock_connect(sock, served.sockets[0].getsockname())
    return sock


# Handshakes


def test_a_failed_handshake_reaches_the_program_and_no_log(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    async def client(w: World) -> None:
        beginning, far = await w.raw(lambda: Plain(w), ssl=w.near)
        await far.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(OSError) as failed:
            await beginning
        assert described(failed.value) in (("SSLError", "WRONG_VERSION_NUMBER"), ("SSLError", "RECORD_LAYER_FAILURE"))

    async def scanners(w: World) -> None:
        served, _far = await w.raw(lambda: Plain(w), ssl=w.near)
        for said in (b"", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01", os.urandom(500)):
            scanner = FarEnd(w.loop, await connected(w, served))
            if said:
                await w.loop.sock_sendall(scanner.sock, said)
            scanner.reset() if len(said) == 3 else scanner.cut()
            if len(said) != 3:
                await swallow_answer(w, scanner)
                scanner.close()
        await w.quiet()

    async def swallow_answer(w: World, scanner: FarEnd) -> None:
        try:
            while await w.loop.sock_recv(scanner.sock, 1 << 16):
                pass
        except ConnectionError:
            pass

    with caplog.at_level(logging.INFO):
        assert world(certificates, False).run(client) == []
        assert world(certificates, True).run(scanners) == []
    assert not caplog.records


@pytest.mark.parametrize("server", ROLES)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_debug_mode_is_quiet(server: bool, tls: bool, certificates: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(w: World) -> None:
        w.loop.set_debug(True)
        w.loop.slow_callback_duration = FOR_EVER
        near, far = await w.connect()
        near.transport.write(b"request")
        await far.receive_exactly(7)
        near.transport.pause_reading()
        near.transport.resume_reading()
        await far.send(b"answer")
        await w.until(lambda: near.received == b"answer")
        await far.say_end()
        await w.told("connection_lost")

    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        world(certificates, server, tls).run(scenario)
    assert not warned and not caplog.records
