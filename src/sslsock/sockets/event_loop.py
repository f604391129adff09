"""EventLoop: the loop of a thread, alone or nested in asyncio.

`Loop`, below, does the work. What is added here: which loop is this thread's, and how it follows a host. A
host is the asyncio loop (uvloop's too) that runs in the thread; attaching gives it one reader, our epoll
descriptor. asyncio itself is never imported: a program that has a running asyncio loop has done so.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..core.loop import Loop

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["EventLoop", "run", "stop"]


class _Local(threading.local):
    loop: Optional[EventLoop] = None


_local = _Local()


def running_host() -> Any:
    """The asyncio loop that runs in this thread, or None."""
    asyncio = sys.modules.get("asyncio")
    # None while another thread is still importing asyncio: then nothing of it can run here yet.
    get = getattr(asyncio, "_get_running_loop", None)
    return get() if get is not None else None


class EventLoop(Loop):
    """The event loop of one thread. `EventLoop.current()` gives it; sockets and servers take it by
    themselves.

    call_soon(f, *args), call_later(seconds, f, *args) -> timer with cancel(), call_soon_threadsafe(f, *args):
    plan a call. exception_handler: None or callable(loop, {"message", "exception", "source"}) for what
    handlers raise; None logs it with its traceback. fileno(), dispatch(timeout=0): to nest the loop in
    another one by hand.
    """

    __slots__ = ("_futures", "_host")

    _futures: set[Future[Any]]
    _host: Any

    def __init__(self) -> None:
        super().__init__()
        self._futures = set()
        self._host = None

    @classmethod
    def current(cls) -> EventLoop:
        """This thread's loop: made if there is none, it is closed, or it came from before a fork. If an
        asyncio loop is running in this thread, the loop is attached to it."""
        loop = _local.loop
        if loop is None or loop.closed or not loop.in_thread():
            loop = _local.loop = EventLoop()
        host = running_host()
        if host is not loop._host:
            loop._follow(host)
        return loop

    def follow_host(self) -> None:
        """Attach to the asyncio loop that now runs in this thread, if one does. RuntimeError from a foreign
        thread."""
        self.check()
        host = running_host()
        if host is not self._host:
            self._follow(host)

    def _follow(self, host: Any) -> None:
        # A host that is only not running now (between two run_until_complete) goes on later and must find us
        # attached.
        if host is None and not self._host.is_closed():
            return
        self._detach()
        if host is not None:
            host.add_reader(self.fileno(), self.host_turn)
            self._host = host
            self.host_call_soon = host.call_soon

    def _detach(self) -> None:
        host, self._host, self.host_call_soon = self._host, None, None
        if host is not None and not host.is_closed():
            host.remove_reader(self.fileno())

    def run(self) -> None:
        """Run until nothing is left to wait for or `stop()` is called. RuntimeError when it runs already,
        alone or inside a running asyncio loop."""
        self.follow_host()
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
        while self._futures:
            future = self._futures.pop()
            if future.set_running_or_notify_cancel():
                future.set_exception(RuntimeError("the event loop was closed"))

    def remember_future(self, future: Future[Any]) -> None:
        """Keep a twin's future, so that nobody waits for ever for a loop that has been closed. From any
        thread."""
        self._futures.add(future)

    def forget_future(self, future: Future[Any]) -> None:
        """The future is being settled."""
        self._futures.discard(future)


def run(main: Optional[Callable[[], object]] = None) -> None:
    """Call `main`, then run this thread's loop until nothing is left to wait for or `stop()` is called. What
    `main` raises comes out of here."""
    loop = EventLoop.current()
    failures: list[BaseException] = []

    def begin(main: Callable[[], object]) -> None:
        try:
            main()
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
