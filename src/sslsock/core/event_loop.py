"""EventLoop: the loop of a thread, alone or nested in asyncio.

`Loop`, below, does the work. What is added here: which loop is this thread's, and how it follows a host. A host is the asyncio
loop (uvloop's too) that runs in the thread; attaching gives it one reader, our descriptor. Any use of the loop, or of an
object that lives on it, outside a turn attaches it to the host that runs then (`Loop.look_for_host`), so that it goes from
host to host. asyncio itself is never imported: a program that has an asyncio loop has done so.
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from .loop import Loop
from .nesting import running_host

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

__all__ = ["EventLoop", "run", "stop"]


class _Local(threading.local):
    loop: Optional[EventLoop] = None


_local = _Local()


def resting_host() -> Any:
    """The asyncio loop that was set for this thread and does not run yet, or None; none is made."""
    events: Any = sys.modules.get("asyncio.events")
    if events is None:
        return None
    if sys.version_info >= (3, 14):
        try:
            host = events.get_event_loop()
        except RuntimeError:
            return None
    else:  # where get_event_loop() may make one, and warns
        host = getattr(getattr(events._event_loop_policy, "_local", None), "_loop", None)
    return None if host is None or host.is_closed() else host


async def when_host_ends(reference: weakref.ref[EventLoop]) -> AsyncGenerator[None, None]:
    """asyncio closes the asynchronous generators of a loop at its end: the one thing that it tells of it."""
    try:
        yield
    finally:
        loop = reference()
        if loop is not None:
            loop._on_host_end()


class _Task(Protocol):
    """What `_tasks` knows of one: the asyncio loop that runs it."""

    host: asyncio.AbstractEventLoop


class EventLoop(Loop):
    """The event loop of one thread. `EventLoop.current()` gives it; sockets and servers take it by
    themselves.

    `call_soon`, `call_later` and `call_soon_threadsafe` plan calls. `fileno` and `dispatch` nest the loop in another one by
    hand.
    """

    __slots__ = ("_awaited", "_futures", "_sentinel", "_tasks", "_warned")

    _futures: set[Future[Any]]
    _awaited: set[asyncio.Future[Any]]
    _tasks: dict[object, _Task]  # those that run handlers: asyncio holds tasks weakly

    def __init__(self) -> None:
        super().__init__()
        self._futures = set()
        self._awaited = set()
        self._tasks = {}
        self._sentinel: Optional[AsyncGenerator[None, None]] = None
        self._warned = False

    def __repr__(self) -> str:
        states = ("closed", self.closed), ("in asyncio", self.host is not None), ("running", self.running)
        return f"<{type(self).__name__} {next((name for name, is_so in states if is_so), 'not running')}>"

    @classmethod
    def current(cls) -> EventLoop:
        """This thread's loop: made if there is none, it is closed, or it came from before a fork. Called inside
        a running asyncio loop it attaches this thread's sockets to that, as any use of them does."""
        own = getattr(running_host(), "core", None)
        if isinstance(own, EventLoop) and own.in_thread() and not own.closed:  # of an `sslsock.aio.EventLoop`, which turns it
            return own
        loop = _local.loop
        if loop is None or loop.closed or not loop.in_thread():
            loop = _local.loop = EventLoop()
        loop._follow_host()
        return loop

    @property  # type: ignore[override]
    def exception_handler(self) -> Optional[Callable[[EventLoop, dict[str, Any]], object]]:
        """`exception_handler(loop, {"message": str, "exception": exception, "source": object})`: called with what handlers
        raise. None logs it with its traceback. TypeError for what cannot be called."""
        return super().exception_handler

    @exception_handler.setter
    def exception_handler(self, handler: Optional[Callable[[EventLoop, dict[str, Any]], object]]) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"exception_handler is None or a callable, not {type(handler).__name__}")
        Loop.exception_handler.__set__(self, handler)  # type: ignore[union-attr]

    def _follow_host(self) -> None:
        """Attach to the asyncio loop that now runs in this thread; if none does, to the one that was set for
        it. RuntimeError from a foreign thread, and in an asyncio loop that is run inside a handler of this one: its turn has to
        end first."""
        self.check()  # this attaches to one that runs
        if self.dispatching and running_host() is not self.host and running_host() is not None:
            raise RuntimeError("an asyncio loop that runs inside a handler of sslsock's own loop cannot serve its sockets")
        if (self.host is None or self.host.is_closed()) and running_host() is None:
            self._detach()
            host = resting_host()
            if host is not None:
                self.follow(host)

    def follow(self, host: Any) -> None:
        """Become part of `host`, an asyncio loop of this thread, which need not run yet. No call of it is needed
        where sockets are used in the running loop. RuntimeError for one without `add_reader`, and from a foreign
        thread."""
        self._check_owner()
        self._detach()
        try:
            host.add_reader(self.fileno(), self._host_turn)
        except NotImplementedError:
            raise RuntimeError(f"sockets of sslsock need an asyncio loop with add_reader: {host!r} has none") from None
        self.host = host
        self._host_call_soon = host.call_soon
        if running_host() is host:
            self._sentinel = when_host_ends(weakref.ref(self))
            with suppress(StopIteration):  # it has come to where it waits to be closed
                self._sentinel.__anext__().send(None)

    def _detach(self) -> None:
        host, self.host, self._host_call_soon = self.host, None, None
        sentinel, self._sentinel = self._sentinel, None
        if sentinel is not None:
            with suppress(StopIteration, RuntimeError):  # ended; it is what has called
                sentinel.aclose().send(None)
        if host is not None and not host.is_closed():
            host.remove_reader(self.fileno())
        self._drop_dead_tasks()

    def _drop_dead_tasks(self) -> None:
        """Those of asyncio loops that are closed will never be done."""
        for key in [key for key, task in self._tasks.items() if task.host.is_closed()]:
            del self._tasks[key]

    def _on_host_end(self) -> None:
        if self._sentinel is not None and not self.closed and self.in_thread() and self.unsent:
            self._warn(f"the asyncio loop ends while {self.unsent} bytes wait to be sent")

    def _warn(self, message: str) -> None:
        import warnings

        warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    def _warn_if_left(self) -> None:
        """ResourceWarning for what nothing will ever serve: the loop is dropped, or the program ends."""
        if getattr(self, "_warned", True) or self.closed or self._of_parent:  # it lacks this when its making has failed
            return
        self._warned = True
        if self.watching and not self._turned:
            self._warn(
                f"an event loop with {self.watching} open sockets has never run: "
                "sslsock.run() runs it, or any use of a socket inside a running asyncio loop"
            )
        elif self.unsent:
            self._warn(f"an event loop is dropped while {self.unsent} bytes wait to be sent")

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():  # not by `sys`, which is None when the interpreter has cleared this module
            self._warn_if_left()

    def run(self) -> None:
        """Run until nothing is left to wait for or `stop()` is called. RuntimeError when it runs already,
        alone or inside a running asyncio loop."""
        self._follow_host()
        if running_host() is not None:
            raise RuntimeError("this loop is part of the running asyncio loop: await something instead of running it")
        if threading.current_thread() is not threading.main_thread():
            super().run()
            return
        # Another thread may be the one that the system interrupts: then only this wakes the loop for the
        # signal.
        previous = signal.set_wakeup_fd(self.wake_fd, warn_on_full_buffer=False)
        try:
            super().run()
        finally:
            signal.set_wakeup_fd(previous)

    def close(self) -> None:
        """Close every connection of this loop at once. RuntimeError from inside a turn or from another
        thread."""
        if not self.closed and not self.dispatching and self.in_thread():
            self._detach()
        super().close()
        if _local.loop is self:  # `current` makes another: this thread does not keep it and its scratch memory
            _local.loop = None
        while self._futures:
            future = self._futures.pop()
            if future.set_running_or_notify_cancel():
                future.set_exception(RuntimeError("the event loop was closed"))
        while self._awaited:
            awaited = self._awaited.pop()
            if not awaited.done() and not awaited.get_loop().is_closed():
                awaited.set_exception(RuntimeError("the event loop was closed"))
        self._drop_dead_tasks()

    def _remember_future(self, future: Future[Any]) -> None:
        """Keep a twin's future, so that nobody waits for ever for a loop that has been closed. From any
        thread."""
        self._futures.add(future)

    def _forget_future(self, future: Future[Any]) -> None:
        """The future is being settled."""
        self._futures.discard(future)

    def _remember_awaited(self, future: asyncio.Future[Any]) -> None:
        """Keep what a task waits for that awaits something of this loop, so that it does not wait for a closed one."""
        self._awaited.add(future)

    def _forget_awaited(self, future: asyncio.Future[Any]) -> None:
        """The task goes on."""
        self._awaited.discard(future)


def not_run_here(thing: object) -> TypeError:
    """What `run` raises for a coroutine, or what is no function."""
    if not isinstance(thing, CoroutineType):
        return TypeError(f"run() calls a function, not {type(thing).__name__}")
    thing.close()  # it has not begun: no warning that nobody has awaited it
    return TypeError("run() runs no coroutines: asyncio.run() or sslsock.aio.run() does")


def run(main: Optional[Callable[[], object]] = None) -> None:
    """Call `main`, then run this thread's loop until nothing is left to wait for or `stop()` is called. What
    `main` raises comes out of here. TypeError for a coroutine: `sslsock.aio.run` runs those."""
    if main is not None and not callable(main):
        raise not_run_here(main)
    loop = EventLoop.current()
    failures: list[BaseException] = []

    def begin(main: Callable[[], object]) -> None:
        try:
            result = main()
            if isinstance(result, CoroutineType):
                raise not_run_here(result)
        except BaseException as exc:
            failures.append(exc)
            loop.stop()

    # Where `run` below is going to raise, `main` must not have begun.
    if main is not None and running_host() is None and not loop.dispatching:
        loop.call_soon(begin, main)
    loop.run()
    if failures:
        raise failures[0]


def stop() -> None:
    """End `run()` of this thread's loop after the current turn. Called before `run()`, it ends that after its first turn, in
    which `main` is called."""
    EventLoop.current().stop()


@atexit.register
def _at_exit() -> None:
    loop = _local.loop
    if loop is not None:
        loop._warn_if_left()
