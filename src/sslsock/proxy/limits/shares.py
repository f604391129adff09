"""What worker processes share of limits, in memory that they inherit: places, what sources have, rates.

A worker may be killed, or stopped, at any instruction: what it had is given back by `Shares.clear`, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.rate_limits import RateLimits
from ...core.shared_rooms import SharedRooms
from ...core.source_limits import SourceLimits
from .rates import rate_numbers

__all__ = ["Shares"]


class Shares:
    """Made before the workers are forked. workers: how many there are; listeners: their names.

    rooms: the places. room_numbers: of each listener there; 0 is the whole. table: the sources. rates: the
    rates, numbered as `rate_numbers` says. OSError: processes cannot share a lock here, or it lacks descriptors; MemoryError.
    """

    def __init__(self, workers: int, listeners: Sequence[str], source_table_size: int) -> None:
        self.rooms = SharedRooms(workers, 1 + len(listeners))
        self.room_numbers = {name: number for number, name in enumerate(listeners, 1)}
        self.table = SourceLimits(source_table_size, workers)
        self.rates = RateLimits(len(rate_numbers(listeners)), shared=True)

    def join(self, number: int) -> None:
        """This process is that worker from now on: 0 or more, below `workers`. ValueError."""
        self.rooms.join(number)
        self.table.join(number)

    def clear(self, number: int) -> None:
        """That worker has ended, however: give back all that it held, and wake those of the others who may have waited for it.
        A new one may have its number then. ValueError."""
        self.table.clear(number)
        self.rooms.clear(number)

    @property
    def descriptors(self) -> list[int]:
        """What each worker has to inherit."""
        return self.rooms.descriptors

    def fileno(self) -> int:
        """Of the worker that this process is: readable when its gate is to look (`SharedGate.on_poke`)."""
        return self.rooms.fileno()
