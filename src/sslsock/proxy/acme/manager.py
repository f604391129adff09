"""The thread that has certificates obtained and renewed, and what workers, metrics and probes get of it.

A certificate that is in force stays in force until there is a better one, whatever goes wrong. Proxies that share a storage
order one at a time; the others take what they find there.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from ...core.certificate import SslCertificate
from ...core.context import ConfigurationError
from ...core.key import SslKey
from ..observability.access_log import ERROR, INFO, WARNING
from ..settings.model import AcmeSettings
from ..tls.certificates import Pair, check_pair, key_type
from .challenges import Challenges
from .failure import INTERNAL, STORAGE, AcmeFailure, Stopped
from .plan import Pace, Window, next_question, renewal_moment
from .storage import Storage

if TYPE_CHECKING:
    from ..fleet.member import Access
    from .client import Client

__all__ = ["AcmeManager", "AcmeState", "below"]

log = logging.getLogger("sslsock")

LOOK_SECONDS = 30.0  # between looks whether another proxy has stored a certificate
MISSING_SECONDS = 2.0  # the same, as long as there is none
END_SECONDS = 2.0  # that the end waits for the thread, which may be within a request

KEY_TYPES = {"ecdsa": "EC", "rsa": "RSA"}  # as the settings have them, and as keys are called


class AcmeState(NamedTuple):
    """Of one name, for metrics; times in seconds since the epoch, 0: never. failures: by reason."""

    name: str
    success: float
    renewal: float
    failures: Mapping[str, int]


class Held:
    """What is known of one name. pem: of the certificate in force."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pem = b""
        self.pair: Optional[Pair] = None
        self.renewal = 0.0  # when it is due; 0: now, for there is none
        self.question = 0.0  # when the authority is to be asked for its window
        self.in_window = False  # `renewal` is the authority's word
        self.again = 0.0  # before which there is no attempt, after failures
        self.barred = 0.0  # before which the authority wants none
        self.success = 0.0
        self.failed = 0  # times in a row
        self.failures: dict[str, int] = {}
        self.unreadable = ""  # why the storage could not be read
        self.refused = b""  # what lies in the storage and cannot be used

    def due(self, now: float) -> bool:
        return now >= self.renewal

    def ready(self, now: float) -> bool:
        """Whether to order it."""
        return self.due(now) and now >= self.again


class AcmeManager:
    """The certificates of some names with one authority.

    storage: of all, in which this authority has a part of its own (`below`). say: gets lines for the log, with their level.
    changed: called in the thread when `pairs` has changed. make_client: called once in the thread, with the storage and what is
    set at the end.
    """

    def __init__(
        self,
        settings: AcmeSettings,
        names: Iterable[str],
        storage: Storage,
        say: Callable[[str, str], object],
        changed: Callable[[], object],
        make_client: Callable[[Storage, threading.Event], Client],
        pace: Pace = Pace(),  # noqa: B008 # a tuple
    ) -> None:
        self._settings = settings
        self._storage = below(storage, settings.directory)
        self.challenges = Challenges(self._storage)
        self._say = say
        self._changed = changed
        self._make_client = make_client
        self._client: Optional[Client] = None
        self._pace = pace
        self._held = {name: Held(name) for name in names}
        self.pairs: Mapping[str, Pair] = {}
        """By name, what is in force; a new mapping with each change."""
        self._stopping = threading.Event()
        self._poked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="acme", daemon=True)

    @property
    def names(self) -> Collection[str]:
        """From any thread."""
        return self._held

    def load(self) -> None:
        """Take what lies in the storage. Before `start`. OSError."""
        for held in self._held.values():
            self._take_stored(held)

    def log_in(self, access: Access) -> None:
        """At the fleet's Redis, where that is the storage. From any thread."""
        self._storage.log_in(access)

    def start(self) -> None:
        """RuntimeError: the system gives no thread."""
        self._storage.start()
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._poked.set()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)

    def follow(self, names: Sequence[str]) -> None:
        """These names from now on, and whatever has failed is tried again at once, unless the authority has said when. From any
        thread."""
        before = self._held
        held = {name: before.get(name) or Held(name) for name in names}
        for one in held.values():
            one.again = one.barred
        self._held = held
        self._poked.set()

    # For metrics and probes, from any thread

    def missing(self) -> tuple[str, ...]:
        """Names without a certificate."""
        pairs = self.pairs
        return tuple(name for name in self._held if name not in pairs)

    def states(self) -> list[AcmeState]:
        return [
            AcmeState(held.name, held.success, max(held.renewal, held.again), held.failures.copy())
            for held in self._held.values()
        ]

    # The thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._poked.clear()
            try:
                wait = self._turn()
            except Stopped:
                return
            except Exception:  # a mistake of this program, which must not end it
                log.exception("the thread for ACME goes on")
                wait = LOOK_SECONDS
            self._poked.wait(wait)

    def _turn(self) -> float:
        """Look at all names, and do what is to be done. Returns the seconds until the next look."""
        waits = [LOOK_SECONDS]
        for held in list(self._held.values()):
            if self._stopping.is_set():
                raise Stopped
            try:
                self._see_to(held)
            except Stopped:
                raise
            except Exception:  # a mistake of this program, which must not cost the other names theirs
                log.exception("%s: the thread for ACME goes on", held.name)
            if held.pair is None or held.ready(time.time()):  # somebody else orders, or may
                waits.append(MISSING_SECONDS)
            moments = [max(held.renewal, held.again), *([held.question] if held.pair is not None else [])]
            waits += [moment - time.time() for moment in moments if moment > time.time()]
        return max(0.01, min(waits))

    def _see_to(self, held: Held) -> None:
        self._look(held)
        self._ask_for_window(held)
        if held.ready(time.time()):
            self._order(held)
            self._ask_for_window(held)

    def _look(self, held: Held) -> None:
        """Whether another proxy has stored a certificate. A storage that cannot be read is no attempt that has failed."""
        try:
            self._take_stored(held)
        except OSError as exc:
            if held.unreadable != text_of(exc):
                held.unreadable = text_of(exc)
                self._say(f"{held.name}: what is stored cannot be read: {held.unreadable}", WARNING)
        else:
            if held.unreadable:
                held.unreadable = ""
                held.again = held.barred  # what has failed may have failed of that
                self._say(f"{held.name}: what is stored can be read again", INFO)

    def _take_stored(self, held: Held) -> None:
        pem = self._storage.read(place_of(held.name))
        if pem is None or pem in (held.pem, held.refused):
            return
        try:
            pair = pair_of(pem)
            if not is_for(pair, held.name):
                raise ValueError("it is for another name")
            renewal = renewal_of(pair)
        except (ValueError, ConfigurationError) as exc:
            held.refused = pem
            self._say(f"{held.name}: what the storage holds cannot be used: {exc}", ERROR)
            return
        if key_type(pair[2]) != KEY_TYPES[self._settings.key_type]:
            renewal = 0.0
        held.pem, held.pair, held.renewal, held.in_window, held.question = pem, pair, renewal, False, 0.0
        held.again, held.failed = 0.0, 0
        self.pairs = {**{name: one for name, one in self.pairs.items() if name in self._held}, held.name: pair}
        self._changed()

    def _ask_for_window(self, held: Held) -> None:
        """ARI, where it is time to ask. Whatever comes of it, there is a time to renew."""
        from .order import renewal_window

        now = time.time()
        if held.pair is None or now < held.question:
            return
        try:
            window, retry_after = renewal_window(self._connected(), held.pem)
        except AcmeFailure as exc:
            held.question = next_question(now, exc.retry_after)  # RFC 9773, 4.3.3
            log.debug("%s: no renewal information: %s", held.name, exc)
            return
        held.question = next_question(now, retry_after)
        expiry = expiry_of(held.pair)
        # One that begins when the certificate is over would have nobody renew it.
        if window is None or window.start >= expiry or key_type(held.pair[2]) != KEY_TYPES[self._settings.key_type]:
            return
        window = window._replace(end=min(window.end, expiry))
        moment = renewal_of(held.pair, window)
        inside = held.in_window and window.start <= held.renewal <= window.end
        if not inside:  # else the same moment each time, or it would always move
            before, held.renewal = held.renewal, moment
            if not held.in_window or moment < before - 60:
                self._say(f"{held.name}: the authority suggests to renew it, and at {when(moment)} it will be", INFO)
            held.in_window = True

    def _order(self, held: Held) -> None:
        """Unless another proxy does."""
        from .order import obtain

        try:
            with self._storage.lock() as ours:
                if not ours:
                    return
                self._take_stored(held)  # it may have come while somebody else held the lock
                if not held.ready(time.time()):
                    return
                self._say(f"{held.name}: a certificate is ordered from {self._settings.directory}", INFO)
                pem = obtain(
                    self._connected(),
                    self._storage,
                    self.challenges,
                    held.name,
                    self._settings.key_type,
                    self._settings.challenge,
                    held.pem or None,
                )
                pair_of(pem)
                self._storage.write(place_of(held.name), pem)
                self._storage.remove(f"orders/{held.name}.json")
                self._take_stored(held)
        except AcmeFailure as exc:
            self._fail(held, exc)
        except OSError as exc:
            self._fail(held, AcmeFailure(STORAGE, text_of(exc)))
        except (ValueError, ConfigurationError) as exc:
            self._fail(held, AcmeFailure(INTERNAL, str(exc)))
        except Stopped:
            raise
        except Exception as exc:  # a mistake of this program or of a library
            log.exception("%s: no certificate", held.name)
            self._fail(held, AcmeFailure(INTERNAL, repr(exc)))
        else:
            held.success = time.time()
            # Also where it is to be renewed at once again, as one that ends within seconds.
            held.again = held.success + self._pace.first
            assert held.pair is not None
            end = held.pair[0].not_after
            until = f", until {end:%Y-%m-%d %H:%M} UTC" if end is not None else ""
            self._say(f"{held.name}: new connections go by a new certificate{until}", INFO)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._make_client(self._storage, self._stopping)
        return self._client

    def _fail(self, held: Held, failure: AcmeFailure) -> None:
        held.failed += 1
        held.failures = {**held.failures, failure.reason: held.failures.get(failure.reason, 0) + 1}
        wait = self._pace.wait(held.failed, failure.retry_after)
        now = time.time()
        held.again, held.barred = now + wait, now + (failure.retry_after or 0.0)
        force = "; the one in force stays" if held.pair is not None else ""
        text = f"{held.name}: no certificate ({failure.reason}): {failure}{force}; the next attempt is at {when(held.again)}"
        self._say(text, ERROR if held.pair is None or time.time() > expiry_of(held.pair) else WARNING)


class Below:
    """A part of a storage."""

    def __init__(self, storage: Storage, part: str) -> None:
        self._storage = storage
        self._part = part
        self.lock = storage.lock
        self.start = storage.start
        self.log_in = storage.log_in

    def read(self, name: str) -> Optional[bytes]:
        return self._storage.read(f"{self._part}/{name}")

    def write(self, name: str, data: bytes) -> None:
        self._storage.write(f"{self._part}/{name}", data)

    def remove(self, name: str) -> None:
        self._storage.remove(f"{self._part}/{name}")


def below(storage: Storage, directory: str) -> Storage:
    """What belongs to one authority: a certificate of its trial directory is none for the other."""
    return Below(storage, re.sub("[^a-z0-9.-]+", "-", directory.lower().partition("://")[2]).strip("-."))


def place_of(name: str) -> str:
    return f"certificates/{name}.pem"


def pair_of(pem: bytes) -> Pair:
    """What a stored certificate holds. ValueError, ConfigurationError: it cannot be used."""
    found = SslCertificate.from_bytes(pem)
    if not found:
        raise ValueError("it holds no certificate")
    certificate, *chain = found
    key = SslKey(pem)
    if key.null:
        raise ValueError(key.error_string)
    check_pair((certificate, chain, key))
    return certificate, chain, key


def is_for(pair: Pair, name: str) -> bool:
    return any(kind == "DNS" and found.lower() == name for kind, found in pair[0].subject_alternative_names)


def renewal_of(pair: Pair, window: Optional[Window] = None) -> float:
    begin, end = pair[0].not_before, pair[0].not_after
    if begin is None or end is None:
        return 0.0
    return renewal_moment(begin.timestamp(), end.timestamp(), window)


def expiry_of(pair: Pair) -> float:
    end = pair[0].not_after
    return end.timestamp() if end is not None else 0.0


def when(moment: float) -> str:
    with suppress(ValueError, OverflowError, OSError):
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
    return "some day"


def text_of(exc: OSError) -> str:
    return f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror or str(exc)
