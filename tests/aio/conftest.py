"""Fixtures: the loops that connections of ours live in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Callable

import pytest

from sslsock import aio

try:
    import uvloop
except ImportError:
    uvloop = None

HOSTS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"ours": aio.new_event_loop, "asyncio": asyncio.SelectorEventLoop}
if uvloop is not None:
    HOSTS["uvloop"] = uvloop.new_event_loop


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = HOSTS[request.param]()
    asyncio.set_event_loop(loop)
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()
