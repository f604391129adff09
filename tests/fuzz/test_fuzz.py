"""What the fuzzers have found stays found, and the fuzzers find what they are there for. `ci/fuzz` looks for more."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslsock import EventLoop

from . import parsers, play
from .engines import EnginePlay
from .sockets import SocketPlay
from .streams import check_records, check_text, text

# Seeds that have shown a fault, and which. A change of a fuzzer changes what its seeds mean: then the fault needs a new one.
FOUND = {
    ("sockets", 1001): "write() raised when Python code inside it had ended the connection",
    ("sockets", 1521): "a forked child sent what its parent had written",
    ("transports", 23): "a protocol was told of the buffer that the one before it had lent",
    ("transports", 65): "eof_received came before connection_made",
    ("transports", 120): "what was written inside writelines came between its pieces",
}
SAMPLE = 12  # seeds of each kind besides


@pytest.fixture(autouse=True)
def closed_loop() -> Iterator[None]:
    yield
    EventLoop.current().close()


@pytest.mark.parametrize(("kind", "seed"), FOUND)
def test_a_seed_that_has_shown_a_fault(kind: str, seed: int) -> None:
    play.PLAYS[kind](seed).run()


@pytest.mark.parametrize("seed", range(SAMPLE))
@pytest.mark.parametrize("kind", play.PLAYS)
def test_a_sample_of_seeds(kind: str, seed: int) -> None:
    play.PLAYS[kind](seed).run()


@pytest.mark.parametrize("seed", range(SAMPLE))
def test_a_seed_of_engines_repeats_its_run(seed: int) -> None:
    first, second = EnginePlay(seed), EnginePlay(seed)
    first.run()
    second.run()
    assert first.trace == second.trace


def test_seeds_differ() -> None:
    plays = [SocketPlay(seed) for seed in range(40)]
    assert {one.style for one in plays} == {"plain", "tls", "starttls"}
    assert {one.relayed for one in plays} == {one.small for one in plays} == {True, False}


@pytest.mark.parametrize("target", parsers.TARGETS)
def test_well_formed_and_damaged_inputs(target: str) -> None:
    """The inputs that fuzzing begins with, and those that have shown a fault: whole, cut, and with each a changed byte."""
    choose = random.Random(target)
    for data in [*parsers.seeds(target), *(path.read_bytes() for path in sorted(parsers.FOUND.glob(f"{target}/*")))]:
        parsers.TARGETS[target](data)
        for _ in range(50):
            damaged = bytearray(data[: choose.randrange(len(data)) + 1])
            damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
            parsers.TARGETS[target](bytes(damaged))


# What the fuzzers look for


WRONG = {"moved": text(1, 1, 100), "changed": text(1, 0, 99) + b"x", "another stream's": text(2, 0, 100)}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_bytes_that_are_not_those_written_are_seen(data: bytes) -> None:
    check_text(1, 0, text(1, 0, 100), "nobody")
    with pytest.raises(AssertionError, match="is not what was written"):
        check_text(1, 0, data, "nobody")


def test_plain_bytes_between_records_are_seen() -> None:
    record = b"\x17\3\3\0\4abcd"
    check_records(record * 2 + record[:7], "nobody")
    with pytest.raises(AssertionError, match="no TLS record"):
        check_records(record + b"LOGIN user secret", "nobody")


def test_a_write_that_is_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer itself: with a socket that says that it has taken what it drops, some run fails."""
    from .sockets import End

    take = End.take
    monkeypatch.setattr(End, "take", lambda self, line, data: take(self, line, data[:-1] if len(data) > 50 else data))
    with pytest.raises(AssertionError):
        for seed in range(SAMPLE):
            SocketPlay(seed).run()


def test_what_a_run_logs_is_told_when_it_fails() -> None:
    code = """
import logging
from fuzz import play
class Play:
    def __init__(self, seed):
        self.seed, self.trace = seed, []
    def run(self):
        logging.getLogger("sslsock").warning("seed %s lost its peer", self.seed)
        assert not self.seed
play.PLAYS["sockets"] = Play
play.run("sockets", 0)
play.run("sockets", 1)
"""
    folder = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "log: WARNING seed 1 lost its peer" in done.stdout and "seed 0" not in done.stdout
