"""Postfix: an SMTP server with STARTTLS, and one that speaks TLS from the first byte."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sslsock import SocketError, SslProtocol

from .mail import LineClient, need_root, open_folder
from .ours import client_configuration, ended
from .pki import NAME, Pki
from .programs import SERVER_LIMIT, Program, free_port, in_thread, program
from .ssl_peers import wait_for_greeting

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = /dev/stdout
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = {name}
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
default_transport = discard:
relay_transport = discard:
message_size_limit = 20000000
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_CAfile = {ca}
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
smtpd_tls_session_cache_database =
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtputf8_enable = no
import_environment = MAIL_CONFIG TZ
"""

MASTER = """
{port} inet n - n - - smtpd
{tls_port} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
{strict_port} inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_req_ccert=yes
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
smtp unix - - n - - smtp
relay unix - - n - - smtp
"""


class Ports(NamedTuple):
    plain: int
    tls: int
    strict: int
    """It demands TLS and a client's certificate."""
    program: Program


@contextlib.contextmanager
def running(pki: Pki) -> Iterator[Ports]:
    path = program("postfix", "postfix")
    need_root("Postfix")
    settings = [program("postconf", "postfix"), "-d", "-h", "daemon_directory"]
    daemons = Path(subprocess.run(settings, check=True, timeout=30, capture_output=True, text=True).stdout.strip())
    certificate, key = pki.files(pki.server)
    for _ in range(3):  # somebody else may have taken a port
        with open_folder() as folder:
            etc = folder / "etc"
            for name in ("etc", "queue", "data"):
                (folder / name).mkdir()
            shutil.chown(folder / "data", "postfix")
            ports = free_port(), free_port(), free_port()
            (etc / "main.cf").write_text(
                MAIN.format(folder=folder, name=NAME, certificate=certificate, key=key, ca=pki.root_file)
            )
            (etc / "master.cf").write_text(MASTER.format(port=ports[0], tls_port=ports[1], strict_port=ports[2]))
            # What `postfix start-fg` does, but the master process is a child of ours, so that we can end it.
            subprocess.run([path, "-c", str(etc), "check"], check=True, timeout=30, capture_output=True)
            master = [str(daemons / "master"), "-c", str(etc), "-s"]
            postfix = Program(
                master, env={"MAIL_CONFIG": str(etc), "PATH": "/usr/sbin:/usr/bin:/bin"}, limit=SERVER_LIMIT
            )
            try:
                if in_thread(wait_for_greeting, ports[0], b"220 ", postfix).result():
                    yield Ports(*ports, postfix)
                    return
            finally:
                postfix.ask_to_end()
                postfix.close(10)
    raise AssertionError(postfix.text)


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
