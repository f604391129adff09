"""Knot DNS, a name server of Debian's, whose records change while it runs. It has the zone example.test."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Optional

from interop.programs import free_port, program

from .operations import DEADLINE, wait_until

__all__ = ["DnsServer"]

CONFIGURATION = """
server:
    rundir: {folder}
    listen: 127.0.0.1@{port}
control:
    listen: {folder}/control
database:
    storage: {folder}
zone:
  - domain: example.test
    storage: {folder}
    file: zone
    semantic-checks: off
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
"""
QUESTION = b"\0\1\0\0\0\1\0\0\0\0\0\0\7example\4test\0\0\6\0\1"  # RFC 1035, 4: for the SOA record of example.test


class DnsServer:
    """records: lines of the zone, names without a dot at their end are inside it."""

    def __init__(self, folder: Path, *records: str) -> None:
        self._folder = folder
        self.port = free_port()
        self._programs = program("knotd", "knot"), program("knotc", "knot")
        self._serial = 0
        self._process: Optional[subprocess.Popen[bytes]] = None
        (folder / "knot.conf").write_text(CONFIGURATION.format(folder=folder, port=self.port))
        self._write(records)
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        words = [self._programs[0], "-c", str(self._folder / "knot.conf")]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "the name server")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._process = None

    def change(self, *records: str) -> None:
        self._write(records)
        words = [self._programs[1], "-c", str(self._folder / "knot.conf"), "-b", "zone-reload", "example.test"]
        subprocess.run(words, check=True, capture_output=True, timeout=DEADLINE)

    def _write(self, records: tuple[str, ...]) -> None:
        self._serial += 1
        head = [
            "$ORIGIN example.test.",
            "$TTL 1",
            f"@ SOA ns.example.test. admin.example.test. {self._serial} 60 60 60 60",
            "@ NS ns.example.test.",
            "ns A 127.0.0.1",
        ]
        (self._folder / "zone").write_text("\n".join([*head, *records, ""]))

    def _answers(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, contextlib.suppress(OSError):
            asking.connect(("127.0.0.1", self.port))
            asking.settimeout(0.2)
            asking.send(QUESTION)
            answer = asking.recv(512)
            return not answer[3] & 15 and answer[7] > 0  # no error, and an answer
        return False

    def __enter__(self) -> DnsServer:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.kill()
