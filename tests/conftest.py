"""Fixtures: the host of the loop, the certificates, and a look after each test at what it has left behind. And what holds for
every test: it has a time limit, no socket of it waits for ever, and where CI runs it is not skipped for want of something.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Optional

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from peers import DEADLINE, HOSTS, INSTRUMENTED, Certificates, Host, end_lookups, forget_contexts, open_descriptors

ROOT = Path(__file__).parent

# Seconds for one test; one that is marked `slow` may take several times as long. A test that waits fails by itself, and in
# better words, at its own deadline.
LIMIT = float(os.environ.get("SSLSOCK_TEST_LIMIT", 0)) or (1200.0 if INSTRUMENTED else 120.0)
SLOW_LIMIT = 4 * LIMIT
AGAIN = 5.0  # seconds later, should something have swallowed it: a handler's exceptions are told to the loop
LAST = LIMIT / 2  # seconds later, when the test does not even come back to Python

# Why a test may be skipped where CI runs, which has every program that the tests speak with.
MAY_BE_SKIPPED = re.compile(
    "|".join(
        (
            "a relay has close only",
            "asyncio has no such (time limit|handle)",
            "matplotlib is installed",
            "no IPv6 on the loopback",
            "no control group is to be had",
            "processes cannot share a lock here",
            "only the wheels' OpenSSL is built so",
            "the sources are not beside the tests",
            "root may (look|write) everywhere",
            "SSLSOCK_FULL=1 runs it",
            "this system has no package of pebble",
            "the interpreter.s libssl is not to be called",
            "the interpreter.s own tests are not installed",
            "s_client speaks TLS",
            "the system allows [0-9]+ descriptors only",
            "there is no handshake",
            "this openssl program speaks no TLS 1.1",
            "valgrind's processor is another",
            "AddressSanitizer's own locks are not made anew in a child",
        )
    )
)


# Aborts the process that has started it, which prints all stacks (faulthandler), when it has not heard from it in time: in a
# process of its own, for a thread would run no more than the others, and tests fork.
WATCH = """
import os, select, signal
left = None
while select.select([0], [], [], left)[0]:
    told = os.read(0, 4096).split()
    if not told:
        raise SystemExit
    left = float(told[-1]) or None
os.kill(os.getppid(), signal.SIGABRT)
"""


class TimeLimit:
    """Has a test fail that takes too long, wherever it is."""

    def __init__(self) -> None:
        self.watch = subprocess.Popen([sys.executable, "-ISc", WATCH], stdin=subprocess.PIPE, bufsize=0)

    @contextlib.contextmanager
    def of(self, seconds: float) -> Iterator[None]:
        def on_alarm(number: int, frame: Optional[FrameType]) -> None:
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
            pytest.fail(f"the test takes longer than {seconds:g} s; where it was, each thread says on standard error")

        before = signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        self.tell(seconds + LAST)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self.tell(0)

    def tell(self, seconds: float) -> None:
        assert self.watch.stdin is not None
        self.watch.stdin.write(b"%g\n" % seconds)

    def end(self) -> None:
        assert self.watch.stdin is not None
        self.watch.stdin.close()
        self.watch.wait()


limit = pytest.StashKey[TimeLimit]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.stash[limit] = TimeLimit()


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.stash[limit].end()


# A folder: several processes run the suite together, and each takes a file of tests when it has done the one before (`ci/test
# --jobs`). Processes of their own, for pytest-xdist's have threads, beside which CPython 3.12 and newer warn of every fork.
SHARED = os.environ.pop("SSLSOCK_TEST_SHARED", "")  # not for what a test starts


def taken(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """Those of the files that no other process has taken."""
    ours = set()
    for path, group in itertools.groupby(items, lambda item: item.path):
        with contextlib.suppress(FileExistsError):
            if path not in ours:
                os.close(os.open(Path(SHARED, path.relative_to(ROOT).as_posix().replace("/", ".")), os.O_CREAT | os.O_EXCL))
                ours.add(path)
            yield from group


def pytest_runtestloop(session: pytest.Session) -> Optional[bool]:
    """As pytest's own, which runs all of `session.items`."""
    if not SHARED or session.testsfailed or session.config.option.collectonly:
        return None
    items = taken(session.items)
    item = next(items, None)
    while item is not None:
        following = next(items, None)  # which fixtures end with a test depends on it
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def pytest_collection_finish(session: pytest.Session) -> None:
    """What pytest has made so far lives as long as it does: no collection need look through it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with item.session.stash[limit].of(SLOW_LIMIT if item.get_closest_marker("slow") else LIMIT):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not MAY_BE_SKIPPED.search(reason):
            report.outcome, report.longrepr = "failed", f"CI skips no test for this reason: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def limit_sockets() -> Iterator[None]:
    """A socket of the standard library waits for so long at most, unless it is told otherwise."""
    socket.setdefaulttimeout(DEADLINE)
    yield
    socket.setdefaulttimeout(None)


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


@pytest.fixture(autouse=True)
def no_sessions_of_earlier_tests() -> None:
    """Equal configurations share a context and its sessions, and the system gives ports out again: a client would now and then
    resume what an earlier test has left at the same port."""
    forget_contexts()


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
