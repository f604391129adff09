"""Sessions that are resumed, in both roles, with peers that are not ours."""

from __future__ import annotations

import ssl
import sys
from typing import Any

import pytest

from sslsock import SocketState

from .ours import OurServer, client_configuration, connected, dial, echo, ended, exchange, limited, server_configuration
from .pki import NAME
from .programs import free_port, in_thread, program
from .ssl_peers import SslModuleServer, blocking_client, client_context, server_context


def visit(host: Any, port: int, configuration: Any, name: str = NAME) -> Any:
    """Connect, have a word echoed, say goodbye. The socket, afterwards."""
    client = connected(host, port, configuration, name)
    exchange(host, client, b"word")
    client.socket.disconnect()
    host.wait_for(lambda: client.socket.state is SocketState.UNCONNECTED_STATE, client.events)
    return client.socket


# We are the client


def test_a_client_resumes_with_the_ssl_module(own_host, pki, version, algorithm):
    with SslModuleServer(server_context(pki, pki.servers[algorithm], version)) as server:
        configuration = client_configuration(pki)
        socks = [visit(own_host, server.port, configuration) for _ in range(4)]
        assert [sock.session_reused for sock in socks] == [False, True, True, True]
        assert all(sock.peer_certificate == pki.servers[algorithm].ours for sock in socks)
        assert all(len(sock.peer_certificate_chain) == 2 for sock in socks)
        own_host.wait_for(lambda: len(server.seen) == 4)
        assert [seen.reused for seen in server.seen] == [False, True, True, True]
        assert all(seen.clean for seen in server.seen)


def test_equal_configurations_share_sessions_and_others_do_not(own_host, pki, version):
    with SslModuleServer(server_context(pki, version=version)) as server:
        first, equal, other = (client_configuration(pki) for _ in range(3))
        other.allowed_next_protocols = ["other"]
        assert not visit(own_host, server.port, first).session_reused
        assert visit(own_host, server.port, equal).session_reused
        assert not visit(own_host, server.port, other).session_reused
        first.ciphers = "ECDHE+AESGCM"
        assert not visit(own_host, server.port, first).session_reused


def test_a_session_is_for_one_server_only(own_host, pki, version):
    configuration = client_configuration(pki)
    context = server_context(pki, version=version)
    with SslModuleServer(context) as one, SslModuleServer(context) as other:
        assert not visit(own_host, one.port, configuration).session_reused
        assert not visit(own_host, other.port, configuration).session_reused
        assert visit(own_host, one.port, configuration).session_reused
        assert not visit(own_host, one.port, configuration, "localhost").session_reused


def test_a_server_that_has_forgotten_gets_a_full_handshake(own_host, pki, version):
    configuration = client_configuration(pki)
    with SslModuleServer(server_context(pki, version=version)) as server:
        visit(own_host, server.port, configuration)
        server.context = server_context(pki, version=version)  # with other keys for its tickets
        assert not visit(own_host, server.port, configuration).session_reused
        assert visit(own_host, server.port, configuration).session_reused


def test_several_connections_at_once_resume(own_host, pki, version):
    """A ticket of TLS 1.3 serves once (RFC 8446, C.4), so each connection uses one of its own."""
    server = OurServer(server_configuration(pki, version), echo)
    configuration = client_configuration(pki)
    for resumed in (False, True, True):
        clients = [dial(server.port, configuration) for _ in range(3)]
        for client in clients:
            exchange(own_host, client, b"word")
        assert [client.socket.session_reused for client in clients] == [resumed] * 3
        for client in clients:
            client.socket.disconnect()
            ended(own_host, client)
    server.close()


@pytest.mark.parametrize("tickets", [True, False], ids=["tickets", "session ids"])
def test_a_client_resumes_with_s_server(own_host, start, pki, version, tickets):
    certificate, key = pki.files(pki.server)
    arguments = [
        "-accept",
        "127.0.0.1:0",
        "-cert",
        certificate,
        "-cert_chain",
        pki.files(pki.middle)[0],
        "-key",
        key,
        "-rev",
    ]
    if not tickets:
        arguments.append("-no_ticket")
    server = start(program("openssl", "openssl"), "s_server", *arguments)
    own_host.wait_for(lambda: server.said(r"ACCEPT \S+:(\d+)"), "s_server to listen")
    port = int(server.said(r"ACCEPT \S+:(\d+)")[1])
    configuration = limited(client_configuration(pki), version)
    found = []
    for _ in range(3):
        client = connected(own_host, port, configuration)
        exchange(own_host, client, b"abc\n", b"cba\n")
        found.append(client.socket.session_reused)
        client.socket.disconnect()
        ended(own_host, client)
    assert found == [False, True, True]


def test_a_client_resumes_with_gnutls_serv(own_host, start, pki, version):
    certificate, key = pki.files(pki.server)
    port = free_port()
    server = start(
        *(program("gnutls-serv", "gnutls-bin"), "--echo", "-q", "-p", port),
        *("--x509certfile", certificate, "--x509keyfile", key),
    )
    own_host.wait_for(lambda: server.said(r"IPv4 \S+ port \d+\.\.\.done"), "gnutls-serv to listen")
    configuration = limited(client_configuration(pki), version)
    found = []
    for _ in range(3):
        client = connected(own_host, port, configuration)
        exchange(own_host, client, b"abc\n")
        found.append(client.socket.session_reused)
        client.socket.disconnect()
        ended(own_host, client)
    assert found == [False, True, True]


KEEPER = """
import sys, sslsock
port, name, root, file = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
client = sslsock.SslSocket()
client.configuration.use_system_ca = False
client.configuration.add_ca_file(root)
client.peer_verify_name = name
client.session = sslsock.SslSession(open(file, "rb").read())
def ready(s):
    open(file, "wb").write(s.session.to_bytes())
    print(s.session_reused, s.peer_certificate == sslsock.SslCertificate.from_path(sys.argv[5])[0], s.error_string)
    s.disconnect()
client.ready_read_handler = ready
client.disconnected_handler = lambda s: sslsock.stop()
client.connect_encrypted("127.0.0.1", port)
client.write(b"word\\n")
sslsock.run()
"""


def test_a_session_is_kept_from_process_to_process(own_host, start, pki, version, tmp_path):
    certificate, key = pki.files(pki.server)
    server = start(
        *(program("openssl", "openssl"), "s_server", "-accept", "127.0.0.1:0", "-cert", certificate, "-rev"),
        *("-cert_chain", pki.files(pki.middle)[0], "-key", key, "-tls1_2" if version == "TLS_1_2" else "-tls1_3"),
    )
    own_host.wait_for(lambda: server.said(r"ACCEPT \S+:(\d+)"), "s_server to listen")
    port = server.said(r"ACCEPT \S+:(\d+)")[1]
    (tmp_path / "session").write_bytes(b"")
    found = []
    for _ in range(3):
        client = start(sys.executable, "-c", KEEPER, port, NAME, pki.root_file, tmp_path / "session", certificate)
        own_host.wait_for(lambda client=client: client.ended, "its end")
        found.append(client.text.strip())
    assert found == ["False True", "True True", "True True"]


# We are the server


def test_a_server_resumes_with_the_ssl_module(own_host, pki, version, algorithm):
    server = OurServer(server_configuration(pki, identity=pki.servers[algorithm]), echo)
    context = client_context(pki, version=version)

    def talk() -> list[tuple[bool, str]]:
        session, found = None, []
        for _ in range(3):
            with blocking_client(context, server.port, session=session) as tls:
                tls.sendall(b"word")
                assert tls.recv(10) == b"word"
                session = tls.session
                found.append((tls.session_reused, tls.version()))
                tls.unwrap().close()
        return found

    result = in_thread(talk)
    own_host.wait_for(result.done)
    assert [reused for reused, _ in result.result()] == [False, True, True]
    assert [taken.socket.session_reused for taken in server.taken] == [False, True, True]
    assert all(taken.socket.requested_server_name == NAME for taken in server.taken)
    server.close()


def test_servers_with_equal_configurations_share_tickets(own_host, pki, version):
    servers = [OurServer(server_configuration(pki, version), echo) for _ in range(2)]
    context = client_context(pki)

    def talk(port: int, session: Any) -> Any:
        with blocking_client(context, port, session=session) as tls:
            tls.sendall(b"word")
            tls.recv(10)
            return tls.session, tls.session_reused

    session, found = None, []
    for server in servers:
        result = in_thread(talk, server.port, session)
        own_host.wait_for(result.done)
        session, reused = result.result()
        found.append(reused)
    assert found == [False, True]
    for server in servers:
        server.close()


def test_a_server_resumes_with_s_client(own_host, start, pki, version, tmp_path):
    server = OurServer(server_configuration(pki, version), echo)
    file = tmp_path / "session.pem"
    for option, words in (("-sess_out", "New, "), ("-sess_in", "Reused, ")):
        client = start(
            *(program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}"),
            *("-servername", NAME, "-CAfile", pki.root_file, option, file),
        )
        client.write(b"word\n")
        own_host.wait_for(lambda client=client: b"word\n" in client.out, "the echo")
        client.close_input()
        own_host.wait_for(lambda client=client: client.ended, "its end")
        assert client.said(words), client.text
        assert client.said("Verify return code: 0")
        ended(own_host, server.last(own_host))
    assert [taken.socket.session_reused for taken in server.taken] == [False, True]
    assert all(taken.socket.clean_close for taken in server.taken)
    server.close()


def greet(recorder):
    echo(recorder)
    recorder.socket.write(b"hello\n")


def test_a_server_resumes_with_gnutls_cli(own_host, start, pki, version):
    # It says goodbye to the first connection at once; a TLS 1.3 server's tickets go with its first words.
    server = OurServer(server_configuration(pki, version), greet)
    client = start(
        *(program("gnutls-cli", "gnutls-bin"), "--resume", "--x509cafile", pki.root_file),
        *("--verify-hostname", NAME, "--sni-hostname", NAME, "-p", server.port, "127.0.0.1"),
    )
    # Between its two connections it waits for input only on the second.
    own_host.wait_for(lambda: len(server.taken) == 2 and server.taken[1].has("encrypted"), "its second connection")
    client.write(b"word\n")
    own_host.wait_for(lambda: b"word" in client.out, "the echo")
    client.close_input()
    own_host.wait_for(lambda: client.ended, "its end")
    assert client.said("This is a resumed session"), client.text
    assert [taken.socket.session_reused for taken in server.taken] == [False, True]
    assert client.status == 0
    server.close()


def element(der: bytes, place: int) -> tuple[int, int, int]:
    """Of the DER element at `place`: its tag, where its content begins, where it ends."""
    tag, length = der[place], der[place + 1]
    place += 2
    if length & 0x80:  # the length itself takes so many bytes
        size = length & 0x7F
        length = int.from_bytes(der[place : place + size], "big")
        place += size
    return tag, place, place + length


def ticket_place(session: bytes) -> int:
    """Where the ticket begins in a session of OpenSSL: the element [10] of its sequence (ssl/ssl_asn1.c)."""
    _, place, end = element(session, 0)
    while place < end:
        tag, content, after = element(session, place)
        if tag == 0xAA:
            return element(session, content)[1]
        place = after
    raise AssertionError("a session without a ticket")


def test_a_ticket_with_a_wrong_byte_is_no_ticket(own_host, pki, version, start, tmp_path):
    """What a client brings back is checked; one that was altered leads to a full handshake, not to an error."""
    server = OurServer(server_configuration(pki, version), echo)
    file = tmp_path / "session.pem"
    openssl = program("openssl", "openssl")
    common = [openssl, "s_client", "-connect", f"127.0.0.1:{server.port}", "-servername", NAME]
    first = start(*common, "-CAfile", pki.root_file, "-sess_out", file)
    first.write(b"word\n")
    own_host.wait_for(lambda: b"word\n" in first.out, "the echo")
    first.close_input()
    own_host.wait_for(lambda: first.ended)
    der = bytearray(ssl.PEM_cert_to_DER_cert(file.read_text().replace("SSL SESSION PARAMETERS", "CERTIFICATE")))
    der[ticket_place(der) + 100] ^= 1
    pem = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "SSL SESSION PARAMETERS")
    file.write_text(pem)
    second = start(*common, "-CAfile", pki.root_file, "-sess_in", file)
    second.write(b"word\n")
    own_host.wait_for(lambda: b"word\n" in second.out, "the echo")
    second.close_input()
    own_host.wait_for(lambda: second.ended)
    assert second.said("New, "), second.text
    assert [taken.socket.session_reused for taken in server.taken] == [False, False]
    server.close()
