"""Which addresses are one source, how many connections a source may have and make, and which networks are let in."""

from __future__ import annotations

import random
import threading
from ipaddress import ip_address, ip_network
from typing import Optional

import pytest

from sslsock.core.rate_limits import RateLimits
from sslsock.core.source_limits import ADMITTED, CONNECTION_RATE, HANDSHAKE_RATE, SourceLimits
from sslsock.proxy.limits.networks import address_text, make_list, networks_in, packed_address
from sslsock.proxy.limits.rates import Rates
from sslsock.proxy.limits.sources import Refused, Sources, source_of
from sslsock.proxy.settings.model import Limits, SettingsError

SECOND = 10**9
START = 10**15  # of a clock


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
    sources = of(max_connections_per_source=1)
    assert sources.enter(one, False) is not None
    if same:
        with pytest.raises(Refused):
            sources.enter(other, False)
    else:
        sources.enter(other, False)


def of(**limits: object) -> Sources:
    return Sources(Limits(**limits))  # type: ignore[arg-type]


def test_who_has_no_address_is_not_counted() -> None:
    sources = of(max_connections_per_source=1)
    for _ in range(3):
        assert sources.enter("", False) is None
    sources.leave(None, False)


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "one", "other", "same"),
    [
        (24, 64, "192.0.2.1", "192.0.2.255", True),
        (24, 64, "192.0.2.1", "192.0.3.1", False),
        (31, 64, "192.0.2.2", "192.0.2.3", True),
        (31, 64, "192.0.2.1", "192.0.2.2", False),
        (1, 64, "1.0.0.1", "127.0.0.1", True),
        (32, 48, "2001:db8:1::1", "2001:db8:1:ffff::1", True),
        (32, 48, "2001:db8:1::1", "2001:db8:2::1", False),
        (32, 57, "2001:db8::1", "2001:db8:0:7f::1", True),
        (32, 57, "2001:db8::1", "2001:db8:0:80::1", False),
        (32, 128, "2001:db8::1", "2001:db8::2", False),
        (32, 1, "::1", "0.0.0.1", False),
    ],
)
def test_how_much_of_an_address_is_the_source(ipv4: int, ipv6: int, one: str, other: str, same: bool) -> None:
    sources = of(max_connections_per_source=1, source_ipv4_prefix=ipv4, source_ipv6_prefix=ipv6)
    assert (sources.enter(one, False) == of_prefix(ipv4, ipv6, other)) == same


def of_prefix(ipv4: int, ipv6: int, host: str) -> Optional[bytes]:
    return of(max_connections_per_source=1, source_ipv4_prefix=ipv4, source_ipv6_prefix=ipv6).enter(host, False)


def test_a_source_has_its_number_and_gets_it_back() -> None:
    sources = of(max_connections_per_source=2)
    taken = [sources.enter("192.0.2.1", False), sources.enter("192.0.2.1", False)]
    with pytest.raises(Refused, match="max-connections-per-source") as caught:
        sources.enter("192.0.2.1", False)
    assert caught.value.reason == "source_limit"
    sources.enter("192.0.2.2", False)
    sources.leave(taken.pop(), False)
    taken.append(sources.enter("192.0.2.1", False))
    with pytest.raises(Refused):
        sources.enter("192.0.2.1", False)


def test_handshakes_at_once_are_counted_until_they_are_done() -> None:
    sources = of(max_handshakes_per_source=1)
    first = sources.enter("192.0.2.1", True)
    with pytest.raises(Refused) as caught:
        sources.enter("192.0.2.1", True)
    assert caught.value.reason == "source_handshakes"
    plain = sources.enter("192.0.2.1", False)  # one without a handshake
    sources.settle(first)
    second = sources.enter("192.0.2.1", True)
    sources.leave(second, True)
    third = sources.enter("192.0.2.1", True)
    for source, shakes in ((first, False), (plain, False), (third, True)):
        sources.leave(source, shakes)
    assert sources.limits.present == 0


def test_nothing_is_kept_of_those_who_have_gone() -> None:
    sources = of(max_connections_per_source=1)
    hosts = [f"2001:db8:{number:x}::1" for number in range(5000)]
    taken = [sources.enter(host, False) for host in hosts]
    assert sources.limits.present == 5000
    random.Random(1).shuffle(taken)
    for source in taken[:2500]:
        sources.leave(source, False)
    assert sources.limits.present == 2500
    for source in taken[2500:]:
        sources.leave(source, False)
    assert sources.limits.present == 0
    for host in hosts:
        sources.leave(sources.enter(host, False), False)


def test_counts_agree_with_a_dictionary() -> None:
    random_ = random.Random(7)
    limits = SourceLimits()
    limits.follow(connections=4)
    there: list[bytes] = []
    for _ in range(20000):
        if there and random_.random() < 0.5:
            limits.leave(there.pop(random_.randrange(len(there))), False)
        else:
            address = packed_address(f"10.0.{random_.randrange(4)}.{random_.randrange(100)}")
            assert address is not None
            verdict, source = limits.enter(address, False)
            assert (verdict == ADMITTED) == (there.count(address) < 4)
            if source is not None:
                there.append(source)
    assert limits.present == len(set(there))


def test_without_a_limit_nothing_is_counted() -> None:
    sources = of()
    assert [sources.enter("192.0.2.1", False) for _ in range(3)] == [None] * 3
    sources.leave(None, False)


def test_a_limit_that_comes_or_goes_while_there_are_connections() -> None:
    sources = of()
    one, none = Limits(max_connections_per_source=1), Limits()
    before = sources.enter("192.0.2.1", False)
    sources.follow(one)
    counted = sources.enter("192.0.2.1", False)
    sources.leave(before, False)
    sources.follow(none)
    sources.leave(counted, False)
    sources.follow(one)
    # Another prefix: who is there was counted as something else, and goes as that.
    counted = sources.enter("192.0.2.1", False)
    sources.follow(Limits(max_connections_per_source=1, source_ipv4_prefix=24))
    sources.enter("192.0.2.1", False)
    sources.leave(counted, False)
    with pytest.raises(Refused):
        sources.enter("192.0.2.9", False)


def test_threads_lose_no_count() -> None:
    sources = of(max_connections_per_source=8)

    def work() -> None:
        for _ in range(2000):
            sources.leave(sources.enter("192.0.2.1", False), False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sources.limits.present == 0


# Rates


class Rated:
    """Sources whose connections end at once; the clock is the test's."""

    def __init__(self, rate: tuple[int, int], size: int = 65536) -> None:
        self.limits = SourceLimits(size)
        self.limits.follow(connection_rate=rate)
        self.now = START

    def come(self, number: int) -> bool:
        verdict, source = self.limits.enter((0x20010DB8 << 96 | number << 64).to_bytes(16, "big"), False, self.now)
        assert verdict in (ADMITTED, CONNECTION_RATE)
        if source is not None:
            self.limits.leave(source, False)
        return source is not None

    def count(self, number: int, times: int) -> int:
        return sum(self.come(number) for _ in range(times))


def test_a_burst_and_then_the_rate() -> None:
    rated = Rated((SECOND // 10, 5))
    assert rated.count(1, 100) == 5
    assert rated.count(2, 100) == 5  # others have their own
    for _ in range(20):
        rated.now += SECOND // 10
        assert rated.count(1, 10) == 1
    rated.now += SECOND // 10 - 1
    assert not rated.come(1)
    rated.now += 1
    assert rated.come(1)
    rated.now += 3600 * SECOND
    assert rated.count(1, 100) == 5  # no more than the burst, however long it was silent


def test_over_a_long_time_the_rate_is_exact() -> None:
    rated = Rated((SECOND // 7, 3))
    random_ = random.Random(3)
    let_in = 0
    while rated.now < START + 1000 * SECOND:
        let_in += rated.come(1)
        rated.now += random_.randrange(SECOND // 20)
    assert 6990 <= let_in <= 7003


def test_a_clock_that_goes_back_lets_nobody_in_twice() -> None:
    """It cannot, but two threads may have read it in another order than they come."""
    rated = Rated((SECOND, 1))
    assert rated.come(1)
    rated.now -= SECOND // 2
    assert not rated.come(1)
    rated.now += SECOND // 2 + SECOND
    assert rated.come(1)


def test_handshakes_have_a_rate_of_their_own() -> None:
    limits = SourceLimits()
    limits.follow(handshake_rate=(SECOND, 2))
    address = packed_address("192.0.2.1")
    assert address is not None
    sources = [limits.enter(address, True, START)[1] for _ in range(10)]
    assert all(sources)
    said = [limits.shake(source, START) for source in sources if source is not None]
    assert said == [ADMITTED] * 2 + [HANDSHAKE_RATE] * 8


def test_a_new_rate_forgets_what_was_owed() -> None:
    rated = Rated((3600 * SECOND, 1))
    assert rated.count(1, 5) == 1
    rated.limits.follow(connection_rate=(3600 * SECOND, 1), connections=10)
    assert rated.count(1, 5) == 0  # the same rate: what is owed is owed
    rated.limits.follow(connection_rate=(SECOND, 2), connections=10)
    assert rated.count(1, 5) == 2


def test_a_flood_from_many_addresses_keeps_nobody_out() -> None:
    """Hundreds of times as many sources as the table has room for, each at its limit: another one is let in."""
    rated = Rated((SECOND, 3), size=64)
    for number in range(16000):
        rated.count(number, 3)
        if number % 100 == 0:
            assert rated.come(1_000_000 + number)
            rated.now += SECOND // 100


def test_a_flood_from_many_addresses_frees_nobody_of_a_limit() -> None:
    """Who goes through many addresses has no more connections at an address that he comes back to than with a new one."""
    rated = Rated((1000 * SECOND, 10), size=64)
    addresses = range(1600)
    assert sum(rated.count(number, 50) for number in range(8)) == 80  # with room for all of them, a burst for each
    for number in addresses:
        rated.count(number, 12)
    # The table is full of those who owe as much as they may: nobody gets a burst any more, but the one connection.
    for _ in range(3):
        assert all(rated.count(number, 12) <= 1 for number in addresses)


def test_who_owes_most_stays_longest() -> None:
    rated = Rated((SECOND, 50), size=64)
    rated.count(1, 50)
    for number in range(2, 2000):
        rated.come(number)
        assert not rated.come(1), number


def test_entries_that_owe_nothing_are_given_away_first() -> None:
    """As many sources as fit: none of them loses what it owes to others who come and pay."""
    rated = Rated((SECOND, 5), size=8)
    for number in range(4):
        rated.count(number, 5)
    for number in range(100, 400):
        rated.now += SECOND // 100
        assert rated.come(number) or True
    assert rated.now - START == 3 * SECOND
    assert sum(rated.count(number, 10) for number in range(4)) <= 4 * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"connection_rate": (-1, 1)},
        {"connection_rate": (1, 0)},
        {"connection_rate": (2**62, 2)},
        {"connection_rate": (10**30, 1)},
        {"ipv4_bits": 0},
        {"ipv4_bits": 33},
        {"ipv6_bits": 129},
        {"connections": -1},
    ],
)
def test_limits_that_are_none(wrong: dict[str, int]) -> None:
    limits = SourceLimits()
    with pytest.raises((ValueError, OverflowError)):
        limits.follow(**wrong)  # type: ignore[arg-type]
    assert not limits.active


def test_what_is_no_address_or_no_size() -> None:
    for size in (0, -1, 1 << 40):
        with pytest.raises(ValueError, match="size"):
            SourceLimits(size)
    limits = SourceLimits()
    for wrong in (b"", bytes(4), bytes(17)):
        with pytest.raises(ValueError, match="16 bytes"):
            limits.enter(wrong, False)
        with pytest.raises(ValueError, match="16 bytes"):
            limits.leave(wrong, False)
    limits.leave(bytes(16), True)  # one that never came
    limits.settle(bytes(16))
    assert limits.present == 0


# In all


def test_turns_are_given_in_order() -> None:
    rates = RateLimits(1)
    rates.follow(0, SECOND // 10, 3)
    limiter = rates.limiter([0])
    assert limiter.limited
    waits = [limiter.take(now=START) for _ in range(6)]
    assert waits == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])
    assert limiter.take(0.35, START) is None, "too late for it, and so not taken"
    assert limiter.take(0.45, START) == pytest.approx(0.4)
    assert limiter.take(now=START + 10 * SECOND) == 0
    assert limiter.take(-1.0, START + 20 * SECOND) == 0, "there is nothing to wait for, not even for who is late"
    rates.follow(0, 0, 1)
    assert not limiter.limited
    assert [limiter.take(now=START) for _ in range(100)] == [0] * 100


def test_turns_beyond_all_time_are_far_for_ever() -> None:
    rates = RateLimits(1)
    rates.follow(0, 2**61, 1)
    limiter = rates.limiter([0])
    waits = [limiter.take(now=START) for _ in range(20)]
    assert waits[0] == 0 and waits == sorted(waits) and waits[-1] > 2**62 / 1e9, waits


def test_a_turn_is_one_by_all_rates() -> None:
    rates = RateLimits(3)
    rates.follow(0, SECOND, 1)
    rates.follow(1, SECOND // 10, 2)
    both, slow, fast = rates.limiter((0, 1, 2)), rates.limiter((0,)), rates.limiter((1, 2))
    assert both.in_force == ((SECOND, 1), (SECOND // 10, 2), (0, 1))
    assert both.take(now=START) == 0
    assert both.take(0.5, START) is None
    assert fast.take(0, START) == 0, "what one rate has refused is not counted by the other"
    assert fast.take(now=START) == pytest.approx(0.1)
    assert slow.take(now=START) == pytest.approx(1)
    assert both.take(now=START) == pytest.approx(2)


def test_a_rate_that_is_followed_again_keeps_what_it_knows() -> None:
    rates = RateLimits(1)
    limiter = rates.limiter([0])
    for _ in range(2):
        rates.follow(0, SECOND, 1)
        limiter.take(now=START)
    assert limiter.take(now=START) == pytest.approx(2)
    rates.follow(0, SECOND // 2, 1)
    assert limiter.take(now=START) == 0, "another rate begins anew"


def test_what_is_no_rate() -> None:
    for count in (0, -1, 1 << 30):
        with pytest.raises(ValueError, match="number of rates"):
            RateLimits(count)
    rates = RateLimits(2)
    for interval, burst in ((-1, 1), (1, 0), (1 << 61, 3)):
        with pytest.raises(ValueError, match="no rate"):
            rates.follow(0, interval, burst)
    for number in (-1, 2):
        with pytest.raises(ValueError, match="has this number"):
            rates.follow(number, 0, 1)
        with pytest.raises(ValueError, match="has this number"):
            rates.limiter([number])
    with pytest.raises(ValueError, match="more than 4"):
        rates.limiter([0] * 5)
    assert rates.limiter([]).take() == 0


def test_threads_take_each_turn_once() -> None:
    rates = RateLimits(2)
    rates.follow(0, SECOND, 100)
    limiter = rates.limiter((0, 1))
    taken: list[int] = []

    def take() -> None:
        taken.append(sum(limiter.take(0, START) is not None for _ in range(200)))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 100


def test_listeners_of_one_name_have_one_rate() -> None:
    rates = Rates(["tls://[::]:0", "tls://[::]:0", "tcp://[::]:0"])
    assert set(rates.connections) == set(rates.handshakes) == {"tls://[::]:0", "tcp://[::]:0"}


# Lists


def allowed(entries: list[tuple[str, bool]], host: str, only: Optional[bool] = None) -> bool:
    allow = [ip_network(text) for text, good in entries if good]
    deny = [ip_network(text) for text, good in entries if not good]
    address = packed_address(host)
    assert address is not None
    return make_list(allow, deny, bool(allow) if only is None else only).holds(address)


@pytest.mark.parametrize(
    ("entries", "host", "expected"),
    [
        ([("10.0.0.0/8", False)], "10.1.2.3", False),
        ([("10.0.0.0/8", False)], "11.0.0.0", True),
        ([("10.0.0.0/8", False)], "9.255.255.255", True),
        ([("10.0.0.0/8", False)], "::a00:1", True),  # no IPv4 address
        ([("10.0.0.0/8", False)], "::ffff:10.0.0.1", False),
        ([("10.0.0.0/8", True)], "192.0.2.1", False),
        ([("10.0.0.0/8", True)], "2001:db8::1", False),
        ([("10.0.0.0/8", True), ("10.1.0.0/16", False), ("10.1.2.3", True)], "10.1.2.3", True),
        ([("10.0.0.0/8", True), ("10.1.0.0/16", False), ("10.1.2.3", True)], "10.1.2.4", False),
        ([("10.0.0.0/8", True), ("10.1.0.0/16", False), ("10.1.2.3", True)], "10.2.0.0", True),
        ([("10.0.0.0/8", True), ("10.0.0.0/8", False)], "10.0.0.1", False),
        ([("0.0.0.0/0", False), ("192.0.2.0/24", True)], "192.0.2.255", True),
        ([("0.0.0.0/0", False), ("192.0.2.0/24", True)], "192.0.3.0", False),
        ([("::/0", False)], "192.0.2.1", False),
        ([("::/0", False), ("0.0.0.0/0", True)], "255.255.255.255", True),
        ([("ffff::/16", False)], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", False),
        ([("::1", True), ("255.255.255.255", True)], "255.255.255.255", True),
    ],
)
def test_the_smallest_network_decides(entries: list[tuple[str, bool]], host: str, expected: bool) -> None:
    assert allowed(entries, host) == expected
    assert allowed(entries[::-1], host) == expected


def test_lists_agree_with_a_search_of_all_networks() -> None:
    random_ = random.Random(5)
    for _ in range(20):
        entries = [
            (str(ip_network((random_.randrange(1 << 12) << 20, random_.randrange(13)), strict=False)), random_.random() < 0.5)
            for _ in range(random_.randrange(1, 40))
        ]
        only = random_.random() < 0.5
        found = make_list(
            [ip_network(text) for text, good in entries if good], [ip_network(text) for text, good in entries if not good], only
        )
        for _ in range(50):
            address = ip_address(random_.randrange(1 << 32))
            holding = [(ip_network(text).prefixlen, not good) for text, good in entries if address in ip_network(text)]
            expected = not only if not holding else not max(holding)[1]
            packed = packed_address(str(address))
            assert packed is not None
            assert found.holds(packed) == expected, (entries, address)
            assert address_text(packed) == str(address)


def test_files_of_networks() -> None:
    text = "# those of the office\n\n 192.0.2.0/24  # and its guests\r\n2001:db8::/32\n198.51.100.7"
    assert list(map(str, networks_in("f", text.encode()))) == ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"]
    wrong_ones = ((b"192.0.2.0/24\nexample.com\n", 2), (b"192.0.2.1/24", 1), (b"\n\n\xff\xfe", 3), (b"10.0.0.0/8 10.0.0.1", 1))
    for wrong, line in wrong_ones:
        with pytest.raises(SettingsError, match=f"^f:{line}: "):
            networks_in("f", wrong)
    assert networks_in("f", b"") == ()


