"""What the proxy goes by, and how that changes while it runs: by SIGHUP, and when files have changed.

Files are read in a thread of their own: a worker that reads keys would let its connections wait. What has been read is put in
force by the main thread, all at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, Optional, Union

from ..core.context import ConfigurationError
from ..core.event_loop import EventLoop
from ..core.ticket_keys import TicketKeys
from .back_ends.directory import Directory
from .files.reading import Reading
from .fleet.member import Access, FleetError, FleetMember, access_to, import_redis
from .observability.access_log import ERROR, LineWriter
from .policy import ListenerPolicy
from .processes.sent_keys import SentKeys
from .renewal import Renewed, WatchedFiles, renew
from .service.service_manager import ServiceManager
from .settings.model import ProxySettings, SettingsError
from .tls.certificates import CertificateError
from .tls.tickets import SealingKeys, TicketKeyError, TicketKeyFile, TicketRotation

if TYPE_CHECKING:
    from .acme.manager import AcmeManager

__all__ = ["UNUSABLE", "InForce", "Reload"]

log = logging.getLogger("sslsock")

RELOAD_SECONDS = 1.0  # that the end waits for a SIGHUP which is being followed

# What is wrong with the settings or the files that they name.
UNUSABLE = (SettingsError, CertificateError, ConfigurationError, TicketKeyError, FleetError, ValueError, OSError)

LASTING = (  # settings that a reload does not change
    *("processes", "threads", "metrics", "user", "keep_reading", "log_format", "log_probes", "ticket_key_file", "fleet"),
    *("watch", "acme", "resolver"),
)

Reload = Callable[[Callable[[str], object], Reading], tuple[ProxySettings, Reading]]


class InForce:
    """The settings in force, and what was made of the files that they name. The part of the server that changes them.

    Parameters as of `server.run`; loop: of the main thread, to which it belongs.
    """

    def __init__(
        self, settings: ProxySettings, reading: Reading, reload: Optional[Reload], writer: LineWriter, loop: EventLoop
    ) -> None:
        self._settings = settings
        self._reading = reading  # what the policies were made of
        self._reload = reload
        self._writer = writer
        self._loop = loop
        self._keys = TicketKeys()  # of this process
        self._sealing: SealingKeys = SentKeys() if settings.processes else self._keys  # what all seal with
        self._ticket_source: Union[TicketKeyFile, TicketRotation, FleetMember]
        self._access: Optional[Access] = None  # to the fleet's Redis
        self._member: Optional[FleetMember] = None
        self._directory: Optional[Directory] = None
        self._policies: list[ListenerPolicy] = []
        self._acme: Optional[AcmeManager] = None
        self._files = WatchedFiles(loop, writer, settings.watch, self._on_files_changed)
        self._manager = ServiceManager()
        self._reloading: Optional[threading.Thread] = None
        self._reload_again = self._renew_again = False
        self._reload_success, self._reloaded = True, time.time()  # the last one; a start is one too
        self._ending = False

    # For the derived class

    def _follow_limits(self, policies: Sequence[ListenerPolicy]) -> None:
        """Go by the limits of the settings, which have changed, and of these policies."""
        raise NotImplementedError

    def _put_in_force(self, then: Callable[[], object]) -> None:
        """New connections go by the settings and policies, which have changed. then: called when they do."""
        raise NotImplementedError

    def _serving(self) -> str:
        return f"serving {', '.join(policy.name for policy in self._policies)}"

    def _close_reading(self) -> None:
        """Nothing is read any more."""
        if self._member is not None:
            self._member.close()
        self._files.close()
        if self._reloading is not None:
            self._reloading.join(RELOAD_SECONDS)
        if self._acme is not None:
            self._acme.close()

    # The start

    def _read_files(self) -> None:
        settings = self._settings
        if settings.ticket_key_file is not None:
            self._ticket_source = TicketKeyFile(settings.ticket_key_file, self._sealing)
            self._ticket_source.load()
        elif settings.fleet is not None:
            self._access = access_to(settings.fleet, self._reading)
            import_redis()
        else:
            self._ticket_source = TicketRotation(self._sealing, time.monotonic())
        self._make_directory(settings)
        self._policies = [
            ListenerPolicy(listener, self._keys, None, self._reading, self._acme) for listener in settings.listeners
        ]
        self._reading.forget()

    def _join_fleet(self) -> None:
        """Once there is nothing left that could be forked with the keys that it makes."""
        if self._access is not None:
            self._ticket_source = self._member = FleetMember(self._access, self._sealing, self._writer)
            self._member.start()

    def _make_directory(self, settings: ProxySettings) -> None:
        """If DNS is needed. OSError."""
        if self._directory is None and settings.asks_dns:
            self._directory = Directory(settings.resolver)

    # SIGHUP

    def _on_hangup(self) -> None:
        if self._ending:
            self._writer.write("SIGHUP: nothing is read again, for the proxy is ending")
        elif self._reload is None:
            self._writer.write("SIGHUP: there is nothing to read again")
        elif self._reloading is not None:
            self._reload_again = True
        else:
            self._manager.reloading()
            problem = self._begin_reading(self._read_again, self._reload)
            if problem is not None:
                self._reload_failed(problem)

    def _begin_reading(self, target: Callable[..., object], *args: object) -> Optional[RuntimeError]:
        """Read in a thread of its own, one at a time. Returns why not: the system gives no more threads."""
        self._reloading = threading.Thread(target=target, args=args, name="reload", daemon=True)
        try:
            self._reloading.start()
        except RuntimeError as exc:
            self._reloading = None
            return exc
        return None

    def _read_again(self, reload: Reload) -> None:
        """In a thread of its own: read everything again, then have the main thread swap it."""
        problem: Optional[Exception] = None
        settings, policies, reading = self._settings, self._policies, self._reading
        try:
            settings, reading = reload(self._writer.write, reading)  # a writer which does not block, whatever standard error is
            check_same_shape(self._settings, settings)
            access = self._access_again(settings, reading)
            self._make_directory(settings)
            policies = [
                ListenerPolicy(listener, self._keys, before, reading, self._acme)
                for listener, before in zip(settings.listeners, self._policies)
            ]
            reading.forget()
            if self._member is not None and access is not None:
                self._access = access
                self._member.follow(access)
                if self._acme is not None:
                    self._acme.log_in(access)
        except Exception as exc:  # whatever it is, the proxy runs on
            problem = exc
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._swap, settings, policies, reading, problem)

    def _access_again(self, settings: ProxySettings, reading: Reading) -> Optional[Access]:
        """How to log in at the fleet's Redis from now on."""
        if self._member is None or settings.fleet is None:
            return None
        access = access_to(settings.fleet, reading)
        if access.secret != self._member.access.secret:
            raise ValueError("the secret of the fleet has changed, which needs a restart")
        return access

    def _swap(
        self, settings: ProxySettings, policies: list[ListenerPolicy], reading: Reading, problem: Optional[Exception]
    ) -> None:
        if problem is None and isinstance(self._ticket_source, TicketKeyFile):
            try:
                self._ticket_source.load()  # here, where they are looked at now and then: never an older state after a newer
            except TicketKeyError as exc:
                problem = exc
        if problem is not None:
            self._reloading = None
            self._reload_failed(problem)
            self._read_what_waits()
        else:
            self._settings = settings
            self._follow_limits(policies)
            self._use(policies, reading, self._on_swapped)

    def _on_swapped(self) -> None:
        self._reloading = None
        self._reload_success, self._reloaded = True, time.time()
        self._files.reloaded(self._reading)
        if self._acme is not None:
            self._acme.follow(self._settings.acme_names())
            self._renew_again = self._renew_again or any(policy.outdated for policy in self._policies)
        self._writer.write("SIGHUP: read again; new connections go by the new settings")
        self._manager.ready(self._serving())
        self._read_what_waits()

    def _use(self, policies: list[ListenerPolicy], reading: Reading, then: Callable[[], object]) -> None:
        """New connections go by these, and by the settings; then `then` is called."""
        self._policies, self._reading = policies, reading
        self._put_in_force(then)

    def _read_what_waits(self) -> None:
        """After one reading: what was asked for meanwhile."""
        if self._reload_again:
            self._reload_again = False
            self._on_hangup()
        elif self._renew_again:
            self._renew_again = False
            self._on_files_changed()

    def _reload_failed(self, problem: Exception) -> None:
        self._reload_success = False
        reason = str(problem) if isinstance(problem, (*UNUSABLE, RuntimeError)) else repr(problem)
        self._writer.write(f"SIGHUP: the old settings stay in force: {reason}", ERROR)
        self._manager.ready(f"{self._serving()}; a reload has failed, the old settings are in force")

    # Files that change without a signal

    def _on_files_changed(self) -> None:
        if self._ending:
            return
        if self._reloading is not None:
            self._renew_again = True
        elif (problem := self._begin_reading(self._renew)) is not None:
            self._writer.write(f"changed files were not read: {problem}", ERROR)

    def _renew(self) -> None:
        """In a thread of its own, as `_read_again`."""
        try:
            renewed = renew(self._settings, self._policies, self._keys, self._reading, self._acme)
        except Exception:  # a mistake of this program, which must not end it
            log.exception("changed files were not read")
            renewed = Renewed(self._policies, self._reading)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._take_renewed, renewed)

    def _take_renewed(self, renewed: Renewed) -> None:
        def then() -> None:
            self._reloading = None
            self._files.take(renewed)
            self._read_what_waits()

        if renewed.policies != self._policies:
            self._use(renewed.policies, renewed.reading, then)
        else:
            then()


def check_same_shape(old: ProxySettings, new: ProxySettings) -> None:
    """ValueError for a change that needs a restart."""
    shapes = [[(one.listen, one.mode, one.owner) for one in settings.listeners] for settings in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError("the addresses to listen on have changed, which needs a restart")
    for name in LASTING:
        if getattr(old, name) != getattr(new, name):
            said = "processes" if name == "threads" and new.processes else name.replace("_", "-")  # `threads` counts them
            raise ValueError(f"{said} has changed, which needs a restart")
    if old.limits.source_table_size != new.limits.source_table_size:
        raise ValueError("source-table-size has changed, which needs a restart")
