"""Which back end is next: rotation, leaving out, trials, lookups of names. The clock and the resolver are the tests' own."""

from __future__ import annotations

import errno
import socket
import struct
from functools import partial
from typing import Any, Callable, Optional

import pytest

from clock import Clock
from core.pairs import drive
from peers import Host
from sslsock.core.dial import Dial, pack_address
from sslsock.core.loop import Loop
from sslsock.proxy.back_ends.backends import DOUBTERS, Backend, BackendPool, BackendState, News, summed_up
from sslsock.proxy.sessions.attempt import THEIR_TROUBLE
from sslsock.proxy.settings.model import Address
from sslsock.sockets.resolver import Lookup

V4, V6 = socket.AF_INET, socket.AF_INET6


class Question:
    """A lookup that the test answers."""

    def __init__(self, name: str, port: int, callback: Callable[[Any], object]) -> None:
        self.name = name
        self.port = port
        self.cancelled = False
        self._callback = callback

    def cancel(self) -> None:
        self.cancelled = True

    def answer(self, *hosts: str) -> None:
        self._callback([(V6, (host, self.port, 0, 0)) if ":" in host else (V4, (host, self.port)) for host in hosts])

    def fail(self, code: int = socket.EAI_NONAME) -> None:
        self._callback(socket.gaierror(code, f"failure {code}"))


class Resolver:
    """Records the questions and whether the pool tells of them."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.told: list[tuple[str, Optional[str]]] = []

    def __call__(self, name: str, port: int, callback: Callable[[Any], object]) -> Question:
        self.questions.append(Question(name, port, callback))
        return self.questions[-1]

    def tell(self, address: Address, error: Optional[Exception]) -> None:
        self.told.append((address.host, None if error is None else str(error)))


class Bench:
    """A pool with its clock and resolver."""

    def __init__(self, *hosts: str) -> None:
        self.clock = Clock()
        self.resolver = Resolver()
        addresses = tuple(Address("tcp", host, 8000 + index) for index, host in enumerate(hosts))
        self.pool = BackendPool(addresses, self.resolver, self.clock, self.resolver.tell)

    def next(self, *exclude: Backend) -> Backend:
        backend = self.pool.next(exclude)
        assert backend is not None, "the pool has no back end to offer"
        return backend

    def take(self, count: int) -> list[str]:
        """The hosts of the next back ends."""
        return [self.next().sockaddr[0] for _ in range(count)]

    def by_host(self) -> dict[str, Backend]:
        """All back ends, each of which is up."""
        found: dict[str, Backend] = {}
        for _ in self.pool.states():
            backend = self.next()
            found[backend.sockaddr[0]] = backend
        return found

    def up(self) -> list[bool]:
        return [state.up for state in self.pool.states()]


@pytest.fixture
def three() -> Bench:
    return Bench("10.0.0.1", "10.0.0.2", "10.0.0.3")


@pytest.fixture
def two() -> Bench:
    return Bench("10.0.0.1", "10.0.0.2")


# Rotation


def test_numeric_hosts_are_ready_for_connect_and_nobody_is_asked() -> None:
    bench = Bench("127.0.0.1", "::1")
    first, second = bench.next(), bench.next()
    assert (first.family, first.sockaddr) == (V4, ("127.0.0.1", 8000))
    assert (second.family, second.sockaddr) == (V6, ("::1", 8001, 0, 0))
    for backend in (first, second):
        with socket.socket(backend.family) as trial:
            assert trial.connect_ex(("::1", 1, 0, 0) if backend.family == V6 else ("127.0.0.1", 1)) != 0
    bench.clock.now += 1e6
    bench.take(5)
    assert bench.resolver.questions == []
    assert not bench.pool.looking_up


def test_back_ends_take_turns(three: Bench) -> None:
    assert three.take(7) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"] * 2 + ["10.0.0.1"]


def test_a_single_back_end_is_always_next_even_when_it_failed() -> None:
    bench = Bench("10.0.0.1")
    backend = bench.next()
    for _ in range(3):
        bench.pool.failed(backend, "refused")
        assert bench.next() is backend
    assert bench.pool.next([backend]) is None
    assert bench.pool.next([]) is backend


def test_what_was_tried_for_a_connection_is_not_offered_again(three: Bench) -> None:
    tried: set[Backend] = set()
    while (backend := three.pool.next(tried)) is not None:
        assert backend not in tried, "a back end was offered twice"
        tried.add(backend)
    assert len(tried) == 3


def test_the_same_address_twice_has_twice_the_share() -> None:
    assert Bench("10.0.0.1", "10.0.0.1", "10.0.0.2").take(6).count("10.0.0.1") == 4


def test_a_pool_needs_an_address() -> None:
    with pytest.raises(ValueError, match="needs a back end"):
        Bench()


@pytest.mark.parametrize("host", ["", "a..b", "x" * 300, "a b"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        Bench(host)


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(OSError):
        Bench("fe80::1%nosuchlink")


# Leaving out


def test_a_failed_back_end_is_left_out_for_a_second(three: Bench) -> None:
    first = three.next()
    three.pool.failed(first, "connection refused")
    assert three.take(4) == ["10.0.0.2", "10.0.0.3"] * 2
    three.clock.now += 0.99
    assert three.take(4) == ["10.0.0.2", "10.0.0.3"] * 2
    three.clock.now += 0.01
    assert three.take(3).count("10.0.0.1") == 1


def test_one_trial_at_a_time(two: Bench) -> None:
    first = two.next()
    two.pool.failed(first, "refused")
    two.clock.now += 1
    assert two.take(6).count("10.0.0.1") == 1
    two.clock.now += 30  # the trial is slow
    assert two.take(6).count("10.0.0.1") == 0
    two.pool.failed(first, "timed out")
    assert two.take(6).count("10.0.0.1") == 0


def test_the_pause_doubles_up_to_a_minute(two: Bench) -> None:
    first = two.next()
    two.pool.failed(first, "refused")
    for pause in (1, 2, 4, 8, 16, 32, 60, 60, 60):
        two.clock.now += pause - 0.5
        assert "10.0.0.1" not in two.take(4), f"tried before {pause} s were over"
        two.clock.now += 0.5
        assert two.take(4).count("10.0.0.1") == 1, f"not tried after {pause} s"
        two.pool.failed(first, "refused")


def test_a_success_resets_the_pause(two: Bench) -> None:
    first = two.next()
    for _ in range(4):
        two.pool.failed(first, "refused")
        two.clock.now += 60
        two.take(2)
    two.pool.succeeded(first)
    assert two.take(4).count("10.0.0.1") == 2
    two.pool.failed(first, "refused")
    two.clock.now += 1
    assert two.take(4).count("10.0.0.1") == 1


def test_many_failures_of_connections_under_way_are_one_event(two: Bench) -> None:
    first = two.next()
    for _ in range(100):
        two.pool.failed(first, "reset")
        two.clock.now += 1 / 256
    two.clock.now += 1 - 100 / 256
    assert two.take(4).count("10.0.0.1") == 1, "failures that came together lengthened the pause"
    assert first.failures == 100


def test_a_trial_given_up_makes_room_for_the_next(two: Bench) -> None:
    first = two.next()
    two.pool.failed(first, "refused")
    two.clock.now += 1
    assert "10.0.0.1" in two.take(2)
    two.pool.abandoned(first)
    assert not first.up
    assert two.take(2).count("10.0.0.1") == 1


def test_a_trial_that_nobody_reports_on_does_not_block_for_ever(two: Bench) -> None:
    first = two.next()
    two.pool.failed(first, "refused")
    two.clock.now += 1
    two.take(2)
    two.clock.now += 59.5
    assert "10.0.0.1" not in two.take(4)
    two.clock.now += 0.5
    assert two.take(4).count("10.0.0.1") == 1


def test_with_all_left_out_the_least_recently_failed_is_tried(three: Bench) -> None:
    back = three.by_host()
    for host in ("10.0.0.2", "10.0.0.3", "10.0.0.1"):
        three.pool.failed(back[host], "refused")
        three.clock.now += 0.1
    assert three.take(2) == ["10.0.0.2"] * 2
    assert three.next(back["10.0.0.2"]) is back["10.0.0.3"]
    three.pool.failed(back["10.0.0.2"], "refused")
    assert three.next() is back["10.0.0.3"]
    three.pool.succeeded(back["10.0.0.1"])
    assert three.take(2) == ["10.0.0.1"] * 2


def test_a_left_out_back_end_is_tried_when_this_connection_has_tried_the_others(two: Bench) -> None:
    first, second = two.next(), two.next()
    two.pool.failed(first, "refused")
    assert two.pool.next({second}) is first
    assert two.pool.next({first, second}) is None


def test_states_for_metrics() -> None:
    bench = Bench("10.0.0.1", "fd00::1")
    first, second = bench.next(), bench.next()
    bench.pool.succeeded(first)
    bench.pool.succeeded(first)
    bench.pool.failed(second, "connection refused")
    assert bench.pool.states() == [
        BackendState("tcp://10.0.0.1:8000", "10.0.0.1:8000", True, 0, 2),
        BackendState("tcp://[fd00::1]:8001", "[fd00::1]:8001", False, 1, 0),
    ]
    assert second.reason == "connection refused"
    assert "connection refused" in repr(second)
    bench.pool.succeeded(second)
    assert second.reason == ""
    assert bench.up() == [True, True]


# Whose fault


def test_handshakes_that_fail_for_one_source_say_nothing(two: Bench) -> None:
    for _ in range(3 * DOUBTERS):
        assert not two.pool.doubted(two.next(), "192.0.2.1")
    assert two.up() == [True, True]


def test_handshakes_that_fail_for_different_sources_in_a_row_are_the_back_ends_fault(two: Bench) -> None:
    bad = two.next()
    blamed = [two.pool.doubted(bad, f"192.0.2.{number}") for number in range(DOUBTERS)]
    assert blamed == [False] * (DOUBTERS - 1) + [True]


def test_a_success_begins_the_row_anew(two: Bench) -> None:
    back = two.next()
    for number in range(3 * DOUBTERS):
        assert not two.pool.doubted(back, f"192.0.2.{number}")
        if number % (DOUBTERS - 1):
            two.pool.succeeded(back)


def test_one_source_does_not_prolong_the_time_that_a_back_end_is_left_out(two: Bench) -> None:
    """Whose trial it happens to be: the next one may have it."""
    first, second = two.next(), two.next()
    two.pool.failed(first, "")
    two.clock.now += 1
    for _ in range(5):
        assert two.next(second) is first
        assert not two.pool.doubted(first, "192.0.2.1")
    two.pool.succeeded(two.next(second))
    assert two.up() == [True, True]


def test_a_trial_that_fails_for_different_sources_prolongs_it(two: Bench) -> None:
    first, second = two.next(), two.next()
    two.pool.failed(first, "")
    two.clock.now += 1
    for number in range(DOUBTERS):
        assert two.next(second) is first
        if two.pool.doubted(first, f"192.0.2.{number}"):
            two.pool.failed(first, "")
    two.clock.now += 1.9
    assert two.take(2) == ["10.0.0.2", "10.0.0.2"]
    two.clock.now += 0.2
    assert two.next(second) is first


def up(*news: News) -> dict[str, bool]:
    return summed_up(news)[0]


def test_a_name_is_up_while_one_of_its_addresses_is() -> None:
    bench = Bench("localhost")
    bench.resolver.questions[0].answer("::1", "127.0.0.1")
    first, second = bench.next(), bench.next()
    bench.pool.failed(first, "refused")
    bench.pool.succeeded(second)
    names, addresses = summed_up(bench.pool.news("route"))
    assert names == {"localhost:8000": True}
    assert addresses == {("localhost:8000", "[::1]:8000"): False, ("localhost:8000", "127.0.0.1:8000"): True}
    bench.pool.failed(second, "refused")
    assert up(*bench.pool.news("route")) == {"localhost:8000": False}


def test_of_the_workers_the_one_that_has_heard_last_is_right() -> None:
    silent, failed, succeeded = (News("route", "b:1", "b:1", up, moment) for up, moment in ((True, 0), (False, 5), (True, 6)))
    assert up(silent, failed) == up(failed, silent) == {"b:1": False}
    assert up(failed, succeeded) == up(succeeded, failed, silent) == {"b:1": True}


def test_what_is_down_for_one_route_is_down() -> None:
    assert up(News("one", "b:1", "b:1", True, 6), News("other", "b:1", "b:1", False, 5)) == {"b:1": False}


# Names


def test_names_are_asked_for_at_the_start() -> None:
    bench = Bench("app.test", "10.0.0.9", "Bücher.test")
    assert [(q.name, q.port) for q in bench.resolver.questions] == [("app.test", 8000), ("xn--bcher-kva.test", 8002)]
    assert bench.pool.looking_up
    assert bench.take(2) == ["10.0.0.9"] * 2


def test_every_address_of_a_name_is_a_back_end() -> None:
    bench = Bench("app.test", "10.0.0.9")
    bench.resolver.questions[0].answer("fd00::1", "10.0.0.1", "10.0.0.1")
    assert not bench.pool.looking_up
    assert sorted(bench.take(6)) == sorted(["fd00::1", "10.0.0.1", "10.0.0.9"] * 2)
    assert [state.name for state in bench.pool.states()] == ["tcp://app.test:8000"] * 2 + ["tcp://10.0.0.9:8001"]


def test_a_connection_can_wait_for_the_first_lookup() -> None:
    bench = Bench("app.test")
    found: list[Optional[Backend]] = []
    assert bench.pool.next() is None
    bench.pool.call_when_known(lambda: found.append(bench.pool.next()))
    assert found == []
    bench.resolver.questions[0].answer("10.0.0.1")
    assert [backend and backend.sockaddr for backend in found] == [("10.0.0.1", 8000)]
    bench.pool.call_when_known(lambda: found.append(None))
    assert found[1:] == [None], "with nothing to wait for, the call comes at once"


def test_a_failed_first_lookup_ends_the_waiting_and_is_repeated() -> None:
    bench = Bench("app.test")
    called: list[int] = []
    bench.pool.call_when_known(lambda: called.append(1))
    bench.resolver.questions[0].fail()
    assert called == [1]
    assert bench.pool.next() is None
    assert len(bench.resolver.questions) == 1, "asked again at once"
    bench.clock.now += 1
    assert bench.pool.next() is None
    assert len(bench.resolver.questions) == 2
    assert bench.pool.next() is None
    assert len(bench.resolver.questions) == 2, "asked while the question was under way"
    bench.resolver.questions[1].answer("10.0.0.1")
    assert bench.take(1) == ["10.0.0.1"]
    assert bench.resolver.told == [("app.test", "[Errno -2] failure -2"), ("app.test", None)]


def test_addresses_are_kept_for_half_a_minute_and_used_during_the_next_lookup() -> None:
    bench = Bench("app.test")
    bench.resolver.questions[0].answer("10.0.0.1", "10.0.0.2")
    bench.clock.now += 29.9
    bench.take(2)
    assert len(bench.resolver.questions) == 1
    bench.clock.now += 0.1
    assert sorted(bench.take(4)) == ["10.0.0.1"] * 2 + ["10.0.0.2"] * 2
    assert len(bench.resolver.questions) == 2
    assert not bench.pool.looking_up, "there are addresses, so nobody has to wait"
    bench.resolver.questions[1].answer("10.0.0.2", "10.0.0.3")
    assert sorted(bench.take(4)) == ["10.0.0.2"] * 2 + ["10.0.0.3"] * 2
    bench.clock.now += 29.9
    bench.take(1)
    assert len(bench.resolver.questions) == 2


def test_nobody_is_asked_while_the_pool_is_not_used() -> None:
    bench = Bench("app.test")
    bench.resolver.questions[0].answer("10.0.0.1")
    bench.clock.now += 3600
    assert len(bench.resolver.questions) == 1
    assert bench.take(1) == ["10.0.0.1"]
    assert len(bench.resolver.questions) == 2


def test_a_back_end_that_is_found_again_keeps_its_state() -> None:
    bench = Bench("app.test")
    bench.resolver.questions[0].answer("10.0.0.1", "10.0.0.2")
    back = bench.by_host()
    bench.pool.failed(back["10.0.0.1"], "refused")
    bench.clock.now += 30
    bench.pool.next()
    bench.pool.failed(back["10.0.0.1"], "refused")
    bench.resolver.questions[1].answer("10.0.0.3", "10.0.0.1")
    assert bench.up() == [True, False]
    assert bench.pool.states()[1].failures == 2
    bench.pool.failed(back["10.0.0.2"], "gone meanwhile")  # no harm
    assert bench.next(back["10.0.0.1"]).sockaddr[0] == "10.0.0.3"


def test_a_failed_lookup_keeps_the_addresses_is_told_once_and_repeated() -> None:
    bench = Bench("app.test")
    bench.resolver.questions[0].answer("10.0.0.1")
    bench.clock.now += 30
    for number in range(1, 4):
        assert bench.take(1) == ["10.0.0.1"]
        assert len(bench.resolver.questions) == number + 1
        bench.resolver.questions[number].fail()
        assert bench.take(1) == ["10.0.0.1"]
        bench.clock.now += 1
    for number, code in enumerate((socket.EAI_AGAIN, socket.EAI_NONAME) * 3, 4):  # in turn, as of two servers
        bench.take(1)
        bench.resolver.questions[number].fail(code)
        bench.clock.now += 1
    for code in range(1000, 1100):
        bench.take(1)
        bench.resolver.questions[-1].fail(code)
        bench.clock.now += 1
    told = bench.resolver.told
    assert len(told) == 8
    del told[2:]
    bench.take(1)
    bench.resolver.questions[-1].answer("10.0.0.2")
    assert bench.take(1) == ["10.0.0.2"]
    assert bench.resolver.told == [
        ("app.test", "[Errno -2] failure -2"),
        ("app.test", "[Errno -3] failure -3"),
        ("app.test", None),
    ]


def test_an_answer_without_addresses_is_a_failure() -> None:
    bench = Bench("app.test")
    bench.resolver.questions[0].answer("10.0.0.1")
    bench.clock.now += 30
    bench.take(1)
    bench.resolver.questions[1].answer()
    assert bench.take(1) == ["10.0.0.1"]
    assert [host for host, error in bench.resolver.told if error and "no address is known" in error] == ["app.test"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1"])
def test_an_answer_that_stands_for_no_host_is_none(host: str) -> None:
    """As name servers that block names give it; the system would connect to itself."""
    bench = Bench("app.test")
    bench.resolver.questions[0].answer(host)
    assert bench.pool.next() is None
    assert bench.resolver.told == [("app.test", f"it stands for no host: {host}")]
    bench.clock.now += 1.0
    assert bench.pool.next() is None
    bench.resolver.questions[1].answer(host, "10.0.0.7")
    assert bench.take(2) == ["10.0.0.7", "10.0.0.7"]
    assert len(bench.pool.states()) == 1


def test_closing_forgets_the_lookups_and_keeps_nobody_waiting() -> None:
    bench = Bench("app.test", "other.test", "10.0.0.9")
    bench.resolver.questions[1].answer("10.0.0.1")
    called: list[int] = []
    bench.pool.call_when_known(lambda: called.append(1))
    bench.pool.close()
    bench.pool.call_when_known(lambda: called.append(2))
    bench.pool.close()
    assert [question.cancelled for question in bench.resolver.questions] == [True, False]
    bench.clock.now += 3600
    assert sorted(bench.take(4)) == ["10.0.0.1"] * 2 + ["10.0.0.9"] * 2, "live connections may still ask"
    assert len(bench.resolver.questions) == 2
    assert called == [1, 2]


def test_the_resolver_of_the_sockets_answers_on_the_loop(own_host: Host) -> None:
    loop = own_host.loop
    clock = Clock()
    pool = BackendPool((Address("tcp", "localhost", 4433),), partial(Lookup, loop), clock)
    assert pool.looking_up
    done: list[int] = []
    pool.call_when_known(lambda: done.append(1))
    own_host.wait_for(lambda: bool(done))
    backend = pool.next()
    assert backend is not None
    assert backend.sockaddr[:2] in (("127.0.0.1", 4433), ("::1", 4433))
    with socket.socket(backend.family) as trial:
        trial.setblocking(False)
        trial.connect_ex(backend.sockaddr)  # a form that connect takes
    pool.close()


def test_a_name_that_does_not_exist_is_told(own_host: Host) -> None:
    told: list[Optional[Exception]] = []
    address = Address("tcp", "no-such-host.invalid", 4433)
    pool = BackendPool((address,), partial(Lookup, own_host.loop), Clock(), lambda address, error: told.append(error))
    own_host.wait_for(lambda: bool(told), seconds=120.0)  # where nobody answers questions for names (resolv.conf(5))
    assert isinstance(told[0], socket.gaierror)
    assert pool.next() is None
    pool.close()


class Dialled:
    """The errno of a dial that fails."""

    number: Optional[int] = None

    def on_dial_failed(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize(("fin_before", "expected"), [(False, errno.ECONNRESET), (True, errno.EPIPE)])
def test_a_reset_before_the_dial_is_over_is_the_back_ends_fault(fin_before: bool, expected: int) -> None:
    """As when a back end is killed while it has connections that it has not accepted."""
    loop, dialled = Loop(), Dialled()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert Dial(loop, pack_address(V4, ("127.0.0.1", port)), dialled).start(0) == -errno.EINPROGRESS
        accepted = server.accept()[0]
        if fin_before:
            accepted.shutdown(socket.SHUT_WR)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        drive(loop, lambda: dialled.number is not None, "the end of the dial")
    assert dialled.number == expected
    assert expected in THEIR_TROUBLE
