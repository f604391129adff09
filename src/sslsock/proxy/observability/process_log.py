"""What else a process says, led into the proxy's log: the records of the package's logger, warnings of Python, and exceptions
that nobody caught.

By themselves they would be written to standard error by whoever they happen to: in several lines, in no format, and waiting for
its reader.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .access_log import ERROR, INFO, WARNING, LineWriter, text_message

__all__ = ["log", "process_log"]

log = logging.getLogger("sslsock")


class WriterHandler(logging.Handler):
    """Gives records to a `LineWriter`. A traceback is part of its message in JSON, and lines of their own in text."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        level = ERROR if record.levelno >= logging.ERROR else WARNING if record.levelno >= logging.WARNING else INFO
        text = self.format(record)
        for part in text.split("\n") if self._writer.message is text_message else [text]:
            self._writer.write(part, level)


@contextmanager
def process_log(writer: LineWriter) -> Iterator[None]:
    """Lead all of it to `writer`, until the end of the block."""
    handler = WriterHandler(writer)
    before = log.propagate, threading.excepthook, sys.unraisablehook, warnings.showwarning
    log.addHandler(handler)
    log.propagate = False
    threading.excepthook = on_thread_exception
    sys.unraisablehook = on_unraisable
    warnings.showwarning = on_warning
    try:
        yield
    finally:
        log.propagate, threading.excepthook, sys.unraisablehook, warnings.showwarning = before
        log.removeHandler(handler)


def on_thread_exception(args: Any) -> None:
    if not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread is not None else "unknown"
        log.error("exception in thread %s", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def on_unraisable(args: Any) -> None:
    text = args.err_msg or "exception ignored in"
    log.error("%s %r", text, args.object, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def on_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: object = None, line: object = None
) -> None:
    log.warning("%s: %s (%s, line %d)", category.__name__, message, filename, lineno)
