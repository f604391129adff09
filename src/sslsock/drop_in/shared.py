"""One family: what users compare, catch and look up is the same object in `sslsock.ssl` and in the interpreter's `ssl`.

Exceptions are shared below, in `sslsock._ssl`. Here it is the classes that have no part of OpenSSL in them.
"""

from __future__ import annotations

from enum import Enum
from types import FunctionType, ModuleType

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from typing import Any, Optional

# Beside enums and flags.
CLASSES = ("_ASN1Object", "DefaultVerifyPaths", "SSLSocket", "SSLObject", "_GiveupOnSSLSendfile")


def stdlib_ssl() -> Optional[ModuleType]:
    """None: the interpreter was built without."""
    try:
        import ssl
    except ImportError:
        return None
    return ssl


def claimed_by(ssl: ModuleType) -> type:
    """The interpreter's class of contexts, also while ours stands in its place."""
    context = ssl.SSLContext
    claimed: type = getattr(context, "_claims", context)
    return claimed


class ContextClass(type):
    """Of our `SSLContext`, for which those of the interpreter pass: programs ask, and ours may stand in the place of theirs."""

    _claims: type

    def __instancecheck__(cls, instance: object) -> bool:
        return type.__instancecheck__(cls, instance) or ("_passes" in vars(cls) and isinstance(instance, cls._claims))


def with_claim(private: ModuleType, claimed: type) -> ModuleType:
    """`private` with contexts that say they are `claimed`, so that `isinstance(context, ssl.SSLContext)` holds: programs ask.

    To inherit from both is impossible (their C structs differ). The class in which it is said lies below ssl.py's own, for that
    looks itself up by its name.
    """

    base: Any = private._SSLContext

    class _SSLContext(base, metaclass=ContextClass):  # type: ignore[misc]
        __slots__ = ()
        _claims = claimed
        __class__ = property(lambda self: claimed)

        def __reduce__(self) -> str:
            # As with the stdlib's; protocols 0 and 1 would look at the class that is claimed.
            raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    _SSLContext.__module__, _SSLContext.__qualname__ = private._SSLContext.__module__, "_SSLContext"
    claiming = ModuleType(private.__name__, private.__doc__)
    vars(claiming).update({name: value for name, value in vars(private).items() if not name.startswith("__")})
    vars(claiming)["_SSLContext"] = _SSLContext
    return claiming


def adopt(space: dict[str, Any], ssl: ModuleType) -> None:
    """Put the interpreter's classes in the place of equal ones in `space`, the globals of an executed ssl.py.

    Enums are equal if all their members are, in name and value. Those of an OpenSSL that has more stay ours: their members are
    integers, and work with and beside the interpreter's.
    """
    theirs: dict[int, Any] = {}
    for name, own in list(space.items()):
        other = vars(ssl).get(name)
        if name in CLASSES and isinstance(other, type):
            theirs[id(own)] = other
        elif is_enum(own) and is_enum(other) and members(own) == members(other):
            theirs[id(own)] = other
            theirs.update({id(member): members(other)[called] for called, member in members(own).items()})

    def chosen(value: Any) -> Any:
        return theirs.get(id(value), value)

    functions = [value for value in space.values() if isinstance(value, FunctionType)]
    functions += [value for value in vars(space["SSLContext"]).values() if isinstance(value, FunctionType)]
    for function in functions:
        if function.__defaults__:
            function.__defaults__ = tuple(map(chosen, function.__defaults__))
        if function.__kwdefaults__:
            function.__kwdefaults__ = {name: chosen(value) for name, value in function.__kwdefaults__.items()}
    space.update({name: chosen(value) for name, value in space.items()})


def is_enum(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Enum)


def members(enum: Any) -> dict[str, Any]:
    """With aliases."""
    return dict(enum.__members__)
