"""What is kept from one reading to the next, and by a worker process from one plan to the next: a reload loads what is new."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sslsock.proxy.files.reading import Reading
from sslsock.proxy.policy import ListenerPolicy
from sslsock.proxy.processes.plan import Catalogue, Known, Told
from sslsock.proxy.settings.model import ProxySettings

KIND = "words"
SETTINGS = ProxySettings(listeners=())


def words_of(path: Path, reading: Reading) -> list[str]:
    return reading.load(KIND, (str(path),), lambda: reading.read(str(path)).decode().split())


def test_what_a_file_was_made_into_is_kept_while_it_holds_the_same(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one two")
    first = Reading()
    made = words_of(file, first)
    first.forget()
    second = Reading(starting=False, before=first)
    assert words_of(file, second) is made
    file.write_text("three")
    third = Reading(starting=False, before=second)
    assert words_of(file, third) == ["three"]
    assert words_of(file, third) is words_of(file, third)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        words_of(file, Reading(starting=False, before=third))


def policy_with(**obtained: object) -> ListenerPolicy:
    """As far as it counts here."""
    return cast(ListenerPolicy, SimpleNamespace(obtained=obtained, acme=object(), made_in_memory=False))


def test_a_worker_loads_only_what_it_was_not_born_with_and_keeps_only_what_is_in_force(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("one")
    other.write_text("two")
    first = Reading()
    words_of(file, first)
    words_of(other, first)
    catalogue = Catalogue([], first)
    born = catalogue.things()
    plan = catalogue.plan(SETTINGS, [], first, None)
    assert not plan.pickles, "what members have from their birth is sent to them"
    known = Known(born)
    known.take(plan)
    for path in (file, other):
        assert words_of(path, Told(plan.made, known)) is words_of(path, first), "it was loaded again"

    file.write_text("three")
    second = Reading(starting=False, before=first)
    words_of(file, second)
    obtained = ["by ACME"]
    plan = catalogue.plan(SETTINGS, [policy_with(name=obtained)], second, None)
    known.take(plan)
    assert plan.obtained is not None and len(plan.pickles) == 2
    assert words_of(file, Told(plan.made, known)) == ["three"]
    assert known.of(plan.obtained["name"]) == obtained
    for number in born:
        with pytest.raises(KeyError):
            known.of(number)

    again = catalogue.plan(SETTINGS, [policy_with(name=obtained)], second, None)
    assert (again.made, again.obtained) == (plan.made, plan.obtained)
    kept = known.of(plan.obtained["name"])
    known.take(again)
    assert known.of(plan.obtained["name"]) is kept, "it was loaded again"
    replaced = Known(born)  # a member that is forked now
    replaced.take(again)
    assert words_of(file, Told(again.made, replaced)) == ["three"]


def test_a_number_never_means_another_thing() -> None:
    catalogue = Catalogue([], Reading())
    seen: dict[int, str] = {}
    for number in range(100):  # each is gone when the next one is made, and that may lie where it lay
        plan = catalogue.plan(SETTINGS, [policy_with(name=[str(number)])], Reading(), None)
        assert plan.obtained is not None
        found = plan.obtained["name"]
        assert found not in seen, (number, seen)
        seen[found] = str(number)
        assert pickle.loads(plan.pickles[found]) == [str(number)]
