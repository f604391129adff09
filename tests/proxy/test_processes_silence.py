"""Worker processes that stand still: told, then killed and replaced; and who is not to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

import pytest

from clock import Clock
from command_helpers import ENVIRONMENT
from sslsock.core.event_loop import EventLoop
from sslsock.proxy.observability.access_log import LineWriter
from sslsock.proxy.processes.seat import Seat
from sslsock.proxy.processes.vigil import BEGIN_SECONDS, HUNG_SECONDS, STEP, AwakeClock, Vigil

from .operations import DEADLINE, Origin, Proxy, Site, children, family, say, wait_until
from .test_processes import healthz, is_alive, members_of, nursery_of, one_of_each, running, total

__all__ = ["running"]  # a fixture

PTRACE_TRACEME = 0


class Watched:
    """One seat, with a process that waits for its input to end, and a vigil whose clock is set."""

    def __init__(self, loop: EventLoop, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self.process = process
        self.time = Clock()
        self.clock = AwakeClock(self.time)
        self.seat = Seat(0)
        self.seat.pid = process.pid
        self.seat.line = object()  # type: ignore[assignment]
        self.seat.ready = True
        self.said = said
        self.writer = LineWriter(self.said)
        self.given_up: list[Seat] = []
        self.vigil = Vigil(loop, self.clock, [self.seat], self.writer, self._who, self.given_up.append)

    def _who(self, seat: Seat) -> tuple[str, int]:
        return seat.name, seat.pid

    def pass_by(self, seconds: float) -> None:
        """Second by second."""
        for _ in range(round(seconds)):
            self.time.now += 1
            self.vigil.look()

    @property
    def lines(self) -> list[str]:
        self.writer.flush()
        self.said.seek(0)
        return self.said.read().decode().splitlines()


TRACED = f"import ctypes; ctypes.CDLL(None).ptrace({PTRACE_TRACEME}, 0, 0, 0)"


@contextlib.contextmanager
def watched(code: str = "") -> Iterator[Watched]:
    program = [sys.executable, "-c", f"{code}\nprint(flush=True)\ninput()"]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(contextlib.closing(EventLoop()))
        said = stack.enter_context(tempfile.TemporaryFile())
        process = stack.enter_context(subprocess.Popen(program, stdin=pipe, stdout=pipe))
        made = Watched(loop, process, said)
        try:
            assert process.stdout is not None and process.stdout.readline() == b"\n"
            yield made
        finally:
            process.kill()
            made.writer.close()


def test_time_that_the_front_did_not_see_is_nobodys_silence() -> None:
    time = Clock()
    clock = AwakeClock(time)
    time.now += 1.5
    assert clock.look() == 1.5
    time.now += 3600
    assert clock.look() == 1.5 + STEP, "an hour in which the front was stopped"
    assert clock.look() == 1.5 + STEP


def test_one_that_owes_an_answer_is_told_and_killed() -> None:
    with watched() as made:
        made.seat.asked = 1
        made.pass_by(HUNG_SECONDS - 1)
        assert made.process.poll() is None
        assert made.lines == [f"worker process 1 (pid {made.process.pid}) has not answered for 11 s"]
        made.pass_by(30)
        assert made.process.wait() == -signal.SIGKILL
        assert len(made.lines) == 2 and made.lines[1].endswith("has not answered for 26 s: it is killed")


def test_one_that_nobody_has_asked_is_not_silent() -> None:
    with watched() as made:
        made.pass_by(3 * HUNG_SECONDS)
        assert made.process.poll() is None and not made.lines
        made.seat.asked, made.seat.questioned = 1, made.clock.now
        made.pass_by(5)
        made.seat.answered = 1
        made.pass_by(3 * HUNG_SECONDS)
        assert made.process.poll() is None and not made.lines


def test_one_that_does_not_begin_is_told_and_killed() -> None:
    with watched() as made:
        made.seat.ready = False
        made.pass_by(BEGIN_SECONDS)
        assert made.process.poll() is None
        assert [line.rpartition(") ")[2] for line in made.lines] == ["was begun 11 s ago and does not accept connections"]
        made.pass_by(1)
        assert made.process.wait() == -signal.SIGKILL
        assert made.lines[1].endswith("was begun 61 s ago and does not accept connections: it is killed")


def test_one_whose_process_is_not_known_is_given_up() -> None:
    with watched() as made:
        made.seat.asked, made.seat.pid = 1, 0
        made.pass_by(HUNG_SECONDS + 1)
        assert made.given_up == [made.seat]


@pytest.mark.parametrize("gone", [True, False], ids=["of an end", "of a beginning"])
def test_a_nursery_that_has_told_something_of_others_lives(gone: bool) -> None:
    with watched() as made:
        made.seat.gone, made.seat.ready, made.seat.pid = gone, False, 0
        made.vigil._who = lambda seat: ("the process that forks workers", made.process.pid)
        for _ in range(4):
            made.pass_by(HUNG_SECONDS - 1)
            made.seat.nursery_lives(made.clock.now)
        assert made.process.poll() is None
        made.pass_by(HUNG_SECONDS + 1)
        assert made.process.wait() == -signal.SIGKILL


def test_who_has_closed_its_line_and_goes_on_is_silent_and_not_the_nursery() -> None:
    with watched() as made:
        assert not made.seat.awaits_nursery
        made.seat.gone = True
        assert not made.seat.awaits_nursery, "it has not ended"
        made.process.kill()
        wait_until(lambda: made.seat.awaits_nursery, "that it is seen to have ended")
        made.process.wait()
        assert made.seat.awaits_nursery, "it has ended, and is forgotten"


def test_one_that_a_debugger_holds_is_told_and_not_killed() -> None:
    with watched(TRACED) as made:
        made.seat.asked = 1
        made.pass_by(4 * HUNG_SECONDS)
        assert made.process.poll() is None
        assert len(made.lines) == 1 and made.lines[0].endswith("has not answered for 11 s")


@pytest.mark.slow
def test_one_that_hangs_is_killed_and_replaced(running: Proxy, site: Site) -> None:
    with one_of_each(running, site.context) as clients:
        hung, other = members_of(running)
        os.kill(hung, signal.SIGSTOP)
        running.wait_for_line("s: it is killed")
        assert any(line.startswith(f"worker process 1 (pid {hung}) has not answered for ") for line in running.lines)
        running.wait_for_line(f"(pid {hung}) has ended by SIGKILL, with ")
        running.wait_for_line("accepts connections")
        assert other in members_of(running) and hung not in members_of(running)
        say(clients[other], b"as if nothing had been\n")
        assert total(running, "sslsock_proxy_worker_process_deaths_total") == 1
        assert healthz(running) == "ok\n"
    with one_of_each(running, site.context):
        pass
    assert running.end() == 0


@pytest.mark.slow
def test_a_nursery_that_hangs_is_killed_when_somebody_waits_for_it(running: Proxy, site: Site, back: Origin) -> None:
    with one_of_each(running, site.context) as clients:
        victim, other = members_of(running)
        os.kill(nursery_of(running), signal.SIGSTOP)
        os.kill(victim, signal.SIGKILL)
        assert running.wait_for_line("s: it is killed").startswith("the process that forks workers has not answered for ")
        running.wait_for_line("the process that forks workers has ended")
        running.wait_for_line(f"worker process 1 (pid {victim}) has ended, with ")
        say(clients[other])
    assert running.end() == 0
    wait_until(lambda: not is_alive(other), "that the other one has ended")


# Workers are forked by a process that is a fork itself; each stops before it has done anything.
STOPPED_WORKERS = """
import os, runpy, signal, sys
forks = []
def forked():
    forks.append(1)
    if len(forks) == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
os.register_at_fork(after_in_child=forked)
sys.argv[0] = "sslsock"
runpy.run_module("sslsock", run_name="__main__")
"""


@pytest.mark.slow
def test_those_that_hold_up_the_start_are_named(site: Site, back: Origin) -> None:
    arguments = ["proxy", "--listen", "tls://127.0.0.1:0", "--to", back.url, "--cert", site.issue(), "--processes", "2"]
    program = [sys.executable, "-c", STOPPED_WORKERS, *map(str, arguments)]
    with subprocess.Popen(program, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None and process.stdout is not None
            line = process.stderr.readline().decode()
            workers = [one for child in children(process.pid) for one in children(child)]
            names = ", ".join(f"worker process {number} (pid {pid})" for number, pid in enumerate(workers, 1))
            assert len(workers) == 2 and line == f"after 10 s the start still waits for {names}\n"
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
            assert process.stdout.readline().startswith(b"listening on ")
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            for pid in family(process.pid) if process.poll() is None else ():  # who is stopped would stay
                os.kill(pid, signal.SIGKILL)
