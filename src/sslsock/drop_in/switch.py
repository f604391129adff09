"""`install()` and `uninstall()`: `sslsock.ssl` in the place of the interpreter's `ssl`, for the whole process.

What changes: in the module `ssl`, all that has a part of OpenSSL in it; in every other loaded module, each global that *is* one
of the classes and functions replaced (`from ssl import SSLContext`); the contexts that libraries have made for themselves when
they were imported, where that is known (`known_contexts`); `_ssl` in sys.modules, for whoever imports that.

Each change is noted, and taken back only where it still stands: what somebody else has put there since stays.
"""

from __future__ import annotations

import sys
import threading
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, Union

from .known_contexts import made_anew
from .shared import stdlib_ssl

# Functions of ssl.py that make contexts or ask `_ssl`. The others are the same code here and there.
FUNCTIONS = (
    "create_default_context",
    "_create_unverified_context",
    "get_server_certificate",
    "get_default_verify_paths",
    "wrap_socket",  # to 3.11
)
# Of this module alone, and what the interpreter's own class of contexts is derived from and makes its contexts with.
NOT_REPLACED = ("install", "uninstall", "_SSLContext")
MISSING = object()


class Change(NamedTuple):
    """A name in the globals of a module, in sys.modules, or of a class."""

    space: Union[dict[str, Any], type]
    name: str
    before: Any
    after: Any

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


lock = threading.Lock()
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
    new = {name: value for name, value in vars(ours).items() if is_replaced(name, value, theirs.get(name, MISSING))}
    if "SSLContext" in new:
        keep_setters(theirs["SSLContext"], theirs)
    for name, value in new.items():
        change(vars(ssl), name, value)
    everywhere = [
        (theirs[name], value)
        for name, value in new.items()
        if name in theirs and (callable(value) or name.startswith("OPENSSL_"))
    ]
    replace_everywhere(everywhere, theirs["SSLContext"])
    replace_everywhere(made_anew(ours.SSLContext), theirs["SSLContext"])


def is_replaced(name: str, own: Any, other: Any) -> bool:
    if name.startswith("__") or name in NOT_REPLACED or own is other:
        return False
    if isinstance(own, FunctionType):
        # Where somebody has put a function of his own, it is left alone: those of ssl.py that it calls are ours.
        return name in FUNCTIONS and isinstance(other, FunctionType) and other.__module__ == "ssl"
    return callable(own) or bool(own != other) or name.startswith("OPENSSL_")


def keep_setters(context: type, space: dict[str, Any]) -> None:
    """Contexts that exist must go on working: the setters in ssl.py look up their class by its name, which will be ours."""
    for owner in context.__mro__:
        for name, value in list(vars(owner).items()):
            fset = value.fset if isinstance(value, property) else None
            if not isinstance(fset, FunctionType) or fset.__module__ != "ssl" or "SSLContext" not in fset.__code__.co_names:
                continue
            kept = FunctionType(
                fset.__code__, {**space, "SSLContext": owner}, fset.__name__, fset.__defaults__, fset.__closure__
            )
            change(owner, name, property(value.fget, kept, value.fdel, value.__doc__))


def replace_everywhere(pairs: list[tuple[Any, Any]], context: type) -> None:
    """In the globals of all modules but ours and `_ssl`. pairs: (what may be there, what is put in its place)."""
    new = {id(before): (before, after) for before, after in reversed(pairs)}  # the first of a name and its aliases
    for module_name, module in list(sys.modules.items()):
        if module_name == "_ssl" or module_name.partition(".")[0] == "sslsock" or not isinstance(module, ModuleType):
            continue
        space: dict[str, Any] = object.__getattribute__(module, "__dict__")  # a lazy module stays lazy
        found = [(name, value) for name, value in list(space.items()) if id(value) in new]
        for name, value in found:
            before, after = new[id(value)]
            # Who has derived a class of his own from it goes on with that, and calls what it inherits by this name (truststore,
            # gevent).
            if before is not context or not has_derived(space, context):
                change(space, name, after)


def has_derived(space: dict[str, Any], context: type) -> bool:
    classes = [value for value in list(space.values()) if isinstance(value, type) and value is not context]
    return any(context in one.__mro__ for one in classes)
