"""The plan of a fleet's session ticket keys: which key seals at what time, what opens, and what is no plan."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from sslsock.core.ticket_keys import KEY_SIZE, MOST_KEYS, TicketKeys
from sslsock.proxy.fleet.keys import (
    AHEAD,
    KEPT,
    MOST_SEEDS,
    PERIOD,
    Plan,
    PlanError,
    Seed,
    advanced,
    key_of,
    new_plan,
    parse_plan,
    shifted,
    ticket_keys,
)

SECRET = b"s" * 32
NOW = 1_800_000_000.0


def test_each_key_is_known_before_it_seals_and_opens_until_its_tickets_have_ended() -> None:
    plan = new_plan(NOW, b"")
    known: dict[bytes, float] = {}  # key → since when every member has it
    sealed: dict[bytes, float] = {}  # key → when it sealed last
    now = NOW
    while now < NOW + 10 * PERIOD:
        plan = advanced(plan, now)
        keys = ticket_keys(plan, now, b"")
        for key in keys:
            known.setdefault(key, now)
        assert now - known[keys[0]] >= AHEAD or now - NOW < PERIOD, "a key sealed that not everybody could know of"
        sealed[keys[0]] = now
        for key, moment in sealed.items():
            assert (key in keys) == (now - moment <= KEPT) or now - moment == pytest.approx(KEPT, abs=700), now
        assert len(keys) <= 4
        now += 600
    assert len(sealed) == 10, "a new key each period"
    assert plan.version <= 1 + 2 * 9, "a change for each key that comes, and one for each that goes"


def test_the_plan_is_the_same_for_whoever_has_it() -> None:
    plan = advanced(new_plan(NOW, SECRET), NOW + PERIOD)
    read = parse_plan(plan.text(), SECRET)
    assert read == plan and advanced(read, NOW + PERIOD) is read
    assert ticket_keys(read, NOW + 1, SECRET) == ticket_keys(plan, NOW + 1, SECRET)
    TicketKeys().replace(ticket_keys(read, NOW, SECRET))


def test_after_a_long_time_without_anybody_the_next_key_still_comes_before_its_use() -> None:
    plan = new_plan(NOW, b"")
    later = NOW + 5 * PERIOD
    again = advanced(plan, later)
    assert again.current(later).secret == plan.seeds[1].secret
    following = again.next(later)
    assert following is not None and following.since == later + AHEAD
    assert plan.seeds[0].secret not in {seed.secret for seed in again.seeds}, "nobody has a ticket of the first key any more"


@pytest.mark.parametrize("back", [60.0, 100 * PERIOD])
def test_a_clock_that_is_set_back_keeps_no_key_in_use_for_longer(back: float) -> None:
    plan = new_plan(NOW, b"")
    now = NOW - back
    again = advanced(plan, now)
    assert again.current(now).secret == plan.seeds[0].secret
    following = again.next(now)
    assert following is not None and following.since <= now + PERIOD + AHEAD
    assert advanced(again, now) is again


def test_keys_of_plans_before_open_and_there_are_never_too_many() -> None:
    plan = Plan(0, 1, tuple(Seed(bytes([number]) * 32, NOW - 60 + number) for number in range(MOST_SEEDS)), "")
    retired = [Seed(bytes([100 + number]) * 32, 0.0) for number in range(10)]
    keys = ticket_keys(plan, NOW, b"", retired)
    assert len(keys) == MOST_KEYS and keys[0] == key_of(plan.seeds[-1].secret, b"")
    assert key_of(retired[0].secret, b"") in keys


def test_without_the_secret_a_seed_tells_nothing_of_its_key() -> None:
    seed = b"x" * 32
    keys = {key_of(seed, secret) for secret in (b"", SECRET, SECRET[1:])}
    assert len(keys) == 3 and {len(key) for key in keys} == {KEY_SIZE}
    # RFC 5869, with the salt as secret and the seed as input: by another implementation.
    hkdf = pytest.importorskip("cryptography.hazmat.primitives.kdf.hkdf", reason="trustme brings cryptography")
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    made = hkdf.HKDF(hashes.SHA256(), KEY_SIZE, salt=SECRET, info=b"sslsock ticket key").derive(seed)
    assert key_of(seed, SECRET) == made
    assert SECRET not in new_plan(NOW, SECRET).text()


def test_times_are_shifted_to_another_clock() -> None:
    plan = shifted(new_plan(NOW, b""), -50.0)
    assert [seed.since for seed in plan.seeds] == [NOW - 50, NOW - 50 + PERIOD]


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(new_plan(NOW, b"").text()), **values}).encode()


SEED = {"seed": base64.b64encode(b"1" * 32).decode(), "since": 1.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"9" * 10_000, "no JSON|no object"),
        (b"[]", "no object"),
        (changed(format=2), "another version of sslsock"),
        (changed(version="1"), "whole numbers"),
        (changed(epoch=True), "whole numbers"),
        (changed(proof=None), "a string"),
        (changed(proof="\ud800"), "another secret"),
        (changed(proof="00"), "another secret"),
        (changed(keys={}), "a list"),
        (changed(keys=[]), "0 keys"),
        (changed(keys=[SEED] * 13), "13 keys"),
        (changed(keys=[SEED, SEED]), "twice"),
        (changed(keys=["x"]), "has a seed"),
        (changed(keys=[{**SEED, "since": True}]), "number for since"),
        (changed(keys=[{**SEED, "since": float("nan")}]), "a time is none"),
        (changed(keys=[{**SEED, "since": float("inf")}]), "a time is none"),
        (changed(keys=[{**SEED, "since": 10**400}]), "out of bounds"),
        (changed(keys=[{**SEED, "seed": "AAAA"}]), "32 bytes"),
        (changed(keys=[{**SEED, "seed": "???"}]), "not base64"),
        (changed(keys=[{**SEED, "seed": "ä"}]), "not base64"),
    ],
    ids=str,
)
def test_what_is_no_plan_is_told_without_what_it_holds(text: bytes, reason: str) -> None:
    with pytest.raises(PlanError, match=reason) as caught:
        parse_plan(text, b"")
    assert SEED["seed"] not in str(caught.value)


def test_members_with_different_secrets_are_told_apart() -> None:
    for one, other in ((SECRET, b""), (b"", SECRET), (SECRET, SECRET + b"1")):
        with pytest.raises(PlanError, match="another secret"):
            parse_plan(new_plan(NOW, one).text(), other)
