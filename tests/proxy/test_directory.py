"""DNS as the directory of back ends, by a real name server whose records change."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from dns.name import from_text as name_from_text

from interop.programs import free_port
from sslsock.proxy.back_ends import directory
from sslsock.proxy.back_ends.directory import LONGEST, Directory, DirectoryError, Entry

from .dns_server import DnsServer
from .operations import Origin, Proxy, Site, connect, proxy, say, wait_until

LOCAL = "127.0.0.1:0"
in_full = pytest.mark.skipif(not os.environ.get("SSLSOCK_FULL"), reason="it takes its time; SSLSOCK_FULL=1 runs it")
V4 = socket.AF_INET


def who(running: Proxy) -> str:
    """Which back end the next connection comes to."""
    with connect(running.port) as connection:
        connection.sendall(b"who\n")
        return connection.recv(100).decode().strip()


# What is found


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsServer]:
    records = [
        *("a 300 A 192.0.2.2", "a 300 A 192.0.2.1", "a 200 AAAA 2001:db8::1"),
        *("short 0 A 192.0.2.9", "long 90000 A 192.0.2.8", "alias 20 CNAME a"),
        *("_a._tcp 100 SRV 5 0 81 a", "_a._tcp 100 SRV 5 10 82 short", "_a._tcp 100 SRV 1 0 83 a", "_a._tcp 100 SRV 9 1 83 a"),
        *("_zero._tcp SRV 0 0 80 a", "_zero._tcp SRV 0 0 80 short"),
        *("_some._tcp SRV 0 0 80 nobody", "_some._tcp SRV 0 5 80 short", "_some._tcp SRV 0 1 0 a"),
        "_some._tcp SRV 0 1 80 text",
        *("_none._tcp SRV 0 0 80 nobody", "_off._tcp SRV 0 0 0 .", "text TXT only"),
        *(f"many A 192.0.2.{number}" for number in range(1, 201)),
        *(f"_many._tcp SRV 0 1 {number} short" for number in range(1, 301)),
    ]
    with DnsServer(tmp_path_factory.mktemp("dns"), *records) as server:
        yield server


def test_addresses_and_their_time(names: DnsServer) -> None:
    found = Directory((("127.0.0.1", names.port),))
    first = found.find("a.example.test", 80)
    assert first.entries == (
        *(Entry(V4, (f"192.0.2.{number}", 80)) for number in (1, 2)),
        Entry(socket.AF_INET6, ("2001:db8::1", 80, 0, 0)),
    )
    assert 190 < first.ttl <= 200, "the shorter of the two"
    alias = found.find("alias.example.test", 81)
    assert [entry.sockaddr[1] for entry in alias.entries] == [81] * 3 and 10 < alias.ttl <= 20
    assert found.find("short.example.test", 80).ttl == 1, "nobody is asked all the time"
    assert found.find("long.example.test", 80).ttl == LONGEST
    assert len(found.find("many.example.test", 80).entries) == 200, "by TCP"
    assert {entry.sockaddr[0] for entry in found.find("localhost", 80).entries} <= {"127.0.0.1", "::1"}
    names.kill()
    try:
        assert found.find("a.example.test", 80).entries == first.entries, "asked for once in its time"
        found._resolver.lifetime = 0.1
        with pytest.raises(DirectoryError):
            found.find("short.example.test", 80)
    finally:
        names.start()


def test_services(names: DnsServer) -> None:
    found = Directory((("127.0.0.1", names.port),))
    service = found.find("_a._tcp.example.test", 0)
    hosts = [("192.0.2.1", V4), ("192.0.2.2", V4), ("2001:db8::1", socket.AF_INET6)]
    at = [(*entry.sockaddr[:2], entry.rank, entry.weight) for entry in service.entries]
    assert at == [
        *((host, 83, 0, 1) for host, _ in hosts),  # also of the worst priority: the better one counts
        *((host, 81, 1, 1) for host, _ in hosts),  # of weight 0 beside others
        ("192.0.2.9", 82, 1, 10),
    ]
    assert service.ttl == 1, "the shortest of all"
    zero = found.find("_zero._tcp.example.test", 0)
    assert {(entry.rank, entry.weight) for entry in zero.entries} == {(0, 1)}
    some = found.find("_some._tcp.example.test", 0)
    assert [entry.sockaddr for entry in some.entries] == [("192.0.2.9", 80)], "without those that have no address"


def test_the_search_list_of_the_system_counts(names: DnsServer) -> None:
    found = Directory(())
    resolver = found._resolver
    resolver.nameservers, resolver.port = ["127.0.0.1"], names.port
    resolver.domain, resolver.search, resolver.ndots = None, [name_from_text("example.test.")], 5  # as in Kubernetes
    assert found.find("short", 80).entries == (Entry(V4, ("192.0.2.9", 80)),)
    assert found.find("_zero._tcp", 0).entries[-1] == Entry(V4, ("192.0.2.9", 80))
    assert found.find("short.example.test.", 80).entries == (Entry(V4, ("192.0.2.9", 80)),)


@pytest.mark.parametrize(
    ("name", "port", "reason"),
    [
        ("nobody.example.test", 80, "there is no such name"),
        ("text.example.test", 80, "no address is known for the name"),
        ("_no._tcp.example.test", 0, "there is no such name"),
        ("_none._tcp.example.test", 0, "there is no such name"),
        ("_off._tcp.example.test", 0, "its SRV record says that the service is not offered"),
        ("_many._tcp.example.test", 0, "more than 256 SRV records"),
        ("example.com", 80, "the name servers refuse to answer, or fail"),
        ("x" * 64 + ".test", 80, "label is > 63"),
    ],
)
def test_what_is_not_found(names: DnsServer, name: str, port: int, reason: str) -> None:
    with pytest.raises(DirectoryError, match=reason):
        Directory((("127.0.0.1", names.port),)).find(name, port)


@pytest.mark.parametrize("way", ["denies", "fails", "refuses", "is silent"])
def test_a_server_that_knows_no_ipv6(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """RFC 4074, 4: what there is of IPv4 counts."""
    monkeypatch.setattr(directory, "ANSWER_SECONDS", 0.5 if way == "is silent" else 60.0)
    code = {"denies": dns.rcode.NXDOMAIN, "fails": dns.rcode.SERVFAIL, "refuses": dns.rcode.NOTIMP}.get(way)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = serving.recvfrom(2048)
                query = dns.message.from_wire(data)
                answer = dns.message.make_response(query)
                if query.question[0].rdtype == dns.rdatatype.A:
                    answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.1"))
                elif code is None:
                    continue
                else:
                    answer.set_rcode(code)
                serving.sendto(answer.to_wire(), client)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.bind(("127.0.0.1", 0))
        serving.settimeout(60)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        found = Directory((serving.getsockname(),)).find("a.example.test", 80)
        assert found.entries == (Entry(V4, ("192.0.2.1", 80)),)


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "ANSWER_SECONDS", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(DirectoryError, match=r"no name server has answered within 0\.1 s"):
            Directory((silent.getsockname(),)).find("a.example.test", 80)


# Through a proxy


def test_addresses_come_and_go_and_open_connections_stay(tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack:
        for name, host in (("two", "127.0.0.2"), ("three", "127.0.0.3")):
            stack.callback(Origin(name, port, host).close)
        dns = stack.enter_context(DnsServer(tmp_path, "app A 127.0.0.2"))
        words = ("--listen", f"tcp://{LOCAL}", "--to", f"tcp://app.example.test:{port}", "--resolver", dns.address)
        with proxy(*words, "--threads", 2, "--metrics", LOCAL) as running:
            found = ("sslsock_proxy_backend_name_found", f"app.example.test:{port}")
            assert who(running) == "two"
            stays = stack.enter_context(connect(running.port))
            say(stays)
            dns.change("app A 127.0.0.3")
            wait_until(lambda: {who(running) for _ in range(8)} == {"three"}, "the new address, and no more the old one")
            say(stays)
            assert running.metrics()[found] == 1
            dns.change()
            line = running.wait_for_line(f"tcp://app.example.test:{port}: its name was not found")
            assert line.endswith(": there is no such name")
            assert {who(running) for _ in range(8)} == {"three"}, "the last known address stays"
            wait_until(lambda: running.metrics()[found] == 0, "the metric")
            dns.change("app A 127.0.0.2", "app A 127.0.0.3")
            running.wait_for_line("its name was found again")
            wait_until(lambda: {who(running) for _ in range(8)} == {"two", "three"}, "both addresses")
            say(stays)
            told = [line for line in running.lines if "its name was" in line]
            assert len(told) == 2, "once for both threads"


@in_full  # silence takes five seconds to be told from an answer
def test_a_name_server_that_is_gone(tmp_path: Path, back: Origin) -> None:
    with DnsServer(tmp_path, "app A 127.0.0.1") as dns:
        words = ("--listen", f"tcp://{LOCAL}", "--to", f"tcp://app.example.test:{back.port}", "--resolver", dns.address)
        with proxy(*words) as running:
            assert who(running) == "origin"
            dns.kill()
            assert running.wait_for_line("its name was not found").endswith(": no name server has answered within 5 s")
            assert who(running) == "origin"
            dns.start()
            running.wait_for_line("its name was found again")


def test_the_records_of_a_service_say_who_is_preferred(tmp_path: Path) -> None:
    with ExitStack() as stack:
        back = {name: Origin(name) for name in ("often", "seldom", "spare")}
        for one in back.values():
            stack.callback(one.close)

        def record(name: str, priority: int, weight: int) -> str:
            return f"_app._tcp SRV {priority} {weight} {back[name].port} here"

        records = ["here A 127.0.0.1", record("often", 3, 30), record("seldom", 3, 10), record("spare", 7, 65535)]
        dns = stack.enter_context(DnsServer(tmp_path, *records))
        words = ("--to", "tcp+srv://_app._tcp.example.test", "--resolver", dns.address, "--threads", 1)
        with proxy("--listen", f"tcp://{LOCAL}", *words) as running:
            assert ", to tcp+srv://_app._tcp.example.test" in running.announced[0]
            assert Counter(who(running) for _ in range(40)) == {"often": 30, "seldom": 10}
            for name in ("often", "seldom"):
                back[name].close()
            wait_until(lambda: who(running) == "spare", "the spare")
            assert "tcp+srv://_app._tcp.example.test (127.0.0.1:" in running.wait_for_line("is left out")
            dns.change(*records[:1], record("seldom", 7, 1))
            again = Origin("again", back["seldom"].port)
            stack.callback(again.close)
            wait_until(lambda: who(running) == "again", "the one that is left")


def test_the_certificate_of_a_service_is_for_its_domain(site: Site, tmp_path: Path) -> None:
    """Not for the host that DNS names: who writes its records is not who may speak for the domain."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    contexts = []
    for name in ("example.test", "here.example.test"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        site.authority.issue_cert(name).configure_cert(context)
        contexts.append(context)
    words = ("--to", "tls+srv://_app._tcp.example.test", "--to-ca", site.ca)
    with ExitStack() as stack:
        stack.enter_context(listening)
        dns = stack.enter_context(DnsServer(tmp_path, "here A 127.0.0.1", f"_app._tcp SRV 0 0 {port} here"))
        running = stack.enter_context(proxy("--listen", f"tcp://{LOCAL}", *words, "--resolver", dns.address))
        client = stack.enter_context(connect(running.port))
        with contexts[0].wrap_socket(listening.accept()[0], server_side=True) as served:
            served.sendall(b"hello")
            assert client.recv(5) == b"hello"
        client = stack.enter_context(connect(running.port))
        raw = listening.accept()[0]
        with contextlib.suppress(OSError), contexts[1].wrap_socket(raw, server_side=True) as served:
            served.recv(1)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b"", "nobody is let through to another"
