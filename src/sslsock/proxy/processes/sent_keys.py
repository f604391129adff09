"""Session ticket keys that members seal and open with: the front has them made, and sends them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Callable

from ...core.ticket_keys import KEY_SIZE, MOST_KEYS

__all__ = ["SentKeys"]


class SentKeys:
    """In the place of the `TicketKeys` that threads share. older: as there. handler: called when there are others, in whichever
    thread has changed them.

    The first one is made when it is asked for, which is after the nursery was forked: what that knows stays in its memory.
    """

    def __init__(self, older: int = 2) -> None:
        self.older = older
        self.handler: Callable[[], object] = bool
        self._keys: list[bytes] = []

    @property
    def keys(self) -> list[bytes]:
        """First key first, for `TicketKeys.replace`."""
        if not self._keys:
            self._keys = [os.urandom(KEY_SIZE)]
        return self._keys

    def rotate(self) -> None:
        """A new random key in front, and `older` of the present ones."""
        self.replace([os.urandom(KEY_SIZE), *self.keys[: self.older]])

    def replace(self, keys: Sequence[bytes]) -> None:
        """Use these keys and no others. ValueError for no number of them."""
        if not 1 <= len(keys) <= MOST_KEYS:
            raise ValueError(f"there are 1 to {MOST_KEYS} ticket keys, not {len(keys)}")
        self._keys = list(keys)
        self.handler()
