"""A static file server for `serve --www`: HTTP/1.1 (RFC 9112), GET and HEAD, one `HttpSession` a connection.

A session reads a request, answers it, and reads the next one when the answer has been handed to the socket.
Bounds: the head of a request, the bytes that wait to be sent (a file is read as they leave), and the time
without progress.

What a request may name is decided in one place, `FileTree.open`: the path, its percent signs resolved and its
symbolic links followed, has to end in the folder that is served. It is asked of the descriptor that was
opened, so that nothing can change between the check and the use.
"""

from __future__ import annotations

import html
import mimetypes
import os
import stat
import sys
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic
from typing import Any, BinaryIO, Callable, NamedTuple, Optional
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .. import EventLoop, SslSocket
from ..sockets.host_port import address_text
from .common import printable

HEAD_LIMIT = 16 * 1024  # bytes of a request before its body
PIECE = 256 * 1024  # bytes of a file read at once
UNSENT = 2 * PIECE  # bytes waiting to be sent at which no more is read from the file
PIECES_A_TURN = 8
IDLE_SECONDS = 60.0

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")  # RFC 9110, 5.6.2

Log = Callable[[str], None]


class HttpError(Exception):
    """A request that is answered with an error status. The connection ends after those that leave its state
    unclear."""

    def __init__(self, status: HTTPStatus, *, ends: bool = False, headers: tuple[str, ...] = ()) -> None:
        super().__init__(status)
        self.status = status
        self.ends = ends
        self.headers = headers


class Request(NamedTuple):
    """The head of a request."""

    method: str
    path: bytes
    """Without the query, percent signs not resolved."""
    keep_alive: bool


def bad(status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> HttpError:
    return HttpError(status, ends=True)


def parse_request(head: list[bytes]) -> Request:
    """A request from its lines. HttpError."""
    words = head[0].split(b" ")
    if len(words) != 3 or not words[0] or not TOKEN.issuperset(words[0]):
        raise bad()
    method, target, version = words
    if len(version) != 8 or not version.startswith(b"HTTP/") or version[6:7] != b".":
        raise bad()
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise bad(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    fields: dict[bytes, list[bytes]] = {}
    for line in head[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or not TOKEN.issuperset(name) or b"\0" in value or b"\r" in value:
            raise bad()  # a line that goes on from the one before has no name either: RFC 9112, 5.2
        fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
    if version == b"HTTP/1.1" and len(fields.get(b"host", ())) != 1:
        raise bad()
    options = {word.strip().lower() for value in fields.get(b"connection", ()) for word in value.split(b",")}
    keep_alive = b"close" not in options and (version == b"HTTP/1.1" or b"keep-alive" in options)
    # A body is of no use here. Its end is not looked for: who answers and closes cannot be led astray by its
    # length.
    if b"transfer-encoding" in fields or any(value != b"0" for value in fields.get(b"content-length", ())):
        keep_alive = False
    return Request(method.decode("ascii"), parse_target(target), keep_alive)


def parse_target(target: bytes) -> bytes:
    """The path of a request target in origin form or absolute form (RFC 9112, 3.2). HttpError."""
    if any(byte <= 0x20 or byte >= 0x7F for byte in target):
        raise bad()
    if target[:8].lower() == b"https://" or target[:7].lower() == b"http://":
        target = b"/" + target.split(b"//", 1)[1].partition(b"/")[2]
    if not target.startswith(b"/"):
        raise bad()
    return target.partition(b"?")[0].partition(b"#")[0]


class Found(NamedTuple):
    """What a path names: a file, open; or a page that was made."""

    kind: str
    size: int
    file: Optional[BinaryIO] = None
    page: bytes = b""
    modified: Optional[float] = None


class FileTree:
    """A folder and what can be had of it."""

    def __init__(self, folder: str) -> None:
        self.root = os.fsencode(os.path.realpath(folder))

    def find(self, path: bytes) -> Found:
        """What a path of a request names. HttpError."""
        plain = unquote_to_bytes(path)
        parts = [part for part in plain.split(b"/") if part not in (b"", b".")]
        if b"\0" in plain:
            raise HttpError(HTTPStatus.BAD_REQUEST)
        if b".." in parts:  # nothing that a browser sends
            raise HttpError(HTTPStatus.NOT_FOUND)
        fd, info = self.open(parts)
        if stat.S_ISREG(info.st_mode) and not plain.endswith(b"/"):
            return self.found_file(fd, info, parts[-1])
        os.close(fd)
        if not stat.S_ISDIR(info.st_mode):
            raise HttpError(HTTPStatus.NOT_FOUND)
        where = b"".join(b"/" + part for part in parts) + b"/"
        if not plain.endswith(b"/"):
            # So that relative links work. Made of the parts: "//host" would lead to another host.
            raise HttpError(HTTPStatus.MOVED_PERMANENTLY, headers=(f"Location: {quote_from_bytes(where)}",))
        with suppress(HttpError):
            fd, info = self.open([*parts, b"index.html"])
            if stat.S_ISREG(info.st_mode):
                return self.found_file(fd, info, b"index.html")
            os.close(fd)
        page = self.listing(parts, where)
        return Found("text/html; charset=utf-8", len(page), page=page)

    def open(self, parts: list[bytes]) -> tuple[int, os.stat_result]:
        """A descriptor for a file or folder below the root. HttpError."""
        path = os.path.realpath(os.path.join(self.root, *parts))
        if not self.is_inside(path):
            raise HttpError(HTTPStatus.NOT_FOUND)
        try:
            # O_NONBLOCK: a named pipe must not keep us waiting for its writer.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError:
            raise HttpError(HTTPStatus.FORBIDDEN) from None
        except OSError:
            raise HttpError(HTTPStatus.NOT_FOUND) from None
        # Again, of what was opened: a link may have been put in between.
        if self.is_inside(path_of(fd)):
            return fd, os.fstat(fd)
        os.close(fd)
        raise HttpError(HTTPStatus.NOT_FOUND)

    def is_inside(self, path: bytes) -> bool:
        return path == self.root or path.startswith(self.root.rstrip(b"/") + b"/")

    def found_file(self, fd: int, info: os.stat_result, name: bytes) -> Found:
        kind, encoding = mimetypes.guess_type(os.fsdecode(name))
        if kind is None or encoding is not None:  # of a .tar.gz we would have to say that it is compressed in transit
            kind = "application/gzip" if encoding == "gzip" else "application/octet-stream"
        return Found(kind, info.st_size, file=os.fdopen(fd, "rb", buffering=0), modified=info.st_mtime)

    def listing(self, parts: list[bytes], where: bytes) -> bytes:
        try:
            with os.scandir(os.path.join(self.root, *parts)) as entries:
                names = sorted(entry.name + (b"/" if entry.is_dir() else b"") for entry in entries)
        except OSError:
            raise HttpError(HTTPStatus.FORBIDDEN) from None
        title = html.escape(where.decode("utf-8", "replace"))
        rows = ""
        for name in [b"../", *names] if parts else names:
            text = html.escape(name.decode("utf-8", "replace"))
            rows += f'<li><a href="./{quote_from_bytes(name)}">{text}</a></li>\n'
        page = f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>{title}</title></head>\n'
        return f"{page}<body><h1>{title}</h1>\n<ul>\n{rows}</ul></body></html>\n".encode()


class HttpSession:
    """One connection. The socket's handlers hold it, so it lives as long as the connection."""

    def __init__(self, socket: SslSocket, tree: FileTree, log: Log) -> None:
        self.socket = socket
        self.tree = tree
        self.log = log
        self.peer = address_text(socket.remote_address, socket.remote_port)
        self.head: list[bytes] = []
        self.head_size = 0
        self.file: Optional[BinaryIO] = None
        self.file_left = 0
        self.keep_alive = True
        self.progress = monotonic()
        self.timer: Any = EventLoop.current().call_later(IDLE_SECONDS, self.on_timer)
        socket.read_buffer_size = 2 * HEAD_LIMIT
        socket.ready_read_handler = self.on_readable
        socket.bytes_written_handler = self.on_written
        socket.disconnected_handler = self.on_end

    def on_readable(self, socket: SslSocket) -> None:
        """Take requests, as long as each can be answered at once."""
        while self.file is None and self.keep_alive and socket.can_read_line:
            line = socket.read_line()
            self.progress = monotonic()
            self.head_size += len(line)
            line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
            if self.head_size > HEAD_LIMIT:
                self.refuse(bad(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            elif line:
                self.head.append(line)
            elif self.head:  # empty lines before a request are passed over: RFC 9112, 2.2
                head, self.head, self.head_size = self.head, [], 0
                self.answer(head)
        if self.file is None and self.keep_alive and socket.bytes_available > HEAD_LIMIT and not socket.can_read_line:
            self.refuse(bad(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))

    def answer(self, head: list[bytes]) -> None:
        words = head[0].decode("latin-1")
        method = "GET"
        try:
            request = parse_request(head)
            method = request.method
            self.keep_alive = request.keep_alive
            if method not in ("GET", "HEAD"):
                raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, headers=("Allow: GET, HEAD",))
            found = self.tree.find(request.path)
        except HttpError as exc:
            self.refuse(exc, words, method)
            return
        headers = [f"Content-Type: {found.kind}"]
        if found.modified is not None:
            headers.append(f"Last-Modified: {formatdate(found.modified, usegmt=True)}")
        self.send_head(HTTPStatus.OK, found.size, headers)
        self.log(f"{self.peer} {printable(words)} 200 {found.size}")
        if method == "HEAD":
            if found.file is not None:
                found.file.close()
            self.end_answer()
        elif found.file is None:
            self.socket.write(found.page)
            self.end_answer()
        else:
            self.file, self.file_left = found.file, found.size
            self.send_file()

    def refuse(self, error: HttpError, words: str = "", method: str = "GET") -> None:
        if error.ends:
            self.keep_alive = False
        status = error.status
        page = f"{status.value} {status.phrase}\n".encode()
        self.send_head(status, len(page), ["Content-Type: text/plain; charset=utf-8", *error.headers])
        if method != "HEAD":
            self.socket.write(page)
        self.log(f"{self.peer} {printable(words)} {status.value} {len(page)}")
        self.end_answer()

    def send_head(self, status: HTTPStatus, size: int, headers: list[str]) -> None:
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Date: {formatdate(usegmt=True)}",
            *headers,
            f"Content-Length: {size}",
            "X-Content-Type-Options: nosniff",
            *([] if self.keep_alive else ["Connection: close"]),
        ]
        self.socket.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send_file(self) -> None:
        """Read and write as much as may wait to be sent, but let others have their turn."""
        file = self.file
        for _ in range(PIECES_A_TURN):
            if file is None or not self.file_left or self.socket.bytes_to_write >= UNSENT:
                break
            try:
                data = file.read(min(PIECE, self.file_left))
            except OSError as exc:
                self.log(f"{self.peer} {printable(str(exc))}")
                data = b""
            if not data:
                # The file is shorter than we said it is: only a cut connection tells the client.
                self.socket.abort()
                return
            self.file_left -= len(data)
            self.socket.write(data)
            file = self.file  # a failed write has ended all
        if file is not None and not self.file_left:
            file.close()
            self.file = None
            self.end_answer()

    def end_answer(self) -> None:
        if not self.keep_alive:
            self.socket.disconnect()

    def on_written(self, socket: SslSocket, count: int) -> None:
        self.progress = monotonic()
        if self.file is not None:
            self.send_file()
            if self.file is None:
                self.on_readable(socket)

    def on_timer(self) -> None:
        left = self.progress + IDLE_SECONDS - monotonic()
        if left > 0:
            self.timer = EventLoop.current().call_later(left, self.on_timer)
        elif self.socket.bytes_to_write:
            self.socket.abort()
        else:
            self.socket.disconnect()

    def on_end(self, socket: SslSocket) -> None:
        self.timer.cancel()
        if self.file is not None:
            self.file.close()
            self.file = None


def path_of(fd: int) -> bytes:
    """Where an open file lies, links followed."""
    if sys.platform == "darwin":
        import fcntl

        return fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).partition(b"\0")[0]
    return os.readlink(b"/proc/self/fd/%d" % fd)


def log_to_stderr(text: str) -> None:
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
