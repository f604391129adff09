"""LoopObject: what sockets, servers and relays have in common. Each lives on one loop, so there is no copy of it; and it has
handlers.

A handler is an attribute, None or a callable that is called with the object first. A class may define it as a method instead,
which is used as long as nothing was assigned:

    class Client(sslsock.TcpSocket):
        def ready_read_handler(self):
            print(self.read_all())

An `async def` is a handler too, which tasks run (handler_tasks.py).

Either way the slot behind the attribute (`_ready_read_handler`) holds what is called with the object: the method is put there
when the object is made. So an event looks at one slot, whoever wrote the handler.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Generic, NoReturn, Optional, TypeVar, overload

from .handler_tasks import COROUTINE, GENERATOR, TaskHandler, kind_of

if TYPE_CHECKING:
    from ..core.event_loop import EventLoop

__all__ = ["Handler", "LoopObject"]

F = TypeVar("F", bound=Callable[..., object])


class Handler(Generic[F]):
    """The attribute of a handler.

    doc: its docstring. method: what is called when nothing was assigned, because a class defines it. told_while: property of
    the object that says whether the event is still so, for tasks that come to it later. decides: what it does is looked at when
    it returns, so that no task can run it.
    """

    def __init__(self, doc: str, method: Optional[F] = None, *, told_while: str = "", decides: bool = False) -> None:
        self.__doc__ = doc
        self._method = method
        self._told_while = told_while
        self._decides = decides

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._slot = f"_{name}"
        if self._method is not None:
            self._first = self._slot_value(self._method, f"{owner.__name__}.{name}")
        else:
            self._first = None

    def defined(self, method: Optional[F]) -> Handler[F]:
        """The same, for a class that defines it."""
        doc = getattr(method, "__doc__", None) or self.__doc__ or ""
        return Handler(doc, method, told_while=self._told_while, decides=self._decides)

    def _slot_value(self, handler: Any, name: str) -> Any:
        """What the slot holds for a handler of the program. TypeError where a call of it would run nothing."""
        if not callable(handler):
            raise TypeError(f"{name} is None or a callable, not {type(handler).__name__}")
        kind = kind_of(handler)
        if kind == GENERATOR:
            raise TypeError(f"{name} is called, not awaited or iterated over: a generator does nothing then")
        if kind == COROUTINE:
            if self._decides:
                raise TypeError(f"{name} is called, not awaited: OpenSSL waits for what it decides, so it is no async def")
            return TaskHandler(handler, self._name, self._slot, self._told_while)
        return handler

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
            if method is None or handler is not self._first:
                return handler.function if type(handler) is TaskHandler else handler
        elif method is None:  # asked by way of super()
            return None
        return MethodType(method, obj)

    def __set__(self, obj: LoopObject, handler: Optional[F]) -> None:
        value: Any = None
        if isinstance(handler, MethodType) and handler.__self__ is obj and handler.__func__ is self._method:
            value = self._first  # what reading the attribute has given
        elif handler is not None:
            value = self._slot_value(handler, self._name)
        setattr(obj, self._slot, value)
        obj.loop._meet()

    def __delete__(self, obj: LoopObject) -> None:
        setattr(obj, self._slot, self._first)


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
            found, *_ = there = [vars(base)[name] for base in cls.__mro__ if name in vars(base)]
            if not isinstance(found, Handler):
                declared: Handler[Any] = next(thing for thing in there if isinstance(thing, Handler))
                found = declared.defined(getattr(cls, name))
                found.__set_name__(cls, name)
                setattr(cls, name, found)
            cls._handlers[name] = found
            if found._first is not None:
                cls._methods[found._slot] = found._first

    def _use_methods(self) -> None:
        """Take the handlers that the class defines. For the end of an `__init__` that has made the slots None."""
        for slot, method in self._methods.items():
            setattr(self, slot, method)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is not copied or pickled: it lives on one loop, with what it has open")
