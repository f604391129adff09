"""What is kept from one reading to the next, and by a worker process from one plan to the next: a reload loads what is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslsock.proxy.files.reading import Reading, Unit
from sslsock.proxy.processes.line import pickled
from sslsock.proxy.processes.plan import Plan, Unpickled

KIND = "words"


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


def plan_of(*made: object) -> tuple[Plan, list[bytes]]:
    pickles = [pickled(one) for one in made]
    units = {Unit(KIND, (f"file {number}",)): one for number, one in enumerate(pickles)}
    return Plan(None, units, (), None, None), pickles  # type: ignore[arg-type]


def test_a_worker_loads_only_what_it_has_not_had_and_keeps_only_what_is_in_force() -> None:
    unpickled = Unpickled()
    plan, (one, two) = plan_of(["one"], ["two"])
    unpickled.take(plan)
    kept, gone = unpickled.of(one), unpickled.of(two)
    assert (kept, gone) == (["one"], ["two"])
    plan, (three, one) = plan_of(["three"], ["one"])
    unpickled.take(plan)
    assert unpickled.of(three) == ["three"]
    assert unpickled.of(one) is kept, "it was loaded again"
    with pytest.raises(KeyError):
        unpickled.of(two)
    plan = plan._replace(made={}, obtained={"name": two})
    unpickled.take(plan)
    assert unpickled.of(two) == ["two"] and unpickled.of(two) is not gone
