"""A fleet: proxies that share their session ticket keys by a real Redis."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import pytest

from command_helpers import ENVIRONMENT
from sslsock.core.ticket_keys import TicketKeys
from sslsock.proxy.files.reading import Reading
from sslsock.proxy.fleet.keys import MOST_USE, PERIOD, Plan, parse_plan
from sslsock.proxy.fleet.member import FleetMember, access_to
from sslsock.proxy.settings.model import Address, Fleet

from .operations import DEADLINE, Origin, Proxy, Site, ask, connect, proxy, wait_until
from .redis_server import RedisServer
from .test_service import resumable, resumes

LOCAL = "127.0.0.1:0"
PLAN = "sslsock:tickets"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "proxy-fleet.md"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


# Members, without a proxy around them


class Lines:
    """Instead of a log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str, level: str = "info") -> None:
        self.lines.append(text)


class Member(FleetMember):
    """One whose clock is the test's. between: called once, between what it reads and what it writes."""

    def __init__(self, store: RedisServer, *, ahead: float = 0.0, fleet: Optional[Fleet] = None) -> None:
        self.log = Lines()
        self.passed = ahead
        self.between: Optional[Callable[[], object]] = None
        self.decided = 0
        fleet = fleet or Fleet(Address("tcp", "", 0, str(store.socket)))
        self.contexts_keys = TicketKeys()
        super().__init__(access_to(fleet, Reading()), self.contexts_keys, self.log, lambda: time.monotonic() + self.passed)  # type: ignore[arg-type]

    def _decide(self, text: bytes) -> Plan:
        plan = super()._decide(text)
        self.decided += 1
        if self.decided == 2 and self.between is not None:  # the first time it has only looked
            self.between()
        return plan

    def seals_by(self) -> bytes:
        """The name of the key."""
        self.use()
        return self.contexts_keys.names[0]

    def opens(self) -> set[bytes]:
        self.use()
        return set(self.contexts_keys.names)


def members(*them: Member) -> None:
    for one in them:
        one.look()
        one.use()


def held(store: RedisServer) -> Plan:
    with store.client() as client:
        text = client.get(PLAN)
    assert isinstance(text, bytes)
    return parse_plan(text, b"")


def test_of_members_that_start_together_one_plan_wins_and_all_follow_it(store: RedisServer) -> None:
    one, other = Member(store), Member(store)
    one.between = other.look
    members(one, other)
    assert one.seals_by() == other.seals_by() and one.opens() == {*other.opens(), *one.opens()}
    assert held(store).version == 1, "written once"


def test_a_member_that_slept_while_it_wrote_cannot_overwrite_what_is_newer(store: RedisServer) -> None:
    sleeper, awake = Member(store), Member(store)
    members(sleeper, awake)
    with store.client() as client:
        client.set(PLAN, held(store)._replace(seeds=held(store).seeds[:1]).text())  # so that both want to write
    sleeper.decided = 0
    sleeper.between = lambda: members(awake)
    members(sleeper)
    assert held(store).seeds == awake._plan.seeds == sleeper._plan.seeds


@pytest.mark.parametrize("ahead", [1e6, -1e3])
def test_the_clocks_of_members_do_not_matter(store: RedisServer, ahead: float) -> None:
    one, other = Member(store), Member(store, ahead=ahead)
    members(one, other)
    assert one.seals_by() == other.seals_by()
    for member in (one, other):
        member.passed += PERIOD + 1
    assert one.seals_by() == other.seals_by() == one.contexts_keys.names[0], "all change at the same time"
    assert one.state().changes == 1


def test_without_redis_members_change_to_the_key_that_all_have(store: RedisServer) -> None:
    one, other = Member(store), Member(store)
    members(one, other)
    first = one.seals_by()
    store.kill()
    members(one, other)
    members(one, other)
    assert len(one.log.lines) == 2 and "the session ticket keys that are known stay" in one.log.lines[1], "told once"
    for passed in (PERIOD + 1, 2.5 * PERIOD):
        one.passed = other.passed = passed
        assert one.seals_by() == other.seals_by() != first
        assert (first in one.opens()) == (passed < 1.5 * PERIOD), "a key whose tickets have ended opens nothing"
    one.passed = PERIOD + MOST_USE + 60
    members(one)
    assert one.seals_by() != other.seals_by(), "no key is used for ever"
    assert other.seals_by() in one.opens()
    assert "makes keys of its own now" in one.log.lines[2]
    one.passed = other.passed = 0.0


def test_the_start_waits_until_the_keys_of_the_fleet_are_in_use(store: RedisServer) -> None:
    started = threading.Event()
    early = []

    class Slow(Member):
        def use(self) -> None:
            if self._connected:
                early.append(started.wait(0.2))
            super().use()

    first, member = Member(store), Slow(store)
    members(first)
    member.start(DEADLINE)
    started.set()
    assert early[:1] == [False], "who connects first gets a ticket that is sealed by a key of its own"
    assert member.contexts_keys.names[0] == first.seals_by()
    member.close()


def test_redis_that_has_lost_the_plan_gets_it_back(store: RedisServer) -> None:
    one, other = Member(store), Member(store)
    members(one, other)
    before = one.seals_by()
    with store.client() as client:
        client.flushall()
        newcomer = Member(store)
        newcomer.look()  # is the first to come, with keys of its own
        own = newcomer.seals_by()
        assert own != before
        held_version = held(store).version
        # An older plan too is replaced by the newest that somebody has.
        one._plan = one._plan._replace(version=held_version + 1)
        members(one, other, newcomer)
    assert one.seals_by() == other.seals_by() == newcomer.seals_by() == before
    assert own in newcomer.opens(), "what it has sealed alone it still opens"


def test_renew_ends_all_keys_at_once(store: RedisServer) -> None:
    one, other = Member(store), Member(store)
    members(one, other)
    before = one.opens()
    with store.client() as client:
        client.set(PLAN, "renew")
    members(one, other)
    assert one.opens() == other.opens() and not before & one.opens()
    assert one.seals_by() == other.seals_by()
    with store.client() as client:
        client.flushall()
    members(Member(store), one, other)
    assert not before & (one.opens() | other.opens()), "a newcomer does not bring the old keys back"


def test_what_redis_holds_for_others_is_not_touched(store: RedisServer) -> None:
    with store.client() as client:
        client.set(PLAN, "mine")
        member = Member(store)
        members(member)
        assert client.get(PLAN) == b"mine"
        assert "what it holds in sslsock:tickets is no use: it is no JSON; this proxy makes" in member.log.lines[0]
        client.delete(PLAN)
        client.lpush(PLAN, "a list")
        members(member)
        assert client.lrange(PLAN, 0, -1) == [b"a list"]
        client.delete(PLAN)
        members(member)
        assert member.log.lines[1:] == [f"fleet unix:{store.socket}: session ticket keys are shared again"]
        assert 0 < client.ttl(PLAN) <= 7 * 24 * 3600, "a fleet that is gone leaves no keys behind"


def test_redis_that_takes_no_writes(store: RedisServer) -> None:
    """What it holds counts all the same, though it would be time for a next key."""
    one = Member(store)
    members(one)
    with store.client() as client:
        client.set(PLAN, held(store)._replace(seeds=held(store).seeds[:1]).text())
        client.config_set("maxmemory", 1)
        members(one, newcomer := Member(store))
        assert newcomer.seals_by() == one.seals_by()
        for member in (one, newcomer):
            assert "maxmemory" in member.log.lines[-1], member.log.lines
            assert "the session ticket keys that are known stay until that is better" in member.log.lines[-1]
        client.config_set("maxmemory", 0)
        members(one, newcomer)
        assert len(held(store).seeds) == 2 and newcomer.opens() >= one.opens()
    assert all(member.log.lines[-1].endswith("session ticket keys are shared again") for member in (one, newcomer))


@pytest.mark.parametrize("name", ["epoch", "version"])
@pytest.mark.parametrize("number", [-1, 10**400])
def test_a_number_out_of_bounds_is_none(store: RedisServer, name: str, number: int) -> None:
    members(Member(store))
    text = held(store)._replace(**{name: number}).text()
    with store.client() as client:
        client.set(PLAN, text)
        member = Member(store)
        members(member)
        assert "its epoch or version is out of bounds" in member.log.lines[0]
        assert client.get(PLAN) == text
    assert member.state().version == 1


def test_the_secret_is_not_in_redis_and_nothing_goes_without_it(store: RedisServer, tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "other"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([65 + number]) * 40 + b"\n")
    fleets = [Fleet(Address("tcp", "", 0, str(store.socket)), secret_file=str(file)) for file in files]
    one, same, other = (Member(store, fleet=fleet) for fleet in (fleets[0], fleets[0], fleets[1]))
    members(one, same, other, plain := Member(store))
    assert one.seals_by() == same.seals_by() not in other.opens() | plain.opens()
    assert "another secret (--fleet-secret-file)" in other.log.lines[0] and other.log.lines[0][-30:] in plain.log.lines[0]
    with store.client() as client:
        text = client.get(PLAN)
    assert isinstance(text, bytes) and b"A" * 40 not in text
    assert not any(member.seals_by().hex() in text.decode() for member in (one, same))


# Proxies


def arguments(site: Site, back: Origin, store: RedisServer, *more: object) -> tuple[object, ...]:
    pair = site.folder / "site.pem"
    if not pair.exists():
        site.issue()
    metrics = ("--metrics", LOCAL, "--threads", 2)
    return ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", pair, "--fleet", store.url, *metrics, *more)


def test_two_proxies_share_keys_that_change_while_clients_come(site: Site, back: Origin, store: RedisServer) -> None:
    words = arguments(site, back, store)
    versions = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    contexts = {version: limited(site, version) for version in versions}
    with proxy(*words) as one, proxy(*words) as other:
        for running in (one, other):
            running.wait_for_line("session ticket keys are shared")
        sessions = {version: resumable(one, context) for version, context in contexts.items()}
        assert all(resumes(other, contexts[version], session) for version, session in sessions.items())
        changes = ("sslsock_proxy_fleet_key_changes_total",)
        before = [running.metrics()[changes] for running in (one, other)]  # one of them has begun with a key of its own
        begin_next_key_in(1.5, store)
        for running in (one, other):
            running.send(signal.SIGHUP)
            running.wait_for_line("SIGHUP: read again")
        context, session, full = contexts[ssl.TLSVersion.TLSv1_3], sessions[ssl.TLSVersion.TLSv1_3], 0
        ends = time.monotonic() + DEADLINE
        turns = 0
        while turns < 10:  # and some more, when both have changed
            assert time.monotonic() < ends, "the keys were not changed"
            for running in (other, one):
                with connect(running.port, context, session=session) as connection:
                    assert isinstance(connection, ssl.SSLSocket)
                    ask(connection, 10)
                    full += not connection.session_reused
                    session = connection.session or session
            turns += [running.metrics()[changes] - 1 for running in (one, other)] == before
        assert full == 0, "a client met a proxy that could not open its ticket"
        assert all(resumes(running, context, session) for running in (one, other))
        found = one.metrics(), other.metrics()
        assert [got["sslsock_proxy_fleet_connected",] for got in found] == [1, 1]
        assert found[0]["sslsock_proxy_fleet_version",] == found[1]["sslsock_proxy_fleet_version",]
        assert all(got["sslsock_proxy_ticket_key_age_seconds",] < 60 for got in found)


def limited(site: Site, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(site.ca))
    context.minimum_version = context.maximum_version = version
    return context


def begin_next_key_in(seconds: float, store: RedisServer) -> None:
    """Have the plan go on earlier."""
    with store.client() as client:
        values = json.loads(client.get(PLAN))  # type: ignore[arg-type]
        values["keys"][1]["since"] = client.time()[0] + seconds  # type: ignore[index]
        client.set(PLAN, json.dumps({**values, "version": values["version"] + 1}))


def is_ready(running: Proxy) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/readyz", timeout=DEADLINE) as answer:
        return bool(answer.status == 200)


def test_redis_is_killed_and_comes_back(site: Site, back: Origin, store: RedisServer) -> None:
    words = arguments(site, back, store)
    context = limited(site, ssl.TLSVersion.TLSv1_3)
    with proxy(*words) as one, proxy(*words) as other:
        session = resumable(one, context)
        before = held(store)
        store.kill()
        for running in (one, other):
            running.send(signal.SIGHUP)
            running.wait_for_line("the session ticket keys that are known stay until that is better")
            assert is_ready(running)
            assert running.metrics()["sslsock_proxy_fleet_connected",] == 0
        assert resumes(other, context, session), "they go on with what they have"
        with proxy(*words) as late:
            late.wait_for_line("this proxy makes session ticket keys of its own until that is better")
            own = resumable(late, context)
            assert resumes(late, context, own) and not resumes(late, context, session)
            store.start()
            for running in (one, other, late):
                running.send(signal.SIGHUP)
                running.wait_for_line("session ticket keys are shared again")
            everywhere = (one, other, late)
            wait_until(lambda: all(resumes(running, context, session) for running in everywhere), "the fleet's keys again")
            assert resumes(late, context, own), "the tickets of before are good where they were made"
        assert held(store).seeds == before.seeds
        assert sum("fleet unix:" in line for line in one.lines) == 3, one.lines


def test_redis_with_tls_and_a_password(site: Site, back: Origin, tmp_path: Path) -> None:
    pair = site.issue(file="redis.pem")
    wrong = tmp_path / "password"
    wrong.write_text("wrong\n")
    wrong.chmod(0o600)
    told = re.search(r"redis-cli ACL SETUSER sslsock on '>PASSWORD' (.*?)\n```", PAGE.read_text(), re.DOTALL)
    assert told is not None
    user = [word.replace("~sslsock:*", "~shop:1:*") for word in shlex.split(told[1].replace("\\\n", " "))]
    with RedisServer(tmp_path, "--requirepass", "admin", "--user", "sslsock", "on", ">sesame", *user, pair=pair) as store:
        words = arguments(site, back, store, "--fleet-name", "shop:1")
        member = Member(store, fleet=Fleet(Address("tls", "localhost", store.port)))
        members(member)
        assert "certificate verify failed" in member.log.lines[0], "without --fleet-ca the system's authorities count"
        with proxy(*words, "--fleet-password-file", wrong, "--fleet-ca", site.ca) as running:
            assert "username-password" in running.wait_for_line("this proxy makes session ticket keys of its own")
            wrong.write_text("sesame\n")
            running.send(signal.SIGHUP)
            running.wait_for_line("session ticket keys are shared again")
        with store.client(password="admin") as client:
            assert client.keys() == [b"shop:1:tickets"]


NAMESPACES = """
ip link set lo up
ip link add near type veth peer name far
unshare -n sleep 600 & other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
ip link set far netns $other
ip addr add 192.0.2.1/24 dev near; ip link set near up
nsenter -t $other -n sh -ec 'ip link set lo up; ip addr add 192.0.2.2/24 dev far; ip link set far up'
echo $other >"$1"
shift
"$@"
"""


def test_two_proxies_in_two_network_namespaces(site: Site, tmp_path: Path) -> None:
    """Each by its own address, Redis at the first one's; a session of one is resumed at the other."""
    tools = [shutil.which(name) for name in ("unshare", "nsenter", "ip")]
    if not all(tools) or subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace is to be had")
    program = [sys.executable, "-m", "proxy.fleet_in_namespaces", str(tmp_path), str(site.issue())]
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", NAMESPACES, "sh", str(tmp_path / "other"), *program],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["resumed", "resumed"]
