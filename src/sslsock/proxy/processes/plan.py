"""What members go by: the settings, and what the front has made of the files that they name.

A member opens no file: the front has read and checked each once, and all members go by the same, as all threads would. What is
made of each file is pickled by itself: to load a key takes a millisecond, and a member loads only what it has not had before.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, TypeVar, cast

from ...core.ticket_keys import TicketKeys
from ..acme.challenges import Challenges
from ..files.reading import Reading, Unit
from ..policy import ListenerPolicy
from ..settings.model import ProxySettings
from ..tls.certificates import CertificateStore, Pair
from .line import pickled

if TYPE_CHECKING:
    from ..fleet.member import Access

__all__ = ["Obtained", "Plan", "Unpickled", "make_plan", "policies_of"]

Made = TypeVar("Made")


class Plan(NamedTuple):
    """settings: as in force. made: of files, pickled, by what `Reading.load` was asked for. own: of each listener, the
    certificate that was made in memory for it, or None. obtained: certificates by ACME, pickled, by name; None where there is
    no ACME. access: to the fleet's Redis, where ACME keeps what it has in it."""

    settings: ProxySettings
    made: Mapping[Unit, bytes]
    own: Sequence[Optional[Pair]]
    obtained: Optional[Mapping[str, bytes]]
    access: Optional[Access]


def make_plan(
    settings: ProxySettings, policies: Sequence[ListenerPolicy], reading: Reading, access: Optional[Access]
) -> Plan:
    """policies: in force, made of `reading`."""
    obtained: Optional[dict[str, bytes]] = None
    for policy in policies:
        if policy.acme is not None:
            obtained = {**(obtained or {}), **{name: pickled(pair) for name, pair in policy.obtained.items()}}
    own = [policy.store.first_pair if policy.made_in_memory and policy.store is not None else None for policy in policies]
    return Plan(settings, {unit: pickled(made) for unit, (made, _) in reading.loaded().items()}, own, obtained, access)


class Unpickled:
    """What the last plan was about, so that of the next one only what is new is loaded."""

    def __init__(self) -> None:
        self._objects: dict[tuple[int, int], object] = {}  # by what tells their pickles from others, which hold keys

    def take(self, plan: Plan) -> None:
        """Load what is new in it, and forget what is no longer."""
        objects = {}
        for one in (*plan.made.values(), *(plan.obtained or {}).values()):
            mark = len(one), hash(one)
            objects[mark] = self._objects[mark] if mark in self._objects else pickle.loads(one)
        self._objects = objects

    def of(self, one: bytes) -> object:
        """Of the plan that was taken last."""
        return self._objects[len(one), hash(one)]


class Told(Reading):
    """What others have read."""

    def __init__(self, made: Mapping[Unit, bytes], unpickled: Unpickled) -> None:
        super().__init__(starting=False)
        self._others = made
        self._unpickled = unpickled

    def load(self, kind: str, paths: tuple[str, ...], make: Callable[[], Made]) -> Made:
        return cast(Made, self._unpickled.of(self._others[Unit(kind, paths)]))


class Obtained:
    """ACME, as far as connections need it; the front obtains. names, pairs, challenges: as of `AcmeManager`."""

    def __init__(self, names: Collection[str], pairs: Mapping[str, Pair], challenges: Challenges) -> None:
        self.names = names
        self.pairs = pairs
        self.challenges = challenges


def policies_of(plan: Plan, unpickled: Unpickled, keys: TicketKeys, acme: Optional[Obtained]) -> list[ListenerPolicy]:
    """In a member. unpickled: it has taken the plan. ConfigurationError."""
    reading = Told(plan.made, unpickled)
    stores = [CertificateStore([(pair, "")]) if pair is not None else None for pair in plan.own]
    return [
        ListenerPolicy(listener, keys, None, reading, acme, store)
        for listener, store in zip(plan.settings.listeners, stores)
    ]
