"""What keeps contexts of the interpreter working while `ssl` is ours: those made before, and those that libraries make yet."""

from __future__ import annotations

from types import FunctionType

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from typing import Any, Callable


def with_class(method: FunctionType, owner: type, space: dict[str, Any]) -> FunctionType:
    """A copy of a function of ssl.py that looks up `SSLContext` by its name, for which it finds `owner`."""
    return FunctionType(
        method.__code__, {**space, "SSLContext": owner}, method.__name__, method.__defaults__, method.__closure__
    )


def wrap_bio_for(original: Callable[..., Any], memory_bio: type, own_memory_bio: type) -> Callable[..., Any]:
    """`SSLContext.wrap_bio` of the interpreter's, that takes `own_memory_bio` too.

    memory_bio: the interpreter's, the only one that its OpenSSL can read.
    """

    def wrap_bio(self: Any, incoming: Any, outgoing: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(incoming, own_memory_bio) and not isinstance(outgoing, own_memory_bio):
            return original(self, incoming, outgoing, *arguments, **options)
        inner_incoming, inner_outgoing = memory_bio(), memory_bio()
        made = original(self, inner_incoming, inner_outgoing, *arguments, **options)
        made._sslobj = Between(made._sslobj, (incoming, inner_incoming), (inner_outgoing, outgoing))
        return made

    return wrap_bio


class Between:
    """The interpreter's connection with a MemoryBIO of ours at each end: what has come is handed on before each call that moves
    bytes, what is to leave after it. What the call has not taken goes back: programs look at their `pending` (uvloop)."""

    __slots__ = ("_connection", "_inwards", "_outwards")

    def __init__(self, connection: Any, inwards: tuple[Any, Any], outwards: tuple[Any, Any]) -> None:
        object.__setattr__(self, "_connection", connection)
        object.__setattr__(self, "_inwards", inwards)
        object.__setattr__(self, "_outwards", outwards)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._connection, name, value)

    def _moving(self, name: str, *arguments: Any) -> Any:
        hand_on(*self._inwards)
        try:
            return getattr(self._connection, name)(*arguments)
        finally:
            hand_on(*self._outwards)
            outer, inner = self._inwards
            if inner.pending and not outer.eof:  # nothing can be written behind an end
                outer.write(inner.read())

    def do_handshake(self) -> Any:
        return self._moving("do_handshake")

    def read(self, *arguments: Any) -> Any:
        return self._moving("read", *arguments)

    def write(self, data: Any) -> Any:
        return self._moving("write", data)

    def shutdown(self) -> Any:
        return self._moving("shutdown")

    def verify_client_post_handshake(self) -> Any:
        return self._moving("verify_client_post_handshake")


def hand_on(source: Any, target: Any) -> None:
    if source.pending:
        target.write(source.read())
    if source.eof:
        target.write_eof()
