"""Programs on our loop: `run`, and the policy for those that call asyncio.run themselves."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Coroutine
from typing import Any, Optional, TypeVar

from .event_loop import EventLoop, new_event_loop

__all__ = ["install_policy", "run"]

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result], *, debug: Optional[bool] = None) -> Result:
    """asyncio.run on an `EventLoop`. Returns what `main` returns. RuntimeError inside a running loop."""
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("sslsock.aio.run() cannot be called from a running event loop")
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
            return runner.run(main)
    loop = new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        if debug is not None:
            loop.set_debug(debug)
        return loop.run_until_complete(main)
    finally:
        try:
            asyncio.runners._cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def install_policy() -> None:
    """Have asyncio make an `EventLoop` from now on, in asyncio.run, asyncio.Runner and asyncio.new_event_loop. Up to CPython
    3.15: later ones have no policies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of policies, from CPython 3.14 on

        class EventLoopPolicy(asyncio.DefaultEventLoopPolicy):
            """asyncio's policy, with our loop."""

            _loop_factory = EventLoop

        asyncio.set_event_loop_policy(EventLoopPolicy())
