"""The summary line: what it says, and where it stands."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
from collections.abc import Iterator

import pytest

from clock import Clock
from sslsock.proxy.observability.access_log import LineWriter
from sslsock.proxy.observability.metrics import Counters, Totals
from sslsock.proxy.observability.record import ConnectionRecord
from sslsock.proxy.observability.summary import Summary, summary_line

PATIENCE = 20.0  # seconds
MIB = 1 << 20
LISTENER = "tls://0.0.0.0:443"


@contextlib.contextmanager
def terminal(columns: int) -> Iterator[tuple[int, LineWriter]]:
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with open(os.dup(slave), "wb") as stream:
            writer = LineWriter(stream)
        yield master, writer
        writer.close()
    finally:
        os.close(master)
        os.close(slave)


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def shown(master: int, writer: LineWriter) -> str:
    """The last line of the terminal."""
    assert writer.flush(PATIENCE)
    data = b""
    while select.select([master], [], [], 0.0 if data else PATIENCE)[0]:
        data += os.read(master, 65536)
    return data.decode().rpartition("\r\x1b[K")[2]


def test_the_line_says_what_has_changed_and_what_there_is() -> None:
    before = Totals(opened=1000, active=10, handshakes=900, forward=5 * MIB, back=7 * MIB, failures=3)
    now = Totals(opened=4000, active=1234, handshakes=2900, forward=25 * MIB, back=2055 * MIB, failures=5)
    assert summary_line(before, now, 2.0) == (
        "1,234 connections, 1,500 new/s, 1,000 handshakes/s, forward 10.0 MiB/s, back 1,024.0 MiB/s, 5 failures"
    )


def test_the_line_of_a_proxy_at_rest() -> None:
    nothing = Totals(opened=0, active=0, handshakes=0, forward=0, back=0, failures=0)
    assert summary_line(nothing, nothing, 0.001) == (
        "0 connections, 0 new/s, 0 handshakes/s, forward 0.0 MiB/s, back 0.0 MiB/s, 0 failures"
    )


def test_each_update_tells_what_has_happened_since_the_last() -> None:
    counters, clock = Counters(), Clock()
    counters.connection_opened(LISTENER)
    with terminal(200) as (master, writer):
        summary = Summary([counters], writer, clock)
        assert summary.wanted
        one = ConnectionRecord(LISTENER, ("192.0.2.1", 1), ("192.0.2.2", 2))
        one.handshake_result, one.bytes_forward, one.bytes_back = "ok", 4 * MIB, MIB
        for _ in range(4):
            counters.connection_opened(LISTENER)
        counters.note(one)
        clock.now += 2
        summary.update()
        assert shown(master, writer) == (
            "4 connections, 2 new/s, 0 handshakes/s, forward 2.0 MiB/s, back 0.5 MiB/s, 0 failures"
        )
        other = ConnectionRecord(LISTENER, ("192.0.2.1", 3), ("192.0.2.2", 2))
        other.reason = "no_backend"
        counters.connection_opened(LISTENER)
        counters.note(other)
        clock.now += 1
        summary.update()
        assert shown(master, writer) == (
            "4 connections, 1 new/s, 0 handshakes/s, forward 0.0 MiB/s, back 0.0 MiB/s, 1 failures"
        )


def test_an_update_in_the_same_moment_changes_nothing() -> None:
    counters, clock = Counters(), Clock()
    with terminal(200) as (master, writer):
        summary = Summary([counters], writer, clock)
        counters.connection_opened(LISTENER)
        summary.update()
        clock.now += 1
        summary.update()
        assert shown(master, writer).startswith("1 connections, 1 new/s")


@pytest.mark.parametrize("columns", [1, 20, 60])
def test_a_narrow_terminal_gets_as_much_as_fits(columns: int) -> None:
    clock = Clock()
    with terminal(columns) as (master, writer):
        summary = Summary([Counters()], writer, clock)
        clock.now += 1
        summary.update()
        writer.write("a log line")
        line = shown(master, writer)
    expected = "0 connections, 0 new/s, 0 handshakes/s, forward 0.0 MiB/s, back 0.0 MiB/s, 0 failures"[: columns - 1]
    assert line.rpartition("a log line\r\n")[2] == expected


def test_log_lines_stand_above_the_summary() -> None:
    clock = Clock()
    with terminal(200) as (master, writer):
        summary = Summary([Counters()], writer, clock)
        clock.now += 1
        summary.update()
        shown(master, writer)
        writer.write("a log line")
        assert shown(master, writer).startswith("a log line\r\n0 connections, ")


def test_what_is_no_terminal_gets_no_summary() -> None:
    reader, end = os.pipe()
    with open(end, "wb") as stream:
        writer = LineWriter(stream)
    clock = Clock()
    summary = Summary([Counters()], writer, clock)
    assert not summary.wanted
    clock.now += 1
    summary.update()
    writer.close()
    with open(reader, "rb") as received:
        assert received.read() == b""
