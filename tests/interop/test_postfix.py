"""Postfix: an SMTP server with STARTTLS, and one that speaks TLS from the first byte."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from sslsock import SocketError, SslProtocol

from .mail import LineClient
from .ours import client_configuration, ended
from .pki import Pki
from .postfix import Ports, running


@pytest.fixture(scope="module")
def postfix(pki: Pki) -> Iterator[Ports]:
    with running(pki) as ports:
        yield ports


def send_mail(smtp: LineClient, size: int) -> None:
    smtp.ask(b"MAIL FROM:<a@example.test>", b"250 ")
    smtp.ask(b"RCPT TO:<b@example.test>", b"250 ")
    smtp.ask(b"DATA", b"354 ")
    line = b"a line of the message\r\n"
    smtp.socket.write(b"Subject: test\r\n\r\n" + line * (size // len(line)))
    assert b"queued as" in smtp.ask(b".", b"250 ")


def leave(smtp: LineClient) -> None:
    smtp.ask(b"QUIT", b"221 ")
    ended(smtp.host, smtp.recorder)
    assert smtp.recorder.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]


def after_starttls(host, configuration, port) -> LineClient:
    smtp = LineClient(host, configuration, port, encrypted=False)
    smtp.until(b"220 ")
    assert b"STARTTLS" in smtp.ask(b"EHLO client.example.test", b"250 ")
    smtp.ask(b"STARTTLS", b"220 ")
    smtp.encrypt()
    assert b"STARTTLS" not in smtp.ask(b"EHLO client.example.test", b"250 ")
    return smtp


def test_smtp_by_starttls(host, pki, version, postfix):
    smtp = after_starttls(host, client_configuration(pki, version), postfix.plain)
    assert smtp.socket.session_protocol is SslProtocol[version]
    assert smtp.socket.peer_certificate == pki.server.ours
    send_mail(smtp, 50000)
    leave(smtp)
    assert smtp.socket.clean_close


def test_smtp_on_a_tls_port(host, pki, version, postfix):
    smtp = LineClient(host, client_configuration(pki, version), postfix.tls, encrypted=True)
    smtp.until(b"220 ")
    smtp.ask(b"EHLO client.example.test", b"250 ")
    send_mail(smtp, 50000)
    leave(smtp)
    assert smtp.socket.clean_close


def test_a_message_of_4_mib(own_host, pki, version, postfix):
    smtp = after_starttls(own_host, client_configuration(pki, version), postfix.plain)
    before = len(postfix.program.out)
    send_mail(smtp, 4 << 20)
    leave(smtp)

    def sizes() -> list[int]:
        """Of the messages that it has logged; those of earlier tests may be among them."""
        return [int(size) for size in re.findall(rb"size=(\d+),", postfix.program.out[before:])]

    own_host.wait_for(lambda: any(size > (4 << 20) for size in sizes()), "its log")


def test_a_second_connection_resumes(own_host, pki, version, postfix):
    configuration = client_configuration(pki, version)
    configuration.allowed_next_protocols = ["of-no-other-test"]  # nor its sessions: equal configurations share them
    reused = []
    for _ in range(2):
        smtp = after_starttls(own_host, configuration, postfix.plain)
        reused.append(smtp.socket.session_reused)
        leave(smtp)
    assert reused == [False, True]


def test_a_client_shows_its_certificate(own_host, pki, version, algorithm, postfix):
    before = len(postfix.program.out)
    smtp = after_starttls(own_host, client_configuration(pki, version, pki.clients[algorithm]), postfix.strict)
    send_mail(smtp, 1000)
    leave(smtp)
    own_host.wait_for(lambda: b"Trusted TLS connection established" in postfix.program.out[before:], "its log")


def test_a_client_without_a_certificate_is_refused(own_host, pki, version, postfix):
    smtp = LineClient(own_host, client_configuration(pki, version), postfix.strict, encrypted=False)
    smtp.until(b"220 ")
    smtp.ask(b"EHLO client.example.test", b"250 ")
    smtp.ask(b"STARTTLS", b"220 ")
    smtp.encrypt()
    smtp.socket.write(b"EHLO client.example.test\r\n")
    ended(own_host, smtp.recorder)
    assert smtp.recorder.of("error") == [SocketError.REMOTE_HOST_CLOSED_ERROR]
    assert b"queued as" not in smtp.recorder.data


def test_a_wrong_name_ends_starttls(own_host, pki, version, postfix):
    smtp = LineClient(own_host, client_configuration(pki, version), postfix.plain, encrypted=False)
    smtp.socket.peer_verify_name = "other.example.test"
    smtp.until(b"220 ")
    smtp.ask(b"EHLO client.example.test", b"250 ")
    smtp.ask(b"STARTTLS", b"220 ")
    smtp.socket.start_client_encryption()
    smtp.socket.write(b"a secret")
    ended(own_host, smtp.recorder)
    assert smtp.recorder.of("error") == [SocketError.SSL_HANDSHAKE_FAILED_ERROR]
    assert "the certificate is not for other.example.test" in smtp.socket.error_string
