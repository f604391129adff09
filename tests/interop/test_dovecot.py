"""Dovecot: an IMAP server, on its TLS port and by STARTTLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sslsock import SocketError, SslProtocol

from .dovecot import Ports, running
from .mail import LineClient
from .ours import client_configuration, dial, ended
from .pki import Pki


@pytest.fixture(scope="module")
def dovecot(pki: Pki) -> Iterator[Ports]:
    with running(pki) as ports:
        yield ports


@pytest.fixture(scope="module")
def strict_dovecot(pki: Pki) -> Iterator[Ports]:
    """It demands a client's certificate."""
    with running(pki, "ssl_verify_client_cert = yes\nauth_ssl_require_client_cert = yes\nssl_require_crl = no") as ports:
        yield ports


MESSAGE = b"Subject: test\r\n\r\n" + b"".join(b"%07d a line of the message\r\n" % number for number in range(130000))


def read_and_write_mail(imap: LineClient, user: bytes, size: int) -> None:
    """Store a message, and read it back."""
    message = MESSAGE[:size].rpartition(b"\r\n")[0] + b"\r\n"
    imap.ask(b"b LOGIN " + user + b" secret", b"b OK")
    imap.ask(b"c APPEND INBOX {%d}" % len(message), b"+ ")
    imap.ask(message, b"c OK")
    assert b"EXISTS" in imap.ask(b"d SELECT INBOX", b"d OK")
    answer = imap.ask(b"e FETCH * BODY[]", b"e OK")
    head, _, rest = answer.partition(b"}\r\n")
    assert head.endswith(b"BODY[] {%d" % len(message))
    assert rest[: len(message)] == message


def leave(imap: LineClient) -> None:
    """Dovecot has the last word."""
    imap.socket.write(b"z LOGOUT\r\n")
    ended(imap.host, imap.recorder)
    assert b"* BYE" in imap.recorder.data
    assert b"z OK" in imap.recorder.data
    assert imap.recorder.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]


def test_imap_on_the_tls_port(host, pki, version, dovecot):
    imap = LineClient(host, client_configuration(pki, version), dovecot.tls, encrypted=True)
    imap.until(b"* OK")
    assert imap.socket.session_protocol is SslProtocol[version]
    assert imap.socket.peer_certificate == pki.server.ours
    assert b"STARTTLS" not in imap.ask(b"a CAPABILITY", b"a OK")
    read_and_write_mail(imap, b"tls-" + host.kind.encode(), 50000)
    leave(imap)


def test_imap_by_starttls(host, pki, version, dovecot):
    imap = LineClient(host, client_configuration(pki, version), dovecot.plain, encrypted=False)
    imap.until(b"* OK")
    assert b"STARTTLS" in imap.ask(b"a CAPABILITY", b"a OK")
    imap.ask(b"c STARTTLS", b"c OK")
    imap.encrypt()
    assert imap.socket.session_protocol is SslProtocol[version]
    assert b"STARTTLS" not in imap.ask(b"d CAPABILITY", b"d OK")
    read_and_write_mail(imap, b"starttls-" + host.kind.encode(), 50000)
    leave(imap)


def test_a_message_of_4_mib_comes_back_as_it_went(own_host, pki, version, dovecot):
    imap = LineClient(own_host, client_configuration(pki, version), dovecot.tls, encrypted=True)
    imap.until(b"* OK")
    read_and_write_mail(imap, b"big", 4 << 20)
    leave(imap)


def test_a_second_connection_resumes(own_host, pki, version, dovecot):
    configuration = client_configuration(pki, version)
    configuration.allowed_next_protocols = ["of-no-other-test"]  # nor its sessions: equal configurations share them
    reused = []
    for _ in range(2):
        imap = LineClient(own_host, configuration, dovecot.tls, encrypted=True)
        imap.until(b"* OK")
        reused.append(imap.socket.session_reused)
        leave(imap)
    assert reused[0] is False  # whether it resumes is Dovecot's decision: either way the mail is read


def test_a_disconnect_of_ours_is_seen_as_such(own_host, pki, version, dovecot):
    imap = LineClient(own_host, client_configuration(pki, version), dovecot.tls, encrypted=True)
    imap.until(b"* OK")
    before = len(dovecot.program.err)
    imap.socket.disconnect()
    ended(own_host, imap.recorder)
    own_host.wait_for(lambda: b"imap-login" in dovecot.program.err[before:], "Dovecot's log")
    log = bytes(dovecot.program.err[before:]).decode()
    assert "TLS" in log
    assert "SSL_read" not in log, "an error of TLS was logged"


def test_a_client_shows_its_certificate(own_host, pki, version, algorithm, strict_dovecot):
    configuration = client_configuration(pki, version, pki.clients[algorithm])
    imap = LineClient(own_host, configuration, strict_dovecot.tls, encrypted=True)
    imap.until(b"* OK")
    imap.ask(b"a LOGIN certified secret", b"a OK")
    leave(imap)


def test_a_client_without_a_certificate_may_not_log_in(own_host, pki, version, strict_dovecot):
    imap = LineClient(own_host, client_configuration(pki, version), strict_dovecot.tls, encrypted=True)
    imap.until(b"* OK")
    imap.ask(b"a LOGIN nobody secret", b"a NO")
    imap.socket.abort()


def test_the_name_is_checked(own_host, pki, version, dovecot):
    client = dial(dovecot.tls, client_configuration(pki, version), "other.example.test")
    ended(own_host, client)
    assert client.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    assert "the certificate is not for other.example.test" in client.socket.error_string
