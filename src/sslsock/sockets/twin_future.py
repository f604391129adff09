"""TwinFuture: what a twin returns. A module of its own, for `concurrent.futures` is slow to load and few programs need it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.nesting import running_host

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["TwinFuture"]

R = TypeVar("R")


class TwinFuture(Future[R]):
    """The result of a call on another loop: for `result()` in any thread, and for `await` in any asyncio loop. A task that is
    cancelled while it awaits cancels the call, unless that has begun."""

    def __await__(self) -> Generator[Any, None, R]:
        host = running_host()
        if host is None:
            raise RuntimeError("awaiting needs an asyncio loop that runs: asyncio.run(), or sslsock.aio.run()")
        from asyncio import wrap_future

        return wrap_future(self, loop=host).__await__()
