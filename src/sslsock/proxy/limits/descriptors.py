"""How the descriptors that the system gives are shared out, so that nothing that was accepted ever lacks one.

A connection has two, one for each end. What the process may hold besides is counted beforehand: what is open at the start,
what listeners accept ahead, the clients and back ends that are seen out after a refusal, and what is open for a moment: files
that are read again, lookups, whoever asks for the metrics. Where there are few, the room for these shrinks with them.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import NamedTuple

from ...core.hostname import parse_host
from ..settings.model import ProxySettings

__all__ = ["AMPLE", "Needs", "Rooms", "available", "needs_of", "open_now", "share_out"]

FILES = 12  # that a reload, the ticket keys, modules and metrics of the process read, all at once
WORKER = 4 + 2  # epoll, timer and the two ends of a pipe; a directory of authorities that libssl looks into
CHECKS = 2  # of an address that is checked: one check is being made, one is seen out
MANY_CHECKS = 8 * CHECKS  # of a name
ACME = 8  # of the thread that obtains certificates: a connection to the authority, a file, the lock
LOOKUP = 5  # of the system's resolver: sockets to three name servers, one to the kernel, and a file


class Rooms(NamedTuple):
    """What a worker may hold beside connections that have a place. leaving: connections that are seen out; ahead: of each
    listening descriptor, connections accepted and not looked at."""

    leaving: int
    ahead: int


AMPLE = Rooms(64, 16)


class Needs(NamedTuple):
    """What the process is made of. held: descriptors open at the start; doors: listening descriptors of a worker; names: that
    may be looked up; scrapers: descriptors for whoever asks for the metrics; checks: for checks of back ends
    under way at once."""

    held: int
    threads: int
    doors: int
    names: int
    scrapers: int
    checks: int = 0


def needs_of(settings: ProxySettings, threads: int, held: int, doors: int, scrapers: int) -> Needs:
    """What a process with these settings needs. threads, held, doors, scrapers: as of `Needs`."""
    routes = [route for listener in settings.listeners for route in listener.routes]
    names = {address.host for route in routes for address in route.to if address.path is None}
    return Needs(
        held=held,
        threads=threads,
        doors=doors,
        names=sum(not parse_host(name).numeric for name in names),
        scrapers=scrapers + (ACME if settings.acme is not None else 0),
        checks=sum(
            CHECKS if parse_host(address.host).numeric else MANY_CHECKS
            for route in routes
            if route.check is not None
            for address in route.to
        ),
    )


def available() -> int:
    """How many this process may have open, once it has asked for as many as it may (`ulimit -Hn`); 0: any number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 0 if soft == resource.RLIM_INFINITY else soft


def open_now() -> int:
    """How many are open."""
    return len(os.listdir("/dev/fd")) - 1  # one is the listing's own


def share_out(limit: int, needs: Needs) -> tuple[int, Rooms]:
    """The connections that are possible at the same time with `limit` descriptors, and the rooms that this leaves to a worker.
    Not one: there are too few."""
    rest = limit - needs.held - FILES - needs.threads * WORKER - needs.names * LOOKUP - needs.scrapers - needs.checks
    queues = needs.threads * needs.doors
    eighth = max(rest, 0) // 8
    rooms = Rooms(
        leaving=max(1, min(eighth // needs.threads, AMPLE.leaving)),
        ahead=max(1, min(eighth // queues - 1, AMPLE.ahead)),
    )
    taken = needs.threads * rooms.leaving + queues * (rooms.ahead + 1)  # and one that waits for a place
    return max(rest - taken, 0) // 2, rooms
