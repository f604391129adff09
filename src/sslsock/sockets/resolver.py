"""Name lookup off the loop's thread: getaddrinfo on a few threads that all loops of the process share.

A lookup that nobody wants any more goes on in its thread (the system offers no way to stop it) and is
forgotten.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from .event_loop import EventLoop

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Address", "Lookup", "numeric_addresses"]

WORKERS = 8

Address = tuple[int, Any]
"""Address family, and the address as `socket.connect` takes it."""
Answer = Union[list[Address], Exception]

_executor: Optional[ThreadPoolExecutor] = None
_lock = threading.Lock()


def executor() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            from concurrent.futures import ThreadPoolExecutor  # slow to load, and many never look up a name

            _executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="sslsock-resolver")
        return _executor


def _forget_executor() -> None:
    """In a forked child: threads do not survive a fork, and the lock may have been held by one of them."""
    global _executor, _lock
    _executor = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_executor)


def addresses_of(name: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    return [(entry[0], entry[4]) for entry in found if entry[0] in (socket.AF_INET, socket.AF_INET6)]


def numeric_addresses(address: str, port: int) -> list[Address]:
    """Addresses of a host that is written as one: no question goes out. OSError for an unknown scope."""
    return addresses_of(address, port, socket.AI_NUMERICHOST)


def ask(lookup: Lookup, loop: EventLoop, name: str, port: int) -> None:
    """In a thread of the pool."""
    answer: Answer
    try:
        answer = addresses_of(name, port)
    except (OSError, UnicodeError) as exc:
        answer = exc
    with suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(lookup._deliver, answer)


class Lookup:
    """One question. `callback(answer)` comes on the loop, with the addresses in the system's order or the
    exception."""

    __slots__ = ("_callback", "_loop")

    def __init__(self, loop: EventLoop, name: str, port: int, callback: Callable[[Answer], object]) -> None:
        self._loop = loop
        self._callback: Optional[Callable[[Answer], object]] = callback
        executor().submit(ask, self, loop, name, port)
        loop.hold()

    def cancel(self) -> None:
        """No answer is wanted any more. No effect once it has come."""
        if self._callback is not None:
            self._callback = None
            self._loop.release()

    def _deliver(self, answer: Answer) -> None:
        callback = self._callback
        if callback is not None:
            self.cancel()
            callback(answer)
