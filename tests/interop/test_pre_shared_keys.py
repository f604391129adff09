"""Pre-shared keys with `openssl s_server` and `openssl s_client`."""

from __future__ import annotations

from typing import Any

import pytest

from peers import Recorder
from sslsock import SocketError, SslConfiguration, SslServer, SslSocket

from .ours import OurServer, echo, ended, exchange, limited, server_configuration
from .pki import NAME
from .programs import program

KEY = bytes(range(1, 33))
OPTIONS = {"TLS_1_2": "-tls1_2", "TLS_1_3": "-tls1_3"}


def s_server(host: Any, start: Any, version: str, *arguments: Any) -> int:
    """The port of an s_server that has no certificate."""
    server = start(
        *(program("openssl", "openssl"), "s_server", "-accept", "127.0.0.1:0", "-nocert", "-rev", OPTIONS[version]),
        *("-psk", KEY.hex(), "-psk_identity", "device 7", *arguments),
    )
    host.wait_for(lambda: server.said(r"ACCEPT \S+:\d+") or server.ended, "s_server to listen")
    match = server.said(r"ACCEPT \S+:(\d+)")
    assert match, server.text
    return int(match[1])


def dial(port: int, version: str, key: bytes, asked: list[str], ciphers: str = "") -> Recorder:
    def give(sock: Any, authenticator: Any) -> None:
        asked.append(authenticator.identity_hint)
        authenticator.identity = "device 7"
        authenticator.pre_shared_key = key

    sock = SslSocket()
    sock.configuration = limited(SslConfiguration(), version)
    sock.configuration.ciphers = ciphers
    sock.peer_verify_name = NAME
    sock.pre_shared_key_handler = give
    recorder = Recorder(sock)
    sock.connect_encrypted("127.0.0.1", port)
    return recorder


@pytest.mark.parametrize("ciphers", ["", "PSK-AES128-GCM-SHA256", "DHE-PSK-AES256-GCM-SHA384"])
def test_a_client_of_s_server(host, start, version, ciphers):
    if ciphers and version == "TLS_1_3":
        ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256"  # which do not matter there
    port = s_server(host, start, version, "-psk_hint", "which device?")
    hints: list[str] = []
    client = dial(port, version, KEY, hints, ciphers)
    host.wait_for(lambda: client.has("encrypted") or client.has("error"), client.events)
    assert client.socket.encrypted, client.socket.error_string
    assert client.socket.pre_shared_key_used
    assert not client.socket.session_reused
    assert hints == ["which device?" if version == "TLS_1_2" else ""]
    exchange(host, client, b"question\n", b"noitseuq\n")
    client.socket.disconnect()
    ended(host, client)


def test_s_server_refuses_another_key(host, start, version):
    client = dial(s_server(host, start, version), version, KEY[::-1], [])
    ended(host, client)
    assert client.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    assert not client.socket.pre_shared_key_used


def s_client(start: Any, port: int, version: str, *arguments: Any) -> Any:
    return start(
        *(program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME),
        *(OPTIONS[version], *arguments),
    )


def key_server(configuration: SslConfiguration, identities: list[str], ciphers: str = "") -> OurServer:
    def give(sock: Any, authenticator: Any) -> None:
        identities.append(authenticator.identity)
        if authenticator.identity == "device 7":
            authenticator.pre_shared_key = KEY

    def prepare(server: SslServer) -> None:
        server.pre_shared_key_handler = give

    configuration.ciphers = ciphers
    return OurServer(configuration, echo, prepare=prepare)


@pytest.mark.parametrize("ciphers", ["", "PSK-AES128-GCM-SHA256"])
def test_a_server_of_s_client(host, start, version, ciphers):
    identities: list[str] = []
    configuration = SslConfiguration()
    configuration.pre_shared_key_identity_hint = "which device?"
    server = key_server(configuration, identities, ciphers)
    client = s_client(start, server.port, version, "-psk", KEY.hex(), "-psk_identity", "device 7")
    client.write(b"word\n")
    host.wait_for(lambda: b"word\n" in client.out or client.ended, "the echo")
    taken = server.last(host)
    assert taken.socket.encrypted, (taken.socket.error_string, client.text)
    assert taken.socket.pre_shared_key_used
    assert set(identities) == {"device 7"}
    if version == "TLS_1_2":
        assert client.said("PSK identity hint: which device")
    client.close_input()
    ended(host, taken)
    server.close()


@pytest.mark.parametrize("wrong", ["key", "identity"])
def test_s_client_with_a_wrong_one(host, start, version, wrong):
    server = key_server(SslConfiguration(), [])
    key, identity = (KEY[::-1], "device 7") if wrong == "key" else (KEY, "device 8")
    client = s_client(start, server.port, version, "-psk", key.hex(), "-psk_identity", identity)
    host.wait_for(lambda: client.ended, "its end")
    taken = server.last(host)
    assert taken.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    server.close()


def test_a_ticket_of_a_key_opens_nothing(own_host, start, pki, version, tmp_path):
    """A client that has kept its session, and comes back with it and without the key."""
    server = key_server(server_configuration(pki, version), [], "PSK-AES128-GCM-SHA256:ECDHE+AESGCM")
    file = tmp_path / "session.pem"
    for arguments in (("-psk", KEY.hex(), "-psk_identity", "device 7", "-sess_out", file), ("-sess_in", file)):
        if arguments[0] == "-sess_in" and not file.exists():
            assert version == "TLS_1_3"  # none was given
            break
        cipher = ("-cipher", "PSK-AES128-GCM-SHA256") if arguments[0] == "-psk" else ()
        client = s_client(start, server.port, version, *arguments, *cipher)
        client.write(b"word\n")
        own_host.wait_for(lambda client=client: b"word\n" in client.out or client.ended, "the echo")
        taken = server.last(own_host)
        assert taken.socket.pre_shared_key_used is (arguments[0] == "-psk")
        assert not taken.socket.session_reused
        client.close_input()
        ended(own_host, taken)
    server.close()
