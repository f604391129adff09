"""Named values as somebody has written them, on the command line or in TOML: each is asked for by its kind, and what is
wrong with one is told in the words of whoever wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from sys import float_info
from typing import NoReturn, Optional, Union

from .model import Path, Places

__all__ = ["Part", "Table", "kind", "refuse_unknown"]

Part = Union[str, int]


class Table:
    """The named values of one table (all of the command line is one), and how to complain about them.

    values: those that were written. places, path: where this table is. prefix: stands before every name ("--").
    """

    def __init__(self, values: Mapping[str, object], places: Places, path: Path = (), prefix: str = "") -> None:
        self.values = values
        self.places = places
        self.path = path
        self.prefix = prefix

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def fail(self, reason: str, *parts: Part) -> NoReturn:
        raise self.places.of(*self.path, *parts).error(reason)

    def name(self, key: str) -> str:
        """How the user knows it."""
        return self.prefix + key

    def text(self, key: str) -> Optional[str]:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            self.fail(f"a string is needed, not {kind(value)}", key)
        if value == "":
            self.fail("it is empty", key)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, or one."""
        value = self.values.get(key, [])
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            self.fail(f"a string or a list of strings is needed, not {kind(value)}", key)
        if key in self and not value:
            self.fail("the list is empty", key)
        for index, item in enumerate(value):
            if not isinstance(item, str):
                self.fail(f"a list of strings is needed, but it holds {kind(item)}", key, index)
            if not item:
                self.fail("an empty string is in the list", key, index)
        return tuple(value)

    def protocols(self, key: str) -> tuple[str, ...]:
        """ALPN names, as a list or with commas between them."""
        names = [
            (index, name.strip()) for index, text in enumerate(self.texts(key)) for name in text.split(",")
        ]
        for index, name in names:
            if not 0 < len(name.encode("utf-8", "surrogateescape")) < 256:  # RFC 7301, 3.1
                self.fail(f"{name!r}: the name of a protocol is 1 to 255 bytes long", key, index)
        return tuple(name for _, name in names)

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.fail(f"true or false is needed, not {kind(value)}", key)
        return value

    def count(self, key: str, least: int, most: int, default: int) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(f"a whole number is needed, not {kind(value)}", key)
        if key in self and not least <= value <= most:
            self.fail(f"{value} is not between {least} and {most}", key)
        return value

    def seconds(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.fail(f"a number of seconds is needed, not {kind(value)}", key)
        if not 0 <= value <= float_info.max:  # infinity and NaN neither, nor what TOML's integers can be
            self.fail(f"{value} is no time: seconds are needed, 0 for no limit", key)
        return float(value)

    def choice(self, key: str, *choices: str) -> Optional[str]:
        value = self.text(key)
        if value is not None and value not in choices:
            self.fail(f"{value!r} is neither {' nor '.join(choices)}", key)
        return value

    def file(self, key: str) -> Optional[str]:
        """A file name; in a file, relative to that file's folder."""
        value = self.text(key)
        return None if value is None else self.located(value, key)

    def files(self, key: str) -> tuple[str, ...]:
        return tuple(self.located(value, key, index) for index, value in enumerate(self.texts(key)))

    def located(self, value: str, *parts: Part) -> str:
        if "\0" in value:
            self.fail(f"{value!r} holds a NUL character", *parts)
        return os.path.join(os.path.dirname(self.places.of(*self.path, *parts).file or ""), value)

    def refuse(self, keys: Sequence[str], reason: str) -> None:
        """SettingsError if one of them is set."""
        for key in keys:
            if self.values.get(key, False) is not False:
                self.fail(reason, key)


def kind(value: object) -> str:
    """What a value is, in TOML's words."""
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def similar(key: str, known: Sequence[str]) -> str:
    """A question for who may have mistyped a name; "" when nothing is near."""
    import difflib  # only after an error: it takes a while to load

    found = difflib.get_close_matches(key.lower().replace("_", "-"), known, n=1, cutoff=0.7)
    return f"; did you mean {found[0]!r}?" if found else ""


def refuse_unknown(table: Table, known: Sequence[str], elsewhere: Mapping[str, str]) -> None:
    """SettingsError for the first key that is not known. elsewhere: where keys belong that are known in other tables."""
    for key in table.values:
        if key in known:
            continue
        if key in elsewhere:
            table.fail(f"it does not belong here but {elsewhere[key]}", key)
        table.fail(f"unknown key{similar(key, known)}", key)
