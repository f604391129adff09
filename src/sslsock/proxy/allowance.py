"""What the workers of a process may take together: connections, handshakes, their rates, of all and of each source. By the
settings, and by the descriptors that the system gives.
"""

from __future__ import annotations

from collections.abc import Sequence

from .access_log import WARNING, LineWriter
from .descriptors import AMPLE, available, needs_of, share_out
from .gate import Gate
from .openings import Unstartable
from .pace import Paces
from .policy import ListenerPolicy
from .settings import ProxySettings
from .sources import Sources

__all__ = ["Allowance"]


class Allowance:
    """Of a process. gate, sources, paces: what its workers share. rooms: what each may hold beside connections that have a
    place; it does not change after the first `follow`."""

    def __init__(self, settings: ProxySettings, writer: LineWriter) -> None:
        self.gate = Gate(0)
        self.sources = Sources(settings.limits)
        self.paces = Paces()
        self.rooms = AMPLE
        self._writer = writer
        self._held = 0
        self._doors = 0
        self._begun = False

    def begin(self, held: int, doors: Sequence[Sequence[int]]) -> None:
        """Before the first `follow`. held: descriptors that are open before there are workers. doors: listening descriptors of
        one of them; the name of a listener may have several addresses."""
        self._held = held
        self._doors = sum(map(len, doors))

    def follow(self, settings: ProxySettings, policies: Sequence[ListenerPolicy], scrapers: int) -> None:
        """Go by these from now on. scrapers: descriptors for whoever asks for metrics and such. Unstartable, the first time:
        there are too few descriptors."""
        limits, gate = settings.limits, self.gate
        gate.change(self._connections(settings, scrapers), limits.max_handshakes)
        for policy in policies:
            gate.change(policy.settings.max_connections, policy.settings.max_handshakes, gate.room(policy.name))
        self.sources.follow(limits)
        self.paces.follow(limits, policies)
        self._begun = True

    def _connections(self, settings: ProxySettings, scrapers: int) -> int:
        """How many there may be: as many as are wanted, if that many are possible."""
        wanted = settings.limits.max_connections
        limit = available()
        if not limit:
            return wanted
        possible, rooms = share_out(limit, needs_of(settings, self._held, self._doors, scrapers))
        if not self._begun:
            self.rooms = rooms
        if possible < 1:
            if not self._begun:
                raise Unstartable(f"the proxy cannot start: {limit} descriptors are too few (ulimit -n)", 1)
            possible = 1
        if wanted > possible:
            text = f"--max-connections {wanted}: only {possible} are possible with {limit} descriptors (ulimit -n)"
            self._writer.write(text, WARNING)
        return min(wanted, possible) if wanted else possible
