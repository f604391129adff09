"""What the tests of mail servers share: a folder that their users may enter, and a client that talks in lines."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers import Host, Recorder
from sslsock import SslConfiguration, SslSocket

from .pki import NAME
from .programs import cannot_run


def need_root(what: str) -> None:
    if os.geteuid() != 0:
        cannot_run(f"{what} needs root, for it works as several users")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder of its own: pytest's may be entered by one user only."""
    folder = Path(tempfile.mkdtemp(prefix="sslsock-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class LineClient:
    """Speaks a protocol of lines over one of our sockets."""

    def __init__(self, host: Host, configuration: SslConfiguration, port: int, *, encrypted: bool) -> None:
        self.host = host
        self.socket = SslSocket()
        self.socket.configuration = configuration
        self.socket.peer_verify_name = NAME
        self.recorder = Recorder(self.socket)
        self.place = 0
        if encrypted:
            self.socket.connect_encrypted("127.0.0.1", port)
        else:
            self.socket.connect("127.0.0.1", port)

    def until(self, word: bytes) -> bytes:
        """What has come since the last time, up to a line that begins with `word`."""
        self.host.wait_for(lambda: self._end_of_line(word), f"a line with {word!r}", 30)
        end = self._end_of_line(word)
        answer = bytes(self.recorder.data[self.place : end])
        self.place = end
        return answer

    def _end_of_line(self, word: bytes) -> int:
        data = self.recorder.data
        start = self.place if data.startswith(word, self.place) else data.find(b"\n" + word, self.place)
        end = data.find(b"\r\n", start) if start >= 0 else -1
        if end < 0 and self.recorder.has("error"):
            raise AssertionError((self.socket.error_string, bytes(data[-500:])))
        return end + 2 if end >= 0 else 0

    def ask(self, line: bytes, answer: bytes) -> bytes:
        self.socket.write(line + b"\r\n")
        return self.until(answer)

    def encrypt(self) -> None:
        """STARTTLS has been agreed on."""
        self.socket.start_client_encryption()
        self.host.wait_for(lambda: self.socket.encrypted or self.recorder.has("error"), self.recorder.events)
        assert self.socket.encrypted, self.socket.error_string
