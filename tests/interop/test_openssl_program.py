"""`openssl s_server` and `openssl s_client` as the peers."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from sslsock import SocketError, SocketState, SslProtocol

from .ours import (
    PAYLOAD,
    OurServer,
    client_configuration,
    connected,
    dial,
    echo,
    ended,
    exchange,
    limited,
    server_configuration,
)
from .pki import NAME, Identity, Pki, issue
from .programs import Program, free_port, program
from .starttls import ImapServer, LineServer, PopServer, SmtpServer

MUCH = PAYLOAD * (4_000_000 // len(PAYLOAD) + 1)
OPTIONS = {"TLS_1_2": "-tls1_2", "TLS_1_3": "-tls1_3"}


def s_server(host: Any, start: Callable[..., Program], pki: Pki, *arguments: str, identity: Identity) -> tuple[Any, int]:
    """A running s_server and its port."""
    certificate, key = pki.files(identity)
    server = start(
        *(program("openssl", "openssl"), "s_server", "-accept", "127.0.0.1:0"),
        *("-cert", certificate, "-cert_chain", pki.files(pki.middle)[0], "-key", key, *arguments),
    )
    host.wait_for(lambda: server.said(r"ACCEPT \S+:\d+") or server.ended, "s_server to listen")
    match = server.said(r"ACCEPT \S+:(\d+)")
    assert match, server.text
    return server, int(match[1])


def s_client(start: Callable[..., Program], pki: Pki, port: int, *arguments: str) -> Program:
    return start(
        *(program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{port}"),
        *("-servername", NAME, "-verify_hostname", NAME, "-CAfile", pki.root_file, "-verify_return_error", *arguments),
    )


def wait_for_end(host: Any, running: Program) -> None:
    host.wait_for(lambda: running.ended, "the program's end")


# We are the client


def test_a_client_of_s_server(own_host, start, pki, version, algorithm):
    identity = pki.servers[algorithm]
    server, port = s_server(own_host, start, pki, OPTIONS[version], "-rev", identity=identity)
    client = connected(own_host, port, client_configuration(pki))
    sock = client.socket
    assert sock.session_protocol is SslProtocol[version]
    assert sock.peer_certificate_chain == [identity.ours, pki.middle.ours]
    exchange(own_host, client, b"question\n", b"noitseuq\n")
    sock.disconnect()
    ended(own_host, client)
    own_host.wait_for(lambda: server.said("CONNECTION CLOSED"))
    assert server.said(rf"Protocol version: {version.replace('TLS_1_', 'TLSv1.')}"), server.text


def test_a_client_moves_much_data_both_ways(host, start, pki, version):
    """What s_server gets it writes to its standard output, and it sends what it reads from its standard input."""
    server, port = s_server_quiet(host, start, pki, version)
    client = connected(host, port, client_configuration(pki))
    client.socket.write(PAYLOAD)
    server.write(PAYLOAD)
    host.wait_for(lambda: len(server.out) >= len(PAYLOAD) and len(client.data) >= len(PAYLOAD), "all of it", 30)
    assert server.out == PAYLOAD
    assert client.data == PAYLOAD
    client.socket.disconnect()
    ended(host, client)


def s_server_quiet(host: Any, start: Callable[..., Program], pki: Pki, version: str) -> tuple[Program, int]:
    """An s_server whose standard streams carry nothing but data. It does not say its port then: one is found."""
    certificate, key = pki.files(pki.server)
    port = free_port()
    server = start(
        *(program("openssl", "openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", OPTIONS[version]),
        *("-cert", certificate, "-cert_chain", pki.files(pki.middle)[0], "-key", key),
    )
    host.wait_for(lambda: server.ended or listens(port), "s_server to listen")
    return server, port


def listens(port: int) -> bool:
    """Whether somebody listens on the port: looked up, for a connection would be served."""
    with open("/proc/net/tcp") as table:
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in table)


def test_a_client_and_the_goodbye_of_s_server(host, start, pki, version):
    """`-www` answers every question with a page about the connection, and ends."""
    _, port = s_server(host, start, pki, OPTIONS[version], "-www", identity=pki.server)
    client = dial(port, client_configuration(pki))
    client.socket.write(b"GET / HTTP/1.0\r\n\r\n")
    ended(host, client)
    assert client.data.startswith(b"HTTP/1.0 200 ok\r\n")
    assert client.data.rstrip().endswith(b"</HTML>") or b"</BODY>" in client.data.upper()
    assert client.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert client.socket.clean_close


def test_a_client_and_a_sudden_end_of_s_server(host, start, pki, version):
    server, port = s_server(host, start, pki, OPTIONS[version], identity=pki.server)
    client = connected(host, port, client_configuration(pki))
    server.write(b"that was not all\n")
    host.wait_for(lambda: client.data == b"that was not all\n", client.events)
    server.cut()
    ended(host, client)
    assert client.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert not client.socket.clean_close
    assert "without close_notify" in client.socket.error_string


def test_a_client_asks_for_a_name_and_a_protocol(host, start, pki, version):
    other = issue("localhost", "localhost", issuer=pki.root, algorithm="rsa")
    certificate, key = pki.files(other)
    server, port = s_server(
        *(host, start, pki, OPTIONS[version], "-alpn", "two,one"),
        *("-cert2", certificate, "-key2", key, "-servername", "localhost"),
        identity=pki.server,
    )
    configuration = client_configuration(pki)
    configuration.allowed_next_protocols = ["one", "three"]
    # The context for its second name has no protocols.
    for name, identity, protocol in ((NAME, pki.server, "one"), ("localhost", other, None)):
        client = connected(host, port, configuration, name)
        assert client.socket.next_negotiated_protocol == protocol
        assert client.socket.peer_certificate == identity.ours
        client.socket.disconnect()
        ended(host, client)
    host.wait_for(lambda: server.said(f'Hostname in TLS extension: "{NAME}"'), lambda: server.text)


def test_a_client_follows_key_updates(host, start, pki):
    """RFC 8446, 4.6.3: `K` sends one and asks for ours, `k` only sends one."""
    server, port = s_server(host, start, pki, "-tls1_3", identity=pki.server)
    client = connected(host, port, client_configuration(pki))
    for number, command in enumerate((b"k\n", b"K\n", b"K\n")):
        server.write(command)
        host.wait_for(lambda: server.input_taken, "its key update")
        line = b"line %d\n" % number
        exchange_line(host, client, server, line)
        server.write(b"answer to " + line)
        host.wait_for(lambda line=line: client.data.endswith(b"answer to " + line), client.events)
    assert server.out.count(b"SSL_do_handshake -> 1") == 3
    assert not client.has("error")
    client.socket.abort()


def test_a_client_refuses_to_renegotiate(host, start, pki):
    """RFC 9325, 3.5. s_server takes the refusal for the end."""
    server, port = s_server(host, start, pki, "-tls1_2", identity=pki.server)
    client = connected(host, port, client_configuration(pki))
    exchange_line(host, client, server, b"before\n")
    server.write(b"r\n")
    host.wait_for(lambda: server.said("no renegotiation") or client.has("error"), "the refusal")
    assert client.names().count("encrypted") == 1
    client.socket.abort()


def exchange_line(host: Any, recorder: Any, running: Program, line: bytes) -> None:
    recorder.socket.write(line)
    host.wait_for(lambda: line in running.out, "our line")


@pytest.mark.parametrize("group", ["X25519", "P-256", "P-384", "X448"])
def test_a_client_with_a_group_of_its_own_wish(own_host, start, pki, version, group):
    _, port = s_server(own_host, start, pki, OPTIONS[version], "-rev", identity=pki.servers["rsa"])
    configuration = client_configuration(pki)
    configuration.groups = group
    client = connected(own_host, port, configuration)
    assert client.socket.session_group.lower().replace("-", "") in (
        *(group.lower().replace("-", ""), {"P-256": "prime256v1", "P-384": "secp384r1"}.get(group)),
        {"P-256": "secp256r1"}.get(group),
    )
    exchange(own_host, client, b"abc\n", b"cba\n")
    client.socket.abort()


def test_a_client_answers_a_hello_retry_request(own_host, start, pki):
    """The server has no group that the client has sent a key share for (RFC 8446, 4.1.4)."""
    _, port = s_server(own_host, start, pki, "-tls1_3", "-rev", "-groups", "P-384", identity=pki.server)
    client = connected(own_host, port, client_configuration(pki))
    assert client.socket.session_group in ("secp384r1", "P-384")
    exchange(own_host, client, b"abc\n", b"cba\n")
    client.socket.abort()


@pytest.mark.parametrize(
    ("setting", "value", "theirs"),
    [
        ("ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]),
        ("ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]),
        ("groups", "X25519", ["-tls1_3", "-groups", "P-384"]),
        ("signature_algorithms", "rsa_pss_rsae_sha256", ["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256"]),
    ],
)
def test_nothing_in_common_is_a_handshake_failure(own_host, start, pki, setting, value, theirs):
    _, port = s_server(own_host, start, pki, *theirs, identity=pki.server)
    configuration = client_configuration(pki)
    setattr(configuration, setting, value)
    client = dial(port, configuration)
    ended(own_host, client)
    assert client.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    assert 'the peer sent the alert "handshake failure"' in client.socket.error_string


def test_a_client_shows_its_certificate(own_host, start, pki, version, algorithm):
    server, port = s_server(
        *(own_host, start, pki, OPTIONS[version], "-Verify", "2", "-CAfile", pki.root_file, "-verify_return_error"),
        identity=pki.server,
    )
    client = connected(own_host, port, client_configuration(pki, identity=pki.clients[algorithm]))
    exchange_line(own_host, client, server, b"here I am\n")
    own_host.wait_for(lambda: server.said(f"subject=CN ?= ?client {algorithm}"), "its word about the certificate")
    client.socket.abort()


def test_a_client_that_is_asked_later_says_no(own_host, start, pki):
    """RFC 8446, 4.6.2: a server may ask after the handshake only who has offered it, and we do not."""
    server, port = s_server(own_host, start, pki, "-tls1_3", "-CAfile", pki.root_file, identity=pki.server)
    client = connected(own_host, port, client_configuration(pki, identity=pki.client))
    server.write(b"c\n")
    own_host.wait_for(lambda: server.said("(?i)SSL_verify_client_post_handshake|extension not received|error"))
    exchange_line(own_host, client, server, b"still here\n")
    assert not client.has("error")
    client.socket.abort()


@pytest.mark.parametrize("agrees", [True, False])
def test_s_server_asks_after_the_handshake(own_host, start, pki, agrees):
    """Its command "c"."""
    server, port = s_server(own_host, start, pki, "-tls1_3", "-CAfile", pki.root_file, identity=pki.server)
    configuration = client_configuration(pki, identity=pki.clients["ecdsa"])
    configuration.post_handshake_authentication = agrees
    client = connected(own_host, port, configuration)
    server.write(b"c\n")
    if agrees:
        own_host.wait_for(lambda: server.said("SSL_do_handshake -> 1"), "the request")
        own_host.wait_for(lambda: server.said("depth=0"), lambda: server.text)
        client.socket.write(b"word\n")
        own_host.wait_for(lambda: b"word\n" in server.out, lambda: server.text)
    else:
        own_host.wait_for(lambda: server.said("extension not received"), lambda: server.text)
    assert client.socket.encrypted
    client.socket.disconnect()
    ended(own_host, client)


# We are the server


def test_a_server_of_s_client(own_host, start, pki, version, algorithm):
    identity = pki.servers[algorithm]
    server = OurServer(server_configuration(pki, identity=identity), echo)
    client = s_client(start, pki, server.port, OPTIONS[version])
    client.write(b"question\n")
    own_host.wait_for(lambda: b"\nquestion\n" in client.out, "the echo")
    taken = server.last(own_host)
    assert taken.socket.session_protocol is SslProtocol[version]
    assert taken.socket.requested_server_name == NAME
    client.close_input()  # then it says goodbye
    ended(own_host, taken)
    wait_for_end(own_host, client)
    assert client.status == 0
    assert client.said(rf"New, {version.replace('TLS_1_', 'TLSv1.')}, Cipher is {taken.socket.session_cipher}")
    assert client.said(r"Verify return code: 0 \(ok\)")
    assert client.said(r"(?s)Certificate chain.* 0 s:.* 1 s:CN ?= ?Test Intermediate")
    assert taken.socket.clean_close
    assert taken.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    server.close()


def test_a_server_moves_much_data_both_ways(host, start, pki, version):
    server = OurServer(server_configuration(pki), echo)
    client = s_client(start, pki, server.port, OPTIONS[version], "-quiet")
    client.write(PAYLOAD)
    host.wait_for(lambda: len(client.out) >= len(PAYLOAD), "the echo", 30)
    assert client.out == PAYLOAD
    server.last(host).socket.disconnect()
    wait_for_end(host, client)
    assert client.status == 0
    server.close()


@pytest.mark.parametrize("size", ["512", "1024", "2048", "4096"])
def test_a_server_of_a_client_that_wants_small_records(own_host, start, pki, version, size):
    """RFC 6066, 4; with CBC each of them grows by 85 bytes."""

    def serve(recorder):
        recorder.socket.write(MUCH)
        recorder.socket.disconnect()

    configuration = server_configuration(pki)
    configuration.ciphers = "ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384"
    server = OurServer(configuration, serve)
    client = s_client(start, pki, server.port, OPTIONS[version], "-quiet", "-maxfraglen", size, "-cipher", "DEFAULT")
    wait_for_end(own_host, client)
    assert client.out == MUCH
    assert client.status == 0
    server.close()


def test_a_server_says_goodbye(host, start, pki, version):
    def serve(recorder):
        recorder.socket.write(PAYLOAD)
        recorder.socket.disconnect()

    server = OurServer(server_configuration(pki), serve)
    client = s_client(start, pki, server.port, OPTIONS[version], "-quiet")
    wait_for_end(host, client)
    assert client.out == PAYLOAD
    assert not client.said("unexpected eof")
    assert client.status == 0
    server.close()


def test_a_server_that_aborts_is_seen_to_cut(host, start, pki, version):
    server = OurServer(server_configuration(pki), echo)
    client = s_client(start, pki, server.port, OPTIONS[version], "-quiet")
    client.write(b"word\n")
    host.wait_for(lambda: b"word\n" in client.out, "the echo")
    server.last(host).socket.abort()
    wait_for_end(host, client)
    assert client.said("unexpected eof|errno=104"), client.text
    server.close()


def test_a_server_notices_a_sudden_end_of_s_client(host, start, pki, version):
    server = OurServer(server_configuration(pki), echo)
    client = s_client(start, pki, server.port, OPTIONS[version], "-quiet")
    client.write(b"word\n")
    host.wait_for(lambda: b"word\n" in client.out, "the echo")
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
    client = s_client(start, pki, server.port, OPTIONS[version], "-alpn", "one,two")
    host.wait_for(lambda: client.said("ALPN protocol: two"), "the agreement")
    assert server.last(host).socket.next_negotiated_protocol == "two"
    other = s_client(start, pki, server.port, OPTIONS[version], "-alpn", "three")
    wait_for_end(host, other)
    assert other.said("alert no application protocol"), other.text
    host.wait_for(lambda: len(server.taken) == 2 and server.taken[1].has("error"))
    assert server.taken[1].of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    server.close()


def test_a_server_follows_key_updates(host, start, pki):
    server = OurServer(server_configuration(pki), echo)
    client = s_client(start, pki, server.port, "-tls1_3")
    for number, command in enumerate((b"k\n", b"K\n", b"K\n")):
        client.write(command)
        host.wait_for(lambda number=number: client.err.count(b"KEYUPDATE") == number + 1, "its key update")
        line = b"line %d\n" % number
        client.write(line)
        host.wait_for(lambda line=line: line in client.out, "the echo")
    assert server.last(host).names() == ["encrypted"]
    server.last(host).socket.abort()
    server.close()


def test_a_server_refuses_to_renegotiate(host, start, pki):
    server = OurServer(server_configuration(pki), echo)
    client = s_client(start, pki, server.port, "-tls1_2")
    client.write(b"before\n")
    host.wait_for(lambda: b"before\n" in client.out, "the echo")
    client.write(b"R\n")
    wait_for_end(host, client)
    assert client.said("no renegotiation"), client.text
    taken = server.last(host)
    ended(host, taken)
    assert taken.names().count("encrypted") == 1
    server.close()


def test_a_server_sees_the_certificate_of_s_client(own_host, start, pki, version, algorithm):
    configuration = server_configuration(pki)
    configuration.peer_verify_mode = configuration.VERIFY_PEER
    server = OurServer(configuration, echo)
    certificate, key = pki.files(pki.clients[algorithm])
    client = s_client(
        *(
            start,
            pki,
            server.port,
            OPTIONS[version],
            "-cert",
            certificate,
            "-cert_chain",
            pki.files(pki.middle)[0],
            "-key",
            key,
        )
    )
    client.write(b"word\n")
    own_host.wait_for(lambda: b"word\n" in client.out, "the echo")
    taken = server.last(own_host)
    assert taken.socket.peer_certificate_chain == [pki.clients[algorithm].ours, pki.middle.ours]
    assert client.said("Acceptable client certificate CA names\nCN ?= ?Test Root")
    client.close_input()
    ended(own_host, taken)
    server.close()


def test_s_client_is_asked_after_the_handshake(own_host, start, pki, algorithm):
    configuration = server_configuration(pki)
    configuration.peer_verify_mode = configuration.VERIFY_PEER
    configuration.post_handshake_authentication = True
    server = OurServer(configuration, echo)
    certificate, key = pki.files(pki.clients[algorithm])
    chain = pki.files(pki.middle)[0]
    client = s_client(start, pki, server.port, "-enable_pha", "-cert", certificate, "-cert_chain", chain, "-key", key)
    client.write(b"word\n")
    own_host.wait_for(lambda: b"word\n" in client.out, "the echo")
    taken = server.last(own_host)
    assert taken.socket.peer_certificate is None
    assert taken.socket.request_peer_certificate()
    own_host.wait_for(lambda: taken.socket.peer_certificate is not None or taken.has("error"), taken.events)
    assert taken.socket.peer_certificate_chain == [pki.clients[algorithm].ours, pki.middle.ours]
    client.write(b"again\n")
    own_host.wait_for(lambda: b"again\n" in client.out, "the echo")
    client.close_input()
    ended(own_host, taken)
    server.close()


def test_s_client_that_has_not_agreed_is_not_asked(own_host, start, pki):
    configuration = server_configuration(pki)
    configuration.post_handshake_authentication = True
    server = OurServer(configuration, echo)
    client = s_client(start, pki, server.port)
    taken = server.last(own_host)
    assert not taken.socket.request_peer_certificate()
    assert "has not agreed" in taken.socket.error_string
    client.write(b"word\n")
    own_host.wait_for(lambda: b"word\n" in client.out, "the echo")
    client.close_input()
    ended(own_host, taken)
    server.close()


def test_a_server_that_is_too_new_says_so(host, start, pki):
    server = OurServer(server_configuration(pki, "TLS_1_3"))
    client = s_client(start, pki, server.port, "-tls1_2")
    wait_for_end(host, client)
    assert client.said("alert protocol version"), client.text
    taken = server.last(host)
    assert taken.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    assert "unsupported protocol" in taken.socket.error_string
    server.close()


def test_a_server_refuses_versions_that_are_out_of_date(own_host, start, pki):
    """TLS 1.1 (RFC 8996), by a client that would speak it."""
    server = OurServer(server_configuration(pki))
    client = s_client(start, pki, server.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    wait_for_end(own_host, client)
    if client.said("(?i)no protocols available|unknown option"):
        pytest.skip("this openssl program speaks no TLS 1.1")
    assert client.said("alert protocol version"), client.text
    assert server.last(own_host).of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    server.close()


@pytest.mark.parametrize(
    ("name", "kind", "question", "answer"),
    [
        ("smtp", SmtpServer, b"NOOP\r\n", b"250 ok\r\n"),
        ("imap", ImapServer, b"a NOOP\r\n", b"a OK\r\n"),
        ("pop3", PopServer, b"NOOP\r\n", b"+OK\r\n"),
    ],
)
def test_s_client_starts_tls_with_our_server(host, start, pki, version, name, kind, question, answer):
    server: LineServer = kind(server_configuration(pki))
    client = s_client(start, pki, server.port, OPTIONS[version], "-starttls", name)
    host.wait_for(lambda: client.said("Verify return code: 0") or client.ended, "the handshake")
    client.write(question)
    host.wait_for(lambda: answer in client.out, client.text)
    taken = server.last(host)
    assert taken.socket.encrypted
    assert taken.socket.session_protocol is SslProtocol[version]
    client.close_input()
    ended(host, taken)
    assert taken.socket.clean_close
    server.close()


def test_both_bounds_of_the_protocol_hold(own_host, start, pki):
    for lowest, highest, expected in (
        ("TLS_1_2", "TLS_1_2", SslProtocol.TLS_1_2),
        ("TLS_1_2", "TLS_1_3", SslProtocol.TLS_1_3),
    ):
        _, port = s_server(own_host, start, pki, "-rev", identity=pki.server)
        configuration = limited(client_configuration(pki), lowest)
        configuration.maximum_protocol = SslProtocol[highest]
        client = connected(own_host, port, configuration)
        assert client.socket.session_protocol is expected
        client.socket.abort()
        assert client.socket.state is SocketState.UNCONNECTED_STATE
