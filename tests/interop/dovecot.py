"""Dovecot, started for tests: IMAP, and POP3 where it is asked for, each with STARTTLS and on a port for TLS alone."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .mail import open_folder
from .pki import Pki
from .programs import SERVER_LIMIT, Program, cannot_run, free_port, in_thread, program
from .ssl_peers import wait_for_greeting

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/stderr
protocols = {protocols}
listen = 127.0.0.1
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
ssl_ca = <{ca}
ssl_min_protocol = TLSv1.2
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
{more}
"""

POP3 = """
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
    ssl = yes
  }}
}}
"""


class Ports(NamedTuple):
    plain: int
    tls: int
    pop3: int
    pop3_tls: int
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
def running(pki: Pki, more: str = "", pop3: bool = False) -> Iterator[Ports]:
    path = program("dovecot", "dovecot-imapd")
    if pop3 and not Path("/usr/lib/dovecot/pop3-login").exists():
        cannot_run("Dovecot has no POP3: Debian package dovecot-pop3d")
    certificate, key = pki.files(pki.server)
    for _ in range(3):  # somebody else may have taken a port
        with open_folder() as folder:
            (folder / "mail").mkdir()
            (folder / "mail").chmod(0o777)
            ports = free_port(), free_port(), free_port(), free_port()
            configuration = CONFIGURATION.format(
                **users(),
                folder=folder,
                certificate=certificate,
                key=key,
                ca=pki.root_file,
                protocols="imap pop3" if pop3 else "imap",
                more=more + (POP3.format(port=ports[2], tls_port=ports[3]) if pop3 else ""),
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
