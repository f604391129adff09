"""Workers that are processes, with what proxies share with others: an authority's certificates (pebble), a fleet's Redis."""

from __future__ import annotations

import json
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from .authority import Authority, authority
from .operations import Origin, Proxy, Site, proxy, wait_until
from .redis_server import RedisServer
from .running import connect
from .test_acme import NAME, NEW, challenged
from .test_processes import LOCAL, members_of
from .test_service import resumable, resumes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with authority(tmp_path_factory.mktemp("pebble")) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def replace(running: Proxy) -> None:
    """Kill all worker processes; returns when there are others."""
    before = members_of(running)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(set(members_of(running)) - set(before)) == len(before), "other worker processes")


def shows(running: Proxy, pebble: Authority) -> bytes:
    """The certificate for NAME, which is verified; nothing while there is none."""
    try:
        with connect(running.port, pebble.client_context(), NAME) as client:
            return bytes(client.getpeercert(True))
    except ssl.SSLError:
        return b""


@pytest.mark.parametrize("where", ["folder", "fleet"])
def test_one_that_takes_a_place_later_has_the_certificates_and_answers_the_authority(
    pebble: Authority, store: RedisServer, back: Origin, tmp_path: Path, where: str
) -> None:
    storage = tmp_path / "acme"
    words = pebble.options(storage, NAME)
    if where == "fleet":
        words[words.index(storage)] = "fleet"
        secret = tmp_path / "secret"
        secret.touch(0o600)
        secret.write_text("of this fleet, and long enough to be one: 0123456789abcdef\n")
        words += ["--fleet", store.url, "--fleet-secret-file", secret]
    pebble.tls.target = None
    with proxy("--listen", f"tls://{LOCAL}", "--to", back.url, "--processes", 2, *words) as running:
        replace(running)  # those that answer the authority come later
        pebble.tls.target = running.port
        running.wait_for_line(f"{NAME}: {NEW}")
        wait_until(lambda: all(shows(running, pebble) for _ in range(8)), "that all have it")
        before = shows(running, pebble)
        replace(running)
        assert {shows(running, pebble) for _ in range(8)} == {before}
        if where == "folder":  # a question under way
            part = next(storage.glob("*/certificates")).parent
            question = {"type": "tls-alpn-01", "token": "t", "answer": "t.key"}
            (part / "challenges" / f"{NAME}.json").write_text(json.dumps(question))
            replace(running)
            assert [challenged(running.port, NAME, "acme-tls/1") for _ in range(8)] == ["acme-tls/1"] * 8
        assert running.end() == 0


def test_sessions_of_a_fleet_are_resumed_at_one_that_takes_a_place_later(site: Site, back: Origin, store: RedisServer) -> None:
    site.context.maximum_version = ssl.TLSVersion.TLSv1_2
    words = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--fleet", store.url)
    with proxy(*words, "--processes", 2) as one, proxy(*words, "--processes", 2) as other:
        wait_until(lambda: resumes(other, site.context, resumable(one, site.context)), "that the keys are shared")
        session = resumable(other, site.context)
        assert all(resumes(one, site.context, session) for _ in range(8))
        replace(one)
        assert all(resumes(one, site.context, session) for _ in range(8))
        store.kill()
        replace(one)
        assert all(resumes(one, site.context, session) for _ in range(8))
        store.start()
        session = resumable(one, site.context)
        replace(other)
        wait_until(lambda: all(resumes(other, site.context, session) for _ in range(8)), "that the keys are shared again")
        for made in (one, other):
            assert made.end() == 0
