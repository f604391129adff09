"""Standard input and output beside a loop: a thread each, which blocks in the loop's place.

Descriptors 0 and 1 may be anything: a terminal, a pipe, a file (which epoll refuses), shared with other
programs (so they must not be made non-blocking). Threads work with all of them. Each has one piece under way
at most, and that is all the back-pressure there is to it: input is read when the last piece has been taken,
output when the last one has been written.
"""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress
from typing import Callable, Optional

from .. import EventLoop

PIECE = 256 * 1024


class InputThread:
    """Reads a descriptor. `deliver(data)` is called on the loop, with b"" at the end; then nothing until
    `go_on()`."""

    def __init__(self, loop: EventLoop, fd: int, deliver: Callable[[bytes], object]) -> None:
        self._loop = loop
        self._fd = fd
        self._deliver = deliver
        self._wanted = threading.Semaphore(0)
        # A daemon: a read that waits for the user must not keep the program from ending.
        threading.Thread(target=self._run, name="standard input", daemon=True).start()

    def go_on(self) -> None:
        """Read the next piece."""
        self._wanted.release()

    def _run(self) -> None:
        data = b"-"
        while data:
            self._wanted.acquire()
            try:
                data = os.read(self._fd, PIECE)
            except OSError:  # closed, a folder, a terminal that is gone: nothing can come from it
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._deliver, data)
            except RuntimeError:  # the loop is closed
                return


class OutputThread:
    """Writes to a descriptor. `written(error)` is called on the loop after each `write`."""

    def __init__(self, loop: EventLoop, fd: int, written: Callable[[Optional[OSError]], object]) -> None:
        self._loop = loop
        self._fd = fd
        self._written = written
        self._pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._error: Optional[OSError] = None
        self._thread = threading.Thread(target=self._run, name="standard output", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Write a piece, not empty; not before the last one has been written."""
        self._pieces.put(data)

    def finish(self) -> None:
        """Wait until all has been written. OSError when it could not be."""
        self._pieces.put(b"")
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while data := self._pieces.get():
            try:
                self._write_all(data)
            except OSError as exc:
                self._error = exc
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._written, self._error)
            if self._error is not None:
                return

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
