"""Fact: a property that is true or false, and whose truth can be awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["TRUE", "Fact", "not_yet"]


async def done() -> None:
    """There is nothing to wait for."""


if TYPE_CHECKING:  # a bool to type checkers: Python allows no class below it

    class Fact(bool):  # type: ignore[misc]
        def __new__(cls, truth: bool, wait: Callable[[], Coroutine[Any, Any, None]]) -> Fact: ...
        def __call__(self) -> Coroutine[Any, Any, None]: ...

else:

    class Fact(int):
        """True or False, as it is now; called, it can be awaited until it is true: `if s.encrypted`, `await s.encrypted()`."""

        def __new__(cls, truth, wait):
            fact = int.__new__(cls, truth)
            fact._wait = wait
            return fact

        def __call__(self):
            return self._wait()

        def __repr__(self):
            return "True" if self else "False"

        __str__ = __repr__

        def __format__(self, spec):
            return bool.__format__(bool(self), spec)

        def __reduce__(self):
            return bool, (int(self),)


TRUE = Fact(True, done)  # the one of all objects: programs ask often what has become true long ago


def not_yet(wait: Callable[[], Coroutine[Any, Any, None]]) -> Fact:
    """False, until `wait` has come to its end."""
    return Fact(False, wait)
