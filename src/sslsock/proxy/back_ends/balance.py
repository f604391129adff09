"""The choice among back ends that may all be used: in turn, by weight, by their connections, by a hash of the client.

A tier is a number of back ends that are alike: the first ones of a route are one, its spares another.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from hashlib import blake2b
from math import log
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from .backends import Backend

__all__ = ["Tier", "tier_of"]


class Tier:
    """They take turns. backends, weights: of the same length."""

    def __init__(self, backends: Sequence[Backend], weights: Sequence[int]) -> None:
        self.backends = tuple(backends)
        self.weights = tuple(weights)
        self._position = 0

    def choose(self, now: float, exclude: Container[Backend], key: str) -> Optional[Backend]:
        """The next of those that may be used now and are not excluded. key: whom `Hash` goes by."""
        backends = self.backends
        count = len(backends)
        for step in range(count):
            index = (self._position + step) % count
            backend = backends[index]
            if backend not in exclude and backend.usable(now):
                self._position = (index + 1) % count
                return backend
        return None

    def _usable(self, now: float, exclude: Container[Backend]) -> list[int]:
        """Their numbers."""
        return [index for index, one in enumerate(self.backends) if one not in exclude and one.usable(now)]


class Weighted(Tier):
    """They take turns, each as often as its weight says, and as evenly spread as that can be (nginx's smooth rotation)."""

    def __init__(self, backends: Sequence[Backend], weights: Sequence[int]) -> None:
        super().__init__(backends, weights)
        self._credits = [0] * len(self.backends)

    def choose(self, now: float, exclude: Container[Backend], key: str) -> Optional[Backend]:
        found = self._usable(now, exclude)
        if not found:
            return None
        credits = self._credits
        for index in found:
            credits[index] += self.weights[index]
        best = max(found, key=credits.__getitem__)
        credits[best] -= sum(self.weights[index] for index in found)
        return self.backends[best]


class LeastConnections(Tier):
    """The one with the fewest connections for its weight, those that are being made included; among equals, they take turns."""

    def choose(self, now: float, exclude: Container[Backend], key: str) -> Optional[Backend]:
        found = self._usable(now, exclude)
        if not found:
            return None
        count, position = len(self.backends), self._position

        def rank(index: int) -> tuple[float, int]:
            return (self.backends[index].load + 1) / self.weights[index], (index - position) % count

        best = min(found, key=rank)
        self._position = (best + 1) % count
        return self.backends[best]


class Hash(Tier):
    """The same client, the same back end: each back end draws a number for the client, and the highest wins (rendezvous
    hashing, Thaler and Ravishankar 1998, weighted as in Schindelhauer and Schomaker 2005). Who comes or goes moves only its own
    share, in each process alike."""

    def choose(self, now: float, exclude: Container[Backend], key: str) -> Optional[Backend]:
        found = self._usable(now, exclude)
        if not found:
            return None
        text = key.encode("utf-8", "surrogateescape")

        def draw(index: int) -> float:
            digest = blake2b(b"%b\0%b" % (self.backends[index].peer.encode(), text), digest_size=7).digest()
            share = (int.from_bytes(digest, "big") % (1 << 53) + 1) / ((1 << 53) + 1)  # above 0, below 1
            return -self.weights[index] / log(share)

        return self.backends[max(found, key=draw)]


def tier_of(method: str, backends: Sequence[Backend], weights: Sequence[int]) -> Tier:
    """method: of `Balance`."""
    if method in ("hash-source", "hash-sni"):
        return Hash(backends, weights)
    if method == "least-connections":
        return LeastConnections(backends, weights)
    return (Tier if len(set(weights)) < 2 else Weighted)(backends, weights)
