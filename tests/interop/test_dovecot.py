"""Dovecot: an IMAP server, on its TLS port and by STARTTLS."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from sslsock import SocketError, SslProtocol

from .mail import LineClient, open_folder
from .ours import client_configuration, dial, ended
from .pki import Pki
from .programs import SERVER_LIMIT, Program, free_port, in_thread, program
from .ssl_peers import wait_for_greeting

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/stderr
protocols = imap
listen = 127.0.0.1
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
ssl_ca = <{ca}
ssl_min_protocol = TLSv1.2
{more}
disable_plaintext_auth = yes
auth_mechanisms = plain
mail_location = maildir:{folder}/mail/%u
mail_uid = {mail}
mail_gid = {mail_group}
first_valid_uid = 1
first_valid_gid = 0
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid={mail} gid={mail_group} home={folder}/mail/%u
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
"""


class Ports(NamedTuple):
    plain: int
    tls: int
    program: Program


def users() -> dict[str, str]:
    """As root Dovecot wants users that are not; else all of it is ours."""
    if os.geteuid() == 0:
        names = {"internal": "dovecot", "login": "dovenull", "mail": "nobody"}
    else:
        names = dict.fromkeys(("internal", "login", "mail"), pwd.getpwuid(os.geteuid()).pw_name)
    for role in ("internal", "mail"):
        names[f"{role}_group"] = grp.getgrgid(pwd.getpwnam(names[role]).pw_gid).gr_name
    return names


@contextlib.contextmanager
def running(pki: Pki, more: str = "") -> Iterator[Ports]:
    path = program("dovecot", "dovecot-imapd")
    certificate, key = pki.files(pki.server)
    for _ in range(3):  # somebody else may have taken a port
        with open_folder() as folder:
            (folder / "mail").mkdir()
            (folder / "mail").chmod(0o777)
            ports = free_port(), free_port()
            configuration = CONFIGURATION.format(
                **users(),
                folder=folder,
                certificate=certificate,
                key=key,
                ca=pki.root_file,
                more=more,
                port=ports[0],
                tls_port=ports[1],
            )
            file = folder / "dovecot.conf"
            file.write_text(configuration)
            dovecot = Program([path, "-F", "-c", str(file)], limit=SERVER_LIMIT)
            try:
                if in_thread(wait_for_greeting, ports[0], b"* OK", dovecot).result():
                    yield Ports(*ports, dovecot)
                    return
            finally:
                dovecot.ask_to_end()
                dovecot.close(10)
    raise AssertionError(dovecot.text)


@pytest.fixture(scope="module")
def dovecot(pki: Pki) -> Iterator[Ports]:
    with running(pki) as ports:
        yield ports


@pytest.fixture(scope="module")
def strict_dovecot(pki: Pki) -> Iterator[Ports]:
    """It demands a client's certificate."""
    with running(
        pki, "ssl_verify_client_cert = yes\nauth_ssl_require_client_cert = yes\nssl_require_crl = no"
    ) as ports:
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
