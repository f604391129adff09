"""What a measure is, what comes of it, and the clocks. Knows no library and prints nothing but the progress
bar."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from statistics import median
from time import clock_gettime, perf_counter, process_time
from types import TracebackType
from typing import Callable, NamedTuple, Optional


@dataclass(frozen=True)
class Settings:
    """How much is measured. seconds: about how long one sample takes. suite: the cipher suite of TLS 1.3 that all share; "":
    each library its own.
    """

    rounds: int
    seconds: float
    suite: str


class Sample(NamedTuple):
    """One run of one measure: units of work done, wall seconds, processor seconds of all processes that took
    part."""

    units: float
    wall: float
    cpu: float
    protocol: str = ""
    cipher: str = ""


@dataclass(frozen=True)
class Measure:
    """Something that is measured of several peers.

    unit: of the rate, per second. cost_unit and cost_scale: of the processor time, seconds times scale a unit
    of work.
    """

    group: str
    title: str
    unit: str
    cost_unit: str
    cost_scale: float
    peers: list[str]
    run: Callable[[str], Sample]
    baseline: str = ""


@dataclass
class Result:
    """The samples of one measure of one peer."""

    measure: Measure
    peer: str
    samples: list[Sample] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        return [sample.units / sample.wall for sample in self.samples]

    @property
    def costs(self) -> list[float]:
        return [sample.cpu / sample.units * self.measure.cost_scale for sample in self.samples]

    @property
    def rate(self) -> float:
        return median(self.rates)

    @property
    def cost(self) -> float:
        return median(self.costs)

    @property
    def spread(self) -> float:
        """Largest distance of a rate from the median, as a part of it."""
        return max(abs(rate - self.rate) for rate in self.rates) / self.rate


class Results:
    """All results, in the order in which they came first."""

    def __init__(self, settings: Settings, peers: list[str], left_out: list[str]) -> None:
        self.settings = settings
        self.peers = peers
        self.left_out = left_out
        self._results: dict[tuple[str, str, str], Result] = {}

    def add(self, measure: Measure, peer: str, sample: Sample) -> None:
        key = (measure.group, measure.title, peer)
        self._results.setdefault(key, Result(measure, peer)).samples.append(sample)

    def of(self, measure: Measure) -> list[Result]:
        return [self._results[measure.group, measure.title, peer] for peer in measure.peers]

    @property
    def measures(self) -> list[Measure]:
        found: list[Measure] = []
        for result in self._results.values():
            if result.measure not in found:
                found.append(result.measure)
        return found

    @property
    def all(self) -> list[Result]:
        return list(self._results.values())


def measure_loop(work: Callable[[], float], seconds: float) -> tuple[float, float, float]:
    """Call `work`, which returns the units it has done, until the time is up: units, wall seconds, processor
    seconds."""
    work()  # caches, allocations, tickets
    units = 0.0
    cpu, begin = process_time(), perf_counter()
    while True:
        units += work()
        wall = perf_counter() - begin
        if wall >= seconds:
            return units, wall, process_time() - cpu


def process_seconds(pid: int) -> float:
    """Processor seconds that another process has used so far."""
    # Its clock, as clock_getcpuclockid(3) makes it of its number: Python has no name for it.
    return clock_gettime((~pid << 3) | 2)


class Progress:
    """A bar on a terminal's standard error; nothing elsewhere."""

    WIDTH = 30

    def __init__(self, steps: int, *, shown: bool) -> None:
        self.steps = steps
        self.done = 0
        self.shown = shown

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        if self.shown:
            bar = "#" * (self.WIDTH * self.done // self.steps)
            line = f"[{bar:<{self.WIDTH}}] {100 * self.done // self.steps:>3} %  {text}"
            print(f"\r\033[K{line[:100]}", end="", file=sys.stderr, flush=True)

    def step(self) -> None:
        self.done += 1
