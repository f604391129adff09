"""New connections are kept from worker processes that are dead, stand still or can take no more: the others get them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Iterator

import pytest

from sslsock.core.event_loop import EventLoop
from sslsock.proxy.processes.absence import Absence
from sslsock.proxy.processes.seat import Seat
from sslsock.proxy.service.port_groups import avoid

from .operations import Origin, Proxy, Site, connect, proxy, say, wait_until
from .test_processes import LOCAL, members_of, nursery_of, one_of_each, owner_of, running, total

__all__ = ["running"]  # a fixture


@pytest.fixture
def group() -> Iterator[list[socket.socket]]:
    """Four that listen on one port."""
    with contextlib.ExitStack() as stack:
        made: list[socket.socket] = []
        for _ in range(4):
            listening = stack.enter_context(socket.socket())
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(("127.0.0.1", made[0].getsockname()[1] if made else 0))
            listening.listen(256)
            listening.setblocking(False)
            made.append(listening)
        yield made


def chosen(group: list[socket.socket]) -> set[int]:
    """Whom 200 connections come to."""
    found = set()
    for _ in range(200):
        socket.create_connection(group[0].getsockname()).close()
    for number, listening in enumerate(group):
        with contextlib.suppress(BlockingIOError):
            while True:
                listening.accept()[0].close()
                found.add(number)
    return found


@pytest.mark.parametrize("absent", [[0], [3], [1, 2], [0, 3], [0, 1, 3], [1, 2, 3]], ids=str)
def test_only_the_others_are_chosen_and_all_of_them(group: list[socket.socket], absent: list[int]) -> None:
    avoid(group[absent[0]], 4, absent)
    assert chosen(group) == {0, 1, 2, 3} - {*absent}
    avoid(group[0], 4, [])
    assert chosen(group) == {0, 1, 2, 3}, "when nobody is absent any more"


def test_when_all_are_absent_they_are_chosen_as_ever(group: list[socket.socket]) -> None:
    avoid(group[2], 4, [0, 1, 2, 3])
    assert chosen(group) == {0, 1, 2, 3}


def test_changes_that_come_together_are_told_together() -> None:
    """Else 200 that die at once would have 200 others woken 200 times."""
    seats = [Seat(number) for number in range(5)]
    told: list[list[int]] = []
    with contextlib.closing(EventLoop()) as loop:
        absence = Absence(loop, seats, told.append)
        for seat in seats:
            seat.ready = True
        for seat in seats[1:4]:
            seat.ready = False
            absence.look()
        assert told == [[1]], "the first one at once"
        seats[1].ready = True
        while len(told) < 2:
            loop.dispatch(None)
        assert told[1:] == [[2, 3]] == [absence.numbers], "what has become of the others, without a further call"
        absence.end()
        while len(told) < 3:
            loop.dispatch(None)
        assert told[2:] == [[]]


def settle(running: Proxy) -> None:
    """Until those that answer have done what the front has told them by now: it asks them after that."""
    for _ in range(2):
        total(running, "sslsock_proxy_worker_processes")


def test_nobody_waits_for_a_place_that_is_empty(running: Proxy, site: Site) -> None:
    victim, other = members_of(running)
    os.kill(nursery_of(running), signal.SIGSTOP)  # so it stays empty
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: total(running, "sslsock_proxy_worker_processes_accepting") == 1, "that the front knows of it")
    settle(running)
    for _ in range(40):  # one of 2 to the power of 40 times that would be chance
        with connect(running.port, site.context) as client:
            say(client)
    os.kill(nursery_of(running), signal.SIGCONT)
    running.wait_for_line("accepts connections")
    settle(running)
    with one_of_each(running, site.context) as clients:
        assert other in clients and victim not in clients
    assert running.end() == 0


def all_come_to(running: Proxy, pid: int) -> bool:
    """Whether 40 connections do: one of 2 to the power of 40 times that would be chance."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(running.port)) for _ in range(40)]
        with contextlib.suppress(AssertionError):  # one lies in a queue still
            return {owner_of(running, client) for client in clients} == {pid}
    return False


@pytest.mark.slow
def test_nobody_waits_for_one_that_stands_still(running: Proxy) -> None:
    stopped, other = members_of(running)
    os.kill(nursery_of(running), signal.SIGSTOP)  # so that nobody takes its place, however long this takes
    os.kill(stopped, signal.SIGSTOP)
    running.wait_for_line("has not answered")
    wait_until(lambda: all_come_to(running, other), "that all come to the other one")
    os.kill(stopped, signal.SIGCONT)
    os.kill(nursery_of(running), signal.SIGCONT)
    assert running.end() == 0


def have_few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))


def test_one_that_can_take_no_more_leaves_the_rest_to_the_others(back: Origin) -> None:
    words = ("--listen", f"tcp://{LOCAL}", "--to", back.url, "--processes", 2, "--metrics", LOCAL, "--drain-timeout", 1)
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(proxy(*words, preexec_fn=have_few_descriptors))
        clients: list[socket.socket] = []
        while total(made, "sslsock_proxy_connections_active") == len(clients):
            clients.append(stack.enter_context(connect(made.port)))
            settle(made)
        line = made.wait_for_line("descriptors allow (ulimit -n, LimitNOFILE)")
        del clients[-1]  # which waits
        owners = [owner_of(made, client) for client in clients]
        each = int(line.partition(" has all ")[2].split()[0])
        assert [owners.count(pid) for pid in members_of(made)] == [each, each], "all have as many as they can before one waits"
        assert int(line.split()[1]) in members_of(made)
        made.end()
