"""`serve`: an application in several loops, each in a thread of its own with its own listening socket.

    serve()  ── opens the sockets of all, starts the threads, is one of them itself
      Worker ── one loop: begins, serves until it is told to stop or its application ends, winds down in bounded time

The first that ends, in whatever way, ends all. Only the thread that has called `serve` takes signals, if it is the main one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import signal
import socket
import sys
import threading
from asyncio.log import logger
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, Optional, Union

from ..core.cpu_count import default_threads
from .event_loop import EventLoop
from .functions import LIMIT
from .servers import Server
from .streams import StreamReader, StreamReaderProtocol

__all__ = ["serve"]

BACKLOG = 4096  # the system cuts it to net.core.somaxconn
LAST_SECONDS = 1.0  # for what is cancelled, to end by itself
TRIES = 20  # to find a port that is free for all addresses

Host = Union[str, Sequence[str], None]


def serve(
    app: Callable[..., Any],
    host: Host = None,
    port: Optional[int] = None,
    *,
    path: Union[str, os.PathLike[str], None] = None,
    sock: Optional[socket.socket] = None,
    threads: Optional[int] = None,
    shutdown_timeout: float = 10.0,
    started: Optional[Callable[[list[Any]], object]] = None,
    backlog: int = BACKLOG,
    reuse_port: bool = False,
    debug: Optional[bool] = None,
    **options: Any,
) -> None:
    """Serve `app` in several threads, each with a loop of its own, until SIGINT or SIGTERM, or until one of them has ended.

    app: what it takes says what it is.
        `async def app(reader, writer)`: called for each connection, as asyncio.start_server does.
        A protocol factory without arguments: called for each connection, as `create_server` does.
        `async def app(sockets)`: called once in each loop, with its listening sockets (list); it makes its own servers of them.
        When it is to end it is cancelled.
    host, port: as create_server has them; every loop has a listening socket for each address (SO_REUSEPORT), with port 0 all
        have the same port.
    path: in place of them, a UNIX socket, which all loops accept from.
    sock: in place of them, a listening socket of the program, likewise.
    threads: int; None: one for each CPU that the process may use, by its quota too, where Python has no GIL, else one.
    shutdown_timeout: seconds for connections, or `app(sockets)`, to end by themselves when it is to stop; then they are closed.
        At the second signal they are closed at once.
    started: called with the addresses (list, as `getsockname` gives them) when every loop listens, in the calling thread.
    backlog: how many connections the system holds until they are accepted.
    reuse_port: whether other processes may listen on the same port.
    debug: whether the loops run in asyncio's debug mode; None: as asyncio decides.
    options: others of create_server, and `limit` of start_server; not for `app(sockets)`.

    What is raised in one thread ends all, and comes out of this call. OSError where it cannot listen. RuntimeError inside a
    running loop. TypeError, ValueError.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("sslsock.aio.serve() cannot be called from a running event loop")
    kind = kind_of(app)
    for name in options:
        if kind is run_application or name == "start_serving":
            raise TypeError(f"serve() is given no {name!r}" + (" for an app(sockets)" if kind is run_application else ""))
    if threads is None:
        threads = default_threads() if not getattr(sys, "_is_gil_enabled", lambda: True)() else 1
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads is a number from 1 on, not {threads!r}")
    if shutdown_timeout < 0:
        raise ValueError(f"shutdown_timeout is a number of seconds, not {shutdown_timeout!r}")
    if [host is not None or port is not None, path is not None, sock is not None].count(True) != 1:
        raise ValueError("one of host and port, path and sock is needed")
    with contextlib.ExitStack() as stack:
        if sock is not None:
            sockets = shared(sock.dup(), threads)
        elif path is not None:
            sockets = shared(listening_at(path, backlog, stack), threads)
        else:
            sockets = listening_on(host, port or 0, threads, backlog, reuse_port)
        keep_alive = options.pop("keep_alive", False)
        for one in (one for own in sockets for one in own):
            stack.enter_context(one)
            if keep_alive:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        Crew(kind, app, sockets, options, shutdown_timeout, started, debug).run()


# Listening


def listening_on(host: Host, port: int, threads: int, backlog: int, reuse_port: bool) -> list[list[socket.socket]]:
    """Of each thread its sockets, one for each address of `host`."""
    for left in reversed(range(TRIES)):
        with contextlib.ExitStack() as stack:
            try:
                found = port
                if threads > 1 and not reuse_port:
                    # One that shares the port with nobody tells whether somebody else has it.
                    found = max(one.getsockname()[1] for one in closed_again(bound_to(host, port, False)))
                made: list[list[socket.socket]] = []
                for _ in range(threads):
                    made.append([stack.enter_context(one) for one in bound_to(host, found, reuse_port or threads > 1)])
                    found = made[0][0].getsockname()[1]
            except OSError as exc:
                if port or exc.errno != errno.EADDRINUSE or not left:
                    raise
                continue  # the port was free for the first address only
            for own in made:
                for one in own:
                    one.listen(backlog)
            stack.pop_all()
            return made
    raise AssertionError


def closed_again(sockets: Iterable[socket.socket]) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as stack:
        for sock in sockets:
            yield stack.enter_context(sock)


def bound_to(host: Host, port: int, reuse_port: bool) -> Iterator[socket.socket]:
    """A socket for each address of `host`, all with one port."""
    hosts: Iterable[Optional[str]] = [host or None] if host is None or isinstance(host, str) else host
    seen: set[Any] = set()
    bound = False
    for name in hosts:
        for family, kind, proto, _, address in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
            if address in seen:
                continue
            seen.add(address)
            try:
                sock = socket.socket(family, kind, proto)
            except OSError:
                continue  # a family that the system does not have
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if reuse_port:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address[0], port, *address[2:]))
                port = sock.getsockname()[1]
            except OSError as exc:
                sock.close()
                if not name and exc.errno == errno.EADDRNOTAVAIL:
                    continue  # there is the family, and no address of it
                raise OSError(exc.errno, f"cannot listen on {address[0]} port {port}: {exc.strerror}") from None
            bound = True
            yield sock
    if not bound:
        raise OSError(errno.EADDRNOTAVAIL, f"there is no address to listen on for {host!r}")


def listening_at(path: Union[str, os.PathLike[str]], backlog: int, stack: contextlib.ExitStack) -> socket.socket:
    """A listening UNIX socket. A file that a process has left behind is replaced, and ours goes in the end."""
    path = os.fspath(path)
    abstract = path.startswith("\0")
    if not abstract:
        with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise OSError(errno.EADDRINUSE, f"somebody listens at {path!r} already")
    with contextlib.ExitStack() as failing:
        sock = failing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.setblocking(False)
        sock.bind(path)
        if not abstract:
            stack.callback(removes(path))
        sock.listen(backlog)
        failing.pop_all()
    return sock


def removes(path: str) -> Callable[[], None]:
    """The file as it is now, in case that another process has replaced it."""
    made = os.stat(path)

    def remove() -> None:
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)

    return remove


def shared(sock: socket.socket, threads: int) -> list[list[socket.socket]]:
    """One for each thread, all of them the same to the system."""
    sock.setblocking(False)
    return [[sock], *([sock.dup()] for _ in range(threads - 1))]


# Applications. Each of these is the main coroutine of one loop.


async def serve_streams(app: Any, worker: Worker) -> None:
    options = dict(worker.crew.options)
    limit = options.pop("limit", LIMIT)
    loop = asyncio.get_running_loop()

    def factory() -> StreamReaderProtocol:
        return StreamReaderProtocol(StreamReader(limit=limit, loop=loop), app, loop=loop)

    await serve_connections(worker, factory, options)


async def serve_protocols(app: Any, worker: Worker) -> None:
    await serve_connections(worker, app, worker.crew.options)


async def serve_connections(worker: Worker, factory: Any, options: dict[str, Any]) -> None:
    servers: list[Server] = []
    try:
        for sock in worker.sockets:
            make = worker.loop.create_unix_server if sock.family == socket.AF_UNIX else worker.loop.create_server
            servers.append(await make(factory, sock=sock, **options))
        worker.crew.has_begun()
        await worker.stopped
    finally:
        for server in servers:
            server.close()
    ended = asyncio.gather(*(server._ended for server in servers))
    await asyncio.wait([ended, worker.overdue], return_when=asyncio.FIRST_COMPLETED)
    for transport in list(worker.loop._transports.values()):
        if transport._server in servers:
            transport.close()
    await asyncio.wait([ended], timeout=LAST_SECONDS)


async def run_application(app: Any, worker: Worker) -> None:
    task = asyncio.ensure_future(app(worker.sockets))
    # SystemExit and KeyboardInterrupt leave the loop past this coroutine and come out of serve(): nobody need complain of them.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    worker.crew.has_begun()
    await asyncio.wait([task, worker.stopped], return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await asyncio.wait([task, worker.overdue], return_when=asyncio.FIRST_COMPLETED)
    for sock in worker.sockets:
        sock.close()
    if task.done() and not task.cancelled():
        task.result()


def kind_of(app: Any) -> Callable[[Any, Worker], Any]:
    """By what it takes. TypeError where that does not say it."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(f"an application is needed, not {app!r}") from None
    needed = sum(
        one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters
    )
    if any(one.default is one.empty and one.kind is one.KEYWORD_ONLY for one in parameters) or needed > 2:
        raise TypeError(f"{app!r} takes neither (reader, writer) nor (sockets) nor nothing")
    if needed == 0 and inspect.iscoroutinefunction(app):
        raise TypeError(f"{app!r} takes nothing, and a protocol factory is no coroutine function")
    return (serve_protocols, run_application, serve_streams)[needed]


class Worker:
    """One loop and its thread."""

    def __init__(self, crew: Crew, sockets: list[socket.socket]) -> None:
        self.crew = crew
        self.sockets = sockets
        self.loop = EventLoop()
        self.stopped = self.loop.create_future()  # it is to stop
        self.overdue = self.loop.create_future()  # what is open still is closed
        self.timer: Optional[asyncio.TimerHandle] = None
        self.done = False

    # In its thread

    def run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        if self.crew.debug is not None:
            loop.set_debug(self.crew.debug)
        try:
            loop.run_until_complete(self.crew.kind(self.crew.app, self))
        except BaseException as exc:
            self.crew.fail(exc)
        self.crew.stop()
        try:
            self.clear()
            self.crew.has_ended(self)
        except BaseException as exc:
            self.crew.fail(exc)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def clear(self) -> None:
        """What is left is cancelled, and has a moment to end."""
        loop = self.loop
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        last = [*left, loop.create_task(loop.shutdown_asyncgens()), loop.create_task(loop.shutdown_default_executor())]
        loop.run_until_complete(asyncio.wait(last, timeout=LAST_SECONDS))
        for task in left:
            if not task.done():
                logger.error("%r was cancelled and does not end", task)
            elif not task.cancelled() and task.exception() is not None:
                loop.call_exception_handler(
                    {"message": "unhandled exception during shutdown", "exception": task.exception(), "task": task}
                )

    def wind_down(self) -> None:
        """It is to stop. From now on connections have their time to end."""
        if not self.stopped.done():
            self.stopped.set_result(None)
            self.timer = self.loop.call_later(self.crew.shutdown_timeout, self.end_now)

    def end_now(self) -> None:
        if not self.overdue.done():
            self.overdue.set_result(None)

    # From other threads

    def call(self, method: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(method)


class Crew:
    """All loops of one call."""

    def __init__(
        self,
        kind: Callable[[Any, Worker], Any],
        app: Any,
        sockets: list[list[socket.socket]],
        options: dict[str, Any],
        shutdown_timeout: float,
        started: Optional[Callable[[list[Any]], object]],
        debug: Optional[bool],
    ) -> None:
        self.kind, self.app, self.options, self.debug = kind, app, options, debug
        self.addresses = [sock.getsockname() for sock in sockets[0]]
        self.started = started
        self.shutdown_timeout = shutdown_timeout
        self.stopping = False
        self.error: Optional[BaseException] = None
        self.lock = threading.Lock()
        self.workers: list[Worker] = []
        try:
            for own in sockets:
                self.workers.append(Worker(self, own))
        except OSError:  # no descriptors for so many loops
            for worker in self.workers:
                worker.loop.close()
            raise
        self.missing = len(sockets)  # workers that do not serve yet
        self.last = self.workers[0].loop.create_future()  # all workers but the first have ended

    def run(self) -> None:
        mine, *others = self.workers
        threads = [
            threading.Thread(target=worker.run, name=f"sslsock.aio.serve {number}", daemon=True)
            for number, worker in enumerate(others, 1)
        ]
        with self.signals(mine.loop):
            for worker, thread in zip(others, threads):
                try:
                    thread.start()
                except RuntimeError as exc:  # there are too many
                    worker.done = True
                    worker.loop.close()
                    self.fail(exc)
                    self.stop()
            mine.run()
        for thread in threads:
            if thread.ident is not None:
                thread.join(LAST_SECONDS)
            if thread.is_alive():
                logger.error("%s does not end: something in it blocks", thread.name)
        if self.error is not None:
            raise self.error

    @contextlib.contextmanager
    def signals(self, loop: EventLoop) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            loop.add_signal_handler(number, self.signalled)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def signalled(self) -> None:
        if self.stopping:
            for worker in self.workers:
                worker.call(worker.end_now)
        self.stop()

    # From any worker

    def has_begun(self) -> None:
        with self.lock:
            self.missing -= 1
            if self.missing:
                return
        self.workers[0].call(self.tell_started)

    def tell_started(self) -> None:
        if self.started is None or self.stopping:
            return
        try:
            self.started(self.addresses)
        except BaseException as exc:
            self.fail(exc)
            self.stop()

    def fail(self, exc: BaseException) -> None:
        """What has ended a worker: the first comes out of `serve`."""
        with self.lock:
            if self.error is None:
                self.error = exc
                return
        logger.error("another loop of serve() has failed, too", exc_info=exc)

    def stop(self) -> None:
        with self.lock:
            if self.stopping:
                return
            self.stopping = True
        for worker in self.workers:
            worker.call(worker.wind_down)

    def has_ended(self, worker: Worker) -> None:
        """The first stays for the signals until all others have ended, or nothing can be waited for any more."""
        mine = self.workers[0]
        worker.done = True
        if worker is not mine:
            mine.call(self.look)
            return
        limit = self.shutdown_timeout + 3 * LAST_SECONDS
        self.look()
        mine.loop.run_until_complete(asyncio.wait([self.last], timeout=limit))

    def look(self) -> None:
        if all(worker.done for worker in self.workers) and not self.last.done():
            self.last.set_result(None)
