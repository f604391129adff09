"""Lines about refused connections: when, how many, and from where."""

from __future__ import annotations

import socket
from typing import Any

from sslsock import EventLoop
from sslsock.core.door import Door
from sslsock.core.listener import Listener
from sslsock.core.source_limits import SourceLimits
from sslsock.proxy.limits.refusals import PERIOD, RefusalLog
from sslsock.proxy.observability.metrics import Counters, by_listener
from sslsock.proxy.observability.record import REFUSALS, ConnectionRecord

NAME = "tls://:443"


class Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str, level: str = "") -> None:
        self.lines.append(text)


def told(counters: Counters, reason: str) -> None:
    record = ConnectionRecord(NAME, ("192.0.2.1", 4711), ("", 443))
    record.reason = reason
    counters.connection_opened(NAME)
    counters.note(record)


def test_one_line_a_minute_for_each_reason() -> None:
    workers, writer, now = [Counters(), Counters()], Writer(), [1000.0]
    log = RefusalLog(workers, writer, lambda: now[0])  # type: ignore[arg-type]
    log.update()
    assert not writer.lines
    told(workers[0], "source_rate")
    told(workers[1], "source_rate")
    told(workers[1], "ended")
    log.update()
    assert writer.lines == [f"{NAME}: connections refused: 2 (source_rate: connection-rate-per-source)"]
    for _ in range(1000):
        told(workers[0], "source_rate")
        now[0] += PERIOD / 1001
        log.update()
    assert len(writer.lines) == 1
    told(workers[0], "denied")
    log.update()
    assert writer.lines[1:] == [f"{NAME}: connections refused: 1 (denied: the lists of sources)"]
    now[0] += 1
    log.update()
    assert writer.lines[2:] == [f"{NAME}: connections refused: 1000 (source_rate: connection-rate-per-source)"]
    now[0] += 10 * PERIOD
    log.update()
    assert len(writer.lines) == 3


class Taker:
    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.listener: Any = None

    def _on_pending(self) -> None:
        while (taken := self.listener.take_counted()) is not None:
            self.taken.append(taken)

    def _on_accept_error(self, errno: int) -> None:
        raise OSError(errno, "accept")


def test_a_door_counts_whom_it_refuses_and_lets_in_the_others() -> None:
    limits = SourceLimits()
    limits.follow(connections=2)
    loop, taker, door = EventLoop.current(), Taker(), Door(None, limits)
    counters = Counters()
    counters.watch_door(NAME, door)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        taker.listener = Listener(loop, listening.detach(), taker, 16, door)
    try:
        with socket.socket(fileno=socket.dup(taker.listener.fileno())) as named:
            place = named.getsockname()
        clients = [socket.create_connection(place, source_address=(f"127.0.0.{1 + n // 5}", 0)) for n in range(10)]
        while len(taker.taken) + sum(count for _, count, _ in door.refused()) < 10:
            loop.dispatch(1)
        assert [address for _, (address, _), _ in taker.taken] == ["127.0.0.1"] * 2 + ["127.0.0.2"] * 2
        assert limits.present == 2
        assert by_listener([counters])[NAME].refused == {"source_limit": 6}
        writer = Writer()
        RefusalLog([counters], writer).update()  # type: ignore[arg-type]
        assert writer.lines == [
            f"{NAME}: connections refused: 6 (source_limit: max-connections-per-source), one of the last from 127.0.0.2"
        ]
        for fd, _, source in taker.taken:
            limits.leave(source, False)
            socket.close(fd)
        assert limits.present == 0
        for client in clients:
            client.close()
    finally:
        taker.listener.close()


def test_every_refusal_names_its_limit() -> None:
    counters, writer = Counters(), Writer()
    for reason in REFUSALS:
        told(counters, reason)
    RefusalLog([counters], writer).update()  # type: ignore[arg-type]
    named = {line.split("(")[1].split(":")[0]: line.split(": ")[-1].rstrip(")") for line in writer.lines}
    assert named.keys() == REFUSALS
    assert named["handshake_rate"] == "handshake-rate" and named["denied"] == "the lists of sources"
