"""What the workers of a process may take together: connections, handshakes, their rates, of all and of each source. By the
settings, and by the descriptors that the system gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from .limits.descriptors import AMPLE, available, needs_of, share_out
from .limits.gate import Gate
from .limits.rates import Rates
from .limits.shared_gate import SharedGate
from .limits.shares import Shares
from .limits.sources import Sources
from .observability.access_log import WARNING, LineWriter
from .policy import ListenerPolicy
from .service.openings import Unstartable
from .settings.model import ProxySettings

__all__ = ["Allowance"]


class Allowance:
    """Of a process. gate, sources, rates: what its workers share. rooms: what each may hold beside connections that have a
    place; it does not change after the first `follow`.

    shares: by which this process, a worker itself, has the limits together with others. warns: whether it tells the operator
    what is not possible; one of these processes does.
    """

    def __init__(
        self, settings: ProxySettings, writer: LineWriter, shares: Optional[Shares] = None, warns: bool = True
    ) -> None:
        self.gate = Gate(0) if shares is None else SharedGate(0, 0, shares)
        self.sources = Sources(settings.limits, shares)
        self.rates = Rates([str(one.listen) for one in settings.listeners], shares)
        self.rooms = AMPLE
        self._warns = warns
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
        possible = self._possible(settings, scrapers)
        wanted = limits.max_connections
        if isinstance(gate, SharedGate):
            gate.change_own(possible)
            gate.change(wanted, limits.max_handshakes)
        else:
            gate.change(min(wanted, possible) if wanted and possible else wanted or possible, limits.max_handshakes)
        for policy in policies:
            gate.change(policy.settings.max_connections, policy.settings.max_handshakes, gate.room(policy.name))
        self.sources.follow(limits)
        self.rates.follow(limits, policies)
        self._begun = True

    def _possible(self, settings: ProxySettings, scrapers: int) -> int:
        """How many connections there may be by the descriptors; 0: any number."""
        limit = available()
        if not limit:
            return 0
        wanted, threads = settings.limits.max_connections, 1 if settings.processes else settings.threads
        needs = needs_of(settings, threads, self._held, self._doors, scrapers)
        possible, rooms = share_out(limit, needs)
        if not self._begun:
            self.rooms = rooms
        if possible < 1:
            if not self._begun:
                raise Unstartable(f"the proxy cannot start: {limit} descriptors are too few (ulimit -n)", 1)
            possible = 1
        in_all = possible * (settings.threads if settings.processes else 1)
        if wanted > in_all and self._warns:
            where = " in each process" if settings.processes else ""
            text = f"--max-connections {wanted}: only {in_all} are possible with {limit} descriptors{where} (ulimit -n)"
            self._writer.write(text, WARNING)
        return possible
