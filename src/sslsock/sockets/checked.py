"""What a program assigns, looked at before anything changes: TypeError for the wrong type, ValueError for an impossible value,
and the old value stays."""

from __future__ import annotations

from operator import index
from typing import Any, Optional, SupportsFloat, SupportsIndex, Union, overload

__all__ = ["Flag", "Number", "Seconds", "checked", "checked_count", "checked_seconds"]

Number = Union[float, SupportsFloat, SupportsIndex]

MOST = 2**63 - 1  # what the core counts bytes and connections with


def checked(value: Any, kind: type, name: str) -> Any:
    """`value` if it is of the type that the setting has."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{name} is a {kind.__name__}, not {type(value).__name__}")
    return value


def checked_count(value: SupportsIndex, name: str, least: int = 0, most: int = MOST) -> int:
    """A whole number between two bounds."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    count = index(value)
    if not least <= count <= most:
        raise ValueError(f"{name} is {least} to {most}, not {count}")
    return count


def checked_seconds(value: Number, name: str) -> float:
    """A time limit; infinity is as good as none."""
    if isinstance(value, (bool, str)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} is a number of seconds, 0 for no limit, not {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large for a number of seconds") from None
    if not seconds >= 0:
        raise ValueError(f"{name} is a number of seconds, 0 for no limit, not {seconds:g}")
    return seconds


class Seconds:
    """An attribute that is a time limit. Kept in the slot of the same name with an underscore in front."""

    __slots__ = ("_name", "_slot")

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._slot = f"_{name}"

    @overload
    def __get__(self, obj: None, owner: Any) -> Seconds: ...

    @overload
    def __get__(self, obj: object, owner: Any) -> float: ...

    def __get__(self, obj: Optional[object], owner: Any) -> Any:
        return self if obj is None else getattr(obj, self._slot)

    def __set__(self, obj: object, value: Number) -> None:
        setattr(obj, self._slot, checked_seconds(value, self._name))


class Flag:
    """An attribute that is a bool. Kept in the slot of the same name with an underscore in front."""

    __slots__ = ("_name", "_slot")

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._slot = f"_{name}"

    @overload
    def __get__(self, obj: None, owner: Any) -> Flag: ...

    @overload
    def __get__(self, obj: object, owner: Any) -> bool: ...

    def __get__(self, obj: Optional[object], owner: Any) -> Any:
        return self if obj is None else getattr(obj, self._slot)

    def __set__(self, obj: object, value: bool) -> None:
        setattr(obj, self._slot, checked(value, bool, self._name))
