"""The session ticket keys of a fleet: which there are, which of them seals, and when that changes.

A plan is what the members share: seeds, each with the time from which its key seals. The key that is next is in it a whole
`PERIOD` before it is used, so that every member can open a ticket before any member seals one like it, and all change at the
same time, though none tells the others. A key opens until the last ticket that it sealed has ended.

Nothing here has a clock or a connection. Times are seconds of one clock that all members have: the server's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import NamedTuple, Optional

from ...core.context import TICKET_LIFETIME
from ...core.ticket_keys import KEY_SIZE, MOST_KEYS

__all__ = [
    *("KEPT", "MOST_USE", "PERIOD", "Plan", "PlanError", "Seed"),
    *("advanced", "expand", "is_alive", "new_plan", "parse_plan", "shifted", "ticket_keys"),
]

PERIOD = 4 * 3600.0  # seconds that a key seals
KEPT = TICKET_LIFETIME + 600.0  # seconds that it opens after that; the members' clocks run apart a little
AHEAD = 60.0  # seconds at the least from a key's making to its use: several times what members take to hear of it
MOST_USE = 24 * 3600.0  # seconds that a key seals where no next one can be had
MOST_SEEDS = 12
MOST_NUMBER = 1 << 62  # what goes up by one a few times a day never comes there
SEED_SIZE = 32
FORMAT = 1
INFO = b"sslsock ticket key"


class PlanError(ValueError):
    """What is no plan, or none for this member. Its text never quotes it."""


class Seed(NamedTuple):
    """What one key is made of. since: when it begins to seal."""

    secret: bytes
    since: float


class Plan(NamedTuple):
    """epoch: a higher one ends all keys of those before it. version: a higher one is newer. seeds: at least one, by their
    times. proof: what shows that the members have the same secret."""

    epoch: int
    version: int
    seeds: tuple[Seed, ...]
    proof: str

    def current(self, now: float) -> Seed:
        """The one that seals."""
        return max((seed for seed in self.seeds if seed.since <= now), key=since_of, default=self.seeds[0])

    def next(self, now: float) -> Optional[Seed]:
        """The one that will, if there is one."""
        return min((seed for seed in self.seeds if seed.since > now), key=since_of, default=None)

    def text(self) -> bytes:
        """As it is stored."""
        keys = [{"seed": base64.b64encode(seed.secret).decode(), "since": seed.since} for seed in self.seeds]
        return json.dumps(
            {"format": FORMAT, "epoch": self.epoch, "version": self.version, "proof": self.proof, "keys": keys}
        ).encode()

    def is_newer_than(self, other: Plan) -> bool:
        return (self.epoch, self.version) > (other.epoch, other.version)


def since_of(seed: Seed) -> float:
    return seed.since


def new_seed(since: float) -> Seed:
    return Seed(os.urandom(SEED_SIZE), since)


def new_plan(now: float, secret: bytes, epoch: int = 0, version: int = 1) -> Plan:
    """Keys that nobody has had before. secret: of the fleet, b"" for none."""
    return Plan(epoch, version, (new_seed(now), new_seed(now + PERIOD)), proof_of(secret))


def advanced(plan: Plan, now: float) -> Plan:
    """The plan with a next key, and without those that no living ticket needs; the same object where nothing is to be done."""
    current, following = plan.current(now), plan.next(now)
    seeds = [seed for seed in plan.seeds if seed.since > current.since or is_alive(seed, plan.seeds, now)]
    if current.since > now:  # the clock was set back
        seeds[seeds.index(current)] = current = current._replace(since=now)
        following = next((seed for seed in seeds if seed.since > now), None)
    if following is None:
        seeds.append(new_seed(max(current.since + PERIOD, now + AHEAD)))
    elif following.since > now + PERIOD + AHEAD:
        seeds[seeds.index(following)] = following._replace(since=now + PERIOD)
    seeds = sorted(seeds, key=since_of)[-MOST_SEEDS:]
    return plan if tuple(seeds) == plan.seeds else plan._replace(seeds=tuple(seeds), version=plan.version + 1)


def is_alive(seed: Seed, seeds: Sequence[Seed], now: float) -> bool:
    """Whether tickets of this key can be: it seals, or has until not long ago."""
    later = [other.since for other in seeds if seed.since < other.since <= now]
    return not later or min(later) + KEPT > now


def shifted(plan: Plan, seconds: float) -> Plan:
    """The same by a clock that is so much ahead."""
    return plan._replace(seeds=tuple(seed._replace(since=seed.since + seconds) for seed in plan.seeds))


def ticket_keys(plan: Plan, now: float, secret: bytes, retired: Iterable[Seed] = ()) -> list[bytes]:
    """For `TicketKeys.replace`: the key that seals, then the next, then older ones. retired: seeds of keys that only open."""
    current, following = plan.current(now), plan.next(now)
    first = [current, *([following] if following is not None else [])]
    older = (seed for seed in plan.seeds if seed not in first and is_alive(seed, plan.seeds, now))
    others = sorted(older, key=since_of, reverse=True)
    seeds = list(dict.fromkeys(seed.secret for seed in (*first, *others, *retired)))
    return [key_of(seed, secret) for seed in seeds[:MOST_KEYS]]


def key_of(seed: bytes, secret: bytes) -> bytes:
    """HKDF with SHA-256 (RFC 5869): without the secret, the seed tells nothing of the key."""
    return expand(hmac.digest(secret, seed, "sha256"), INFO, KEY_SIZE)


def expand(key: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869, 2.3."""
    made, block = b"", b""
    while len(made) < size:
        block = hmac.digest(key, block + info + bytes([len(made) // hashlib.sha256().digest_size + 1]), "sha256")
        made += block
    return made[:size]


def proof_of(secret: bytes) -> str:
    """The same for the same secret; it tells nothing else of one that is random."""
    return hmac.digest(secret, b"sslsock fleet", "sha256").hex() if secret else ""


def parse_plan(text: bytes, secret: bytes) -> Plan:
    """What `Plan.text` has made. PlanError."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise PlanError("it is no JSON") from None
    if not isinstance(values, dict):
        raise PlanError("it is no object of JSON")
    if values.get("format") != FORMAT:
        raise PlanError(f"its format is not {FORMAT}: another version of sslsock has written it")
    epoch, version, proof, keys = (values.get(name) for name in ("epoch", "version", "proof", "keys"))
    if type(epoch) is not int or type(version) is not int or not isinstance(proof, str) or not isinstance(keys, list):
        raise PlanError("epoch and version are to be whole numbers, proof a string, keys a list")
    if not (0 <= epoch < MOST_NUMBER and 0 <= version < MOST_NUMBER):
        raise PlanError("its epoch or version is out of bounds")
    if not 1 <= len(keys) <= MOST_SEEDS:
        raise PlanError(f"it has {len(keys)} keys, not 1 to {MOST_SEEDS}")
    if not hmac.compare_digest(proof.encode("utf-8", "surrogatepass"), proof_of(secret).encode()):
        raise PlanError("its keys were made with another secret (--fleet-secret-file), or one has a secret and the other none")
    seeds = sorted(map(parse_seed, keys), key=since_of)
    if len({seed.secret for seed in seeds}) < len(seeds):
        raise PlanError("one key stands there twice")
    return Plan(epoch, version, tuple(seeds), proof)


def parse_seed(value: object) -> Seed:
    seed, since = (value.get("seed"), value.get("since")) if isinstance(value, dict) else (None, None)
    if not isinstance(seed, str) or isinstance(since, bool) or not isinstance(since, (int, float)):
        raise PlanError("a key has a seed, which is a string, and a number for since")
    try:
        secret, moment = base64.b64decode(seed, validate=True), float(since)
    except (ValueError, OverflowError):
        raise PlanError("a seed is not base64, or a time is out of bounds") from None
    if len(secret) != SEED_SIZE or not isfinite(moment):
        raise PlanError(f"a seed is not {SEED_SIZE} bytes long, or a time is none")
    return Seed(secret, moment)
