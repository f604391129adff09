"""A member of a fleet: a thread that keeps the session ticket keys of this process the same as those of others, by Redis.

What Redis holds is one value, a plan (`keys`). Whoever finds it without a next key writes one with it, and only if the
value is still what he has read (WATCH): of several, one wins, and the others read what he has written. There is no lock that a
member who stops could leave behind, nor can one that has slept put an older plan in the place of a newer. Times are the
server's, so members' clocks do not matter.

Without Redis the plan that is known goes on, by this process's own clock. Who has never reached it has a plan of his own, which
becomes the fleet's if there is none.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any, Callable, NamedTuple, Optional

from ..files.reading import Reading
from ..observability.access_log import INFO, WARNING, LineWriter
from ..settings.model import Fleet
from ..tls.tickets import SealingKeys
from .keys import KEPT, MOST_USE, Plan, PlanError, Seed, advanced, is_alive, new_plan, parse_plan, shifted, ticket_keys

__all__ = ["Access", "FleetError", "FleetMember", "FleetState", "access_to", "client_of", "import_redis"]

LOOK_SECONDS = 5.0  # from one look at Redis to the next
SPREAD = 0.2  # of it, by which that varies: members do not come all at once
FIRST_PAUSE = 1.0  # seconds after a failure; then twice as long each time
LONGEST_PAUSE = 30.0
ANSWER_SECONDS = 2.0  # for a connection, and for each answer
END_SECONDS = 0.5  # that the end waits for a look that is under way
START_SECONDS = 3.0  # that the start waits for the first look
MOST_BYTES = 65536  # of what Redis holds; a plan takes 1,200
LEAST_SECRET = 32  # bytes
MOST_TRIES = 8  # of writing, while others write too
STORED_SECONDS = 7 * 24 * 3600  # until Redis forgets a plan that nobody writes any more
RENEW = b"renew"  # in the place of a plan: all keys are to be made anew


class FleetError(Exception):
    """What is wrong with a file of the fleet. key: the setting that names it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class Access(NamedTuple):
    """What a member needs of its settings' files. authorities: PEM, None for the system's. secret: b"" for none."""

    fleet: Fleet
    authorities: Optional[str]
    password: Optional[str]
    secret: bytes


class FleetState(NamedTuple):
    """For metrics. connected: whether the last look went well; contact: when one did last, in seconds since the epoch, 0 for
    never; version: of the plan in force; changes: how often another key has begun to seal."""

    connected: bool
    contact: float
    version: int
    changes: int


def import_redis() -> Any:
    """FleetError: the package is missing."""
    try:
        import redis
    except ImportError:
        raise FleetError("fleet", "it needs the package redis: pip install 'sslsock[fleet]'") from None
    return redis


def access_to(fleet: Fleet, reading: Reading) -> Access:
    """Read the files. FleetError."""
    authorities = password = None
    secret = b""
    if fleet.ca is not None:
        authorities = text_of(fleet.ca, "fleet-ca", reading)
        if "-----BEGIN CERTIFICATE-----" not in authorities:
            raise FleetError("fleet-ca", f"{fleet.ca}: no certificate")
    if fleet.password_file is not None:
        password = text_of(fleet.password_file, "fleet-password-file", reading).rstrip("\r\n")
        if not password:
            raise FleetError("fleet-password-file", f"{fleet.password_file}: it is empty")
    if fleet.secret_file is not None:
        secret = bytes_of(fleet.secret_file, "fleet-secret-file", reading).strip()
        if len(secret) < LEAST_SECRET:
            reason = f"{len(secret)} bytes; {LEAST_SECRET} random ones are needed (openssl rand -base64 48)"
            raise FleetError("fleet-secret-file", f"{fleet.secret_file}: {reason}")
    return Access(fleet, authorities, fleet.password if password is None else password, secret)


def bytes_of(path: str, key: str, reading: Reading) -> bytes:
    try:
        return reading.read(path)
    except (OSError, ValueError) as exc:
        raise FleetError(key, f"{path}: {getattr(exc, 'strerror', None) or exc}") from None


def text_of(path: str, key: str, reading: Reading) -> str:
    try:
        return bytes_of(path, key, reading).decode()
    except UnicodeDecodeError:
        raise FleetError(key, f"{path}: it is not text") from None


def client_of(access: Access) -> Any:
    """A client of redis-py; it connects when it is used."""
    redis = import_redis()
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    fleet = access.fleet
    where: dict[str, Any]
    if fleet.address.path is not None:
        where = {"unix_socket_path": fleet.address.path}
    else:
        where = {"host": fleet.address.host, "port": fleet.address.port}
    if fleet.address.tls:
        # Each by name: what they are otherwise has changed from one version of redis-py to another.
        where.update(ssl=True, ssl_cert_reqs="required", ssl_check_hostname=True, ssl_ca_data=access.authorities)
    return redis.Redis(
        **where,
        db=fleet.database,
        username=fleet.user,
        password=access.password,
        protocol=2,  # which every server and everything in front of one understands
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),  # the member tries again, when it is time to
        client_name="sslsock",
    )


class FleetMember:
    """The thread, from `start` to `close`; or, for who has a thread, `look` and `use`.

    access: as `access_to` has made it. keys: what contexts seal and open with. writer: of the log. clock: seconds that never go
    back. FleetError: the package redis is missing.
    """

    def __init__(
        self, access: Access, keys: SealingKeys, writer: LineWriter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.access = access
        self._redis = import_redis()
        self._client = client_of(access)
        self._keys = keys
        self._writer = writer
        self._clock = clock
        self._ahead = time.time() - clock()  # of the server's time; until that is known, of this machine's
        self._plan = new_plan(self.now, access.secret)
        self._own = True  # nobody else has this plan
        self._epoch: Optional[int] = None  # of the last plan of the fleet
        self._retired: list[tuple[Seed, float]] = []  # of plans before, and until when each opens
        self._in_use: list[bytes] = []
        self._connected: Optional[bool] = None
        self._contact = 0.0
        self._changes = 0
        self._pause = FIRST_PAUSE
        self._wake = threading.Event()
        self._asked = self._ended = False
        self._has_looked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self.use()

    @property
    def now(self) -> float:
        """The server's time, as far as it is known."""
        return self._clock() + self._ahead

    def start(self, seconds: float = START_SECONDS) -> None:
        """Begin, and wait for the first look so long: who connects first gets a ticket of the fleet's."""
        self._thread.start()
        self._has_looked.wait(seconds)

    def close(self) -> None:
        self._ended = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS)

    def follow(self, access: Access) -> None:
        """Look at once, and log in by this from now on. From any thread."""
        if access != self.access:
            self.access, self._client = access, client_of(access)
        self._asked = True
        self._wake.set()

    def age(self) -> float:
        """Seconds since the key that seals began to."""
        return max(0.0, self.now - self._plan.current(self.now).since)

    def state(self) -> FleetState:
        """From any thread."""
        return FleetState(bool(self._connected), self._contact, self._plan.version, self._changes)

    def _run(self) -> None:
        due = self._clock()
        while not self._ended:
            self._wake.clear()
            if self._asked or self._clock() >= due:
                self._asked = False
                due = self._clock() + self.look()
            self.use()
            self._has_looked.set()
            following = self._plan.next(self.now)
            wake = due if following is None else min(due, following.since - self._ahead)
            if not self._asked:
                self._wake.wait(max(0.0, wake - self._clock()))

    # Redis

    def look(self) -> float:
        """Ask Redis once for the plan, and write one where that is due. Returns after how many seconds to look again."""
        try:
            plan, now = self._exchange()
        except Exception as exc:  # whatever it is, this process goes on
            self._client.close()
            self._note_lost(exc)
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            return pause * random.uniform(0.5, 1.0)
        self._adopt(plan, now)
        self._note_found()
        self._pause = FIRST_PAUSE
        return LOOK_SECONDS * random.uniform(1 - SPREAD, 1 + SPREAD)

    def _exchange(self) -> tuple[Plan, float]:
        """The plan that Redis holds now, and its time. Whatever redis-py raises; PlanError."""
        client, name = self._client, f"{self.access.fleet.name}:tickets"
        asking = client.pipeline(transaction=False)
        asking.getrange(name, 0, MOST_BYTES)
        asking.time()
        began = self._clock()
        text, moment = asking.execute()
        self._set_clock(moment, began)
        plan = self._decide(text)
        if plan.text() == text:
            return plan, self.now
        theirs = self._theirs(text)
        if theirs is not None:  # it counts, also where the server takes no writes: one that is full, or a replica
            self._adopt(theirs, self.now)
        with client.pipeline() as writing:
            for _ in range(MOST_TRIES):
                writing.watch(name)
                text = writing.getrange(name, 0, MOST_BYTES)
                plan = self._decide(text)
                if plan.text() == text:
                    return plan, self.now
                writing.multi()
                writing.set(name, plan.text(), ex=STORED_SECONDS)
                try:
                    writing.execute()
                    return plan, self.now
                except self._redis.WatchError:  # another has written
                    continue
        raise PlanError("others write it all the time")

    def _set_clock(self, moment: tuple[int, int], began: float) -> None:
        """moment: what TIME has answered to a question that went out at `began`."""
        ahead = moment[0] + moment[1] / 1e6 - (began + self._clock()) / 2
        if self._own:
            self._plan = shifted(self._plan, ahead - self._ahead)
        self._retired = [(seed, until + ahead - self._ahead) for seed, until in self._retired]
        self._ahead = ahead

    def _decide(self, text: bytes) -> Plan:
        """What Redis should hold, where it holds this. PlanError."""
        now, secret, mine = self.now, self.access.secret, self._plan
        if text == RENEW:
            return new_plan(now, secret, max(int(now), mine.epoch + 1), mine.version + 1)
        theirs = self._theirs(text)
        return advanced(mine if theirs is None else theirs, now)

    def _theirs(self, text: bytes) -> Optional[Plan]:
        """The plan that Redis holds, where it counts. PlanError."""
        if not text or text == RENEW:  # nobody was here yet, or Redis has lost it
            return None
        if len(text) > MOST_BYTES:
            raise PlanError("it is too long")
        theirs = parse_plan(text, self.access.secret)
        # It may be an older one, when another server has taken over that did not have the last of what was written.
        return None if not self._own and self._plan.is_newer_than(theirs) else theirs

    def _adopt(self, plan: Plan, now: float) -> None:
        if self._epoch is not None and plan.epoch > self._epoch:
            self._retired = []  # all keys of before were given up
        else:
            self._retire(plan, now)
        self._plan, self._own, self._epoch = plan, False, plan.epoch
        self._contact = time.time()

    def _retire(self, plan: Plan, now: float) -> None:
        """Tickets may still come that were sealed by a key which is not in the plan that is to come."""
        stays = {seed.secret for seed in plan.seeds}
        self._retired += [
            (seed, now + KEPT)
            for seed in self._plan.seeds
            if seed.secret not in stays and seed.since <= now and is_alive(seed, self._plan.seeds, now)
        ]

    # Keys

    def use(self) -> None:
        """Seal and open by the plan from now on, as it is at this time."""
        now = self.now
        if not self._connected:
            self._plan_alone(now)
        self._retired = [(seed, until) for seed, until in self._retired if until > now]
        keys = ticket_keys(self._plan, now, self.access.secret, [seed for seed, _ in self._retired])
        if keys != self._in_use:
            self._changes += bool(self._in_use) and keys[0] != self._in_use[0]
            self._keys.replace(keys)
            self._in_use = keys

    def _plan_alone(self, now: float) -> None:
        """Nobody can be told of new keys, and so the last one that all have goes on sealing; but not for ever."""
        plan = self._plan
        if self._own:
            self._plan = advanced(plan, now)
        elif plan.next(now) is None and now - plan.current(now).since > MOST_USE:
            alone = new_plan(now, self.access.secret, plan.epoch, plan.version)
            self._retire(alone, now)
            self._plan, self._own = alone, True
            text = f"its last session ticket key was used for {MOST_USE / 3600:.0f} h; this proxy makes keys of its own now"
            self._say(text, WARNING)

    # The log, once for each change

    def _note_lost(self, exc: Exception) -> None:
        if self._connected is False:
            return
        self._connected = False
        reason = str(exc)
        if isinstance(exc, PlanError):
            reason = f"what it holds in {self.access.fleet.name}:tickets is no use: {exc}"
        what = "this proxy makes session ticket keys of its own" if self._own else "the session ticket keys that are known stay"
        self._say(f"{reason.rstrip('.') or repr(exc)}; {what} until that is better", WARNING)

    def _note_found(self) -> None:
        if self._connected:
            return
        text = "session ticket keys are shared" + (" again" if self._connected is False else "")
        self._connected = True
        self._say(text, INFO)

    def _say(self, text: str, level: str) -> None:
        self._writer.write(f"fleet {self.access.fleet}: {text}", level)
