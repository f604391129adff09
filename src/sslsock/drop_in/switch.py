"""`install()` and `uninstall()`: `sslsock.ssl` in the place of the interpreter's `ssl`, for the whole process.

What changes: in the module `ssl`, all that has a part of OpenSSL in it; in every other loaded module, each global that *is*
what is replaced there (`from ssl import SSLContext`); the contexts that libraries have made when they were imported, where that
is known (`known_contexts`); `_ssl` in sys.modules, for whoever imports that.

Each change is noted, and taken back only where it still stands: what somebody else has put there since stays.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock  # threading.Lock, without the time that `threading` takes
from collections.abc import Iterator
from types import FunctionType, ModuleType
from warnings import warn

from .foreign import with_class, wrap_bio_for
from .known_contexts import made_anew
from .shared import stdlib_ssl

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without the time that `typing` takes
if TYPE_CHECKING:
    from typing import Any, Union

    from typing_extensions import TypeGuard

# Packages whose class of contexts has nothing that ours lacks (gevent's waits with its own sockets: `gevent_sockets`).
REPLACEABLE = ("gevent", "sslsock")
# Of this module alone, and what the interpreter's own class of contexts is derived from and makes its contexts with.
NOT_REPLACED = ("install", "uninstall", "_SSLContext")
MISSING = object()


class Change:
    """A name in the globals of a module, in sys.modules, or of a class."""

    __slots__ = ("after", "before", "name", "space")

    def __init__(self, space: Union[dict[str, Any], type], name: str, before: Any, after: Any) -> None:
        self.space, self.name, self.before, self.after = space, name, before, after

    def make(self) -> None:
        self.put(self.after)

    def take_back(self) -> None:
        space = self.space if isinstance(self.space, dict) else vars(self.space)
        if space.get(self.name, MISSING) is self.after:
            self.put(self.before)

    def put(self, value: Any) -> None:
        if not isinstance(self.space, dict):
            setattr(self.space, self.name, value)
        elif value is MISSING:
            self.space.pop(self.name, None)
        else:
            self.space[self.name] = value


lock = allocate_lock()
changes: list[Change] = []  # in the order in which they were made; empty: not installed


def install() -> None:
    """Have every use of `ssl` in this process use what is here, also in modules that were imported before.

    Contexts that exist keep their OpenSSL and go on working. Called again, it does nothing.
    """
    with lock:
        if changes:
            return
        ours, stdlib = sys.modules["sslsock.ssl"], stdlib_ssl()
        change(sys.modules, "_ssl", ours._ssl)
        if stdlib is None:  # the interpreter has none
            change(sys.modules, "ssl", ours)
        elif stdlib is not ours:
            replace(stdlib, ours)


def uninstall() -> None:
    """Put back all that `install` has changed and nobody has changed since. Contexts made meanwhile go on working."""
    with lock:
        while changes:
            changes.pop().take_back()


def change(space: Union[dict[str, Any], type], name: str, value: Any) -> None:
    before = (space if isinstance(space, dict) else vars(space)).get(name, MISSING)
    if before is not value:
        changes.append(Change(space, name, before, value))
        changes[-1].make()


def replace(ssl: ModuleType, ours: ModuleType) -> None:
    theirs = dict(vars(ssl))
    context, own = theirs["SSLContext"], interpreters(theirs["SSLContext"])
    new = {name: value for name, value in vars(ours).items() if is_replaced(name, value, theirs.get(name, MISSING))}
    keep_working(context, theirs, ours)
    everywhere = [(own, ours.SSLContext)]
    if context is not own and package_of(context) not in REPLACEABLE:
        stay(context)
        new.pop("SSLContext", None)
    go_below_truststore(own, ours)
    for name, value in new.items():
        change(vars(ssl), name, value)
    everywhere += [
        (theirs[name], value)
        for name, value in new.items()
        if name in theirs and (callable(value) or name.startswith("OPENSSL_"))
    ]
    replace_everywhere(everywhere, own)
    replace_everywhere([pair for replaced in {own, context} for pair in made_anew(replaced)], own)


def interpreters(context: type) -> type:
    """The interpreter's own class, of which somebody may have put a derived one into `ssl`."""
    return next((one for one in context.__mro__ if one.__module__ == "ssl"), context)


def package_of(value: type) -> str:
    return value.__module__.partition(".")[0]


def stay(context: type) -> None:
    """A class that somebody has put into `ssl` is meant to be used there."""
    if package_of(context) != "truststore":
        warn(
            f"ssl.SSLContext is {context.__module__}.{context.__qualname__}, and stays so: its contexts are not sslsock's. "
            "Call sslsock.ssl.install() before whatever has put it there",
            RuntimeWarning,
            stacklevel=4,
        )


def go_below_truststore(own: type, ours: ModuleType) -> None:
    """truststore's class is derived from the interpreter's. It hands everything to a context that it makes by this name."""
    for name in ("truststore._api", "truststore._ssl_constants"):
        space = vars(sys.modules.get(name, ours))
        if space.get("_original_SSLContext") is own:
            change(space, "_original_SSLContext", ours.SSLContext)
            change(space, "_original_super_SSLContext", super(ours.SSLContext, ours.SSLContext))


def is_replaced(name: str, own: Any, other: Any) -> bool:
    if name.startswith("__") or name in NOT_REPLACED or own is other:
        return False
    if isinstance(own, FunctionType):
        # Those of ssl.py are the same code here and there, and look in `ssl` for the class of what they make: ours, or one that
        # somebody has put there since.
        return False
    return callable(own) or bool(own != other) or name.startswith("OPENSSL_")


def keep_working(context: type, space: dict[str, Any], ours: ModuleType) -> None:
    """Contexts of the interpreter's that exist, or are made by who has kept the class. space: what `ssl` had."""
    for owner in context.__mro__:
        for name, value in list(vars(owner).items()):
            if isinstance(value, property) and is_of_ssl(value.fset) and "SSLContext" in value.fset.__code__.co_names:
                change(owner, name, property(value.fget, with_class(value.fset, owner, space), value.fdel, value.__doc__))
            elif name == "wrap_bio" and is_of_ssl(value):
                change(owner, name, wrap_bio_for(value, space["MemoryBIO"], ours.MemoryBIO))


def is_of_ssl(value: object) -> TypeGuard[FunctionType]:
    return isinstance(value, FunctionType) and value.__module__ == "ssl"


def replace_everywhere(pairs: list[tuple[Any, Any]], context: type) -> None:
    """In the globals of all modules but ours and `_ssl`. pairs: (what may be there, what is put in its place)."""
    if not pairs:
        return
    new = {id(before): (before, after) for before, after in reversed(pairs)}  # the first of a name and its aliases
    # Most modules have none of it: their globals are looked through in C, by the addresses.
    spaces = [(package, space, set(map(id, list(space.values())))) for package, space in loaded_modules()]
    # Who has derived a class of his own from it goes on with that, and calls what it inherits by this name, perhaps in a module
    # beside it (gevent, truststore).
    living = derived_from(context)  # and kept so, for their addresses are looked for
    classes = set(map(id, living))
    derived = {package for package, _, there in spaces if not there.isdisjoint(classes)}
    for package, space, there in spaces:
        if there.isdisjoint(new):
            continue
        for name, value in list(space.items()):
            before, after = new.get(id(value), (MISSING, MISSING))
            if before is value and not (before is context and package in derived):
                change(space, name, after)


def loaded_modules() -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of the package that it is of, or its own, and its globals."""
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if package not in ("_ssl", "sslsock") and issubclass(type(module), ModuleType):
            yield package, object.__getattribute__(module, "__dict__")  # a lazy module stays lazy


def derived_from(context: type) -> list[type]:
    """At any distance."""
    found: list[type] = []
    one: type
    for one in type.__subclasses__(context):
        found += [one, *derived_from(one)]
    return found
