"""What an operator is told of worker processes, and at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from sslsock.core.event_loop import EventLoop
from sslsock.proxy.files.reading import Reading
from sslsock.proxy.processes import member
from sslsock.proxy.processes.line import Line
from sslsock.proxy.processes.member import Inherited, be_member
from sslsock.proxy.processes.plan import Catalogue

from .operations import Origin, Proxy, Site, connect, proxy, say, told_of
from .test_processes import LOCAL, members_of, nursery_of, one_of_each, running

__all__ = ["running"]  # a fixture


def test_a_nursery_that_has_no_descriptors_says_so_and_tries_again(running: Proxy, site: Site) -> None:
    nursery = nursery_of(running)
    least, most = resource.prlimit(nursery, resource.RLIMIT_NOFILE)
    resource.prlimit(nursery, resource.RLIMIT_NOFILE, (3, most))
    os.kill(members_of(running)[0], signal.SIGKILL)
    line = running.wait_for_line("the system gives no process")
    assert line.startswith("worker process 1: the system gives no process: Too many open files (ulimit -n, LimitNOFILE); ")
    resource.prlimit(nursery, resource.RLIMIT_NOFILE, (least, most))
    with one_of_each(running, site.context):
        pass
    assert nursery_of(running) == nursery
    assert running.end() == 0


def no_thread(*arguments: object, **options: object) -> NoReturn:
    raise RuntimeError("can't start new thread")


def test_one_that_has_no_thread_for_its_log_tells_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "LineWriter", no_thread)
    monkeypatch.setattr(member, "log", logging.getLogger("of nobody"))
    monkeypatch.setattr(member, "name_process", bool)
    shares = SimpleNamespace(join=bool)
    heard: list[tuple[object, ...]] = []
    ours, theirs = socket.socketpair()
    with theirs, contextlib.closing(EventLoop()) as loop:
        front = Line(loop, ours.detach(), lambda name, values: heard.append((name, *values)), bool)
        catalogue = Catalogue([], Reading())
        inherited = Inherited([[]], (), shares, lambda level, text: text, 0, catalogue)  # type: ignore[arg-type]
        assert be_member(inherited, 0, theirs.fileno()) == 1
        while not heard:
            loop.dispatch(None)
        front.close()
    assert heard == [("unusable", "the system gives no thread: Resource temporarily unavailable (ulimit -u, TasksMax)")]


def test_the_end_of_the_nursery_is_told_with_what_to_do(running: Proxy) -> None:
    os.kill(nursery_of(running), signal.SIGKILL)
    line = running.wait_for_line("the process that forks workers has ended by SIGKILL: ")
    assert line.endswith("start the proxy anew when it suits")
    assert running.end() == 0


@pytest.mark.parametrize("words", [(), ("--processes", 2)], ids=["threads", "processes"])
def test_signals_without_a_meaning_end_nothing(site: Site, back: Origin, words: tuple[object, ...]) -> None:
    options = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), *words)
    with proxy(*options, start_new_session=True) as made, connect(made.port, site.context) as client:
        say(client)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.killpg(made.pid, number)
            made.wait_for_line(f"{number.name}: it has no meaning here")
        say(client)
        client.close()
        assert made.end() == 0


@pytest.mark.parametrize("words", [("--threads", 2), ("--processes", 2)], ids=["threads", "processes"])
def test_the_last_line_tells_how_many_there_were_and_were_cut(site: Site, back: Origin, words: tuple[object, ...]) -> None:
    options = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--drain-timeout", 0.2, *words)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(proxy(*options))
        clients = [stack.enter_context(connect(made.port, site.context)) for _ in range(7)]
        for client in clients:
            say(client)
        assert made.end() == 0
    assert made.lines[-1] == "ended: 7 connections since the start; 7 were cut at the end"


def test_each_has_a_name(running: Proxy) -> None:
    assert told_of(running.pid, "Name") == "sslsock-front"
    assert told_of(nursery_of(running), "Name") == "sslsock-nursery"
    assert [told_of(pid, "Name") for pid in members_of(running)] == ["sslsock-work1", "sslsock-work2"]


def test_how_many_there_are_is_announced(site: Site, back: Origin) -> None:
    words = ("--listen", f"tls://{LOCAL}", "--to", back.url, "--cert", site.issue(), "--processes", 3, "--metrics", LOCAL)
    with proxy(*words) as made:
        assert made.announced[1] == "in 3 worker processes"
        assert made.end() == 0


def test_the_command_line_goes_before_the_file_in_what_workers_are(back: Origin, tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    for told, words, has_processes in (("processes", "--threads", False), ("threads", "--processes", True)):
        file.write_text(f'{told} = 2\n[[listener]]\nlisten = "tcp://{LOCAL}"\nto = "{back.url}"\n')
        with proxy("--config", file, words, 2) as made:
            assert (len(made.pids) == 4) == has_processes, made.pids
            made.reload()
            assert made.end() == 0


def test_a_last_word_is_sent_whole_to_one_that_is_slow() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    heard: list[object] = []
    sent: list[bool] = []
    with contextlib.closing(EventLoop()) as loop, contextlib.closing(EventLoop()) as other:
        line = Line(loop, ours.detach(), lambda name, values: None, lambda: None)
        line.send("report", 0, bytes(1 << 20))
        line.when_all_is_sent(lambda: sent.append(True))
        loop.dispatch(0)
        assert not sent, "a MiB has room nowhere"
        far = Line(other, theirs.detach(), lambda name, values: heard.append(values), lambda: None)
        while not sent:
            other.dispatch(0)
            loop.dispatch(0)
        line.close()  # as its process does when it ends
        while not heard:
            other.dispatch(None)
        assert heard == [(0, bytes(1 << 20))]
        far.close()


def test_one_that_has_nothing_left_to_send_ends_at_once() -> None:
    ours, theirs = socket.socketpair()
    sent: list[bool] = []
    with contextlib.closing(EventLoop()) as loop, theirs:
        line = Line(loop, ours.detach(), lambda name, values: None, lambda: None)
        line.send("report", 0, None)
        line.when_all_is_sent(lambda: sent.append(True))
        assert sent
        line.close()
