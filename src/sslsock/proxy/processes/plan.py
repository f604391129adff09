"""What members go by: the settings, and what the front has made of the files that they name.

A member opens no file: the front has read and checked each once, and all members go by the same, as all threads would. To load
a certificate and its key may take two milliseconds, and there may be thousands. So each *thing* that was made has a number:
what there was before the nursery was forked, its members have in memory; the rest is pickled, and each member loads what it has
not had before.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping, Sequence
from itertools import count, repeat
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

__all__ = ["Catalogue", "Known", "Obtained", "Plan", "policies_of"]

Made = TypeVar("Made")


class Plan(NamedTuple):
    """settings: as in force. made: of files, by what `Reading.load` was asked for. own: of each listener, the certificate that
    was made in memory for it, or None. obtained: certificates by ACME, by name; None where there is no ACME. These three have
    the numbers of things. pickles: of those that no member has from its birth. access: to the fleet's Redis, where ACME keeps
    what it has in it."""

    settings: ProxySettings
    made: Mapping[Unit, int]
    own: Sequence[Optional[int]]
    obtained: Optional[Mapping[str, int]]
    pickles: Mapping[int, bytes]
    access: Optional[Access]


class Entry(NamedTuple):
    thing: object
    number: int
    pickle: bytes = b""
    """Empty: members are born with it."""


class Catalogue:
    """The things that are in force, and their numbers. In the front; a member has it as it was when the nursery was forked.

    policies, reading: in force at that time.
    """

    def __init__(self, policies: Sequence[ListenerPolicy], reading: Reading) -> None:
        self._numbers = count()
        things = things_in(policies, reading)
        self._entries = {id(thing): Entry(thing, number) for thing, number in zip(things, self._numbers)}

    def things(self) -> dict[int, object]:
        """By number."""
        return {entry.number: entry.thing for entry in self._entries.values()}

    def plan(
        self, settings: ProxySettings, policies: Sequence[ListenerPolicy], reading: Reading, access: Optional[Access]
    ) -> Plan:
        """policies: in force from now on, made of `reading`. What is no longer in force is forgotten."""
        before, self._entries = self._entries, {}
        for thing in things_in(policies, reading):
            known = before.get(id(thing))
            self._entries[id(thing)] = known or Entry(thing, next(self._numbers), pickled(thing))
        obtained: Optional[dict[str, int]] = None
        for policy in policies:
            if policy.acme is not None:
                obtained = {**(obtained or {}), **{name: self._number(pair) for name, pair in policy.obtained.items()}}
        return Plan(
            settings,
            {unit: self._number(made) for unit, (made, _) in reading.loaded().items()},
            [self._number(pair) if pair is not None else None for pair in map(own_pair, policies)],
            obtained,
            {entry.number: entry.pickle for entry in self._entries.values() if entry.pickle},
            access,
        )

    def _number(self, thing: object) -> int:
        return self._entries[id(thing)].number


def things_in(policies: Sequence[ListenerPolicy], reading: Reading) -> list[object]:
    obtained = [pair for policy in policies for pair in policy.obtained.values()]
    own = [pair for pair in map(own_pair, policies) if pair is not None]
    return [*(made for made, _ in reading.loaded().values()), *obtained, *own]


def own_pair(policy: ListenerPolicy) -> Optional[Pair]:
    """What was made in memory."""
    return policy.store.first_pair if policy.made_in_memory and policy.store is not None else None


class Known:
    """The things that the last plan was about, in a member. born: those that it has from its birth, by number."""

    def __init__(self, born: Mapping[int, object]) -> None:
        self._things = born

    def take(self, plan: Plan) -> None:
        """Load what is new in it, and forget what is no longer."""
        own = [number for number in plan.own if number is not None]
        numbers = (*plan.made.values(), *(plan.obtained or {}).values(), *own)
        self._things = {number: self._found(number, plan.pickles) for number in numbers}

    def _found(self, number: int, pickles: Mapping[int, bytes]) -> object:
        return self._things[number] if number in self._things else pickle.loads(pickles[number])

    def of(self, number: int) -> object:
        """Of the plan that was taken last."""
        return self._things[number]


class Told(Reading):
    """What others have read. made: as in a plan."""

    def __init__(self, made: Mapping[Unit, int], known: Known) -> None:
        super().__init__(starting=False)
        self._others = made
        self._things = known

    def load(self, kind: str, paths: tuple[str, ...], make: Callable[[], Made]) -> Made:
        return cast(Made, self._things.of(self._others[Unit(kind, paths)]))


class Obtained:
    """ACME, as far as connections need it; the front obtains. names, pairs, challenges: as of `AcmeManager`."""

    def __init__(self, names: Collection[str], pairs: Mapping[str, Pair], challenges: Challenges) -> None:
        self.names = names
        self.pairs = pairs
        self.challenges = challenges


def policies_of(
    plan: Plan,
    known: Known,
    keys: TicketKeys,
    acme: Optional[Obtained],
    before: Optional[Sequence[ListenerPolicy]] = None,
) -> list[ListenerPolicy]:
    """In a member. known: it has taken the plan. before: the policies whose place they take, if there are any.
    ConfigurationError."""
    reading = Told(plan.made, known)
    stores = [CertificateStore([(cast(Pair, known.of(one)), "")]) if one is not None else None for one in plan.own]
    return [
        # To check the certificates again would write into what all members share: a copy of all that the front has loaded.
        ListenerPolicy(listener, keys, old, reading, acme, store, checked=True)
        for listener, old, store in zip(plan.settings.listeners, before or repeat(None), stores)
    ]
