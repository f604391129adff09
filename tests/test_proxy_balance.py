"""Which back end is chosen: weights, spares, least connections, hashes, checks, black holes. The clock is the tests' own."""

from __future__ import annotations

from collections import Counter
from socket import AF_INET
from typing import Any, Optional

import pytest

from sslsock.proxy.back_ends.backends import Backend, BackendPool
from sslsock.proxy.back_ends.checks import final_status
from sslsock.proxy.back_ends.directory import Entry, Listing
from sslsock.proxy.back_ends.health import HESITATION
from sslsock.proxy.settings.model import Address, Balance


class Bench:
    """A pool of back ends 10.0.0.1, 10.0.0.2 and so on."""

    def __init__(self, count: int, method: str = "round-robin", weights: Any = (), backups: Any = ()) -> None:
        self.now = 1000.0
        self.made: dict[tuple[str, int], Backend] = {}
        self.pool = self.make(range(1, count + 1), Balance(method, weights, backups))

    def make(self, numbers: Any, balance: Balance) -> BackendPool:
        addresses = tuple(Address("tcp", f"10.0.0.{number}", 80) for number in numbers)
        return BackendPool(addresses, self._resolve, lambda: self.now, make=self._make, balance=balance)

    @staticmethod
    def _resolve(name: str, port: int, callback: object) -> Any:
        raise AssertionError("no names here")

    def _make(self, address: Address, family: int, sockaddr: Any) -> Backend:
        return self.made.setdefault(sockaddr, Backend(address, family, sockaddr))

    def __getitem__(self, number: int) -> Backend:
        return self.made[f"10.0.0.{number}", 80]

    def number(self, key: str = "", *exclude: int) -> Optional[int]:
        backend = self.pool.next([self[one] for one in exclude], key)
        return None if backend is None else int(backend.sockaddr[0].rpartition(".")[2])

    def take(self, count: int) -> list[Optional[int]]:
        return [self.number() for _ in range(count)]

    def watch(self, **states: Any) -> None:
        for name, state in states.items():
            health = self[int(name[1:])].health
            health.watched, health.up = True, state
            health.good_at = self.now if state else 0.0


# Weights


def test_a_directory_says_for_how_long_and_who_is_preferred() -> None:
    now, asked = 1000.0, []
    service = Address("tcp", "_app._tcp.example.com", 0, service=True)

    def resolve(name: str, port: int, callback: Any) -> Any:
        asked.append((name, port, callback))

    pool = BackendPool((service, Address("tcp", "10.0.0.9", 80)), resolve, lambda: now, balance=Balance("round-robin", (2, 1)))
    assert [entry[:2] for entry in asked] == [("_app._tcp.example.com", 0)]
    entries = (Entry(AF_INET, ("10.0.0.1", 1), 0, 1), Entry(AF_INET, ("10.0.0.2", 2), 1, 5))
    asked.pop()[2](Listing(entries, 7.0))

    def taken() -> Counter[str]:
        return Counter(backend.sockaddr[0] for backend in (pool.next() for _ in range(30)) if backend is not None)

    assert taken() == {"10.0.0.1": 20, "10.0.0.9": 10}, "the weights of the setting and of the directory are multiplied"
    first = next(one for one in pool.backends if one.sockaddr[0] == "10.0.0.1")
    static = next(one for one in pool.backends if one.sockaddr[0] == "10.0.0.9")
    spare = pool.next([first, static])
    assert spare is not None and spare.sockaddr == ("10.0.0.2", 2)
    now += 6.9
    pool.refresh()
    assert asked == []
    now += 0.2
    pool.refresh()
    before, tiers = pool.backends, pool._tiers
    asked.pop()[2](Listing(entries, 7.0))
    assert pool.backends == before and pool._tiers is tiers, "nothing has changed: turns go on"
    now += 7.1
    pool.refresh()
    asked.pop()[2](OSError("no"))
    assert pool.backends == before and pool.names() == {"_app._tcp.example.com": False}
    known = BackendPool((service,), resolve, lambda: now, known=pool.addresses())
    again = [known.next() for _ in range(3)]
    assert {one.sockaddr[0] for one in again if one is not None} == {"10.0.0.1"}, "after SIGHUP too, before DNS has answered"


def test_each_is_used_as_often_as_its_weight_says_and_never_in_a_row_where_it_can_be_spread() -> None:
    assert Bench(3, weights=(5, 1, 1)).take(14) == [1, 1, 2, 1, 3, 1, 1] * 2


def test_a_weight_counts_among_those_that_are_left() -> None:
    bench = Bench(3, weights=(8, 2, 1))
    bench.pool.failed(bench[1], "refused")
    assert Counter(bench.take(6)) == {2: 4, 3: 2}


# Spares


def test_a_spare_is_used_when_none_of_the_others_is_left() -> None:
    bench = Bench(4, backups=(False, True, False, True))
    assert bench.take(4) == [1, 3, 1, 3]
    bench.pool.failed(bench[1], "refused")
    assert bench.take(2) == [3, 3]
    bench.pool.failed(bench[3], "refused")
    assert bench.take(4) == [2, 4, 2, 4]
    assert bench.number("", 2, 4) in (1, 3), "there is nothing to lose"
    bench.pool.succeeded(bench[3])
    assert bench.take(2) == [3, 3]


def test_a_connection_that_has_tried_the_others_gets_a_spare() -> None:
    bench = Bench(3, backups=(False, False, True))
    assert bench.number("", 1, 2) == 3


# Least connections


def test_the_one_with_the_fewest_connections_is_next() -> None:
    bench = Bench(3, "least-connections")
    for number in (1, 2, 3, 1, 2):
        backend = bench.pool.next()
        assert backend is bench[number]
        backend.begin(bench.now)
    assert bench.number() == 3
    for _ in range(2):
        bench[1].answered(bench.now)
        bench[1].leave()
    assert bench.take(3) == [1, 1, 1]


def test_connections_are_counted_for_the_weight() -> None:
    bench = Bench(2, "least-connections", (3, 1))
    seen = []
    for _ in range(8):
        backend = bench.pool.next()
        assert backend is not None
        backend.begin(bench.now)
        seen.append(backend)
    assert Counter(seen) == {bench[1]: 6, bench[2]: 2}


def test_the_connections_of_all_workers_count() -> None:
    bench = Bench(2, "least-connections")
    bench[1].health.counts.append(7)
    assert bench.take(3) == [2, 2, 2]


# Hashes

CLIENTS = [f"client {number}" for number in range(3000)]


def test_the_same_client_gets_the_same_back_end_in_every_process() -> None:
    one, other = Bench(5, "hash-source"), Bench(5, "hash-source")
    assert [one.number(client) for client in CLIENTS[:50]] == [other.number(client) for client in reversed(CLIENTS[:50])][::-1]
    assert list(map(one.number, ("192.0.2.1", "192.0.2.2", "192.0.2.3", "a.example", "b.example"))) == [4, 2, 3, 3, 5]


def test_a_hash_is_even_by_weight() -> None:
    shares = Counter(map(Bench(4, "hash-sni", (1, 1, 1, 3)).number, CLIENTS))
    for number, wanted in ((1, 500), (2, 500), (3, 500), (4, 1500)):
        assert abs(shares[number] - wanted) < 100, shares


def test_who_leaves_or_comes_moves_only_its_own_share() -> None:
    five = Bench(5, "hash-source")
    before = {client: five.number(client) for client in CLIENTS}
    five.pool.failed(five[2], "refused")
    after = {client: five.number(client) for client in CLIENTS}
    assert all(after[client] == before[client] for client in CLIENTS if before[client] != 2)
    spread = Counter(after[client] for client in CLIENTS if before[client] == 2)
    assert set(spread) == {1, 3, 4, 5}, "its clients do not all go to the same one"
    six = Bench(6, "hash-source")
    moved = [client for client in CLIENTS if six.number(client) != before[client]]
    assert {six.number(client) for client in moved} == {6}
    assert abs(len(moved) - 500) < 100


# Checks


def test_only_those_are_used_that_the_checks_speak_for() -> None:
    bench = Bench(3)
    bench.watch(b1=True, b2=False, b3=None)
    assert bench.take(3) == [1, 1, 1]
    assert bench.pool.states()[1].up is False


def test_where_none_has_passed_a_check_yet_connections_wait() -> None:
    bench = Bench(3, backups=(False, False, True))
    bench.watch(b1=None, b2=None, b3=True)
    asked: list[int] = []
    assert bench.number() is None and bench.pool.waiting, "a spare is not used for want of a little patience"
    bench.pool.call_when_known(lambda: asked.append(1))
    assert not asked
    bench.watch(b2=False)
    bench.pool.on_checked()
    assert asked and bench.number() is None
    bench.watch(b1=False)
    assert bench.number() == 3


def test_all_down_by_their_checks_are_tried_anyway() -> None:
    bench = Bench(2)
    bench.watch(b1=False, b2=False)
    assert bench.number() in (1, 2)


def test_one_that_has_failed_is_used_again_after_a_check_that_began_later() -> None:
    bench = Bench(2)
    bench.watch(b1=True, b2=True)
    bench.now += 1
    bench.pool.failed(bench[1], "refused")
    assert bench.pool.states()[0].up is False
    bench.now += 100
    assert bench.take(3) == [2, 2, 2], "no client is sent to try"
    bench.watch(b1=True)
    assert bench.pool.states()[0].up
    assert bench.take(2).count(1) == 1


def test_a_check_without_an_answer_makes_suspicious() -> None:
    bench = Bench(2)
    bench.watch(b1=True, b2=True)
    bench[1].health.asked_at = bench.now
    bench.now += HESITATION / 2
    assert 1 in bench.take(2)
    bench.now += HESITATION
    assert bench.take(3) == [2, 2, 2]


# Black holes


def test_of_a_back_end_that_does_not_answer_one_client_learns() -> None:
    bench = Bench(3)
    assert bench.number() == 1
    bench[1].begin(bench.now)
    bench.now += HESITATION + 0.01
    assert bench.take(4) == [2, 3, 2, 3]
    bench[1].answered(bench.now)
    bench[1].leave()
    assert 1 in bench.take(3), "it has answered"


def test_all_that_have_not_answered_yet_share_what_comes() -> None:
    bench = Bench(2)
    for number in (1, 2):
        bench[number].begin(bench.now)
    bench.now += HESITATION + 0.01
    seen = []
    for _ in range(6):
        backend = bench.pool.next()
        assert backend is not None
        backend.begin(bench.now)
        seen.append(backend)
    assert Counter(seen) == {bench[1]: 3, bench[2]: 3}


# The answer of a check


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", None),
        (b"HTT", None),
        (b"HTTP/1.1 20", None),
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.0 503 \r\nX: y", 503),
        (b"HTTP/1.1 404\r\n", 404),
        (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n", None),
        (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 204 No Content\r\n", 204),
        (b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", 200),
    ],
)
def test_the_status_of_an_answer(head: bytes, status: Optional[int]) -> None:
    assert final_status(head) == status


@pytest.mark.parametrize("head", [b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n", b"\r\n", b"HTTP/1.1 abc\r\n", b"HTTP/1.1\r\n", b"<a>"])
def test_what_is_no_answer(head: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        final_status(head)


def test_one_that_falls_silent_again_and_again_is_left_out_for_longer_and_longer() -> None:
    bench = Bench(2)
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        for _ in range(20):  # all who have waited at the same time
            bench.pool.fell_silent(bench[1], "silent")
        bench.now += pause - 0.5
        assert 1 not in bench.take(4), f"tried before {pause} s were over"
        bench.now += 0.5
        assert bench.take(4).count(1) == 1, f"not tried after {pause} s"
        bench.pool.succeeded(bench[1])
    bench[1].mute = False
    bench.pool.fell_silent(bench[1], "silent")
    bench.now += 1
    assert 1 in bench.take(2)


def test_one_under_suspicion_goes_before_one_that_has_not_passed_a_check_yet() -> None:
    bench = Bench(3)
    bench.watch(b1=None, b2=True, b3=False)
    bench[2].health.asked_at = bench.now
    bench.now += HESITATION + 0.01
    assert bench.take(3) == [2, 2, 2]
