"""The transports for loops that exist: asyncio's, uvloop's, any with `add_reader`.

`Hosted` is asyncio's loop as far as it makes connections and servers (name lookup, happy eyeballs, listening), over a host that
it plans its calls in. The channels stand in the thread's own loop, nested in the host.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import weakref
from asyncio import base_events, tasks
from types import FunctionType, SimpleNamespace
from typing import Any, Optional

from ..core.event_loop import EventLoop as CoreLoop
from .connecting import Connecting

__all__ = ["Hosted", "hosted"]

# What is asked of the host. All of these are public: the host may be anybody's.
OF_HOST = (
    *("call_soon", "call_soon_threadsafe", "call_later", "call_at", "time", "create_future", "create_task"),
    *("get_debug", "is_closed", "is_running", "call_exception_handler", "default_exception_handler"),
    *("getaddrinfo", "getnameinfo", "run_in_executor", "sock_connect", "sock_accept", "sock_recv", "sock_sendall"),
)


make_server: Any = asyncio.SelectorEventLoop.create_server
if sys.version_info < (3, 10):
    # It gathers in the loop that it is a method of, which here is not the one that runs: the same code, with another `tasks`.
    original, gathers = make_server, SimpleNamespace(**vars(tasks))
    gathers._gather = lambda *futures, loop: tasks.gather(*futures)
    make_server = FunctionType(original.__code__, {**vars(base_events), "tasks": gathers}, closure=original.__closure__)
    make_server.__kwdefaults__, make_server.__defaults__ = original.__kwdefaults__, original.__defaults__


class Makes(asyncio.SelectorEventLoop):
    """asyncio's loop, whose servers are made in the loop that runs."""

    create_server = make_server


def asks_host(name: str) -> Any:
    def method(self: Hosted, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._host, name)(*args, **kwargs)

    method.__name__ = name
    return method


class Hosted(Connecting, Makes):
    """Makes connections and servers for `host`, an asyncio loop. Never run."""

    def __init__(self, host: Any) -> None:
        # Nothing of asyncio's is initialised: no selector, no queue.
        self._host_reference = weakref.ref(host)
        self._transports = weakref.WeakValueDictionary()
        self._listeners = {}
        self._unix_server_sockets: dict[Any, int] = {}  # from CPython 3.13 on

    def __del__(self) -> None:
        pass  # there is nothing that could have been left open

    def __repr__(self) -> str:
        return f"<connections of {self._host!r}>"

    for _name in OF_HOST:
        locals()[_name] = asks_host(_name)
    del _name

    @property
    def _host(self) -> Any:
        host = self._host_reference()
        if host is None:
            raise RuntimeError("the event loop is gone")
        return host

    @property
    def core(self) -> CoreLoop:
        return CoreLoop.current()

    @property
    def _debug(self) -> bool:
        return bool(self._host.get_debug())

    def _for_transports(self) -> Any:
        return self._host

    def _check_closed(self) -> None:
        if self._host.is_closed():
            raise RuntimeError("Event loop is closed")

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        self._host.add_reader(fd, callback, *args)

    def _remove_reader(self, fd: Any) -> bool:
        return bool(self._host.remove_reader(fd))

    def _add_writer(self, fd: Any, callback: Any, *args: Any) -> None:
        self._host.add_writer(fd, callback, *args)

    def _remove_writer(self, fd: Any) -> bool:
        return bool(self._host.remove_writer(fd))


_known: weakref.WeakKeyDictionary[Any, Hosted] = weakref.WeakKeyDictionary()


def hosted(host: Any) -> Any:
    """What makes connections for `host`: itself, where it does so already. TypeError for what is no loop with readers."""
    if isinstance(host, Connecting):
        return host
    if not isinstance(host, asyncio.AbstractEventLoop):
        raise TypeError(f"an asyncio event loop is needed, not {type(host).__name__}")
    made = _known.get(host)
    if made is None:
        made = _known[host] = Hosted(host)
    return made


REPLACED = (
    *("create_connection", "create_server", "create_unix_connection", "create_unix_server"),
    *("connect_accepted_socket", "start_tls", "sendfile"),
)


def attach(loop: Optional[asyncio.AbstractEventLoop] = None) -> asyncio.AbstractEventLoop:
    """Have the connections and servers that `loop` makes from now on be those of this package. Returns the loop.

    loop: an asyncio loop; None: the one that runs

    It has no effect on an `EventLoop`, nor the second time. RuntimeError where no loop runs and none is given; TypeError for
    what is no loop.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    maker = hosted(loop)
    if maker is not loop:
        for name in REPLACED:
            setattr(loop, name, getattr(maker, name))
    return loop


def with_loop(name: str) -> Any:
    """asyncio's method of that name as a function whose first argument is the loop."""
    method = getattr(asyncio.SelectorEventLoop, name)

    @functools.wraps(method)
    async def function(loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> Any:
        for key in ("ssl_incoming_bio_size", "ssl_outgoing_bio_size"):  # aiofastnet's: there are no such buffers here
            size = kwargs.pop(key, None)
            if size is not None and size < 16384:
                raise ValueError(f"{key} must be at least 16384, not {size!r}")
        return await getattr(hosted(loop), name)(*args, **kwargs)

    function.__module__, function.__qualname__ = "sslsock.aio", name
    function.__doc__ = f"`{name}` of the event loop `loop`, as asyncio documents it."
    whole = inspect.signature(method)
    first, *others = whole.parameters.values()
    function.__signature__ = whole.replace(parameters=[first.replace(name="loop"), *others])  # type: ignore[attr-defined]
    return function
