"""GnuTLS as the peer: gnutls-serv and gnutls-cli."""

from __future__ import annotations

import sys
from typing import Any, Callable

import pytest

from sslsock import SocketError, SslProtocol

from .ours import (
    PAYLOAD,
    OurServer,
    client_configuration,
    connected,
    dial,
    echo,
    ended,
    exchange,
    server_configuration,
)
from .pki import NAME, Identity, Pki
from .programs import Program, free_port, program
from .starttls import ImapServer, PopServer, SmtpServer

PRIORITIES = {"TLS_1_2": "NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLS_1_3": "NORMAL:-VERS-ALL:+VERS-TLS1.3"}
PRIORITIES["legacy"] = PRIORITIES["TLS_1_2"] + ":%DISABLE_SAFE_RENEGOTIATION"  # as before RFC 5746


def gnutls_serv(
    host: Any, start: Callable[..., Program], pki: Pki, version: str, *arguments: str, identity: Identity
) -> tuple[Program, int]:
    certificate, key = pki.files(identity)
    for _ in range(3):  # somebody else may have taken the port
        port = free_port()
        server = start(
            *(program("gnutls-serv", "gnutls-bin"), "-p", port, "--priority", PRIORITIES[version]),
            *("--x509certfile", certificate, "--x509keyfile", key, *arguments),
        )
        host.wait_for(lambda server=server: server.ended or server.said(r"IPv4 \S+ port \d+\.\.\.done"), "gnutls-serv")
        if not server.ended:
            return server, port
    raise AssertionError(server.text)


def gnutls_cli(start: Callable[..., Program], pki: Pki, version: str, port: int, *arguments: str) -> Program:
    return start(
        *(program("gnutls-cli", "gnutls-bin"), "--priority", PRIORITIES[version], "--x509cafile", pki.root_file),
        *("--verify-hostname", NAME, "--sni-hostname", NAME, "-p", port, *arguments, "127.0.0.1"),
    )


def wait_for_end(host: Any, running: Program) -> None:
    host.wait_for(lambda: running.ended, "the program's end")


# We are the client


def test_a_client_of_gnutls_serv(own_host, start, pki, version, algorithm):
    identity = pki.servers[algorithm]
    server, port = gnutls_serv(own_host, start, pki, version, "--echo", identity=identity)
    client = connected(own_host, port, client_configuration(pki))
    assert client.socket.session_protocol is SslProtocol[version]
    assert client.socket.peer_certificate_chain == [identity.ours, pki.middle.ours]
    exchange(own_host, client, b"question\n")
    client.socket.disconnect()
    ended(own_host, client)
    server.ask_to_end()
    wait_for_end(own_host, server)


def test_a_client_of_a_server_without_secure_renegotiation(own_host, start, pki):
    """Only where the program has said so, for that configuration."""
    _, port = gnutls_serv(own_host, start, pki, "legacy", "--echo", identity=pki.server)
    lenient = client_configuration(pki)
    lenient.legacy_server_connect = True
    for configuration in (client_configuration(pki), lenient, client_configuration(pki)):
        client = dial(port, configuration)
        own_host.wait_for(lambda client=client: client.has("encrypted") or client.has("error"), client.events)
        if configuration is lenient:
            exchange(own_host, client, b"question\n")
            client.socket.disconnect()
            ended(own_host, client)
        else:
            assert client.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
            assert "unsafe legacy renegotiation disabled" in client.socket.error_string


LENIENT = """openssl_conf = a
[a]
ssl_conf = b
[b]
system_default = c
[c]
Options = UnsafeLegacyServerConnect
"""

CLIENT = """
import sys, sslsock
client = sslsock.SslSocket()
client.peer_verify_name = sys.argv[2]
client.configuration.use_system_ca = False
client.configuration.add_ca_file(sys.argv[3])
client.configuration.legacy_server_connect = sys.argv[4] == "lenient"
def told(word):
    print(word, flush=True)
    sslsock.stop()
client.encrypted_handler = lambda s: told("encrypted")
client.error_handler = lambda s, error: told(s.error_string)
client.connect_encrypted("127.0.0.1", int(sys.argv[1]))
sslsock.run()
"""


def test_connect_to_a_server_without_secure_renegotiation(own_host, start, pki):
    _, port = gnutls_serv(own_host, start, pki, "legacy", "--echo", identity=pki.server)
    common = [sys.executable, "-m", "sslsock", "connect", f"127.0.0.1:{port}", "--server-name", NAME, "--ca", pki.root_file]
    for options, words in (((), "unsafe legacy renegotiation disabled"), (("--legacy-server",), "Protocol      TLS 1.2")):
        client = start(*common, *options)
        own_host.wait_for(lambda client=client, words=words: client.said(words), lambda client=client: client.text)
        client.cut()


@pytest.mark.parametrize("words", ["lenient", "strict"])
def test_the_system_does_not_let_such_servers_in(own_host, start, pki, tmp_path, words):
    _, port = gnutls_serv(own_host, start, pki, "legacy", "--echo", identity=pki.server)
    (tmp_path / "openssl.cnf").write_text(LENIENT)
    setting = f"OPENSSL_CONF={tmp_path / 'openssl.cnf'}"
    client = start("env", setting, sys.executable, "-c", CLIENT, str(port), NAME, pki.root_file, words)
    own_host.wait_for(lambda: client.ended, "its end")
    assert client.said("encrypted" if words == "lenient" else "unsafe legacy renegotiation disabled"), client.text


def test_a_client_moves_data_both_ways(host, start, pki, version):
    """gnutls-serv keeps one answer at a time, so the next question waits for it."""
    _, port = gnutls_serv(host, start, pki, version, "--echo", "-q", identity=pki.server)
    client = connected(host, port, client_configuration(pki))
    line = PAYLOAD[:8000].replace(b"\n", b".").replace(b"\0", b".") + b"\n"
    for _ in range(40):
        exchange(host, client, line)
    client.socket.disconnect()
    ended(host, client)


def test_a_client_and_the_goodbye_of_gnutls_serv(host, start, pki, version):
    _, port = gnutls_serv(host, start, pki, version, "--http", identity=pki.server)
    client = dial(port, client_configuration(pki))
    client.socket.write(b"GET / HTTP/1.0\r\n\r\n")
    ended(host, client)
    assert client.data.startswith(b"HTTP/1.0 200 OK")
    assert client.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert client.socket.clean_close


def test_a_client_and_a_sudden_end_of_gnutls_serv(host, start, pki, version):
    server, port = gnutls_serv(host, start, pki, version, "--echo", identity=pki.server)
    client = connected(host, port, client_configuration(pki))
    exchange(host, client, b"word\n")
    server.cut()
    ended(host, client)
    assert client.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert not client.socket.clean_close


def test_a_client_agrees_on_a_protocol(host, start, pki, version):
    _, port = gnutls_serv(host, start, pki, version, "--echo", "--alpn", "two", identity=pki.server)
    configuration = client_configuration(pki)
    configuration.allowed_next_protocols = ["one", "two"]
    client = connected(host, port, configuration)
    assert client.socket.next_negotiated_protocol == "two"
    client.socket.abort()


def test_a_client_shows_its_certificate(own_host, start, pki, version, algorithm):
    server, port = gnutls_serv(
        *(own_host, start, pki, version, "--echo", "--require-client-cert", "--verify-client-cert"),
        *("--x509cafile", pki.root_file),
        identity=pki.server,
    )
    client = connected(own_host, port, client_configuration(pki, identity=pki.clients[algorithm]))
    exchange(own_host, client, b"here I am\n")
    own_host.wait_for(lambda: server.said(f"CN=client {algorithm}"), "its word about the certificate")
    client.socket.abort()
    refused = dial(port, client_configuration(pki))
    ended(own_host, refused)
    expected = SocketError.SSL_INTERNAL_ERROR if version == "TLS_1_3" else SocketError.SSL_HANDSHAKE_FAILED_ERROR
    assert refused.of("error") == [expected], refused.socket.error_string
    assert "the peer sent the alert" in refused.socket.error_string


# We are the server


def test_a_server_of_gnutls_cli(own_host, start, pki, version, algorithm):
    server = OurServer(server_configuration(pki, identity=pki.servers[algorithm]), echo)
    client = gnutls_cli(start, pki, version, server.port)
    client.write(b"question\n")
    own_host.wait_for(lambda: b"question" in client.out, "the echo")
    taken = server.last(own_host)
    assert taken.socket.session_protocol is SslProtocol[version]
    assert taken.socket.requested_server_name == NAME
    client.close_input()
    ended(own_host, taken)
    wait_for_end(own_host, client)
    assert client.status == 0
    assert client.said("The certificate is trusted"), client.text
    assert taken.socket.clean_close
    server.close()


def test_a_server_moves_much_data_both_ways(host, start, pki, version):
    data = PAYLOAD[: 1 << 20]  # gnutls-cli takes a second for each MiB
    server = OurServer(server_configuration(pki), echo)
    client = gnutls_cli(start, pki, version, server.port, "--logfile", "/dev/null")
    client.write(data)
    host.wait_for(lambda: len(client.out) >= len(data) or client.ended, "the echo", 30)
    assert client.out == data
    client.close_input()
    ended(host, server.last(host))
    assert server.last(host).socket.clean_close
    server.close()


def test_a_server_says_goodbye(host, start, pki, version):
    def serve(recorder):
        recorder.socket.write(b"that was all\n")
        recorder.socket.disconnect()

    server = OurServer(server_configuration(pki), serve)
    client = gnutls_cli(start, pki, version, server.port)
    wait_for_end(host, client)
    assert client.said("that was all")
    assert client.said("Peer has closed the GnuTLS connection"), client.text
    assert client.status == 0
    server.close()


def test_a_server_that_aborts_is_seen_to_cut(host, start, pki, version):
    server = OurServer(server_configuration(pki), echo)
    client = gnutls_cli(start, pki, version, server.port)
    client.write(b"word\n")
    host.wait_for(lambda: b"word" in client.out, "the echo")
    server.last(host).socket.abort()
    wait_for_end(host, client)
    assert client.said("non-properly terminated|Error in the pull function|Connection reset"), client.text
    assert client.status != 0
    server.close()


def test_a_server_notices_a_sudden_end_of_gnutls_cli(host, start, pki, version):
    server = OurServer(server_configuration(pki), echo)
    client = gnutls_cli(start, pki, version, server.port)
    client.write(b"word\n")
    host.wait_for(lambda: b"word" in client.out, "the echo")
    client.cut()
    taken = server.last(host)
    ended(host, taken)
    assert taken.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert not taken.socket.clean_close
    server.close()


def test_a_server_agrees_on_a_protocol_or_refuses(host, start, pki, version):
    configuration = server_configuration(pki)
    configuration.allowed_next_protocols = ["two", "one"]
    server = OurServer(configuration, echo)
    client = gnutls_cli(start, pki, version, server.port, "--alpn", "one", "--alpn", "two")
    host.wait_for(lambda: client.said("Handshake was completed"), "the handshake")
    assert server.last(host).socket.next_negotiated_protocol == "two"
    other = gnutls_cli(start, pki, version, server.port, "--alpn", "three")
    wait_for_end(host, other)
    assert other.said("No supported application protocol"), other.text
    server.close()


def test_a_server_sees_the_certificate_of_gnutls_cli(own_host, start, pki, version, algorithm):
    configuration = server_configuration(pki)
    configuration.peer_verify_mode = configuration.VERIFY_PEER
    server = OurServer(configuration, echo)
    certificate, key = pki.files(pki.clients[algorithm])
    client = gnutls_cli(start, pki, version, server.port, "--x509certfile", certificate, "--x509keyfile", key)
    client.write(b"word\n")
    own_host.wait_for(lambda: b"word" in client.out or client.ended, "the echo")
    taken = server.last(own_host)
    assert taken.socket.peer_certificate_chain == [pki.clients[algorithm].ours, pki.middle.ours]
    client.close_input()
    ended(own_host, taken)
    server.close()


def test_a_server_is_told_why_gnutls_cli_does_not_like_it(host, start, pki, version):
    server = OurServer(server_configuration(pki, identity=pki.servers["ecdsa"]))
    client = start(
        *(program("gnutls-cli", "gnutls-bin"), "--priority", PRIORITIES[version], "--x509cafile", pki.root_file),
        *("--verify-hostname", "other.example.test", "-p", server.port, "127.0.0.1"),
    )
    wait_for_end(host, client)
    assert client.said("does not match"), client.text
    taken = server.last(host)
    ended(host, taken)
    assert taken.has("error")
    server.close()


@pytest.mark.parametrize(
    ("name", "kind", "question", "answer"),
    [
        ("smtp", SmtpServer, b"NOOP\n", b"250 ok"),
        ("imap", ImapServer, b"a NOOP\n", b"a OK"),
        ("pop3", PopServer, b"NOOP\n", b"+OK"),
    ],
)
def test_gnutls_cli_starts_tls_with_our_server(host, start, pki, version, name, kind, question, answer):
    server = kind(server_configuration(pki))
    client = gnutls_cli(start, pki, version, server.port, "--starttls-proto", name, "--crlf")
    host.wait_for(lambda: client.said("Handshake was completed") or client.ended, "the handshake")
    before = client.out.count(answer)
    client.write(question)
    host.wait_for(lambda: client.out.count(answer) > before or client.ended, "the answer")
    taken = server.last(host)
    assert taken.socket.encrypted, client.text
    assert taken.socket.session_protocol is SslProtocol[version]
    client.close_input()
    ended(host, taken)
    server.close()
