"""How descriptors are shared out: never more than there are, and as much room for connections as can be."""

from __future__ import annotations

import os

import pytest

from sslsock.proxy.limits.descriptors import AMPLE, FILES, LOOKUP, WORKER, Needs, open_now, share_out


def most(connections: int, leaving: int, ahead: int, needs: Needs) -> int:
    """All that can be open at once."""
    workers = needs.threads * (WORKER + leaving + needs.doors * (ahead + 1))
    return needs.held + FILES + workers + needs.names * LOOKUP + needs.scrapers + 2 * connections


@pytest.mark.parametrize("threads", [1, 2, 16, 64])
@pytest.mark.parametrize("doors", [1, 3])
@pytest.mark.parametrize("names, scrapers", [(0, 0), (5, 34)])
@pytest.mark.parametrize("limit", [256, 1024, 4096, 1 << 20])
def test_never_more_than_there_are(limit: int, threads: int, doors: int, names: int, scrapers: int) -> None:
    needs = Needs(10 + threads * doors, threads, doors, names, scrapers)
    connections, rooms = share_out(limit, needs)
    assert rooms.leaving >= 1 and rooms.ahead >= 1
    if connections:
        left = limit - most(connections, *rooms, needs)
        assert 0 <= left < 2
    else:
        assert most(1, 1, 1, needs) > limit


def test_with_many_the_rooms_are_ample_and_nearly_all_is_for_connections() -> None:
    connections, rooms = share_out(1 << 20, Needs(20, 4, 2, 1, 34))
    assert rooms == AMPLE
    assert 2 * connections > 0.99 * (1 << 20)


def test_with_few_most_is_still_for_connections() -> None:
    needs = Needs(12, 1, 1, 0, 0)
    connections, _ = share_out(120, needs)
    assert 2 * connections > (120 - needs.held - FILES - WORKER) * 0.7


def test_what_is_open_is_counted() -> None:
    before = open_now()
    read, write = os.pipe()
    assert open_now() == before + 2
    os.close(read)
    os.close(write)
    assert open_now() == before
