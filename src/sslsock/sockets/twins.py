"""The `_async` twins: the thread-safe way to call a method of an object that lives on a loop.

`read_async = twin(read)` in a class body makes one. `obj.read_async(10, callback)` may be called from any
thread; it has the loop of `obj` call `obj.read(10)` and then `callback(obj, result, error)`, `error` being
None or the exception that the method raised. Without a callback it returns a `concurrent.futures.Future` that can also be
awaited.
What a method reports by its result (False, -1) is a result here too.

The twin keeps the method's name, not the method, so a subclass that overrides `read` has overridden
`read_async`.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, Callable, Generic, NamedTuple, Optional, Protocol, TypeVar, overload

from .handler_tasks import kind_of

if TYPE_CHECKING:
    from concurrent.futures import Future

    from typing_extensions import Concatenate, ParamSpec

    from ..core.event_loop import EventLoop
    from .twin_future import TwinFuture

    P = ParamSpec("P")
else:  # typing has it from Python 3.10 on
    P = TypeVar("P")

__all__ = ["BoundTwin", "Twin", "twin", "warn_caller"]

R_co = TypeVar("R_co", covariant=True)


class OnLoop(Protocol):
    """An object that belongs to a loop."""

    @property
    def loop(self) -> EventLoop: ...


class CallSite(NamedTuple):
    """Where a twin was called: a file, a line, and the names of its module."""

    file: str
    line: int
    names: dict[str, Any]


def call(site: CallSite, obj: object, name: str, args: Any, kwargs: Any) -> Any:
    """On the loop: what the twin stands for. `warn_caller` finds `site` here."""
    return getattr(obj, name)(*args, **kwargs)


def warn_caller(message: str) -> None:
    """RuntimeWarning that names the line which called the method of the function that calls this; for a method that a twin
    stands for, the line that called the twin."""
    frame = sys._getframe(3)
    if frame.f_code is not call.__code__:
        warnings.warn(message, RuntimeWarning, stacklevel=4)
        return
    site: CallSite = frame.f_locals["site"]
    registry = site.names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, RuntimeWarning, site.file, site.line, site.names.get("__name__"), registry)


def answer_callback(
    site: CallSite, obj: object, name: str, args: Any, kwargs: Any, callback: Callable[..., object]
) -> None:
    """On the loop: call the method, then the callback."""
    result = error = None
    try:
        result = call(site, obj, name, args, kwargs)
    except Exception as exc:
        error = exc
    callback(obj, result, error)


def answer_future(site: CallSite, obj: OnLoop, name: str, args: Any, kwargs: Any, future: Future[Any]) -> None:
    """On the loop: call the method and settle the future."""
    obj.loop._forget_future(future)
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call(site, obj, name, args, kwargs)
    except BaseException as exc:
        future.set_exception(exc)
        if not isinstance(exc, Exception):  # KeyboardInterrupt, SystemExit: they also end the loop's run
            raise
    else:
        future.set_result(result)


class BoundTwin(Generic[P, R_co]):
    """The twin of one object's method."""

    __slots__ = ("_copies", "_name", "_object")

    def __init__(self, obj: OnLoop, name: str, copies: bool) -> None:
        self._object = obj
        self._name = name
        self._copies = copies

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TwinFuture[R_co]: ...

    @overload
    def __call__(
        self, *args: Any, callback: Callable[[Any, R_co, Optional[Exception]], object], **kwargs: Any
    ) -> None: ...

    @overload
    def __call__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method on the object's loop. A callable as the last argument, or named `callback`, is the
        callback. TypeError for an `async def`."""
        callback = kwargs.pop("callback", None)
        if callback is None and args and callable(args[-1]):
            *args, callback = args  # type: ignore[assignment]
        if callback is not None and kind_of(callback):
            raise TypeError("a callback is called, not awaited: without one there is a future to be awaited")
        if self._copies:  # the caller may reuse its buffer at once
            args = tuple(bytes(arg) if isinstance(arg, (bytearray, memoryview)) else arg for arg in args)
        obj = self._object
        caller = sys._getframe(1)
        site = CallSite(caller.f_code.co_filename, caller.f_lineno, caller.f_globals)
        if callback is not None:
            obj.loop.call_soon_threadsafe(answer_callback, site, obj, self._name, args, kwargs, callback)
            return None
        from .twin_future import TwinFuture

        future: TwinFuture[R_co] = TwinFuture()
        obj.loop._remember_future(future)
        try:
            obj.loop.call_soon_threadsafe(answer_future, site, obj, self._name, args, kwargs, future)
        except RuntimeError as exc:  # the loop is closed, or a parent process's
            obj.loop._forget_future(future)
            if not future.done():
                future.set_exception(exc)
        return future

    def __repr__(self) -> str:
        return f"<{self._name}_async of {self._object!r}>"


class Twin(Generic[P, R_co]):
    """What stands in a class for a method's twin. There is one a method, so a `__dict__` does no harm: it
    holds the doc."""

    def __init__(self, method: Callable[Concatenate[Any, P], R_co], copies: bool) -> None:
        self._name = method.__name__
        self._copies = copies
        self.__doc__ = f"Thread-safe twin of `{self._name}`: callback(object, result, error), or a Future that can be awaited."

    @overload
    def __get__(self, obj: None, owner: Any) -> Twin[P, R_co]: ...

    @overload
    def __get__(self, obj: OnLoop, owner: Any) -> BoundTwin[P, R_co]: ...

    def __get__(self, obj: Optional[OnLoop], owner: Any) -> Any:
        return self if obj is None else BoundTwin(obj, self._name, self._copies)

    def __repr__(self) -> str:
        return f"<{self._name}_async>"


def twin(method: Callable[Concatenate[Any, P], R_co], *, copies: bool = False) -> Twin[P, R_co]:
    """The twin of `method`. `copies`: mutable buffers among the arguments are copied when it is called."""
    return Twin(method, copies)
