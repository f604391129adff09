"""Postfix, started for tests: one port with STARTTLS, one for TLS alone, and one that demands a client's certificate."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .mail import need_root, open_folder
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
def running(pki: Pki, more: str = "") -> Iterator[Ports]:
    """more: further lines of master.cf."""
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
            (etc / "master.cf").write_text(MASTER.format(port=ports[0], tls_port=ports[1], strict_port=ports[2]) + more)
            # What `postfix start-fg` does, but the master process is a child of ours, so that we can end it.
            subprocess.run([path, "-c", str(etc), "check"], check=True, timeout=30, capture_output=True)
            master = [str(daemons / "master"), "-c", str(etc), "-s"]
            postfix = Program(master, env={"MAIL_CONFIG": str(etc), "PATH": "/usr/sbin:/usr/bin:/bin"}, limit=SERVER_LIMIT)
            try:
                if in_thread(wait_for_greeting, ports[0], b"220 ", postfix).result():
                    yield Ports(*ports, postfix)
                    return
            finally:
                postfix.ask_to_end()
                postfix.close(10)
    raise AssertionError(postfix.text)
