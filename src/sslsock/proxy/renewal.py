"""Files that have changed while the proxy runs, without a signal: read again, verified, and each taken by itself.

What belongs together (a certificate and its key, the authorities of a file) is a *unit*. One that cannot be used stays as it
was, and keeps no other from being renewed. The settings are those in force: a changed TOML file waits for SIGHUP.

A unit may be bad because somebody is still writing: the certificate is there, and its key is not. So nothing is said of it
until it has been bad for `PATIENCE` seconds.
"""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional, TypeVar

from ..core.context import ConfigurationError
from ..core.loop import Loop
from ..core.schedule import Timer
from ..core.ticket_keys import TicketKeys
from .check import check_certificates
from .files.reading import Contents, Digests, Reading, Unit, status_of
from .files.watch import FileWatch
from .observability.access_log import ERROR, INFO, LineWriter
from .policy import ListenerPolicy
from .settings.model import ProxySettings, SettingsError
from .tls.certificates import CertificateError

if TYPE_CHECKING:
    from .acme.manager import AcmeManager

__all__ = ["PATIENCE", "FileStates", "Renewal", "Renewed", "WatchedFiles", "renew"]

PATIENCE = 10.0  # seconds that a unit may be bad

UNUSABLE = (SettingsError, CertificateError, ConfigurationError, ValueError, OSError)

Made = TypeVar("Made")


class Renewal(Reading):
    """A reading of what another one has read `before`: what has not changed is kept as it is, and what cannot be used too.

    only: the units that may change; None: all. alike: another reading, by whose contents it goes.
    """

    def __init__(self, before: Reading, only: Optional[Collection[Unit]] = None, alike: Optional[Reading] = None) -> None:
        super().__init__(starting=False)
        self._before = before.loaded()
        self._marks = before.marks()
        self._only = only
        self.changed: list[Unit] = []
        self.problems: dict[Unit, Exception] = {}
        if alike is not None:
            self._known = alike._known

    def load(self, kind: str, paths: tuple[str, ...], make: Callable[[], Made]) -> Made:
        unit = Unit(kind, paths)
        if unit not in self._made and unit in self._before:
            made, digests = self._before[unit]
            if self._can_change(unit):
                try:
                    found = self._digests_of(unit)
                    if found != digests and (self._only is None or unit in self._only):
                        made, digests = make(), found
                        self.changed.append(unit)
                except UNUSABLE as exc:
                    self.problems[unit] = exc
            self._keep(unit, made, digests)
        return super().load(kind, paths, make)

    def is_new(self, kind: str, paths: tuple[str, ...]) -> bool:
        return Unit(kind, paths) in self.changed

    def differing(self) -> list[Unit]:
        """The units whose files are not what they were, good or bad."""
        return [unit for unit, (_, digests) in self._before.items() if self._can_change(unit) and self._differs(unit, digests)]

    def _differs(self, unit: Unit, digests: Digests) -> bool:
        try:
            return self._digests_of(unit) != digests
        except (OSError, ValueError):
            return True

    def _can_change(self, unit: Unit) -> bool:
        """What was read of a pipe cannot be read again."""
        return all(path in self._marks for path in unit.paths)

    def _read(self, path: str) -> Contents:
        if not stat.S_ISREG(status_of(path).st_mode):  # it may be meant for a reload, and tells what it holds only once
            raise OSError(errno.EINVAL, "it is no regular file, which SIGHUP alone reads", path)
        return super()._read(path)


class Renewed(NamedTuple):
    """What has become of changed files. reading: what the policies are made of. changed: units that are taken; problems: those
    that are not, and why. warnings: of `check_certificates`. The policies are others also where a certificate was obtained."""

    policies: list[ListenerPolicy]
    reading: Reading
    changed: tuple[Unit, ...] = ()
    problems: dict[Unit, str] = {}
    warnings: tuple[str, ...] = ()


def renew(
    settings: ProxySettings,
    policies: Sequence[ListenerPolicy],
    keys: TicketKeys,
    before: Reading,
    acme: Optional[AcmeManager] = None,
) -> Renewed:
    """Read again what has changed, for the policies that were made of `before`, and verify it as a reload does. acme: who has
    perhaps obtained a certificate meanwhile."""
    places = settings.files()

    def reason(exc: Exception) -> str:
        path = getattr(exc, "path", None) or getattr(exc, "filename", None)
        text = str(exc)
        if isinstance(exc, OSError):
            text = f"{path}: {exc.strerror}" if path else exc.strerror or text
        return str(places[path].error(text)) if path in places else text

    def attempt(reading: Renewal) -> Renewed:
        warnings: list[str] = []
        check_certificates(settings, warnings.append, reading)
        made = list(policies)
        if reading.changed or any(policy.outdated for policy in policies):
            made = [ListenerPolicy(listener, keys, old, reading, acme) for listener, old in zip(settings.listeners, policies)]
        problems = {unit: reason(exc) for unit, exc in reading.problems.items()}
        return Renewed(made, reading, tuple(reading.changed), problems, tuple(warnings))

    first = Renewal(before)
    try:
        renewed = attempt(first)
    except UNUSABLE:
        # Each is good, but not all of them together: two certificates for the same names, say. So one after the other.
        renewed = Renewed(list(policies), before)
        problems: dict[Unit, str] = {}
        for unit in first.differing():
            try:
                further = attempt(Renewal(before, {*renewed.changed, unit}, first))
            except UNUSABLE as exc:
                problems[unit] = reason(exc)
            else:
                problems.update(further.problems)
                if unit in further.changed:
                    renewed = further
        renewed = renewed._replace(problems=problems)
    first.forget()
    renewed.reading.forget()
    return renewed


class Problem:
    """Of a unit. since: time.monotonic(). told: whether the operator knows."""

    __slots__ = ("since", "text", "told")

    def __init__(self, text: str, since: float) -> None:
        self.text = text
        self.since = since
        self.told = False


class FileStates:
    """Which units are in force as their files are, and what the operator is told of it. patience: in seconds.

    taken, refused: how many changes were, for good.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.taken = self.refused = 0
        self._patience = patience
        self._problems: dict[Unit, Problem] = {}

    def note(self, renewed: Renewed, now: float) -> list[tuple[str, str]]:
        """Lines for the operator: (text, level). now: time.monotonic()."""
        lines = [(line, INFO) for line in renewed.warnings]
        for unit in renewed.changed:
            self._problems.pop(unit, None)
            self.taken += 1
            lines.append((f"{names_of(unit)}: read again after a change; new connections go by it", INFO))
        for unit in self._problems.keys() - renewed.problems.keys():
            if self._problems.pop(unit).told:
                lines.append((f"{names_of(unit)}: as it was when it was read last", INFO))
        for unit, text in renewed.problems.items():
            problem = self._problems.get(unit)
            if problem is None or (problem.told and problem.text != text):
                problem = self._problems[unit] = Problem(text, now)
            problem.text = text
            if not problem.told and now - problem.since >= self._patience:
                problem.told = True
                self.refused += 1
                lines.append((f"{names_of(unit)}: changed, but what it was stays in force: {text}", ERROR))
        return lines

    def next_look(self, now: float) -> Optional[float]:
        """Seconds until those that are bad should be read again, if nothing happens before; None: there are none."""
        waiting = [problem.since for problem in self._problems.values() if not problem.told]
        return max(0.0, min(waiting) + self._patience - now) if waiting else None

    def all_good(self) -> None:
        """Everything was read again, by SIGHUP."""
        self._problems.clear()

    def refused_files(self) -> set[str]:
        """Files of which the operator was told that they cannot be used. From any thread."""
        return {path for unit, problem in self._problems.copy().items() if problem.told for path in unit.paths}


class WatchedFiles:
    """The files of a proxy, watched, with what becomes of their changes. All is called in the loop's thread, but for `state`.

    mode: `ProxySettings.watch`. ask: called when the files should be read again (`renew`), which `take` is told of. The
    descriptors are there from the beginning, and `start` makes the thread.
    """

    def __init__(self, loop: Loop, writer: LineWriter, mode: str, ask: Callable[[], object]) -> None:
        self._loop = loop
        self._writer = writer
        self._ask = ask
        self._states = FileStates()
        self._next_look: Optional[Timer] = None
        self._reading: Optional[Reading] = None
        self._watch = FileWatch(self._on_change, writer.write, polling=mode == "poll") if mode != "off" else None

    def start(self, reading: Reading) -> None:
        """reading: of which the policies were made. RuntimeError: the system gives no thread."""
        self._reading = reading
        if self._watch is not None:
            self._watch.start(reading.marks())

    def reloaded(self, reading: Reading) -> None:
        """Everything was read anew, and is in force."""
        self._reading = reading
        self._states.all_good()
        if self._watch is not None:
            self._watch.follow(reading.marks())

    def take(self, renewed: Renewed) -> None:
        """What has become of changed files, which is in force."""
        self._reading = renewed.reading
        now = time.monotonic()
        for line, level in self._states.note(renewed, now):
            self._writer.write(line, level)
        if self._next_look is not None:
            self._next_look.cancel()
        wait = self._states.next_look(now)
        self._next_look = self._loop.call_later(wait, self._ask) if wait is not None else None

    def state(self) -> tuple[dict[str, bool], dict[str, int]]:
        """For metrics, from any thread: each file → whether what it holds is in force; what changes came to → how often."""
        states, reading = self._states, self._reading
        if self._watch is None or reading is None:
            return {}, {}
        refused = states.refused_files()
        return {path: path not in refused for path in reading.marks()}, {"taken": states.taken, "refused": states.refused}

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def _on_change(self) -> None:
        """In the thread that watches."""
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._ask)


def names_of(unit: Unit) -> str:
    return " and ".join(unit.paths)
