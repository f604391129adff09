"""Limits and lists: who is refused, who waits, and what is told of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as FilePath
from typing import Any, Callable, Optional

import pytest

from command_helpers import Identity
from peers import MEMORY_TELLS
from sslsock.proxy_protocol import encode_v1

from . import operations
from .running import (
    TIMEOUT,
    Proxy,
    connect,
    end_of,
    end_of_new,
    end_output,
    in_own_network,
    listener,
    path,
    receive_all,
    receive_exactly,
    running,
)

in_full = pytest.mark.skipif(not os.environ.get("SSLSOCK_FULL"), reason="it takes its time; SSLSOCK_FULL=1 runs it")

Start = Callable[..., Proxy]
NEVER = "1/h burst={}"  # within the time of a test


class Echo:
    """A back end that sends back what it gets, whoever comes."""

    def __init__(self, listening: socket.socket) -> None:
        listening.listen(4096)  # a flood comes sooner than threads begin, and who finds the queue full waits for seconds
        self._listening = listening
        self.to = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listening.accept()[0]
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    @staticmethod
    def _serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(4096):
                sock.sendall(data)


@pytest.fixture
def echo() -> Any:
    with listener() as listening:
        listening.settimeout(None)
        yield Echo(listening)


def is_served(sock: Any) -> None:
    sock.sendall(b"x")
    assert receive_exactly(sock, 1) == b"x"


def served(stack: contextlib.ExitStack, port: int, source: str = "127.0.0.1", context: Optional[ssl.SSLContext] = None) -> Any:
    sock = stack.enter_context(connect(port, context, source=source))
    is_served(sock)
    return sock


def client_hello(context: ssl.SSLContext) -> bytes:
    """What a client sends first."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def refused_in(proxy: Proxy) -> dict[str, int]:
    """The refusals in the metrics, by reason."""
    name = "sslsock_proxy_connections_refused_total{"
    lines = [line for line in proxy.metrics() if line.startswith(name)]
    return {line.split('reason="')[1].split('"')[0]: int(float(line.split()[-1])) for line in lines}


# Rates of a source


@pytest.mark.parametrize("threads", [pytest.param(1, marks=in_full), 3])
def test_a_source_that_comes_too_fast_is_refused_and_others_are_not(start: Start, echo: Echo, threads: int) -> None:
    options = ("--connection-rate-per-source", NEVER.format(5), "--metrics", "127.0.0.1:0")
    proxy = start("--listen", "tcp://127.0.0.1:0", "--to", echo.to, *options, threads=threads)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            served(stack, proxy.port)
        for _ in range(50):
            assert end_of_new(proxy.port) == "reset"
        for number in range(2, 100):  # 127.0.0.0/8: each is a source
            served(stack, proxy.port, f"127.0.0.{number}")
        assert end_of_new(proxy.port) == "reset"  # also when its connections have ended
    assert end_of_new(proxy.port) == "reset"
    assert refused_in(proxy) == {"source_rate": 52}
    line = proxy.wait_for_message("(source_rate: connection-rate-per-source), one of the last from 127.0.0.1")
    assert "tcp://127.0.0.1:0: " in line
    # One line, and no more for a minute.
    assert sum("connections refused: " in line for line in proxy.messages) == 1
    assert f'sslsock_proxy_connections_total{{listener="tcp://127.0.0.1:0"}} {5 + 98}.0' in proxy.metrics()


def test_handshakes_of_a_source(start: Start, echo: Echo, identity: Identity) -> None:
    """Counted when a ClientHello has come, and so not for who says nothing."""
    context = identity.client_context()
    options = ("--cert", identity.cert, "--key", identity.key, "--handshake-rate-per-source", NEVER.format(3))
    proxy = start("--listen", "tls://127.0.0.1:0", "--to", echo.to, *options)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(proxy.port)) for _ in range(10)]
        for _ in range(3):
            served(stack, proxy.port, context=context)
        for _ in range(3):
            assert end_of_new(proxy.port, context) == "reset"
        served(stack, proxy.port, "127.0.0.2", context)
        assert len(silent) == 10
    reasons = [proxy.record()["reason"] for _ in range(17)]
    assert reasons.count("source_handshake_rate") == 3, reasons


def test_handshakes_of_a_source_at_once(start: Start, echo: Echo, identity: Identity) -> None:
    context = identity.client_context()
    options = ("--cert", identity.cert, "--key", identity.key, "--max-handshakes-per-source", 2, "--metrics", "127.0.0.1:0")
    proxy = start("--listen", "tls://127.0.0.1:0", "--to", echo.to, *options)
    with contextlib.ExitStack() as stack:
        for _ in range(5):  # those that are done do not count
            served(stack, proxy.port, context=context)
        for _ in range(2):
            stack.enter_context(connect(proxy.port))
        served(stack, proxy.port, "127.0.0.2", context)  # by now the two are there
        assert end_of_new(proxy.port) == "reset"
    assert refused_in(proxy) == {"source_handshakes": 1}


@in_full
def test_a_prefix_makes_a_source_of_a_network(start: Start, echo: Echo) -> None:
    options = ("--max-connections-per-source", 2, "--source-ipv4-prefix", 24)
    proxy = start("--listen", "tcp://127.0.0.1:0", "--to", echo.to, *options)
    with contextlib.ExitStack() as stack:
        for number in (1, 2):
            served(stack, proxy.port, f"127.0.0.{number}")
        assert end_of_new(proxy.port, source="127.0.0.3") == "reset"
        served(stack, proxy.port, "127.0.1.3")


def test_behind_a_proxy_the_source_is_the_client_of_the_header(start: Start, echo: Echo) -> None:
    options = ("--proxy-protocol-in", "--trusted-proxy", "127.0.0.1", "--metrics", "127.0.0.1:0")
    lists = ("--deny-source", "198.51.100.0/24", "--deny-source", "127.0.0.1")
    proxy = start(
        "--listen", "tcp://127.0.0.1:0", "--to", echo.to, *options, *lists, "--connection-rate-per-source", NEVER.format(2)
    )

    def client(host: str) -> Any:
        sock = connect(proxy.port)
        sock.sendall(encode_v1((host, 4711), ("192.0.2.2", 443)))
        return sock

    with contextlib.ExitStack() as stack:
        for host in ("192.0.2.1", "192.0.2.3", "192.0.2.4"):  # all from 127.0.0.1, which is neither limited nor denied
            for _ in range(2):
                is_served(stack.enter_context(client(host)))
        for host in ("192.0.2.1", "198.51.100.9"):
            with client(host) as sock:
                assert end_of(sock) == "reset"
        for _ in range(5):
            unknown = stack.enter_context(connect(proxy.port))
            unknown.sendall(b"PROXY UNKNOWN\r\n")
            is_served(unknown)
    assert refused_in(proxy) == {"source_rate": 1, "denied": 1}


def test_a_flood_leaves_memory_and_others_alone(start: Start, echo: Echo) -> None:
    """20,000 connections from 4,000 addresses, at a table for 64: nobody is kept out, and nothing grows."""
    options = ("--connection-rate-per-source", NEVER.format(1), "--source-table-size", 64)
    proxy = start("--listen", "tcp://127.0.0.1:0", "--to", echo.to, *options, "--max-connections-per-source", 2)

    def flood(count: int) -> None:
        for number in range(count):
            source = f"127.{1 + number % 4}.{number % 250}.{number % 4 + 1}"
            with contextlib.suppress(OSError), connect(proxy.port, source=source) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    flood(1000)
    before = proxy.resident()
    flood(4000)
    with contextlib.ExitStack() as stack:
        for number in range(50):
            served(stack, proxy.port, f"127.200.0.{number + 1}")
    assert not MEMORY_TELLS or proxy.resident() - before < 2 << 20


RANGE = "2001:db8::/32"
OWN_NETWORK = f"""
ip -6 route add local {RANGE} dev lo
echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind
"""


def from_ipv6(port: int, source: str) -> Any:
    sock = socket.socket(socket.AF_INET6)
    sock.settimeout(TIMEOUT)
    try:
        sock.bind((source, 0))
        sock.connect(("2001:db8::1", port))
        return sock
    except BaseException:
        sock.close()
        raise


def is_refused(port: int, source: str) -> bool:
    """Whether a connection is reset; False: it is served."""
    try:
        with from_ipv6(port, source) as sock:
            is_served(sock)
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def test_networks_of_ipv6_are_sources() -> None:
    def work() -> None:
        with listener() as listening, contextlib.ExitStack() as stack:
            listening.settimeout(None)
            to = Echo(listening).to
            options = ("--connection-rate-per-source", NEVER.format(3), "--source-table-size", 64)
            proxy = stack.enter_context(running("--listen", "tcp://[2001:db8::1]:0", "--to", to, *options))
            # One network of 64 bits, however many addresses it has.
            for number in range(3):
                is_served(stack.enter_context(from_ipv6(proxy.port, f"2001:db8:1:1:{number:x}::{number:x}")))
            for number in range(3, 30):
                assert is_refused(proxy.port, f"2001:db8:1:1:{number:x}::{number:x}")
            # A customer with a network of 48 bits goes through thousands of those, at a table for 64.
            for number in range(2000):
                with contextlib.suppress(ConnectionResetError):
                    from_ipv6(proxy.port, f"2001:db8:2:{number:x}::1").close()
            # Others are served, and who comes back gets no new burst.
            for number in range(50):
                is_served(stack.enter_context(from_ipv6(proxy.port, f"2001:db8:{0x100 + number:x}::1")))
            assert sum(not is_refused(proxy.port, "2001:db8:1:1::1") for _ in range(20)) <= 1

    in_own_network(work, OWN_NETWORK)


# In all, and of a listener


def test_connections_that_come_too_fast_wait_for_their_turn(start: Start, echo: Echo) -> None:
    proxy = start("--listen", "tcp://127.0.0.1:0", "--to", echo.to, "--connection-rate", "50/s burst=1")
    with contextlib.ExitStack() as stack:
        for sock in [stack.enter_context(connect(proxy.port, source=f"127.0.0.{number}")) for number in range(1, 21)]:
            is_served(sock)
    proxy.wait_for_message("connections wait, for they come too fast")


def test_who_waits_for_a_turn_is_served_at_the_end(echo: Echo) -> None:
    """SIGTERM lets nobody new in, and those who have come before are not let down."""
    arguments = ("--listen", "tcp://127.0.0.1:0", "--to", echo.to, "--threads", 1, "--drain-timeout", 60)
    with operations.proxy(*arguments, "--connection-rate", NEVER.format(1)) as ending:
        with contextlib.ExitStack() as stack:
            served(stack, ending.port)
            waiting = [stack.enter_context(connect(ending.port)) for _ in range(3)]
            ending.wait_for_line("connections wait, for they come too fast")
            ending.send(signal.SIGTERM)
            for sock in waiting:
                is_served(sock)
        assert ending.process.wait(TIMEOUT) == 0


@in_full
def test_those_who_are_refused_take_no_turn_of_the_others(start: Start, echo: Echo) -> None:
    options = ("--connection-rate", NEVER.format(3), "--connection-rate-per-source", NEVER.format(1))
    proxy = start("--listen", "tcp://127.0.0.1:0", "--to", echo.to, *options)
    with contextlib.ExitStack() as stack:
        served(stack, proxy.port)
        for _ in range(20):
            assert end_of_new(proxy.port) == "reset"
        for number in (2, 3):
            served(stack, proxy.port, f"127.0.0.{number}")


def test_a_handshake_whose_turn_is_far_is_refused(start: Start, echo: Echo, identity: Identity) -> None:
    context = identity.client_context()
    options = ("--cert", identity.cert, "--key", identity.key, "--handshake-rate", NEVER.format(2), "--metrics", "127.0.0.1:0")
    proxy = start("--listen", "tls://127.0.0.1:0", "--to", echo.to, *options)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            served(stack, proxy.port, context=context)
        assert end_of_new(proxy.port, context) == "reset"
    assert refused_in(proxy) == {"handshake_rate": 1}


def test_handshakes_that_come_too_fast_wait(start: Start, echo: Echo, identity: Identity) -> None:
    context = identity.client_context()
    options = ("--cert", identity.cert, "--key", identity.key, "--handshake-rate", "20/s burst=1")
    proxy = start("--listen", "tls://127.0.0.1:0", "--to", echo.to, *options, threads=2)
    raw = [connect(proxy.port) for _ in range(8)]
    wrapped: list[Any] = []

    def shake(sock: socket.socket) -> None:
        wrapped.append(context.wrap_socket(sock, server_hostname="localhost"))

    threads = [threading.Thread(target=shake, args=(sock,), daemon=True) for sock in raw]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(wrapped) == 8
    for sock in wrapped:
        is_served(sock)
        sock.close()
    assert max(proxy.record()["handshake_seconds"] for _ in range(8)) >= 0.3  # the last of eight has waited seven turns


def test_handshakes_that_wait_for_their_turn_do_not_give_way(start: Start, echo: Echo, identity: Identity) -> None:
    """However many want one: each that was sent away would have taken a turn, and in the end nobody would come to theirs."""
    context = identity.client_context()
    options = ("--cert", identity.cert, "--key", identity.key, "--handshake-rate", "2/s burst=1", "--max-handshakes", 2)
    proxy = start("--listen", "tls://127.0.0.1:0", "--to", echo.to, *options)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(6))
        clients = [pool.submit(connect, proxy.port, context) for _ in range(6)]
        for client in clients:
            is_served(stack.enter_context(client.result(TIMEOUT)))


def test_a_handshake_keeps_the_deadline_it_began_with(start: Start, echo: Echo, identity: Identity, tmp_path: FilePath) -> None:
    """Its turn is looked for by that, not by what SIGHUP has set since."""
    file = tmp_path / "proxy.toml"

    def write(timeout: float) -> None:
        file.write_text(
            f'handshake-timeout = {timeout}\nhandshake-rate = "1/s"\n[[listener]]\nlisten = "tls://127.0.0.1:0"\n'
            f'to = "{echo.to}"\ncert = "{identity.cert}"\nkey = "{identity.key}"\n'
        )

    write(TIMEOUT)
    proxy = start("--config", file, "--metrics", "127.0.0.1:0")
    context = identity.client_context()
    with connect(proxy.port) as sock, contextlib.ExitStack() as stack:
        opened = 'sslsock_proxy_connections_total{listener="tls://127.0.0.1:0"} 1'
        operations.wait_until(lambda: any(line.startswith(opened) for line in proxy.metrics()), "that it has been accepted")
        served(stack, proxy.port, context=context)  # the next turn is a second later
        write(0.01)
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message("SIGHUP: read again")
        with context.wrap_socket(sock, server_hostname="localhost") as client:
            is_served(client)


def test_a_client_that_goes_while_it_waits_for_its_turn(start: Start, echo: Echo, identity: Identity) -> None:
    context = identity.client_context()
    options = ("--cert", identity.cert, "--key", identity.key, "--handshake-rate", "4/s burst=1")
    proxy = start("--listen", "tls://127.0.0.1:0", "--to", echo.to, *options)
    with contextlib.ExitStack() as stack:
        served(stack, proxy.port, context=context)
        hello = client_hello(context)
        for _ in range(2):
            with connect(proxy.port) as sock:
                sock.sendall(hello)
                sock.sendall(b"more of it")
                end_output(sock)
                receive_all(sock)
        is_served(stack.enter_context(connect(proxy.port, context)))


def test_a_listener_that_is_full_leaves_the_others_alone(start: Start, echo: Echo, tmp_path: FilePath) -> None:
    file = tmp_path / "proxy.toml"
    tables = [f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\nto = "{echo.to}"\nmax-connections = 2\n']
    tables += [f'[[listener]]\nlisten = "tcp://[::1]:0"\nto = "{echo.to}"\n']
    file.write_text("\n".join(tables))
    proxy = start("--config", file, listeners=2)
    with contextlib.ExitStack() as stack:
        mine = [served(stack, proxy.port) for _ in range(2)]
        third = stack.enter_context(connect(proxy.port))
        third.sendall(b"x")
        proxy.wait_for_message("tcp://127.0.0.1:0: the limit of 2 connections is reached")
        other = stack.enter_context(socket.create_connection(("::1", proxy.ports[1]), TIMEOUT))
        is_served(other)
        mine.pop().close()
        assert receive_exactly(third, 1) == b"x"


# Lists


def test_lists_on_the_command_line(start: Start, echo: Echo) -> None:
    options = ("--allow-source", "127.0.0.0/28", "--deny-source", "127.0.0.4/30", "--allow-source", "127.0.0.5")
    proxy = start("--listen", "tcp://127.0.0.1:0", "--to", echo.to, *options, "--metrics", "127.0.0.1:0")
    with contextlib.ExitStack() as stack:
        for number in (1, 5, 8, 15):
            served(stack, proxy.port, f"127.0.0.{number}")
        for number in (4, 6, 7, 16, 99):
            assert end_of_new(proxy.port, source=f"127.0.0.{number}") == "reset"
    assert refused_in(proxy) == {"denied": 5}
    proxy.wait_for_message("(denied: the lists of sources)")


def test_a_list_in_a_file_is_read_again(start: Start, echo: Echo, tmp_path: FilePath) -> None:
    file = tmp_path / "banned.txt"
    file.write_text("# nobody yet\n")
    proxy = start("--listen", "tcp://127.0.0.1:0", "--to", echo.to, "--deny-source-file", file)

    def write(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text)
        new.rename(file)

    with contextlib.ExitStack() as stack:
        kept = served(stack, proxy.port, "127.0.0.2")
        write("127.0.0.2\n")
        proxy.wait_for_message("banned.txt")
        assert end_of_new(proxy.port, source="127.0.0.2") == "reset"
        is_served(kept)
        served(stack, proxy.port)
        # A bad line: the old list stays, at once by SIGHUP and after a while without.
        write("127.0.0.3\nexample.com\n")
        seen = len(proxy.messages)
        proxy.process.send_signal(signal.SIGHUP)
        line = proxy.wait_for_message("the old settings stay in force", seen)
        assert "banned.txt:2: " in line and "example.com" in line, line
        assert end_of_new(proxy.port, source="127.0.0.2") == "reset"
        served(stack, proxy.port, "127.0.0.3")
        write("127.0.0.3\n")
        seen = len(proxy.messages)
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message("SIGHUP: read again", seen)
        served(stack, proxy.port, "127.0.0.2")
        assert end_of_new(proxy.port, source="127.0.0.3") == "reset"


def test_sighup_changes_rates(start: Start, echo: Echo, tmp_path: FilePath) -> None:
    file = tmp_path / "proxy.toml"

    def write(burst: int, size: int = 65536) -> None:
        file.write_text(
            f'connection-rate-per-source = "{NEVER.format(burst)}"\nsource-table-size = {size}\n'
            f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\nto = "{echo.to}"\n'
        )

    def reload(said: str) -> str:
        seen = len(proxy.messages)
        proxy.process.send_signal(signal.SIGHUP)
        return proxy.wait_for_message(said, seen)

    write(1)
    proxy = start("--config", file)
    with contextlib.ExitStack() as stack:
        served(stack, proxy.port)
        assert end_of_new(proxy.port) == "reset"
        reload("read again")
        assert end_of_new(proxy.port) == "reset"  # nothing has changed
        write(2)
        reload("read again")
        for _ in range(2):
            served(stack, proxy.port)
        assert end_of_new(proxy.port) == "reset"
        write(2, 128)
        assert "source-table-size has changed, which needs a restart" in reload("stay in force")


def test_sighup_changes_the_turn_of_who_waits(start: Start, echo: Echo, tmp_path: FilePath) -> None:
    file = tmp_path / "proxy.toml"
    listening = f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\nto = "{echo.to}"\n'
    file.write_text(f'connection-rate = "{NEVER.format(1)}"\n{listening}')
    proxy = start("--config", file)
    with contextlib.ExitStack() as stack:
        served(stack, proxy.port)
        others = [stack.enter_context(connect(proxy.port)) for _ in range(3)]
        proxy.wait_for_message("connections wait")
        file.write_text(listening)
        proxy.process.send_signal(signal.SIGHUP)
        for other in others:
            is_served(other)


def test_sighup_changes_the_turn_of_a_handshake(start: Start, echo: Echo, identity: Identity, tmp_path: FilePath) -> None:
    context = identity.client_context()
    file = tmp_path / "proxy.toml"
    pair = f'cert = "{identity.cert}"\nkey = "{identity.key}"'
    listening = f'[[listener]]\nlisten = "tls://127.0.0.1:0"\nto = "{echo.to}"\n{pair}\n'
    file.write_text(f'handshake-timeout = 0\nhandshake-rate = "{NEVER.format(1)}"\n{listening}')
    proxy = start("--config", file)
    with contextlib.ExitStack() as stack:
        served(stack, proxy.port, context=context)
        others = [stack.enter_context(connect(proxy.port)) for _ in range(3)]
        for other in others:
            other.sendall(client_hello(context))
            operations.wait_until_taken(other)
        file.write_text(f"handshake-timeout = 0\n{listening}")
        proxy.process.send_signal(signal.SIGHUP)
        for other in others:
            assert receive_exactly(other, 1) == b"\x16", "no handshake goes on"


def test_a_place_of_who_waits_while_headers_become_expected_is_given_back(start: Start, echo: Echo, tmp_path: FilePath) -> None:
    """Who is counted by where he comes from is not counted by that when a header names the client."""
    file = tmp_path / "proxy.toml"

    def write(rate: str, *more: str) -> None:
        top = ("max-connections-per-source = 1", f'connection-rate = "{rate}"')
        file.write_text("\n".join((*top, "[[listener]]", 'listen = "tcp://127.0.0.1:0"', f'to = "{echo.to}"', *more, "")))

    def reload() -> None:
        seen = len(proxy.messages)
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message("SIGHUP: read again", seen)

    write(NEVER.format(1))
    proxy = start("--config", file)
    with contextlib.ExitStack() as stack:
        served(stack, proxy.port)
        waiting = stack.enter_context(connect(proxy.port, source="127.0.0.2"))
        proxy.wait_for_message("connections wait")
        write("0", "proxy-protocol-in = true", 'trusted-proxy = "127.0.0.0/8"')
        reload()
        waiting.sendall(encode_v1(("127.0.0.3", 5), ("127.0.0.1", 6)))
        is_served(waiting)
        write("0")
        reload()
        served(stack, proxy.port, "127.0.0.2")


# Connections that stay


def test_a_half_closed_connection_is_ended(identity: Identity) -> None:
    for front, back in (("tls", "tcp"), ("tcp", "tls")):
        with path(front, back, identity, "--half-closed-timeout", 0.2) as way:
            with way.connected() as (client, server):
                end_output(client)
                assert receive_all(server) == b""
                assert way.record()["reason"] == "half_closed_timeout"
                assert end_of(client) in ("reset", "UNEXPECTED_EOF_WHILE_READING", "clean")
            with way.connected() as (client, server):  # the other way
                end_output(server)
                assert receive_all(client) == b""
                assert way.record()["reason"] == "half_closed_timeout"
            with way.connected() as (client, server):  # one that is not half-closed stays
                server.sendall(b"x")
                assert receive_exactly(client, 1) == b"x"


@in_full
def test_a_half_closed_connection_that_moves_is_not_ended(identity: Identity) -> None:
    with path("tcp", "tcp", identity, "--half-closed-timeout", 2) as way, way.connected() as (client, server):
        end_output(client)
        assert receive_all(server) == b""
        pause = threading.Event()
        for _ in range(9):
            pause.wait(0.25)
            server.sendall(b"x")
            assert receive_exactly(client, 1) == b"x"
        server.close()
        assert receive_all(client) == b""
        assert way.record()["reason"] == "ended"


def test_a_connection_has_its_time(identity: Identity) -> None:
    with path("tls", "tcp", identity, "--connection-lifetime", 0.3) as way:
        with way.connected() as (client, server):
            with contextlib.suppress(OSError):
                client.sendall(b"x")
                while server.recv(1):
                    client.sendall(b"x")
            assert way.record()["reason"] == "lifetime"
        with connect(way.proxy.port) as silent:  # one that says nothing, too
            assert end_of(silent) == "reset"
        assert way.proxy.record()["reason"] == "lifetime"


def test_sighup_changes_the_time_of_new_connections_alone(start: Start, echo: Echo, tmp_path: FilePath) -> None:
    file = tmp_path / "proxy.toml"

    def write(seconds: float) -> None:
        listening = f'[[listener]]\nlisten = "tcp://127.0.0.1:0"\nto = "{echo.to}"\n'
        file.write_text(f"connection-lifetime = {seconds}\n{listening}")

    def reload() -> None:
        seen = len(proxy.messages)
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_for_message("SIGHUP: read again", seen)

    write(0)
    proxy = start("--config", file)
    with contextlib.ExitStack() as stack:
        without = served(stack, proxy.port)
        write(3600)
        reload()
        older = [served(stack, proxy.port) for _ in range(3)]
        older.pop(1).close()
        write(0.3)
        reload()
        newer = [stack.enter_context(connect(proxy.port)) for _ in range(5)]
        newer.pop(2).close()
        for sock in newer:
            assert end_of(sock) == "reset"
        for sock in (without, *older):
            is_served(sock)
