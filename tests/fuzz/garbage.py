"""Python code that runs inside a call, wherever an object is made: garbage that does something when it is collected."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Callable


class Garbage:
    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.itself = self

    def __del__(self) -> None:
        self.act()


@contextlib.contextmanager
def collected_inside(act: Callable[[], object]) -> Iterator[None]:
    """`act` is called somewhere inside, at the end at the latest."""
    Garbage(act)
    gc.set_threshold(1)
    gc.enable()
    try:
        yield
    finally:
        gc.disable()
        gc.set_threshold(700)
        gc.collect()
