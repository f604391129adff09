"""What the programs of this folder share: a library's work, done in each loop with each kind of contexts.

A program is run as `python PROGRAM matrix CA_FILE FILE PORT…`, as those of tests/ssl/libraries are, whose `common` it uses as
well. It gives its work, a coroutine function, to `matrix`, which prints what came of it each time:

    stock       asyncio's own loop: what all the others are compared with
    sslsock     our loop
    asyncio     asyncio's loop with `attach`
    uvloop      uvloop's with `attach`

with contexts of the interpreter's `ssl` (stdlib), and but for stock, of `sslsock.ssl` (own). Of each: `result`; `seen`, the
kinds of transports that stood when the work called `look`; `counted`, the connections by the module of their context; `told`,
what the loop's exception handler was given; `left`, the tasks and transports that were there afterwards.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import asyncio.sslproto
import gc
import hashlib
import json
import logging
import traceback
import warnings
from collections.abc import Coroutine
from typing import Any, Callable

import common
import uvloop
import uvloop.loop

import sslsock.aio
import sslsock.ssl
from sslsock.core.layered_transport import LayeredTransport
from sslsock.core.transport import SocketTransport

LIMIT = 90.0  # seconds for one time: far more than it takes
LARGE = bytes(range(256)) * 16_384  # 4 MiB

LOOPS: dict[str, Callable[[], Any]] = {
    "stock": asyncio.SelectorEventLoop,
    "sslsock": sslsock.aio.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
KINDS: dict[type, str] = {
    asyncio.selector_events._SelectorSocketTransport: "asyncio",  # type: ignore[attr-defined]
    asyncio.sslproto._SSLProtocolTransport: "asyncio TLS",  # type: ignore[attr-defined]
    uvloop.loop.TCPTransport: "uvloop",
    uvloop.loop.UnixTransport: "uvloop",
    uvloop.loop._SSLProtocolTransport: "uvloop TLS",
    SocketTransport: "sslsock",
    LayeredTransport: "sslsock layered",
}
logging.disable(logging.CRITICAL)  # what libraries say of peers that vanish
seen: set[str] = set()
before: list[Any] = []  # transports that other loops have left


def transports() -> list[Any]:
    """Those of the loop that runs."""
    known = set(map(id, before))
    return [one for one in gc.get_objects() if type(one) in KINDS and not one.is_closing() and id(one) not in known]


def look() -> None:
    """To be called while connections stand: which kinds of transports they have."""
    for one in transports():
        kind = KINDS[type(one)]
        seen.add(f"{kind} TLS" if kind.startswith("sslsock") and one.get_extra_info("sslcontext") is not None else kind)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def ended(awaitable: Any) -> Any:
    """What it returns, or the names of the exceptions that it ends with (common.names)."""
    try:
        return await awaitable
    except Exception as exc:
        return common.names(exc)


def one(work: Callable[[], Coroutine[Any, Any, Any]], kind: str) -> dict[str, Any]:
    loop, told = LOOPS[kind](), []
    loop.set_exception_handler(
        lambda loop, context: told.append(f"{context.get('message')} {context.get('exception')!r} {context.get('protocol')!r}")
    )
    seen.clear()
    before.extend(transports())
    asyncio.set_event_loop(loop)

    async def main() -> Any:
        if kind in ("asyncio", "uvloop"):
            sslsock.aio.attach()
        return await asyncio.wait_for(work(), LIMIT)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ResourceWarning)
        try:
            result = loop.run_until_complete(main())
        except BaseException:
            result = traceback.format_exc()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        left = [repr(one) for one in (*tasks, *transports())]
        asyncio.set_event_loop(None)
        loop.close()
        del loop, tasks
        gc.collect()
        left += [str(warning.message) for warning in warned]
    return {"result": result, "seen": sorted(seen), "counted": dict(common.counted), "told": told, "left": left}


def matrix(work: Callable[[], Coroutine[Any, Any, Any]], *, installs: bool = False) -> None:
    """installs: `sslsock.ssl.install()` before the second half, for a library that makes contexts of its own."""
    found = {}
    for own in (False, True):
        if own and installs:
            sslsock.ssl.install()
        for kind in LOOPS:
            if not (own and kind == "stock"):
                common.use(own)
                found[f"{kind} {'own' if own else 'stdlib'}"] = one(work, kind)
    print(json.dumps(found))
