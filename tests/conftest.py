"""Fixtures: the host of the loop, the certificates, and a look after each test at what it has left behind."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from peers import HOSTS, Certificates, Host, end_lookups, open_descriptors


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore SIGINT, and every program that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def warm_hosts() -> None:
    """uvloop keeps two descriptors for the process from its first loop on, which would look like a leak."""
    for kind in HOSTS[1:]:
        with contextlib.suppress(pytest.skip.Exception):
            host = Host(kind)
            host.turn()
            host.close()


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()


def run_host(kind: str) -> Iterator[Host]:
    gc.collect()
    gc.freeze()  # what there is besides the test is much and grows, and it need not be looked through each time
    before = open_descriptors()
    host = Host(kind)
    try:
        yield host
    finally:
        host.close()
    del host
    gc.collect()
    if len(open_descriptors()) > len(before):
        gc.unfreeze()  # what was alive then may hold what is left, and have ended since
        gc.collect()
        end_lookups()
    after = open_descriptors()
    assert len(after) <= len(before), f"descriptors were left open: {sorted(after.items() - before.items())}"


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """The loop under test: alone, in asyncio, in uvloop."""
    yield from run_host(request.param)


@pytest.fixture
def own_host() -> Iterator[Host]:
    """The loop alone, for what does not depend on the host."""
    yield from run_host("own")
