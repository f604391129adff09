"""EventLoop: asyncio's loop with its queue, timers and descriptors in C."""

from __future__ import annotations

import asyncio
import select
import selectors
import time
import weakref
from asyncio.base_events import _format_handle  # type: ignore[attr-defined]
from asyncio.log import logger
from typing import Any

from ..core.asyncio_loop import LoopCore
from ..core.transport import SocketTransport
from .connecting import Connecting

__all__ = ["EventLoop", "new_event_loop"]


class _Selector:
    """In place of asyncio's selector, for those who look there: the descriptors stand in the set of `LoopCore`."""

    def __init__(self, core: LoopCore) -> None:
        self._core = weakref.ref(core)

    def get_key(self, file: Any) -> selectors.SelectorKey:
        """What is watched of `file`, a descriptor or an object with fileno. KeyError: nothing."""
        core = self._core()
        found = None if core is None else core._watched(file)
        if found is None:
            raise KeyError(f"{file!r} is not registered")
        file, fd, events, handles = found
        mask = selectors.EVENT_READ if events & select.POLLIN else 0
        mask |= selectors.EVENT_WRITE if events & select.POLLOUT else 0
        return selectors.SelectorKey(file, fd, mask, handles)

    def close(self) -> None:
        """What asyncio's loop calls at its end."""


class EventLoop(LoopCore, Connecting, asyncio.SelectorEventLoop):  # type: ignore[misc]  # typeshed's call_* are generic
    """An asyncio event loop. Its queue of calls, timers, readers and writers, sockets and TLS are C; all else is asyncio's.

    selector: accepted, for the sake of programs that give asyncio's loop one, and ignored.
    """

    def __init__(self, selector: object = None) -> None:
        self._listeners = {}
        super().__init__(_Selector(self))  # type: ignore[arg-type]

    def _for_transports(self) -> EventLoop:
        return self

    def run_forever(self) -> None:
        """Run until `stop()` is called. RuntimeError when it, or another loop of this thread, runs already."""
        if self.is_running() or asyncio._get_running_loop() is not None:
            super().run_forever()  # which raises
        self._begin_run()
        try:
            super().run_forever()
        finally:
            self._end_run()

    def close(self) -> None:
        """Close every connection, and give the descriptors back. RuntimeError while the loop runs."""
        if self.is_closed() or self.is_running():
            super().close()  # which does nothing, or raises
            return
        super().close()
        for transport in list(self._transports.values()):
            if type(transport) is SocketTransport:
                transport._loop_closed()
        self._close_core()

    def _run_debug(self, handle: Any) -> None:
        """A call in debug mode: a slow one is logged."""
        self._current_handle = handle
        try:
            begun = time.monotonic()
            handle._run()
            seconds = time.monotonic() - begun
            if seconds >= self.slow_callback_duration:
                logger.warning("Executing %s took %.3f seconds", _format_handle(handle), seconds)
        finally:
            self._current_handle = None


def new_event_loop() -> EventLoop:
    """A new `EventLoop`, for `asyncio.run(main(), loop_factory=sslsock.new_event_loop)`."""
    return EventLoop()
