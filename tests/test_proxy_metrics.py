"""What the workers count, and what Prometheus gets of it."""

from __future__ import annotations

import contextlib
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import pytest

from peers import open_descriptors, opened_since
from sslsock import build_info
from sslsock.core.door import Door
from sslsock.proxy.observability import metrics_server, record
from sslsock.proxy.observability.metrics import (
    Counters,
    ListenerCounters,
    MetricsError,
    ProcessState,
    bury,
    by_listener,
    make_collector,
    total,
)
from sslsock.proxy.observability.metrics_server import MetricsServer
from sslsock.proxy.observability.record import ConnectionRecord

PATIENCE = 20.0  # seconds
A, B = "tls://0.0.0.0:443", "tcp://[::1]:80"


def make_record(listener: str = A, **values: Any) -> ConnectionRecord:
    made = ConnectionRecord(listener, ("192.0.2.77", 50123), ("10.0.0.1", 443))
    for name, value in values.items():
        setattr(made, name, value)
    return made


def tls(listener: str = A, **values: Any) -> ConnectionRecord:
    usual = {"protocol": "TLSv1.3", "handshake_result": "ok", "handshake_seconds": 0.002, "backend": "tcp://b:1"}
    return make_record(listener, **{**usual, **values})


def served(counters: Counters, *records: ConnectionRecord) -> None:
    """Connections from their beginning to their end."""
    for one in records:
        counters.connection_opened(one.listener)
        counters.note(one)


# Counting.


def test_a_connection_is_active_from_its_accept_to_its_end() -> None:
    counters = Counters()
    for _ in range(3):
        counters.connection_opened(A)
    counters.note(make_record())
    sums = total([counters])
    assert (sums.opened, sums.active) == (3, 2)


@pytest.mark.parametrize("reason", record.REASONS)
def test_every_reason_is_counted_and_is_a_failure_or_not(reason: str) -> None:
    counters = Counters()
    served(counters, make_record(reason=reason))
    assert by_listener([counters])[A].reasons == {reason: 1}
    harmless = {"ended", "probe", "truncated", "client_reset", "idle_timeout", "half_closed_timeout", "lifetime"}
    harmless |= {"acme_challenge", "drained", "aborted"}
    assert total([counters]).failures == (reason not in harmless)


def test_the_reasons_are_those_of_the_module() -> None:
    """A constant that is not in the list would be counted and never be a failure."""
    values = {value for name, value in vars(record).items() if name.isupper() and isinstance(value, str)}
    assert values - set(record.REASONS) == {"ok", "failed", "timeout", "refused"}
    assert len(set(record.REASONS)) == len(record.REASONS)


def test_bytes_are_counted_once_whether_told_on_the_way_or_not() -> None:
    counters = Counters()
    one = make_record()
    counters.connection_opened(A)
    one.bytes_forward, one.bytes_back = 10, 100
    counters.progress(one)
    assert (total([counters]).forward, total([counters]).back) == (10, 100)
    counters.progress(one)
    one.bytes_forward, one.bytes_back = 15, 150
    counters.progress(one)
    assert (total([counters]).forward, total([counters]).back) == (15, 150)
    one.bytes_forward, one.bytes_back = 20, 200
    counters.note(one)
    assert (total([counters]).forward, total([counters]).back) == (20, 200)
    served(counters, make_record(bytes_forward=1, bytes_back=2))
    assert (total([counters]).forward, total([counters]).back) == (21, 202)


def test_a_handshake_is_counted_once_whether_told_at_once_or_not() -> None:
    counters = Counters()
    early, late = tls(), tls()
    for _ in range(2):
        counters.connection_opened(A)
    counters.handshake(early)
    assert total([counters]).handshakes == 1
    counters.note(early)
    counters.note(late)
    assert total([counters]).handshakes == 2
    assert sum(by_listener([counters])[A].handshake_seconds.counts) == 2


def test_handshakes_are_told_apart_by_result_version_and_resumption() -> None:
    counters = Counters()
    served(
        counters,
        tls(),
        tls(),
        tls(resumed=True),
        tls(protocol="TLSv1.2"),
        tls(handshake_result="failed", protocol=None, handshake_seconds=None),
        make_record(),
    )
    sums = by_listener([counters])[A]
    assert sums.handshakes == {
        ("ok", "TLSv1.3", False): 2,
        ("ok", "TLSv1.3", True): 1,
        ("ok", "TLSv1.2", False): 1,
        ("failed", "", False): 1,
    }
    assert sum(sums.handshake_seconds.counts) == 4, "a handshake without a duration has none"
    assert total([counters]).handshakes == 4, "the failed one was no success"


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, "0.005"),
        (0.005, "0.005"),
        (0.0051, "0.025"),
        (7200.0, "7200.0"),
        (7200.1, "+Inf"),
        (1e9, "+Inf"),
    ],
)
def test_a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed(seconds: float, bucket: str) -> None:
    counters = Counters()
    served(counters, make_record(seconds=seconds))
    buckets = by_listener([counters])[A].durations.buckets()
    first = next(name for name, count in buckets if count)
    assert first == bucket and buckets[-1] == ("+Inf", 1.0)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets), "Prometheus's buckets are cumulative"


def test_workers_and_listeners_are_summed() -> None:
    workers = [Counters(), Counters(), Counters()]
    served(workers[0], tls(bytes_forward=1, seconds=1.0), tls(reason="backend_reset"), make_record(B, bytes_back=5))
    served(workers[1], tls(bytes_forward=2, seconds=2.0))
    sums = by_listener(workers)
    assert set(sums) == {A, B}
    assert (sums[A].opened, sums[A].forward, sums[A].durations.sum) == (3, 3, 3.0)
    assert (sums[A].reasons, sums[A].backends) == ({"ended": 2, "backend_reset": 1}, {"tcp://b:1": 3})
    everything = total(workers)
    assert (everything.opened, everything.handshakes, everything.failures) == (4, 3, 1)
    assert (everything.forward, everything.back) == (3, 5)
    assert workers[0].listeners[A].opened == 2, "summing has changed a worker's own numbers"


def test_sums_are_sound_while_workers_count() -> None:
    """Readers see numbers that only grow, and never fewer than no active connections."""
    workers = [Counters() for _ in range(2)]
    stop = threading.Event()
    failures: list[BaseException] = []

    def work(counters: Counters) -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                served(counters, tls(f"tls://listener{number % 3}:1", backend=f"b{number % 2999}", reason=f"r{number % 3001}"))
        except BaseException as exc:
            failures.append(exc)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work, args=(counters,)) for counters in workers]
    try:
        for thread in threads:
            thread.start()
        before = total(workers)
        for _ in range(15):
            now = total(workers)
            assert 0 <= now.active <= 2
            assert now.opened >= before.opened and now.handshakes >= before.handshakes
            before = now
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not failures
    assert total(workers).active == 0


def test_a_connection_that_comes_and_goes_meanwhile_makes_no_negative_number() -> None:
    class Moving:
        """Whenever one of the two numbers is looked at, a connection has just come and gone."""

        forward = back = count = 0
        reasons: dict[str, int] = {}
        refused: dict[str, int] = {}
        doors: list[Door] = []
        causes: dict[str, int] = {}
        backends: dict[str, int] = {}
        back_handshakes: dict[bool, int] = {}
        handshakes: dict[tuple[str, str, bool], int] = {}
        handshake_seconds, durations = ListenerCounters().handshake_seconds, ListenerCounters().durations

        @property
        def opened(self) -> int:
            self.count += 1
            return self.count

        ended = opened

    sums = ListenerCounters()
    sums.merge(Moving())  # type: ignore[arg-type]
    assert sums.opened >= sums.ended


def test_a_worker_that_dies_makes_no_number_fall_and_none_negative() -> None:
    """Whoever looks meanwhile, at each line of the program, sees what was before or what is then."""
    workers = [Counters(), Counters(), Counters()]
    for worker in workers[:2]:
        served(worker, tls(), make_record())
        worker.connection_opened(A)
        worker.accept_failed()
    seen: list[tuple[int, int]] = []

    def look(frame: object, event: str, argument: object) -> Any:
        now = total(workers)
        seen.append((now.opened, now.active))
        return look

    for number in range(2):
        before = total(workers)
        previous = sys.gettrace()
        sys.settrace(look)
        try:
            bury(workers, number)
        finally:
            sys.settrace(previous)
        assert seen and set(seen) <= {(before.opened, before.active), (before.opened, before.active - 1)}
        seen.clear()
    assert by_listener(workers)[A].reasons[record.WORKER_DIED] == 2
    assert (workers[0].listeners, workers[2].accept_failures) == ({}, 2)


def test_counting_costs_little() -> None:
    """Less than twice what it costs to make the record: that is as slow as the machine."""
    counters = Counters()
    making = counting = 1.0
    for _ in range(5):
        start = time.thread_time()
        records = [tls(bytes_forward=1) for _ in range(1000)]
        made = time.thread_time()
        for one in records:
            counters.note(one)
        making, counting = min(making, made - start), min(counting, time.thread_time() - made)
    assert counting < 2 * making, f"{counting * 1e3:.1f} microseconds, making the record takes {making * 1e3:.1f}"


# For Prometheus.


@contextlib.contextmanager
def serving(
    *workers: Counters,
    backends: Optional[Mapping[str, bool]] = None,
    certificates: Optional[Mapping[str, float]] = None,
    dropped: int = 0,
    host: str = "127.0.0.1",
) -> Iterator[MetricsServer]:
    pytest.importorskip("prometheus_client")
    server = MetricsServer(host, 0)
    try:
        server.start(make_collector(workers, lambda: backends or {}, lambda: certificates or {}, lambda: dropped))
        yield server
    finally:
        server.close()


def ask(port: int, request: bytes, host: str = "127.0.0.1") -> tuple[bytes, bytes]:
    """The head and the body of the answer."""
    with socket.create_connection((host, port), PATIENCE) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def samples(server: MetricsServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus's own parser reads."""
    from prometheus_client.parser import text_string_to_metric_families

    head, body = ask(server.port, GET)
    assert head.startswith(b"HTTP/1.0 200 "), head
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def test_prometheus_reads_what_was_counted() -> None:
    first, second = Counters(), Counters()
    served(first, tls(bytes_forward=7, seconds=0.3), tls(reason="client_reset", resumed=True, bytes_back=9))
    first.connection_opened(A)
    served(second, make_record(reason="no_route"))
    for result, error in (
        ("failed", "the TLS handshake failed: unsupported protocol"),
        ("failed", "the TLS handshake failed: no shared cipher"),
        ("refused", "the TLS handshake failed: certificate verify failed: certificate revoked"),
        ("timeout", "no ClientHello came in time"),
    ):
        served(second, make_record(reason="handshake_failed", handshake_result=result, error=error))
    second.accept_failed()
    backends = {"tcp://b:1": True, "tcp://b:2": False}
    with serving(first, second, backends=backends, certificates={"a.pem": 2e9}, dropped=4) as server:
        got = samples(server)
    expected = {
        ("sslsock_proxy_connections_total", labels(listener=A)): 8,
        ("sslsock_proxy_connections_active", labels(listener=A)): 1,
        ("sslsock_proxy_connections_closed_total", labels(listener=A, reason="ended")): 1,
        ("sslsock_proxy_connections_closed_total", labels(listener=A, reason="client_reset")): 1,
        ("sslsock_proxy_connections_closed_total", labels(listener=A, reason="no_route")): 1,
        ("sslsock_proxy_backend_connections_total", labels(listener=A, backend="tcp://b:1")): 2,
        ("sslsock_proxy_bytes_total", labels(listener=A, direction="forward")): 7,
        ("sslsock_proxy_bytes_total", labels(listener=A, direction="back")): 9,
        ("sslsock_proxy_handshakes_total", labels(listener=A, result="ok", version="TLSv1.3", resumed="false")): 1,
        ("sslsock_proxy_handshakes_total", labels(listener=A, result="ok", version="TLSv1.3", resumed="true")): 1,
        ("sslsock_proxy_handshake_duration_seconds_count", labels(listener=A)): 2,
        ("sslsock_proxy_handshake_duration_seconds_sum", labels(listener=A)): 0.004,
        ("sslsock_proxy_handshake_duration_seconds_bucket", labels(listener=A, le="0.001")): 0,
        ("sslsock_proxy_handshake_duration_seconds_bucket", labels(listener=A, le="0.0025")): 2,
        ("sslsock_proxy_connection_duration_seconds_count", labels(listener=A)): 7,
        ("sslsock_proxy_connection_duration_seconds_bucket", labels(listener=A, le="0.5")): 7,
        ("sslsock_proxy_connection_duration_seconds_bucket", labels(listener=A, le="+Inf")): 7,
        ("sslsock_proxy_handshake_failures_total", labels(listener=A, cause="protocol")): 1,
        ("sslsock_proxy_handshake_failures_total", labels(listener=A, cause="cipher")): 1,
        ("sslsock_proxy_handshake_failures_total", labels(listener=A, cause="certificate")): 1,
        ("sslsock_proxy_handshake_failures_total", labels(listener=A, cause="other")): None,
        ("sslsock_proxy_backend_up", labels(backend="tcp://b:1")): 1,
        ("sslsock_proxy_backend_up", labels(backend="tcp://b:2")): 0,
        ("sslsock_proxy_certificate_expiry_timestamp_seconds", labels(certificate="a.pem")): 2e9,
        ("sslsock_proxy_accept_failures_total", labels()): 1,
        ("sslsock_proxy_log_lines_dropped_total", labels()): 4,
    }
    for key, value in expected.items():
        assert got.get(key) == (value if value is None else pytest.approx(value)), f"{key[0]} {dict(key[1])}"
    assert got["process_open_fds", labels()] > 0


def test_the_state_of_the_process() -> None:
    pytest.importorskip("prometheus_client")
    state = ProcessState(False, 1.7e9, 12.5)
    server = MetricsServer("127.0.0.1", 0)
    server.start(make_collector([], dict, dict, process_view=lambda: state))
    build = build_info()
    about = labels(version=build["version"], openssl=build["openssl"], python=platform.python_version())
    try:
        for success in (0, 1):
            got = samples(server)
            assert got["sslsock_proxy_reload_success", labels()] == success
            assert got["sslsock_proxy_reload_success_timestamp_seconds", labels()] == 1.7e9
            assert got["sslsock_proxy_ticket_key_age_seconds", labels()] == 12.5
            assert got["sslsock_proxy_build_info", about] == 1
            state = state._replace(reload_success=True)
        _, body = ask(server.port, GET[:-2] + b"Accept: application/openmetrics-text;version=1.0.0\r\n\r\n")
        from prometheus_client.openmetrics.parser import text_string_to_metric_families

        families = text_string_to_metric_families(body.decode())
        assert {family.name: family.type for family in families}["sslsock_proxy_build"] == "info"
    finally:
        server.close()


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name=x", "/", "/other"])
@pytest.mark.parametrize("accept", ["", "Accept: application/openmetrics-text;version=1.0.0\r\n"])
def test_head_is_get_without_its_body(path: str, accept: str) -> None:
    with serving(Counters()) as server:
        heads = []
        for method in ("GET", "HEAD"):
            head, body = ask(server.port, f"{method} {path} HTTP/1.1\r\nHost: a\r\n{accept}\r\n".encode())
            assert bool(body) == (method == "GET")
            lines = head.split(b"\r\n")
            status, names = lines[0], {line.partition(b":")[0] for line in lines[1:]}
            heads.append((status, names - {b""}, [line for line in lines if line.startswith(b"Content-Type")]))
    assert heads[0] == heads[1]
    assert heads[0][0].split()[1] == (b"200" if path.startswith("/metrics") else b"404")


def test_each_scrape_is_fresh_and_workers_may_come_later() -> None:
    pytest.importorskip("prometheus_client")
    workers: list[Counters] = []
    server = MetricsServer("127.0.0.1", 0)
    server.start(make_collector(workers, dict, dict))
    try:
        assert ("sslsock_proxy_connections_total", labels(listener=A)) not in samples(server)
        workers.append(Counters())
        for count in (1, 2):
            workers[0].connection_opened(A)
            assert samples(server)["sslsock_proxy_connections_total", labels(listener=A)] == count
    finally:
        server.close()


@pytest.mark.parametrize("value", ['a"b', "a\nb", "a\\b", "\u00fc"])
def test_labels_are_escaped(value: str) -> None:
    counters = Counters()
    counters.connection_opened(value)
    with serving(counters) as server:
        assert samples(server)["sslsock_proxy_connections_total", labels(listener=value)] == 1


@pytest.mark.parametrize("accept", [b"", b"Accept: application/openmetrics-text;version=1.0.0\r\n"])
def test_a_path_that_is_no_text_is_told_all_the_same(accept: bytes) -> None:
    counters = Counters()
    counters.connection_opened("tls+unix:/run/\udcff")  # the byte FF (PEP 383)
    with serving(counters) as server:
        head, body = ask(server.port, GET[:-2] + accept + b"\r\n")
    assert head.split()[1] == b"200", head
    assert rb'sslsock_proxy_connections_total{listener="tls+unix:/run/\\udcff"} 1.0' in body


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    with serving(Counters()) as server:
        head, body = ask(server.port, GET[:-2] + b"Accept: application/openmetrics-text;version=1.0.0\r\n\r\n")
    assert b"Content-Type: application/openmetrics-text" in head and body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics?x=1", b"200"),
        (b"GET /", b"404"),
        (b"GET /metrics/", b"404"),
        (b"GET /../metrics", b"404"),
        (b"GET http://x/metrics", b"404"),
        (b"POST /metrics", b"501"),
        (b"DELETE /metrics", b"501"),
    ],
)
def test_only_get_of_metrics_is_answered(request_line: bytes, status: bytes) -> None:
    with serving(Counters()) as server:
        head, _ = ask(server.port, request_line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.split(b" ")[1] == status
        assert b"Python" not in head, "nobody needs to know what serves"
        assert b"sslsock_proxy_connections_total" in ask(server.port, GET)[1], "it does not serve any more"


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01" + bytes(100),
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"x" * 70000 + b"\r\n\r\n",
        b"",
    ],
    ids=["TLS", "empty lines", "no path", "too long", "nothing"],
)
def test_rubbish_harms_nobody(rubbish: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(Counters()) as server:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        assert b"200" in ask(server.port, GET)[0]
    assert capfd.readouterr() == ("", "")


def test_a_view_that_fails_is_told_to_who_asks() -> None:
    pytest.importorskip("prometheus_client")

    def broken() -> dict[str, bool]:
        raise RuntimeError("no back ends")

    server = MetricsServer("127.0.0.1", 0)
    server.start(make_collector([], broken, dict))
    try:
        head, body = ask(server.port, GET)
    finally:
        server.close()
    assert b" 500 " in head and b"no back ends" in body


def test_who_connects_before_the_start_is_answered_then() -> None:
    pytest.importorskip("prometheus_client")
    server = MetricsServer("127.0.0.1", 0)
    try:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as early:
            early.sendall(GET)
            server.start(make_collector([], dict, dict))
            assert early.recv(12) == b"HTTP/1.0 200"
    finally:
        server.close()


def test_scrapers_that_say_nothing_stop_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 3 * PATIENCE)
    with serving(Counters()) as server, contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            for _ in range(3 * metrics_server.SCRAPERS)
        ]
        for connection in silent:
            connection.sendall(b"GET /met")
        for _ in range(3):
            assert b"200" in ask(server.port, GET)[0]
        assert silent[0].recv(1) == b"", "the oldest is still there"
        assert len(server._peers) <= metrics_server.SCRAPERS
        assert server._held <= metrics_server.SCRAPERS + 1, "those that have to go hold descriptors until they have gone"


def test_a_scraper_that_says_nothing_has_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.05)
    with serving(Counters()) as server, socket.create_connection(("127.0.0.1", server.port), PATIENCE) as silent:
        assert silent.recv(1) == b""


def test_without_threads_a_scraper_is_answered_and_the_next_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Counters()) as server:
        thread = threading.Thread

        def no_thread(*args: Any, **options: Any) -> threading.Thread:
            monkeypatch.setattr(threading, "Thread", thread)
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading, "Thread", no_thread)
        assert b"200" in ask(server.port, GET)[0]
        assert threading.Thread is thread, "one was asked for"
        assert b"200" in ask(server.port, GET)[0]


def test_closing_cuts_scrapers_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 3 * PATIENCE)
    pytest.importorskip("prometheus_client")
    before = open_descriptors()
    with serving(Counters()) as server:
        port = server.port
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(b"GET /met")
            end = time.monotonic() + PATIENCE
            while not server._peers:
                assert time.monotonic() < end, "the scraper is not seen"
            start = time.monotonic()
            server.close()
            assert time.monotonic() - start < PATIENCE / 4, "closing has waited for the scraper"
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
            server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)
    end = time.monotonic() + PATIENCE
    while left := opened_since(before):
        assert time.monotonic() < end, f"descriptors were left open: {left}"


def test_closing_before_the_start_frees_the_port() -> None:
    pytest.importorskip("prometheus_client")
    server = MetricsServer("127.0.0.1", 0)
    port = server.port
    server.close()
    MetricsServer("127.0.0.1", port).close()


def test_a_port_that_is_taken_is_an_error() -> None:
    with serving(Counters()) as server, pytest.raises(OSError, match="in use"):
        MetricsServer("127.0.0.1", server.port)


def test_ipv6_is_served() -> None:
    with serving(Counters(), host="::1") as server:
        assert b"200" in ask(server.port, GET, host="::1")[0]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_without_a_host_every_address_of_both_families_is_served() -> None:
    with serving(Counters(), host="") as server:
        for host in ("127.0.0.1", "::1"):
            assert b"200" in ask(server.port, GET, host=host)[0], host


def test_a_port_that_is_taken_on_every_address_is_an_error() -> None:
    with serving(Counters(), host="") as server, pytest.raises(OSError, match="in use"):
        MetricsServer("", server.port)


def test_without_descriptors_it_waits_and_then_serves_again() -> None:
    """A server that tried on at once would take a whole processor meanwhile."""
    code = """
import os, resource, socket, time
from sslsock.proxy.observability.metrics import Counters, make_collector
from sslsock.proxy.observability.metrics_server import MetricsServer
server = MetricsServer("127.0.0.1", 0)
server.start(make_collector([Counters()], dict, dict))
silent, client = socket.socket(), socket.socket()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
silent.connect(("127.0.0.1", server.port))  # a blocked accept(2) has a descriptor in hand already: this takes it
client.connect(("127.0.0.1", server.port))
client.sendall(b"GET /metrics HTTP/1.0\\r\\n\\r\\n")
client.settimeout(1)
try:
    client.recv(12); raise SystemExit("it was accepted without a descriptor")
except socket.timeout:
    pass
used = time.process_time()
try:
    client.recv(12)
except socket.timeout:
    pass
assert time.process_time() - used < 0.3, "it spins"
for fd in taken:
    os.close(fd)
client.settimeout(20)
print(client.recv(12).decode())
server.close()
"""
    pytest.importorskip("prometheus_client")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout == "HTTP/1.0 200\n", result.stderr


def test_without_prometheus_client_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "prometheus_client"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MetricsError, match=r"prometheus_client: pip install 'sslsock\[proxy\]'"):
        MetricsServer("127.0.0.1", 0)
    with pytest.raises(MetricsError, match="prometheus_client"):
        make_collector([], dict, dict)


def test_counting_does_not_need_prometheus_client() -> None:
    imports = "import sslsock.proxy.observability.metrics, sslsock.proxy.observability.summary"
    code = f"import sys; {imports}; assert 'prometheus_client' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
