"""LoopObject: what sockets, servers and relays have in common. Each lives on one loop, so there is no copy of it; and it has
handlers.

A handler is an attribute, None or a callable that is called with the object first. A class may define it as a method instead,
which is used as long as nothing was assigned:

    class Client(sslsock.TcpSocket):
        def ready_read_handler(self):
            print(self.read_all())

Either way the slot behind the attribute (`_ready_read_handler`) holds what is called with the object: the method is put there
when the object is made. So an event looks at one slot, whoever wrote the handler.
"""

from __future__ import annotations

from types import CodeType, MethodType
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Generic, NoReturn, Optional, TypeVar, overload

if TYPE_CHECKING:
    from ..core.event_loop import EventLoop

__all__ = ["Handler", "LoopObject"]

F = TypeVar("F", bound=Callable[..., object])

# A call runs nothing of such a function: CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR of `inspect`, which is slow to load.
RUNS_LATER = 0x20 | 0x80 | 0x200


def checked_handler(handler: Any, name: str) -> Any:
    """What is to be called. TypeError, also for an `async def` or a generator: nobody would await what it returns."""
    if not callable(handler):
        raise TypeError(f"{name} is None or a callable, not {type(handler).__name__}")
    code = getattr(handler, "__code__", None)
    if isinstance(code, CodeType) and code.co_flags & RUNS_LATER:
        raise TypeError(f"{name} is called, not awaited: an async def or a generator does nothing then; let it start a task")
    return handler


class Handler(Generic[F]):
    """The attribute of a handler. `method`: what is called when nothing was assigned, because a class defines it."""

    def __init__(self, method: Optional[F] = None) -> None:
        self._method = method

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._slot = f"_{name}"

    @overload
    def __get__(self, obj: None, owner: Any) -> Any: ...

    @overload
    def __get__(self, obj: LoopObject, owner: Any) -> Optional[F]: ...

    def __get__(self, obj: Optional[LoopObject], owner: Any) -> Any:
        method = self._method
        if obj is None:
            return self if method is None else method
        if type(obj)._handlers[self._name] is self:
            handler = getattr(obj, self._slot)
            if method is None or handler is not method:
                return handler
        elif method is None:  # asked by way of super()
            return None
        return MethodType(method, obj)

    def __set__(self, obj: LoopObject, handler: Optional[F]) -> None:
        if handler is not None:
            checked_handler(handler, self._name)
            if isinstance(handler, MethodType) and handler.__self__ is obj and handler.__func__ is self._method:
                handler = self._method  # what reading the attribute has given
        setattr(obj, self._slot, handler)
        obj.loop._meet()

    def __delete__(self, obj: LoopObject) -> None:
        setattr(obj, self._slot, self._method)


class LoopObject:
    """Base of what lives on a loop."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def loop(self) -> EventLoop: ...

    _handlers: ClassVar[dict[str, Handler[Any]]] = {}  # by name
    _methods: ClassVar[dict[str, Any]] = {}  # what handlers are at first, by slot, where a class defines them

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        names = {name for base in cls.__mro__ for name, thing in vars(base).items() if isinstance(thing, Handler)}
        cls._handlers = {}
        cls._methods = {}
        for name in names:
            found = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
            if not isinstance(found, Handler):
                method = getattr(cls, name)
                if method is not None:
                    checked_handler(method, f"{cls.__name__}.{name}")
                found = Handler(method)
                found.__set_name__(cls, name)
                setattr(cls, name, found)
            cls._handlers[name] = found
            if found._method is not None:
                cls._methods[found._slot] = found._method

    def _use_methods(self) -> None:
        """Take the handlers that the class defines. For the end of an `__init__` that has made the slots None."""
        for slot, method in self._methods.items():
            setattr(self, slot, method)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not copied or pickled: it lives on one loop, with what it has open")
