"""What happens to a connection has one name in the log and the metrics, however the proxy is set up: one certificate or
several, routes, a PROXY header in front.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, Callable, NamedTuple, Optional

import pytest

from command_helpers import Identity
from core.hellos import made_by_ssl, renamed
from self_signed import RSA_KEY, Folder
from sslsock.proxy_protocol import encode_v1

from .operations import wait_until_taken
from .running import LOG, TIMEOUT, Proxy, accept, connect, listener, receive_all, receive_exactly, running

RESET = struct.pack("ii", 1, 0)  # SO_LINGER
NAME = "app.example.test"
HEADER = encode_v1(("192.0.2.1", 1), ("192.0.2.2", 443))


class Setting(NamedTuple):
    """A proxy, its back end, and what a client sends before anything else."""

    proxy: Proxy
    back: socket.socket
    before: bytes

    def connect(self) -> socket.socket:
        client = connect(self.proxy.port)
        client.sendall(self.before)
        return client

    def handshakes(self) -> dict[str, int]:
        """How many there were so far, by result."""
        found: dict[str, int] = {}
        for line in self.proxy.metrics():
            if line.startswith("sslsock_proxy_handshakes_total{"):
                result = line.partition('result="')[2].partition('"')[0]
                found[result] = found.get(result, 0) + int(float(line.split()[-1]))
        return found


SETTINGS = ["one certificate", "two certificates", "a route", "a passthrough beside", "behind a PROXY header"]


@pytest.fixture(scope="module", params=SETTINGS)
def setting(request: pytest.FixtureRequest, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("setting")
    certificates, keys = [str(identity.cert)], [str(identity.key)]
    if request.param == "two certificates":
        other = Folder(folder).pair("other.example", key=RSA_KEY)
        certificates.append(other.certificate)
        keys.append(other.key)
    with listener() as back:
        to = f'to = "tcp://127.0.0.1:{back.getsockname()[1]}"\n'
        text = f'[[listener]]\nlisten = "tls://127.0.0.1:0"\ncert = {certificates}\nkey = {keys}\n{to}'
        before = b""
        if request.param == "a route":
            text += f'[[listener.route]]\nserver-names = "routed.example"\n{to}'
        elif request.param == "a passthrough beside":
            text += f'[[listener.route]]\nserver-names = "passed.example"\npassthrough = true\n{to}'
        elif request.param == "behind a PROXY header":
            text += 'proxy-protocol-in = true\ntrusted-proxy = "127.0.0.1"\n'
            before = HEADER
        file = folder / "proxy.toml"
        file.write_text(text)
        with running("--config", file, "--metrics", "127.0.0.1:0") as proxy:
            yield Setting(proxy, back, before)


# What a client may do. Each leaves when the proxy has ended the connection, or ends it itself.


def close_at_once(client: socket.socket) -> None:
    client.close()


def reset_at_once(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def half_a_hello(client: socket.socket) -> None:
    client.sendall(made_by_ssl(NAME)[:50])
    client.shutdown(socket.SHUT_WR)
    assert receive_all(client) == b""


def a_hello_and_nothing_more(client: socket.socket) -> None:
    client.sendall(made_by_ssl(NAME))
    client.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionError):
        receive_all(client)


def a_hello_and_close_notify(client: socket.socket) -> None:
    """As a program does whose user has given up (RFC 8446, 6.1), and it leaves the connection to the proxy."""
    client.sendall(made_by_ssl(NAME))
    assert receive_exactly(client, 6)[::5] == b"\x16\2"  # a ServerHello
    client.sendall(b"\x15\3\3\0\2\1\x5a\x15\3\3\0\2\1\0")  # user_canceled, close_notify
    receive_all(client)


def half_a_hello_and_a_reset(client: socket.socket) -> None:
    client.sendall(made_by_ssl(NAME)[:50])
    wait_until_taken(client)
    reset_at_once(client)


def a_hello_and_a_reset(client: socket.socket) -> None:
    client.sendall(made_by_ssl(NAME))
    assert receive_exactly(client, 6)[::5] == b"\x16\2"  # a ServerHello
    reset_at_once(client)


def plain_http(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert receive_all(client) == b""


def an_old_protocol(client: socket.socket) -> None:
    hello = made_by_ssl(NAME, (), ssl.TLSVersion.TLSv1_2)
    client.sendall(hello[:9] + b"\3\1" + hello[11:])  # legacy_version: TLS 1.0, and no list of versions
    assert alert_of(client) == 70  # protocol_version


def no_common_cipher(client: socket.socket) -> None:
    hello = made_by_ssl(NAME, (), ssl.TLSVersion.TLSv1_2)
    place = 43 + 1 + hello[43]  # behind the session id
    size = int.from_bytes(hello[place : place + 2], "big")
    client.sendall(hello[: place + 2] + b"\0\x2f" * (size // 2) + hello[place + 2 + size :])
    assert alert_of(client) == 40  # handshake_failure


def a_name_with_a_nul(client: socket.socket) -> None:
    client.sendall(renamed(b"a\0b"))
    assert alert_of(client) == 112  # unrecognized_name


def an_authority_that_it_does_not_know(client: socket.socket) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(client, server_hostname=NAME)


def alert_of(client: socket.socket) -> int:
    answer = receive_exactly(client, 7)
    assert answer[:1] == b"\x15" and answer[5] == 2, answer
    return answer[6]


class Event(NamedTuple):
    does: Callable[[socket.socket], None]
    reason: str
    result: Optional[str]
    error: str = ""
    sni: Optional[str] = None
    version: Optional[str] = None


EVENTS = [
    Event(close_at_once, "probe", None, "said nothing"),
    Event(reset_at_once, "probe", None, "said nothing"),
    Event(half_a_hello, "handshake_failed", "failed", "within the ClientHello"),
    Event(half_a_hello_and_a_reset, "client_reset", "failed", "Connection reset by peer"),
    Event(a_hello_and_nothing_more, "handshake_failed", "failed", "closed the connection during", NAME, "TLSv1.3"),
    Event(a_hello_and_close_notify, "handshake_failed", "failed", "closed the connection during", NAME, "TLSv1.3"),
    Event(a_hello_and_a_reset, "client_reset", "failed", "Connection reset by peer", NAME),
    Event(plain_http, "handshake_failed", "failed", "does not speak TLS (http request)"),
    Event(an_old_protocol, "handshake_failed", "failed", "unsupported protocol", NAME),
    Event(no_common_cipher, "handshake_failed", "failed", "no shared cipher", NAME),
    Event(a_name_with_a_nul, "handshake_failed", "failed", "server name"),
    Event(an_authority_that_it_does_not_know, "handshake_failed", "failed", 'alert "unknown CA"', NAME, "TLSv1.3"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.does.__name__)
def test_an_event_has_one_name(setting: Setting, event: Event) -> None:
    before = setting.handshakes()
    with setting.connect() as client:
        event.does(client)
    record = setting.proxy.record()
    assert record["reason"] == event.reason, record
    assert event.error in record["error"], record
    assert (record["sni"], record["version"], record["alpn"], record["backend"]) == (event.sni, event.version, None, None)
    expected = dict(before)
    if event.result is not None:
        expected[event.result] = expected.get(event.result, 0) + 1
    assert setting.handshakes() == expected


NO_HOST_NAMES = {
    "UTF-8": ("münchen.test".encode(), "münchen.test"),
    "no UTF-8": (b"m\xfcnchen.test", "m\\xfcnchen.test"),
    "a blank": (b"a b", "a b"),
    "a line feed": (b"a\nb", "a\nb"),
    "an address": (b"192.0.2.1", "192.0.2.1"),
    "an underscore": (b"_a.example", "_a.example"),
    "nothing": (b"", None),
    "the Kelvin sign": ("\u212aelvin.example".encode(), "\u212aelvin.example"),
}


@pytest.mark.parametrize("case", NO_HOST_NAMES)
def test_a_name_that_is_no_host_name_is_served_by_default(setting: Setting, case: str) -> None:
    name, logged = NO_HOST_NAMES[case]
    with setting.connect() as client:
        client.sendall(renamed(name))
        assert receive_exactly(client, 6)[::5] == b"\x16\2"  # a ServerHello
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert setting.proxy.record()["sni"] == logged


@pytest.mark.parametrize("setting", SETTINGS[:-1], indirect=True)  # it sends no PROXY header
@pytest.mark.parametrize("name", ["münchen.test", "a b", "192.0.2.1"])
def test_openssl_gets_through_with_such_a_name(setting: Setting, name: str) -> None:
    """To the end, with a client whose own idea of the name it is."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("the program openssl is not here")
    arguments = [program, "s_client", "-connect", f"127.0.0.1:{setting.proxy.port}", "-servername", name, "-quiet"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdin is not None and client.stdout is not None
        with accept(setting.back) as server:
            client.stdin.write(b"question\n")
            client.stdin.flush()
            assert receive_exactly(server, 9) == b"question\n"
            server.sendall(b"answer")
            assert client.stdout.read(6) == b"answer"
        client.stdin.close()
        client.wait(TIMEOUT)
    record = setting.proxy.record()
    assert (record["sni"], record["backend"] is not None) == (name, True)


# Probes


def test_probes_are_logged_only_when_asked(identity: Identity) -> None:
    with listener() as back:
        options = ("--listen", "tls://127.0.0.1:0", "--to", f"tcp://127.0.0.1:{back.getsockname()[1]}", "--cert", identity.both)
        with running(*options, log=LOG[:2]) as proxy:
            for leave in (close_at_once, reset_at_once):
                with connect(proxy.port) as client:
                    leave(client)
            with connect(proxy.port) as client:
                plain_http(client)
            assert proxy.record()["reason"] == "handshake_failed", "something came before it"
        assert not [line for line in proxy.messages if "said nothing" in line]


@pytest.mark.parametrize("leave", ["closes", "resets"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_health_check_of_a_proxy_in_front_is_a_probe(identity: Identity, pieces: int, leave: str) -> None:
    """HAProxy's `check send-proxy`: a header, and no word of its own."""
    with (
        listener() as back,
        running(
            *("--listen", "tls://127.0.0.1:0", "--to", f"tcp://127.0.0.1:{back.getsockname()[1]}", "--cert", identity.both),
            *("--proxy-protocol-in", "--trusted-proxy", "127.0.0.1"),
        ) as proxy,
    ):
        with connect(proxy.port) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in (HEADER,) if pieces == 1 else (HEADER[:10], HEADER[10:]):
                client.sendall(piece)
                wait_until_taken(client)
            if leave == "resets":
                reset_at_once(client)
            else:
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b""
        record = proxy.record()
        assert (record["reason"], record["peer"]) == ("probe", "192.0.2.1:1")


# Certificates of clients


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("several", [False, True], ids=["one certificate", "two certificates"])
@pytest.mark.parametrize("shown", ["none", "of another authority", "not on the list"])
def test_a_client_that_is_refused(
    identity: Identity, tmp_path: FilePath, version: ssl.TLSVersion, several: bool, shown: str
) -> None:
    folder = Folder(tmp_path)
    names = [f"DNS:host-{number}.clients.example" for number in range(20)]
    names += ["URI:spiffe://example.org/ns/prod/sa/web", "IP:192.0.2.7"]
    context = identity.client_context()
    context.minimum_version = context.maximum_version = version
    if shown == "of another authority":
        stranger = folder.pair(*[name.removeprefix("DNS:") for name in names], cn=["stranger"])
        context.load_cert_chain(stranger.certificate, stranger.key)
    elif shown == "not on the list":
        issued = identity.authority.issue_cert(*[f"host-{number}.clients.example" for number in range(20)], common_name="known")
        issued.configure_cert(context)
    options: list[Any] = ["--cert", identity.both, "--client-ca", identity.ca, "--allow-name", "allowed.example"]
    if several:
        other = folder.pair("other.example", key=RSA_KEY)
        options += ["--cert", other.certificate, "--key", other.key]
    with (
        listener() as back,
        running(
            *("--listen", "tls://127.0.0.1:0", "--to", f"tcp://127.0.0.1:{back.getsockname()[1]}", *options),
            *("--metrics", "127.0.0.1:0"),
        ) as proxy,
    ):
        with contextlib.suppress(ssl.SSLError, ConnectionError), connect(proxy.port, context) as client:
            client.recv(1)
        record = proxy.record()
        assert record["reason"] == "client_certificate_refused", record
        assert record["sni"] == "localhost"
        assert Setting(proxy, back, b"").handshakes() == {"refused": 1}
        if shown == "none":
            assert "did not return a certificate" in record["error"]
        elif shown == "of another authority":
            assert "self-signed" in record["error"] or "self signed" in record["error"]
            assert all(name in record["error"] for name in ["CN:stranger", *names]), record["error"]
        else:
            assert all(name in record["error"] for name in ["CN:known", *names[:20]]), record["error"]
