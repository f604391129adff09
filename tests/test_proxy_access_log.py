"""The lines of the access log, which nobody forges, and the writer, which nobody blocks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import resource
import select
import shlex
import signal
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from peers import open_descriptors, opened_since
from sslsock.proxy.observability import access_log
from sslsock.proxy.observability.access_log import AccessLog, LineWriter, json_line, text_line
from sslsock.proxy.observability.record import ConnectionRecord
from sslsock.proxy_protocol import SIGNATURE, parse

PATIENCE = 20.0  # seconds
HOSTILE = [
    "a\nb",
    "a\r\nreason=ended",
    "x reason=ended",
    'x" reason="ended',
    "x\\",
    "\\n",
    "a=b",
    "\x1b[2J",
    "\x00",
    "\x7f",
    "\x85",
    "\x9b1m",
    "\u2028",
    "\u202e",
    "\ud800",
    "b\u00fccher",
    "\U0001f600",
    " ",
    "",
    "-",
    '"',
    "'",
    "tab\there",
    "a" * 1000,
    "\n" * 1000,
    "\ufeff",
    "{}",
    "%s%n",
    "null",
]


def make_record(**values: Any) -> ConnectionRecord:
    record = ConnectionRecord("tls://0.0.0.0:443", ("192.0.2.77", 50123), ("10.0.0.1", 443))
    record.time = 1700000000.25
    for name, value in values.items():
        setattr(record, name, value)
    return record


FULL: dict[str, Any] = {
    "server_name": "www.example.com",
    "next_protocol": "h2",
    "protocol": "TLSv1.3",
    "cipher": "TLS_AES_128_GCM_SHA256",
    "group": "X25519",
    "resumed": True,
    "client_name": "client@example.org",
    "ja4": "t13d1516h2_8daaf6152771_b186095e22b6",
    "unique_id": "9f86d081884c7d65-1a",
    "backend": "tcp://[::1]:8080",
    "bytes_forward": 5123,
    "bytes_back": 1234567,
    "seconds": 1.25,
    "handshake_seconds": 0.0015,
    "connect_seconds": 0.0005,
    "reason": "backend_reset",
    "error": "Connection reset by peer",
}


def text_fields(line: str) -> dict[str, str]:
    """A strict reader: words, and JSON strings."""
    fields = {}
    word = r'[^\s"=\\]+'
    pattern = re.compile(rf' ([a-z_0-9]+)=({word}|"(?:[^"\\]|\\.)*")')
    head, _, _ = line.partition(" ")
    place = len(head)
    while place < len(line):
        match = pattern.match(line, place)
        assert match, f"no field at {line[place:]!r}"
        assert match[1] not in fields, f"two fields {match[1]}"
        fields[match[1]] = match[2]
        place = match.end()
    return {"time": head, **fields}


def test_a_text_line_has_every_field() -> None:
    assert text_line(make_record(**FULL)) == (
        "2023-11-14T22:13:20.250Z listener=tls://0.0.0.0:443 peer=192.0.2.77:50123 local=10.0.0.1:443 "
        "sni=www.example.com alpn=h2 version=TLSv1.3 cipher=TLS_AES_128_GCM_SHA256 "
        "group=X25519 resumed=yes client=client@example.org "
        "ja4=t13d1516h2_8daaf6152771_b186095e22b6 id=9f86d081884c7d65-1a "
        "backend=tcp://[::1]:8080 bytes_forward=5123 bytes_back=1234567 "
        "seconds=1.250000 handshake_seconds=0.001500 connect_seconds=0.000500 "
        'reason=backend_reset error="Connection reset by peer"'
    )


def test_a_json_line_has_every_field() -> None:
    assert json.loads(json_line(make_record(**FULL))) == {
        "time": "2023-11-14T22:13:20.250Z",
        "listener": "tls://0.0.0.0:443",
        "peer": "192.0.2.77:50123",
        "local": "10.0.0.1:443",
        "sni": "www.example.com",
        "alpn": "h2",
        "version": "TLSv1.3",
        "cipher": "TLS_AES_128_GCM_SHA256",
        "group": "X25519",
        "resumed": True,
        "client": "client@example.org",
        "ja4": "t13d1516h2_8daaf6152771_b186095e22b6",
        "id": "9f86d081884c7d65-1a",
        "backend": "tcp://[::1]:8080",
        "bytes_forward": 5123,
        "bytes_back": 1234567,
        "seconds": 1.25,
        "handshake_seconds": 0.0015,
        "connect_seconds": 0.0005,
        "reason": "backend_reset",
        "error": "Connection reset by peer",
    }


def test_what_is_not_known_is_said_so() -> None:
    unknown = {
        "sni",
        "alpn",
        "version",
        "cipher",
        "group",
        "client",
        "ja4",
        "id",
        "backend",
        "handshake_seconds",
        "connect_seconds",
        "error",
    }
    text = text_fields(text_line(make_record()))
    assert {key for key, value in text.items() if value == "-"} == unknown
    parsed = json.loads(json_line(make_record()))
    assert {key for key, value in parsed.items() if value is None} == unknown
    assert list(text) == list(parsed), "the two forms have the same fields in the same order"


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value[:20]))
@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ("server_name", "sni"),
        ("next_protocol", "alpn"),
        ("client_name", "client"),
        ("error", "error"),
        ("peer", "peer"),
        ("local", "local"),
        ("ja4", "ja4"),
        ("unique_id", "id"),
        ("backend", "backend"),
        ("listener", "listener"),
    ],
)
def test_a_hostile_value_forges_nothing(attribute: str, name: str, value: str) -> None:
    address = attribute in ("peer", "local")
    record = make_record(**{**FULL, attribute: (value, 0) if address else value})
    wanted = (f"{value}:0" if value else "unix:") if address else value
    wanted = wanted.replace("\ud800", "\\ud800")  # no character to anybody but Python
    limit = 2048 if attribute == "error" else 256
    text, in_json = text_line(record), json_line(record)
    for line in (text, in_json):
        assert line.isascii() and line.isprintable(), "a terminal or a reader of lines could be fooled"
        assert len(line) < 1000 + 6 * limit, "the line is not bounded"
    fields, others = text_fields(text), text_fields(text_line(make_record(**FULL)))
    parsed = json.loads(in_json)
    for key, untouched in others.items():
        if key != name:
            assert fields[key] == untouched, f"{key} was forged"
    if fields[name] == "-":
        assert value == "", "a value was taken for none"
    else:
        told = json.loads(fields[name]) if fields[name].startswith('"') else fields[name]
        assert told == parsed[name]
        clipped = wanted[:limit] + "\u2026" if len(wanted) > limit else wanted
        assert told == clipped


@pytest.mark.parametrize(
    "path",
    [
        b"/run/caf\xe9.sock",
        b"\0abstract\xff",
        b"\0a\0b\0",
        b'/run/"quoted".sock',
        b"/run/back\\slash",
        b"/run/new\nline\x1b[2J",
        bytes(range(1, 109)),
        b"@\0\0x",
        "/run/größe.sock".encode(),
        b"\xed\xa0\x80",
        b"\xff" * 108,
    ],
    ids=ascii,
)
def test_paths_of_a_proxy_header_break_no_line(path: bytes) -> None:
    """UNIX addresses of a PROXY header of version 2 are any bytes."""
    addresses = path.ljust(108, b"\0") + b"/there".ljust(108, b"\0")
    header = parse(SIGNATURE + b"\x21\x31" + len(addresses).to_bytes(2, "big") + addresses)
    assert header is not None and header.source is not None and header.destination is not None
    told = make_record(**{**FULL, "peer": header.source, "local": header.destination})
    text, in_json = text_line(told), json_line(told)
    assert text.isascii() and text.isprintable() and in_json.isascii() and in_json.isprintable()
    peer, in_text = json.loads(in_json)["peer"], text_fields(text)["peer"]
    peer.encode("utf-8")  # strictly: a lone surrogate is no JSON to most other readers
    assert peer == (json.loads(in_text) if in_text.startswith('"') else in_text)
    assert json.loads(in_json)["local"] == "unix:/there"


def test_addresses_of_ipv6_stand_in_brackets() -> None:
    fields = text_fields(text_line(make_record(peer=("2001:db8::1", 1), local=("::", 443))))
    assert (fields["peer"], fields["local"]) == ("[2001:db8::1]:1", "[::]:443")


def test_the_text_form_can_be_read_by_a_shell() -> None:
    line = text_line(make_record(**{**FULL, "server_name": "a b"}))
    assert "sni=a b" in shlex.split(line)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1700000000.9999, "2023-11-14T22:13:20.999Z"),
        (1700000001.0, "2023-11-14T22:13:21.000Z"),
    ],
)
def test_times_are_in_utc_and_milliseconds(moment: float, text: str) -> None:
    assert text_line(make_record(time=moment)).startswith(text + " ")
    assert json.loads(json_line(make_record(time=moment)))["time"] == text


# The writer.


@contextlib.contextmanager
def writing_to(fd: int) -> Iterator[LineWriter]:
    with open(os.dup(fd), "wb") as stream:
        writer = LineWriter(stream)
    try:
        yield writer
    finally:
        writer.close()


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """A pipe; who closes an end, puts -1 in its place."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    turn = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        turn.wait(0.005)


def read_until(fd: int, enough: Callable[[bytes], object]) -> bytes:
    data = b""
    while not enough(data):
        assert select.select([fd], [], [], PATIENCE)[0], f"nothing more comes after {data[-200:]!r}"
        piece = os.read(fd, 65536)
        if not piece:
            break
        data += piece
    return data


def test_lines_of_many_threads_are_whole_in_their_order_and_none_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LineWriter(file)
        log = AccessLog(writer, "text")

        def work(name: str) -> None:
            for number in range(1000):
                log.note(make_record(server_name=f"{name}-{number}", error="x" * (number % 200)))

        threads = [threading.Thread(target=work, args=(f"thread{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert writer.flush(PATIENCE)
        writer.close()
    names = [text_fields(line)["sni"] for line in path.read_text().splitlines()]
    assert writer.dropped == 0
    for n in range(4):
        mine = [name for name in names if name.startswith(f"thread{n}-")]
        assert mine == [f"thread{n}-{number}" for number in range(1000)]
    assert len(names) == 4000


def test_one_write_serves_several_lines_and_cuts_none(pipe: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = os.write

    def noted(fd: int, data: bytes) -> int:
        writes.append(data)
        return write(fd, data)

    monkeypatch.setattr(os, "write", noted)
    with writing_to(pipe[1]) as writer:
        for number in range(200):
            writer.write(f"line {number} " + "x" * 100)
        assert writer.flush(PATIENCE)
    assert b"".join(writes).count(b"\n") == 200
    assert len(writes) <= 20, "that many calls for 200 lines"
    assert all(data.endswith(b"\n") and len(data) <= select.PIPE_BUF for data in writes)


def test_lines_gather_until_there_is_a_hurry(pipe: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "GATHER", 3 * PATIENCE)
    with writing_to(pipe[1]) as writer:
        writer.write("one")
        assert not select.select([pipe[0]], [], [], 0.1)[0], "it left alone"
        writer.write("two")
        assert writer.flush(PATIENCE)
        assert os.read(pipe[0], 100) == b"one\ntwo\n"


def test_the_writer_needs_no_flush(pipe: list[int]) -> None:
    with writing_to(pipe[1]) as writer:
        writer.write("one")
        assert read_until(pipe[0], lambda data: data) == b"one\n"
        writer.write("two")
        assert read_until(pipe[0], lambda data: data) == b"two\n"


def test_closing_writes_what_is_queued_and_gives_the_descriptor_back(pipe: list[int]) -> None:
    before = open_descriptors()
    with open(os.dup(pipe[1]), "wb") as stream:
        writer = LineWriter(stream)
        writer.write("last words")
        writer.close()
        writer.close()
        writer.write("too late")
    assert os.read(pipe[0], 100) == b"last words\n"
    assert writer.dropped == 1
    assert not opened_since(before)


def test_a_reader_that_sleeps_blocks_nobody_and_what_is_lost_is_counted(pipe: list[int]) -> None:
    """A blocking pipe, as standard error mostly is, that nobody reads."""
    with writing_to(pipe[1]) as writer:
        sent = 0
        start = time.monotonic()
        while writer.dropped < 1000:
            writer.write(f"line {sent} " + "x" * 100)
            sent += 1
            assert sent < 100_000, "the queue is not bounded"
        assert time.monotonic() - start < PATIENCE / 2, "writing has blocked"
        assert not writer.flush(0.05), "a flush cannot have succeeded"
        # When the reader wakes, all that was queued comes, in whole lines.
        received = read_until(pipe[0], lambda data: data.count(b"\n") >= sent - writer.dropped)
        assert writer.flush(PATIENCE)
    lines = received.decode().splitlines()
    assert len(lines) == sent - writer.dropped
    assert all(re.fullmatch(r"line \d+ x{100}", line) for line in lines)


def test_closing_does_not_wait_for_a_reader_that_sleeps(pipe: list[int]) -> None:
    with open(os.dup(pipe[1]), "wb") as stream:
        writer = LineWriter(stream)
    for _ in range(2000):
        writer.write("x" * 100)
    wait_for(lambda: len(writer._lines) < 2000, "the thread to start writing")
    start = time.monotonic()
    writer.close(0.1)
    assert time.monotonic() - start < PATIENCE / 2
    assert writer.dropped > 0
    os.close(pipe[0])  # lets the thread go
    pipe[0] = -1
    writer._thread.join(PATIENCE)
    assert not writer._thread.is_alive()


def test_a_pipe_that_somebody_has_made_nonblocking_is_waited_for(pipe: list[int]) -> None:
    os.set_blocking(pipe[1], False)
    with writing_to(pipe[1]) as writer:
        for number in range(3000):
            writer.write(f"line {number} " + "x" * 100)
        assert not writer.flush(0.3), "a pipe of 64 KiB cannot have taken all that"
        received = read_until(pipe[0], lambda data: data.count(b"\n") >= 3000)
    assert writer.dropped == 0
    assert [line.split()[1] for line in received.decode().splitlines()] == [str(number) for number in range(3000)]


def test_closing_does_not_wait_for_a_full_nonblocking_pipe(pipe: list[int]) -> None:
    os.set_blocking(pipe[1], False)
    with open(os.dup(pipe[1]), "wb") as stream:
        writer = LineWriter(stream)
    for _ in range(3000):
        writer.write("x" * 100)
    writer.close(1.0)
    assert not writer._thread.is_alive(), "the thread waits on"
    received = len(os.read(pipe[0], 1 << 20).splitlines())
    assert received + writer.dropped == 3000


def test_a_reader_that_has_gone_is_no_failure_and_its_lines_are_counted(pipe: list[int]) -> None:
    os.close(pipe[0])
    pipe[0] = -1
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN, "Python ignores it"
    with writing_to(pipe[1]) as writer:
        for _ in range(100):
            writer.write("x")
        assert writer.flush(PATIENCE)
        assert writer.dropped == 100
        writer.write("x")
        assert writer.flush(PATIENCE)
        assert writer.dropped == 101


def test_a_full_disk_is_no_failure_and_its_lines_are_counted() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        writer = LineWriter(full)
        writer.write("x")
        assert writer.flush(PATIENCE)
        assert writer.dropped == 1
        writer.close()


def test_after_a_line_that_was_cut_the_next_one_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up takes part of a write; later there is room again."""
    write = os.write
    room = [15, 0]

    def little_room(fd: int, data: bytes) -> int:
        if not room:
            return write(fd, data)
        size = room.pop(0)
        if not size:
            raise OSError(28, "No space left on device")
        return write(fd, data[:size])

    path = tmp_path / "log"
    with path.open("wb") as file:
        writer = LineWriter(file)
        monkeypatch.setattr(os, "write", little_room)
        for text in ("first line", "second line", "third line"):
            writer.write(text)
        assert writer.flush(PATIENCE)
        assert writer.dropped == 2, "the first was written, the others not whole"
        writer.write("fourth line")
        assert writer.flush(PATIENCE)
        writer.close()
    assert path.read_text() == "first line\nseco\nfourth line\n"
    assert writer.dropped == 2


def test_a_message_stays_in_its_line(pipe: list[int]) -> None:
    with writing_to(pipe[1]) as writer:
        writer.write("cannot read x\ny\r\x1b[1m.pem: \u00e9 \ud800")
        assert read_until(pipe[0], lambda data: data.endswith(b"\n")) == b"cannot read x?y??[1m.pem: \xc3\xa9 ?\n"


def test_a_line_longer_than_a_batch_is_written_whole(pipe: list[int]) -> None:
    with writing_to(pipe[1]) as writer:
        for text in ("a", "b" * 10000, "c"):
            writer.write(text)
        assert read_until(pipe[0], lambda data: data.endswith(b"c\n")) == b"a\n" + b"b" * 10000 + b"\nc\n"


@pytest.mark.parametrize(("log_format", "count"), [("text", 1), ("json", 1), (None, 0)])
def test_the_format_decides_what_is_written(pipe: list[int], log_format: Optional[str], count: int) -> None:
    with writing_to(pipe[1]) as writer:
        AccessLog(writer, log_format).note(make_record(**FULL))
        writer.write("end")
        lines = read_until(pipe[0], lambda data: data.endswith(b"end\n")).decode().splitlines()
    expected = {"text": text_line, "json": json_line}
    assert lines == [expected[log_format](make_record(**FULL))] * count + ["end"] if log_format else lines == ["end"]


# On a terminal.


@contextlib.contextmanager
def terminal(columns: int = 80) -> Iterator[tuple[int, LineWriter]]:
    master, slave = pty.openpty()
    try:
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST  # what is written comes as it is
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"".join(n.to_bytes(2, "little") for n in (24, columns, 0, 0)))
        with writing_to(slave) as writer:
            yield master, writer
    finally:
        os.close(master)
        os.close(slave)


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def screen(data: bytes) -> list[str]:
    """The lines that a terminal shows: carriage return and erase are all it has to know."""
    lines = [""]
    for piece in re.findall(rb"\r\x1b\[K|\n|[^\r\n\x1b]+", data):
        if piece == b"\n":
            lines.append("")
        elif piece == b"\r\x1b[K":
            lines[-1] = ""
        else:
            lines[-1] += piece.decode()
    return lines


def test_the_status_stays_at_the_bottom_and_garbles_no_line() -> None:
    with terminal() as (master, writer):
        data = b""
        for step, expected in (
            (lambda: writer.status("status 1"), ["status 1"]),
            (lambda: writer.write("line 1"), ["line 1", "status 1"]),
            (lambda: writer.status("2"), ["line 1", "2"]),
            (lambda: [writer.write(f"line {n}") for n in (2, 3)], ["line 1", "line 2", "line 3", "2"]),
            (lambda: writer.status(""), ["line 1", "line 2", "line 3", ""]),
            (lambda: writer.write("line 4"), ["line 1", "line 2", "line 3", "line 4", ""]),
        ):
            step()
            assert writer.flush(PATIENCE)
            data += read_until(master, lambda new, data=data, expected=expected: screen(data + new) == expected)


def test_closing_erases_the_status() -> None:
    with terminal() as (master, writer):
        writer.status("status")
        assert writer.flush(PATIENCE)
        writer.close()
        data = read_until(master, lambda new: new.endswith(b"\x1b[K"))
    assert screen(data) == [""]


def test_many_lines_under_a_status_are_all_there() -> None:
    with terminal() as (master, writer):
        writer.status("status")
        for number in range(500):
            writer.write(f"line {number}")
        data = read_until(master, lambda new: b"line 499\n" in new and new.endswith(b"status"))
    assert screen(data) == [f"line {number}" for number in range(500)] + ["status"]


def test_what_is_no_terminal_gets_no_status(pipe: list[int]) -> None:
    with writing_to(pipe[1]) as writer:
        assert not writer.is_terminal
        assert writer.columns == 80
        writer.status("status")
        writer.write("line")
        assert writer.flush(PATIENCE)
    os.close(pipe[1])
    pipe[1] = -1
    assert read_until(pipe[0], lambda data: False) == b"line\n"


def test_a_terminal_that_cannot_erase_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal() as (_, writer):
        assert not writer.is_terminal


def test_the_width_is_that_of_the_terminal() -> None:
    with terminal(columns=33) as (_, writer):
        assert (writer.is_terminal, writer.columns) == (True, 33)
    with terminal(columns=0) as (_, writer):
        assert writer.columns == 80


def test_a_line_costs_the_loop_little() -> None:
    """Five microseconds is the aim, which is what `json.dumps` takes for as much: that is as slow as the machine."""
    record = make_record(**FULL)
    values = json.loads(json_line(record))
    with open(os.devnull, "wb") as sink:
        writer = LineWriter(sink)
        usual = min(timed(lambda: json.dumps(values), writer) for _ in range(5))
        for log_format in ("text", "json"):
            log = AccessLog(writer, log_format)
            best = min(timed(lambda log=log: log.note(record), writer) for _ in range(5))
            assert best < 4 * usual, f"{best * 1e6:.1f} microseconds a line, json.dumps takes {usual * 1e6:.1f}"
        writer.close()
    assert writer.dropped == 0


def timed(call: Callable[[], object], writer: LineWriter, count: int = 1000) -> float:
    start = time.thread_time()
    for _ in range(count):
        call()
    spent = time.thread_time() - start
    assert writer.flush(PATIENCE)
    return spent / count


def test_the_queue_is_bounded_in_memory() -> None:
    assert access_log.QUEUE_LIMIT * 2500 < 32 << 20
    assert resource.getpagesize() >= select.PIPE_BUF
