"""Handlers that are an `async def`: each event has a task of the running asyncio loop run them.

The slot of such a handler holds a TaskHandler, so what tells of an event calls it like any other. The rules:

- Of one object, one handler runs in one task at a time. Events that come meanwhile wait, and are told in order when it has
  returned. Events that say nothing but that something is so (data, connections) are one while they wait, and are told only if
  it is still so; counts of bytes are added. Other handlers of the object have tasks of their own: `disconnected_handler` starts
  although `ready_read_handler` still awaits something.
- A task is never cancelled from here, neither by the end of the connection nor by a handler that is taken away; that ends only
  what waits. One that is cancelled by others drops what waits.
- The loop of the object holds its tasks (`EventLoop._tasks`) until they are done, or their asyncio loop is closed: asyncio
  itself only knows them weakly. What they raise goes to `EventLoop.exception_handler`, as from any handler.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..core.nesting import running_host

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Coroutine

    from ..core.event_loop import EventLoop

__all__ = ["COROUTINE", "GENERATOR", "DecidingTask", "TaskHandler", "kind_of"]

# CO_COROUTINE, CO_GENERATOR and CO_ASYNC_GENERATOR of `inspect`, which is slow to load.
COROUTINE = 0x80
GENERATOR = 0x20 | 0x200


def kind_of(function: Any) -> int:
    """COROUTINE for an `async def`, GENERATOR for what has to be iterated over, 0 for what runs when it is called."""
    while isinstance(function, partial):
        function = function.func
    called = function if hasattr(function, "__code__") else type(function).__call__
    code = getattr(called, "__code__", None)
    flags = code.co_flags if isinstance(code, CodeType) else 0
    return COROUTINE if flags & COROUTINE else GENERATOR if flags & GENERATOR else 0


class TaskHandler:
    """What a slot holds for an `async def`. told_while: the property of the object that says whether an event is still so."""

    __slots__ = ("function", "name", "slot", "told_while")

    def __init__(self, function: Callable[..., Any], name: str, slot: str, told_while: str) -> None:
        self.function = function
        self.name = name
        self.slot = slot
        self.told_while = told_while

    def __call__(self, obj: Any, *args: Any) -> None:
        loop: EventLoop = obj._loop
        key = (id(obj), self.slot)  # the task keeps the object
        running = loop._tasks.get(key)
        if isinstance(running, HandlerTask) and running.goes_on():
            running.add(self, args)
        else:
            running = HandlerTask(obj)
            running.add(self, args)
            running.begin(loop, key, running.run(), self.name)

    def __repr__(self) -> str:
        return f"<tasks of {self.function!r}>"


class LoopTask:
    """A task that a sockets' loop holds, in `_tasks`, until it is done."""

    __slots__ = ("host", "task")

    host: AbstractEventLoop
    task: Optional[Task[None]]

    def begin(self, loop: EventLoop, key: object, work: Coroutine[Any, Any, None], name: str) -> None:
        """RuntimeError where no asyncio loop runs."""
        host = running_host()
        if host is None:
            work.close()
            raise RuntimeError(f"{name} is an async def, and no asyncio loop runs: asyncio.run(), or sslsock.aio.run()")

        def done(task: Task[None]) -> None:
            if loop._tasks.get(key) is self:
                del loop._tasks[key]

        self.host = host
        self.task = None  # one that runs at once (an eager task factory) may be told of more before there is a task
        loop._tasks[key] = self
        try:
            self.task = host.create_task(work, name=f"sslsock {name}")
        except BaseException:
            work.close()
            del loop._tasks[key]
            raise
        self.task.add_done_callback(done)

    def goes_on(self) -> bool:
        """It runs in the asyncio loop that runs now, and has not come to its end."""
        return self.host is running_host() and (self.task is None or not self.task.done())


class HandlerTask(LoopTask):
    """The task of one handler of one object, and the events that it has still to be told."""

    __slots__ = ("events", "obj")

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.events: deque[tuple[TaskHandler, tuple[Any, ...]]] = deque()

    def add(self, handler: TaskHandler, args: tuple[Any, ...]) -> None:
        if self.events and self.events[-1][0] is handler:
            last = self.events[-1][1]
            if not args and not last:
                return
            if handler.slot == "_bytes_written_handler":
                args = (self.events.pop()[1][0] + args[0],)
        self.events.append((handler, args))

    async def run(self) -> None:
        obj = self.obj
        while self.events:
            handler, args = self.events.popleft()
            if getattr(obj, handler.slot) is not handler:
                continue  # taken away
            if handler.told_while and not getattr(obj, handler.told_while):
                continue
            try:
                await handler.function(obj, *args)
            except Exception as exc:
                obj._loop.report(f"exception in {handler.name}", exc, obj)


class DecidingTask(LoopTask):
    """The task of a handler whose return something waits for: then `then(True)` is called; False: it has raised, or was
    cancelled."""

    __slots__ = ("returned",)

    def __init__(self, handler: TaskHandler, obj: Any, args: tuple[Any, ...], then: Callable[[bool], None]) -> None:
        self.returned = False
        self.begin(obj._loop, self, self.run(handler, obj, args), handler.name)
        assert self.task is not None
        self.task.add_done_callback(lambda task: then(self.returned))

    async def run(self, handler: TaskHandler, obj: Any, args: tuple[Any, ...]) -> None:
        try:
            await handler.function(obj, *args)
            self.returned = True
        except Exception as exc:
            obj._loop.report(f"exception in {handler.name}", exc, obj)
