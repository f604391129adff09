"""Which addresses are one source, and how many connections a source may have."""

from __future__ import annotations

import threading

import pytest

from sslsock.proxy.sources import SourceLimit, Sources, source_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("/run/one.sock", "/run/two.sock", False),
        ("no:address", "no:address", True),
        ("a:\udcff", "a:\udcff", True),  # paths that are no UTF-8, as a PROXY header may have them
        ("a:\udcff", "a:\udcfe", False),
        ("::1%\udcff", "::1", True),
    ],
)
def test_what_is_one_source(one: str, other: str, same: bool) -> None:
    assert (source_of(one) == source_of(other)) == same


def test_who_has_no_address_is_not_counted() -> None:
    sources = Sources(1)
    for _ in range(3):
        assert sources.enter("") is None
    sources.leave(None)


def test_a_source_has_its_number_and_gets_it_back() -> None:
    sources = Sources(2)
    taken = [sources.enter("192.0.2.1"), sources.enter("192.0.2.1")]
    with pytest.raises(SourceLimit, match="2 connections already, and the limit is 2"):
        sources.enter("192.0.2.1")
    sources.enter("192.0.2.2")
    sources.leave(taken.pop())
    taken.append(sources.enter("192.0.2.1"))
    with pytest.raises(SourceLimit):
        sources.enter("192.0.2.1")


def test_nothing_is_kept_of_those_who_have_gone() -> None:
    sources = Sources(1)
    for number in range(1000):
        sources.leave(sources.enter(f"2001:db8:{number:x}::1"))
    assert not sources._counts


def test_without_a_limit_nothing_is_counted() -> None:
    sources = Sources(0)
    assert [sources.enter("192.0.2.1") for _ in range(3)] == [None] * 3
    sources.leave(None)


def test_a_limit_that_comes_or_goes_while_there_are_connections() -> None:
    sources = Sources(0)
    before = sources.enter("192.0.2.1")
    sources.limit = 1
    counted = sources.enter("192.0.2.1")
    sources.leave(before)
    sources.limit = 0
    sources.leave(counted)
    sources.limit = 1
    sources.enter("192.0.2.1")


def test_threads_lose_no_count() -> None:
    sources = Sources(8)

    def work() -> None:
        for _ in range(2000):
            sources.leave(sources.enter("192.0.2.1"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not sources._counts
