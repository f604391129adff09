"""One line for each connection, lines for the operator, and the one thread that writes them.

`text_line` and `json_line` turn a record into a line that its values cannot break: what a client chose (SNI, ALPN, names in
certificates) is escaped.

`LineWriter` owns the descriptor. The loops only append to a queue, for nobody knows what standard error is: a pipe whose
reader sleeps, a stopped terminal, a full disk. Making it non-blocking would change it for every process that shares it
(O_NONBLOCK belongs to the open file description, see open(2)), so a thread blocks in the loops' place. It lets lines gather for
`GATHER` seconds: under load it wakes some times a second and several lines leave with one write(2). The queue is bounded, and
what does not fit, or cannot be written, is counted as dropped. On a terminal it also keeps the summary at the bottom.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections import deque
from contextlib import suppress
from json.encoder import encode_basestring_ascii
from typing import Callable, Optional, Protocol

from .record import PROBE, ConnectionRecord

__all__ = [
    *("AccessLog", "LineWriter", "json_line", "text_line"),
    *("ERROR", "INFO", "WARNING", "MESSAGES", "json_message", "text_message"),
]

GATHER = 0.05  # seconds
QUEUE_LIMIT = 8192  # lines
# A pipe takes this much in one piece (pipe(7), PIPE_BUF), so lines do not mix with those of other processes either.
BATCH = select.PIPE_BUF
VALUE_LIMIT = 256  # characters of a value that others chose
ERROR_LIMIT = 2048  # of an error, which may have all names of a certificate
SURROGATE = re.compile("[\ud800-\udfff]")
ERASE_LINE = b"\r\x1b[K"


# Lines. They are made in the loops' threads, once a connection, so they are written for speed: one look at all values that
# others chose says whether they need care, which they hardly ever do.

def quoted(text: str) -> str:
    """A JSON string in ASCII. Lone surrogates, by which Python shows bytes that are no UTF-8, are no characters to others
    (RFC 8259, 8.2): they are written as those bytes."""
    if not text.isascii():
        text = SURROGATE.sub(_byte, text)
    return encode_basestring_ascii(text)


def _byte(surrogate: re.Match[str]) -> str:
    number = ord(surrogate[0])
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"  # PEP 383; else: no byte


def _json_word(value: Optional[str], limit: int = VALUE_LIMIT) -> str:
    if value is None:
        return "null"
    return quoted(value if len(value) <= limit else value[:limit] + "…")


def _text_word(value: Optional[str], limit: int = VALUE_LIMIT) -> str:
    """The value itself if nobody can take it for something else, or else as a JSON string."""
    if value is None:
        return "-"
    if value in ("", "-") or not _is_plain(value) or len(value) > limit:
        return _json_word(value, limit)
    return value


def _is_plain(text: str) -> bool:
    return (
        text.isascii() and text.isprintable() and " " not in text and '"' not in text and "\\" not in text and "=" not in text
    )


def _end(end: tuple[str, int]) -> str:
    host, port = end
    if not port and (not host or host[0] in "/@."):  # a path, or a client's UNIX socket, which has no name
        return f"unix:{host}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_second = (0, "")  # one tuple, so that a thread sees both or neither


def _timestamp(moment: float) -> str:
    """RFC 3339, UTC, milliseconds. The part up to the second is made once a second."""
    global _second
    whole = int(moment)
    known, text = _second
    if known != whole:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        _second = whole, text
    return f"{text}.{int((moment - whole) * 1000):03d}Z"


def text_line(r: ConnectionRecord) -> str:
    """A time and `key=value` pairs, a blank between, no line end. "-": not known. Unusual values are JSON strings."""
    values = r.listener, r.server_name, r.next_protocol, r.client_name, r.ja4, r.unique_id, r.backend, r.error
    listener, sni, alpn, client, ja4, unique_id, backend, error = values
    listener, sni, alpn, client = listener or "-", sni or "-", alpn or "-", client or "-"
    ja4, unique_id, backend, error = ja4 or "-", unique_id or "-", backend or "-", error or "-"
    peer, local = _end(r.peer), _end(r.local)
    together = f"{listener}{sni}{alpn}{client}{ja4}{unique_id}{backend}{error}{peer}{local}"
    if not _is_plain(together) or len(together) > VALUE_LIMIT or "-" in values:
        listener, sni, alpn, client, ja4, unique_id, backend = map(_text_word, values[:7])
        error = _text_word(r.error, ERROR_LIMIT)
        peer, local = _text_word(peer), _text_word(local)
    shaken = "-" if r.handshake_seconds is None else f"{r.handshake_seconds:.6f}"
    connected = "-" if r.connect_seconds is None else f"{r.connect_seconds:.6f}"
    return (
        f"{_timestamp(r.time)} listener={listener} peer={peer} local={local} sni={sni} alpn={alpn} "
        f"version={r.protocol or '-'} cipher={r.cipher or '-'} group={r.group or '-'} resumed={'yes' if r.resumed else 'no'} "
        f"client={client} ja4={ja4} id={unique_id} backend={backend} bytes_forward={r.bytes_forward} "
        f"bytes_back={r.bytes_back} seconds={r.seconds:.6f} handshake_seconds={shaken} connect_seconds={connected} "
        f"reason={r.reason} error={error}"
    )


def json_line(r: ConnectionRecord) -> str:
    """One JSON object in ASCII, no line end. null: not known."""
    shaken = "null" if r.handshake_seconds is None else f"{r.handshake_seconds:.6f}"
    connected = "null" if r.connect_seconds is None else f"{r.connect_seconds:.6f}"
    return (
        f'{{"time": "{_timestamp(r.time)}", "listener": {_json_word(r.listener)}, "peer": {_json_word(_end(r.peer))}, '
        f'"local": {_json_word(_end(r.local))}, "sni": {_json_word(r.server_name)}, "alpn": {_json_word(r.next_protocol)}, '
        f'"version": {_json_word(r.protocol)}, "cipher": {_json_word(r.cipher)}, "group": {_json_word(r.group)}, '
        f'"resumed": {"true" if r.resumed else "false"}, "client": {_json_word(r.client_name)}, "ja4": {_json_word(r.ja4)}, '
        f'"id": {_json_word(r.unique_id)}, '
        f'"backend": {_json_word(r.backend)}, "bytes_forward": {r.bytes_forward}, "bytes_back": {r.bytes_back}, '
        f'"seconds": {r.seconds:.6f}, "handshake_seconds": {shaken}, "connect_seconds": {connected}, '
        f'"reason": "{r.reason}", "error": {_json_word(r.error, ERROR_LIMIT)}}}'
    )


INFO, WARNING, ERROR = "info", "warning", "error"


def text_message(text: str, level: str) -> str:
    """A line for the operator as it is: it says itself whether it is a warning."""
    return text


def json_message(text: str, level: str) -> str:
    """One JSON object in ASCII, no line end. `level` is first, so that the line is told from a connection's at once; it stands
    for the words that a text begins with."""
    text = text.removeprefix("sslsock: ")
    if text.startswith("warning: "):
        level, text = WARNING, text.removeprefix("warning: ")
    return f'{{"level": "{level}", "time": "{_timestamp(time.time())}", "message": {quoted(text)}}}'


FORMATS: dict[str, Callable[[ConnectionRecord], str]] = {"text": text_line, "json": json_line}


MESSAGES: dict[str, Callable[[str, str], str]] = {"text": text_message, "json": json_message}


# Writing.


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class LineWriter:
    """Writes lines to a descriptor from any thread, never blocking and never raising for what happens there.

    stream: a file, as sys.stderr; its descriptor is duplicated, so that the number cannot come to mean a connection.
    is_terminal: bool, one that can erase a line. message: how `write` forms a line, `text_message` until it is set. dropped:
    how many lines were lost, because the reader is too slow or gone, or the disk full. beside_status: another process shows a
    status at the same terminal; it makes it anew below the lines.
    """

    def __init__(self, stream: HasDescriptor, beside_status: bool = False) -> None:
        self._fd = os.dup(stream.fileno())
        self.is_terminal = os.isatty(self._fd) and os.environ.get("TERM") != "dumb"
        self.message: Callable[[str, str], str] = text_message
        self.dropped = 0
        self._lock = threading.Lock()  # for `dropped`
        self._lines: deque[bytes] = deque()
        self._status = b""
        self._shown = b""  # the status that stands in the last line of the terminal
        self._erases = beside_status and self.is_terminal
        self._torn = False  # the last thing written is part of a line
        self._awake = threading.Event()
        self._hurry = threading.Event()
        self._flushed = threading.Condition()
        self._flushes_asked = self._flushes_done = 0
        self._closing = False
        self._deadline = 0.0  # when closing
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def columns(self) -> int:
        """Of the terminal; 80 when it does not say."""
        with suppress(OSError):
            return os.get_terminal_size(self._fd).columns or 80
        return 80

    def write(self, text: str, level: str = INFO) -> None:
        """A line for the operator, without its end. In a text, line ends and other control characters become "?"."""
        line = self.message(text, level)
        if not line.isprintable():
            line = "".join(one if one.isprintable() else "?" for one in line)
        self.put(line.encode("utf-8", "backslashreplace") + b"\n")

    def put(self, line: bytes) -> None:
        """A line that is known to be one, with its end."""
        if self._closing or len(self._lines) >= QUEUE_LIMIT:
            self._drop(1)
            return
        self._lines.append(line)
        # The thread clears the event and looks at the queue then, so no line is left lying.
        if not self._awake.is_set():
            self._awake.set()

    def status(self, text: str) -> None:
        """What stands in the last line of a terminal until the next call; "" for nothing. Elsewhere no effect."""
        if self.is_terminal:
            self._status = text.encode("utf-8", "replace")
            self._awake.set()

    def flush(self, seconds: float = 1.0) -> bool:
        """Wait until every line so far has been written or dropped. False: it took longer."""
        with self._flushed:
            self._flushes_asked += 1
            mine = self._flushes_asked
            self._hurry.set()
            self._awake.set()
            return self._flushed.wait_for(lambda: self._flushes_done >= mine, seconds)

    def close(self, seconds: float = 1.0) -> None:
        """Write what is queued, for that long at most, and erase the status. A second call does nothing."""
        if self._closing:
            return
        self.status("")
        self._deadline = time.monotonic() + seconds * 0.8  # the thread gives up first, and counts what it drops
        self._closing = True
        self._hurry.set()
        self._awake.set()
        self._thread.join(seconds)
        if self._thread.is_alive():  # it is stuck in write(2), and the descriptor is its own until the process ends
            self._drop(len(self._lines))

    def _drop(self, count: int) -> None:
        with self._lock:
            self.dropped += count

    # The thread.

    def _run(self) -> None:
        closing = False
        while not closing:
            self._awake.wait()
            self._hurry.wait(GATHER)
            self._hurry.clear()
            self._awake.clear()
            closing = self._closing
            asked = self._flushes_asked
            self._write_queue()
            with self._flushed:
                self._flushes_done = asked
                self._flushed.notify_all()
        os.close(self._fd)

    def _write_queue(self) -> None:
        status = self._status
        count = len(self._lines)
        if not count and status == self._shown:
            return
        batch = [ERASE_LINE] if self._shown or self._erases else []
        size = 0
        for _ in range(count):
            line = self._lines.popleft()
            if size + len(line) > BATCH:
                self._write_all(b"".join(batch))
                batch.clear()
                size = 0
            batch.append(line)
            size += len(line)
        batch.append(status)
        self._write_all(b"".join(batch))
        self._shown = status

    def _write_all(self, data: bytes) -> None:
        separator = int(self._torn)  # a line end of ours in front, which counts as no line
        data = b"\n" * separator + data
        while data:
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                if self._wait_for_room():
                    continue
                written = 0
            except OSError:  # the reader is gone, the disk is full
                written = 0
            if not written:
                self._drop(data.count(b"\n") - separator)
                return
            separator = 0
            self._torn = data[written - 1 : written] != b"\n" and b"\n" in data[written:]
            data = data[written:]

    def _wait_for_room(self) -> bool:
        """Somebody has made the descriptor non-blocking. False: the writer is closed and its time is over."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        left = max(0.0, self._deadline - time.monotonic()) if self._closing else 0.1
        return bool(poll.poll(left * 1000)) or not self._closing


class AccessLog:
    """A line for each connection that has ended.

    log_format: "text", "json", or None for none at all. probes: whether those that said nothing get a line too.
    """

    def __init__(self, writer: LineWriter, log_format: Optional[str], probes: bool = False) -> None:
        self._put = writer.put
        self._left_out = None if probes else PROBE
        self._format = None if log_format is None else FORMATS[log_format]

    def note(self, record: ConnectionRecord) -> None:
        """From any thread."""
        if self._format is not None and record.reason != self._left_out:
            self._put(self._format(record).encode("ascii") + b"\n")
