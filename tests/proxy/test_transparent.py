"""`--transparent`: the back end sees the client's own address."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from typing import Callable

import pytest

from command_helpers import ENVIRONMENT, command, run
from sslsock.core.dial import pack_address
from sslsock.proxy.service.capabilities import transparency_error
from sslsock.proxy.sessions.client_address import address_of_client

from .operations import DEADLINE
from .running import Proxy, in_own_network, listener, running

WORDS = ("--listen", "tcp://127.0.0.1:0", "--to", "tcp://127.0.0.1:1", "--transparent", "--check")

# Three machines in a row: client, proxy (this one), back end. The rules are those of docs/proxy-addresses.md.
NETWORK = """
ip link set lo up
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 || :
unshare -n sleep 600 & client=$!
unshare -n sleep 600 & server=$!
trap 'kill $client $server' EXIT
for other in $client $server; do
    until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
done
connect() { # process, interface here, first part of the addresses: 4, 6
    ip link add "$2" type veth peer name eth0
    ip link set eth0 netns "$1"
    ip addr add "$3.1/24" dev "$2"; ip addr add "$4::1/64" dev "$2" nodad; ip link set "$2" up
    nsenter -t "$1" -n sh -ec "
        ip link set lo up; ip addr add $3.2/24 dev eth0; ip addr add $4::2/64 dev eth0 nodad; ip link set eth0 up
        ip route add default via $3.1; ip -6 route add default via $4::1"
}
connect $client near 192.0.2 2001:db8:1
connect $server far 198.51.100 2001:db8:2
for family in -4 -6; do
    ip $family rule add iif far ipproto tcp lookup 100
    ip $family route add local default dev lo table 100
done
"$@" $client $server
"""


def has_namespaces() -> bool:
    tools = [shutil.which(name) for name in ("unshare", "nsenter", "ip", "sysctl")]
    return all(tools) and not subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode


@pytest.mark.parametrize("user", ["", "nobody"])
def test_the_back_end_sees_the_client(user: str) -> None:
    if not has_namespaces():
        pytest.skip("no network namespace is to be had")
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", NETWORK, "sh", sys.executable, "-m", "proxy.transparent_in_namespaces", user],
        env={**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    *seen, rights = done.stdout.decode().splitlines()
    assert seen == ["192.0.2.2 the client's and-back", "2001:db8:1::2 the client's and-back"]
    if user:
        uid, permitted, effective = rights.split()
        assert int(uid) == pwd.getpwnam(user).pw_uid
        assert int(permitted, 16) == int(effective, 16) == 1 << 13, "CAP_NET_RAW, and nothing else of root's"


def test_without_the_right() -> None:
    words = ["setpriv", "--bounding-set=-net_raw,-net_admin", "--inh-caps=-net_raw,-net_admin"] if os.geteuid() == 0 else []
    if words and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    done = subprocess.run(
        [*words, *command("proxy", *WORDS)], env=ENVIRONMENT, capture_output=True, timeout=DEADLINE, check=False
    )
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert "--transparent: this process may not connect from the addresses of clients: it needs root's rights" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "unix:a.sock", "--to", "tcp://127.0.0.1:1"), "clients of a UNIX socket have no address"),
        (("--listen", "tcp://127.0.0.1:0", "--to", "unix:a.sock"), "to a UNIX socket nobody connects from an address"),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], words: str) -> None:
    done = run("proxy", *options, "--transparent", "--check")
    assert done.returncode == 2 and f"--transparent: {words}" in done.stderr.decode()


@pytest.mark.skipif(bool(transparency_error()), reason="only root may connect from the addresses of others")
def test_a_client_of_another_family(start: Callable[..., Proxy]) -> None:
    with listener() as listening:
        to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        words = ("--proxy-protocol-in", "--trusted-proxy", "127.0.0.1", "--transparent")
        proxy = start("--listen", "tcp://127.0.0.1:0", "--to", to, *words)
        with socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as client:
            client.sendall(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n")
        record = proxy.record()
    assert record["reason"] == "no_backend"
    assert "no connection from 2001:db8::1, which is an address of IPv6" in record["error"]


@pytest.mark.skipif(bool(transparency_error()), reason="only root may connect from the addresses of others")
def test_a_client_to_whom_no_way_leads_back() -> None:
    """What it cannot reach is left to others: only when it fails for several clients the back end is at fault."""

    def work() -> None:
        with listener() as listening:
            to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
            words = ("--proxy-protocol-in", "--trusted-proxy", "127.0.0.1", "--transparent", "--connect-timeout", 0.2)
            with running("--listen", "tcp://127.0.0.1:0", "--to", to, *words) as proxy:

                def fate(client: str) -> str:
                    with socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as sock:
                        sock.sendall(f"PROXY TCP4 {client} 127.0.0.1 1 2\r\n".encode())
                        sock.shutdown(socket.SHUT_WR)
                        seen = ""
                        if client.startswith("127."):
                            with listening.accept()[0] as server:
                                seen = server.getpeername()[0]
                        reason: str = proxy.record()["reason"]
                    return seen or reason

                assert [fate("203.0.113.1") for _ in range(4)] == ["connect_timeout"] * 4
                assert fate("127.0.0.7") == "127.0.0.7"
                assert [fate(f"203.0.113.{number}") for number in (1, 2)] == ["connect_timeout"] * 2
                assert not any("left out" in line for line in proxy.messages), proxy.messages
                assert fate("203.0.113.3") == "connect_timeout"
                proxy.wait_for_message("is left out: ")

    in_own_network(work)


@pytest.mark.parametrize(
    ("client", "family", "same"),
    [
        ("192.0.2.1", socket.AF_INET, ("192.0.2.1", 0)),
        ("::ffff:192.0.2.1", socket.AF_INET, ("192.0.2.1", 0)),
        ("2001:db8::1", socket.AF_INET6, ("2001:db8::1", 0, 0, 0)),
        ("fe80::1%7", socket.AF_INET6, ("fe80::1", 0, 0, 7)),
        ("fe80::1%lo", socket.AF_INET6, ("fe80::1", 0, 0, 1)),
    ],
)
def test_the_address_to_connect_from(client: str, family: int, same: tuple[object, ...]) -> None:
    assert address_of_client(client, family) == pack_address(family, same)


@pytest.mark.parametrize(
    ("client", "family"),
    [
        ("192.0.2.1", socket.AF_INET6),
        ("::ffff:192.0.2.1", socket.AF_INET6),
        ("2001:db8::1", socket.AF_INET),
        ("fe80::1%no-such", socket.AF_INET6),
        *((host, socket.AF_INET) for host in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "::ffff:0.0.0.0")),
        *((host, socket.AF_INET6) for host in ("::", "ff02::1")),
    ],
)
def test_an_address_that_one_cannot_connect_from(client: str, family: int) -> None:
    with pytest.raises(ValueError, match="no connection from"):
        address_of_client(client, family)
